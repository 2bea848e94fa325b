//! A shard is a thread that owns a part of a gateway's clients, from handshake to goodbye: no lock,
//! no atomic, nothing shared on the way of a message. Others reach it through one bounded mailbox.
//!
//! A client's life, by [`client::Stage`]; there are no other transitions:
//!
//! | stage | entered | the client is | left |
//! |---|---|---|---|
//! | `Handshake` | `Candidate::new` (`open.rs`) takes a slot | in its slot only; a worker may decide about it | to `Open`, or to `Gone` if it is refused |
//! | `Open` | `Candidate::open` | in the directory: commands and events reach it (`drive.rs` reads, `write.rs` writes) | to `Closing` or `Gone` |
//! | `Closing` | `close_gracefully` (`leave.rs`) | out of the directory; its outbox and the close frame are written | to `Gone` when the peer has answered, or at the deadline |
//! | `Gone` | `abort`, or the end of its socket | without a socket; only its unanswered events remain | its slot is freed when they are answered |
//!
//! What a shard owns, one type each (`state.rs`): the clients' slots, the directory, outboxes, reads, unsent
//! events, workers' links, and answers to commands that were carried out.

#[cfg(feature = "bench")]
pub mod bench;
mod client;
mod clock;
mod directory;
mod drive;
mod events;
mod execute;
#[cfg(test)]
mod fixture;
mod leave;
mod mailbox;
mod notice;
mod open;
mod outbox;
mod outcome;
mod pending_counts;
mod places;
mod pool;
mod presence;
mod pusher;
mod queries;
mod rate;
mod read_budget;
mod readers;
mod relieve;
mod slots;
mod socket;
mod state;
mod suspects;
pub(crate) mod tally;
mod thread;
mod tick;
mod together;
mod trials;
mod upcalls;
mod walk;
mod wheel;
mod window;
mod worker_out;
mod workers;
mod write;

pub(crate) use self::{
    mailbox::{Mailbox, Message, Messages, NewWorker},
    notice::Notice,
    open::{Candidate, Newcomer},
    outcome::Stats,
    pending_counts::PendingCounts,
    places::Places,
    pool::{Executing, Pool},
    pusher::{Tenant, signed_in_group},
    state::{Handle, Shard},
    thread::{Ingress, Start, start, thread_name},
    trials::Trying,
    upcalls::{Entry, UpcallQueues, Upcalls},
    workers::{WorkerKey, shard_of_seq},
};
