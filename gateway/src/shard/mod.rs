//! A shard is a thread that owns a part of a gateway's clients, from handshake to goodbye: no lock,
//! no atomic, nothing shared on the way of a message. Others reach it through one bounded mailbox.
//!
//! A client's life, by [`client::ClientStage`]; there are no other transitions:
//!
//! | stage | entered | the client is | left |
//! |---|---|---|---|
//! | `Handshake` | `Candidate::new` (`open.rs`) takes a slot | in its slot only; a worker may decide about it | to `Open`, or to `Gone` if it is refused |
//! | `Open` | `Candidate::open` | in the directory: commands and events reach it (`drive.rs` reads, `write.rs` writes) | to `Closing` or `Gone` |
//! | `Closing` | `close_gracefully` (`close.rs`) | out of the directory; its outbox and the close frame are written | to `Gone` when the peer has answered, or at the deadline |
//! | `Gone` | `abort`, or the end of its socket | without a socket; only its unanswered events remain | its slot is freed when they are answered |
//!
//! The stages, and their legal transitions in one place, are in `client.rs`.
//!
//! What a shard owns, one type each, with what is done to it: the clients by their ids (`clients.rs`), the
//! directory, outboxes (`write.rs`), reads (`read_queue.rs`), unsent events (`events.rs`), workers' links and
//! their suspects, Pusher apps and offers to observers, taps (`taps.rs`), and answers to commands that were carried out
//! (`merged_sends.rs`). [`Shard`] wires them: its methods are what concerns several of them.

mod answer_times;
mod app_connections;
#[cfg(feature = "bench")]
pub mod bench;
mod client;
mod client_lists;
mod clients;
mod clock;
mod close;
pub(crate) mod counters;
mod directory;
mod drive;
mod dry_run;
mod ending;
mod events;
mod execute;
#[cfg(any(test, feature = "bench"))]
mod fixture;
mod group_traffic;
mod mailbox;
mod memory_relief;
mod merged_sends;
mod nonblocking;
mod notice;
mod open;
mod outbox;
mod outcome;
mod pending_counts;
mod pool;
mod presence;
mod pusher;
mod queries;
mod rate;
mod read_budget;
mod read_queue;
mod send_times;
mod sent;
mod slots;
mod socket;
mod socketio;
mod state;
mod survey;
mod survey_round;
mod surveys;
mod tapped;
mod taps;
mod thread;
mod tick;
mod tls;
mod turn;
mod upcalls;
mod wheel;
mod window;
mod worker_links;
mod worker_stream;
mod worker_suspects;
mod worker_trials;
mod write;

pub(crate) use self::{
    app_connections::AppConnections,
    counters::ShardCounts,
    ending::RejoinCause,
    mailbox::{Mailbox, Messages, NewWorker, ShardMessage},
    notice::Notice,
    open::{Candidate, Newcomer},
    outcome::{ShardEvidence, Stats},
    pending_counts::PendingCounts,
    pool::{Executing, Pool},
    pusher::{PusherTenant, signed_in_group},
    socket::Stream,
    socketio::{SocketIoClient, open_packet},
    state::{Shard, ShardHandle},
    thread::{Ingress, Start, start, thread_name},
    tls::{StepError, TlsShared, TlsStream},
    upcalls::{AuthorizeUpcall, EnterUpcall, UpcallQueues, Upcalls},
    worker_links::{WorkerKey, shard_of_seq},
    worker_trials::Trying,
};
