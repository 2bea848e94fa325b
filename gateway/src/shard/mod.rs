//! A shard is a thread that owns a part of a gateway's clients, from handshake to goodbye: no lock,
//! no atomic, nothing shared on the way of a message. Others reach it through one bounded mailbox.

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
mod standings;
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
    places::Places,
    pool::{Executing, Pool},
    pusher::{Tenant, signed_in_group},
    standings::Standings,
    state::{Handle, Shard},
    thread::{Ingress, Start, start, thread_name},
    trials::Trying,
    upcalls::{Entry, UpcallQueues, Upcalls},
    workers::{WorkerKey, shard_of_seq},
};
