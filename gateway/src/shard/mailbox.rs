//! What others ask of a shard, through one bounded mailbox.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{id::Incarnation, limits::MAILBOX_MAX, v1};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    admission::ConnectionTicket,
    command::ParsedCommand,
    shard::{
        ending::RejoinCause, notice::Notice, outcome::ShardOutcome, taps::TapTaken, worker_links::WorkerKey,
        worker_trials::Trying,
    },
};

/// What others ask of a shard.
pub(crate) enum ShardMessage {
    /// Carry these out in this order, and answer in the same if anybody wants that.
    Execute {
        orders: Vec<Arc<ParsedCommand>>,
        reply: Option<oneshot::Sender<Vec<ShardOutcome>>>,
    },
    /// The homes have decided this about clients here.
    Notify(Vec<Arc<Notice>>),
    WorkerUp(NewWorker),
    WorkerDown(WorkerKey),
    /// Send it nothing new; tell when nothing is unanswered.
    WorkerLeaving {
        key: WorkerKey,
        released: oneshot::Sender<()>,
    },
    Acks {
        key: WorkerKey,
        seqs: Vec<u64>,
    },
    Decision {
        key: WorkerKey,
        seq: u64,
        decision: v1::decision::Decision,
    },
    /// A connection that the one acceptor took.
    Connection {
        listener: usize,
        stream: std::net::TcpStream,
        ticket: ConnectionTicket,
    },
    /// The gateway has another incarnation: clients of the former one are closed.
    Reborn(Incarnation, RejoinCause),
    /// The apps were replaced.
    Apps,
    /// The taps have changed; who has opened one asks how many clients fit it.
    Taps(Option<TapTaken>),
    /// Let all clients go within this time; tell when nothing is left to do.
    Drain {
        over: Duration,
        done: oneshot::Sender<()>,
    },
}

/// A worker that has attached.
#[derive(Clone)]
pub(crate) struct NewWorker {
    pub(crate) key: WorkerKey,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    pub(crate) services: Vec<String>,
    /// Events that one shard may leave unanswered.
    pub(crate) credit: usize,
    /// Events as they are written on the wire.
    pub(crate) out: mpsc::Sender<Bytes>,
    pub(crate) trying: Trying,
}

/// A shard's mailbox.
#[derive(Clone)]
pub(crate) struct Mailbox(mpsc::Sender<ShardMessage>);

/// The end of a mailbox that its shard takes from.
pub(crate) type Messages = mpsc::Receiver<ShardMessage>;

impl Mailbox {
    /// A mailbox, made before the thread of its shard.
    pub(crate) fn new() -> (Self, Messages) {
        let (sender, messages) = mpsc::channel(MAILBOX_MAX);
        (Self(sender), messages)
    }

    /// What waits in it now.
    pub(crate) fn waiting(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }

    /// Waits while the mailbox is full. A shard that has ended takes nothing and answers nothing.
    pub(crate) async fn send(&self, message: ShardMessage) {
        let _ = self.0.send(message).await;
    }
}
