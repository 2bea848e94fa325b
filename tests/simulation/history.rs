//! What happened in a run, as the checker reads it. Pure data.

use std::{collections::BTreeSet, time::Duration};

use broadgate_proto::{id::Incarnation, v1::Epoch};
use broadgate_topics::{Content, HomesLoad, Report, Ticket, Topic, TopicPosition};

/// One client from open to close; never used again.
pub type ClientNo = u32;
/// One command, whatever its attempts.
pub type CmdNo = u64;

/// What the simulated gateways pass on.
#[derive(Debug, Clone)]
pub enum Sim {}

/// Something to carry out among the clients of a topic.
#[derive(Debug, Clone)]
pub struct Cmd {
    pub no: CmdNo,
    pub what: What,
    pub also: Option<Incarnation>,
}

#[derive(Debug, Clone)]
pub enum What {
    Send,
    /// This client is bound to the uid; every other client of it is closed.
    Exclusive(ClientNo),
    /// All clients of the uid join this group.
    JoinAll(Topic),
}

/// What became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    pub clients: u32,
    pub dropped: u32,
}

impl Content for Sim {
    type Command = Cmd;
    type Answer = Receipt;

    fn bytes(_: &Cmd) -> usize {
        100
    }

    fn also(command: &Cmd) -> Option<Incarnation> {
        command.also
    }

    fn merge(all: &mut Option<Receipt>, part: Receipt) {
        let all = all.get_or_insert_default();
        all.clients += part.clients;
        all.dropped += part.dropped;
    }
}

/// What a caller wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    Send(Vec<Topic>),
    /// A send without a receipt.
    Fire(Topic),
    /// Joins; as this presence user, if one is named.
    Join(ClientNo, Topic, Option<String>),
    Leave(ClientNo, Topic),
    Bind(ClientNo, Topic),
    Exclusive(ClientNo, Topic),
    JoinAll(Topic, Topic),
    Count(Topic),
    Roster(Topic),
}

/// The answer to a caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Not done, or nobody knows.
    Refused(&'static str),
    Receipt {
        epoch: Epoch,
        ordered: bool,
        complete: bool,
        receipt: Receipt,
    },
    Changed {
        epoch: Epoch,
        complete: bool,
    },
    Counted {
        epoch: Epoch,
        complete: bool,
        clients: u64,
    },
    Roster {
        epoch: Epoch,
        complete: bool,
        users: Vec<String>,
    },
}

impl Outcome {
    /// Whether it is complete, if it is about more than one client.
    pub const fn of_all(&mut self) -> Option<&mut bool> {
        match self {
            Self::Receipt { complete, .. }
            | Self::Counted { complete, .. }
            | Self::Roster { complete, .. } => Some(complete),
            Self::Refused(_) | Self::Changed { .. } => None,
        }
    }

    pub const fn epoch(&self) -> Epoch {
        match self {
            Self::Refused(_) => Epoch::new(0, 0),
            Self::Receipt { epoch, .. }
            | Self::Changed { epoch, .. }
            | Self::Counted { epoch, .. }
            | Self::Roster { epoch, .. } => *epoch,
        }
    }

    pub const fn complete(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Receipt { complete, .. }
            | Self::Changed { complete, .. }
            | Self::Counted { complete, .. }
            | Self::Roster { complete, .. } => *complete,
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Fact {
    Installed {
        by: Incarnation,
        epoch: Epoch,
        before: Epoch,
        gateways: Vec<Incarnation>,
        streams_lost: u32,
    },
    /// A gateway incarnation has ended, with all its clients.
    Ended {
        by: Incarnation,
    },
    /// It finds that it was removed, although nobody has slept or was cut off.
    PutOut {
        by: Incarnation,
    },
    Paused {
        by: Incarnation,
    },
    Resumed {
        by: Incarnation,
    },
    /// A client was opened; by this view it belongs to everybody.
    #[allow(dead_code)] // the epoch and the attempt are for people who read a trace
    Opened {
        client: ClientNo,
        by: Incarnation,
        epoch: Epoch,
    },
    /// The workers were told.
    Closed {
        client: ClientNo,
    },
    In {
        client: ClientNo,
        topic: Topic,
        user: Option<String>,
    },
    Out {
        client: ClientNo,
        topic: Topic,
    },
    Slow {
        client: ClientNo,
    },
    /// A message is in a client's outbox.
    Got {
        client: ClientNo,
        topic: Topic,
        at: Option<TopicPosition>,
        cmd: CmdNo,
    },
    /// A gateway places what it or another ordered.
    Placing {
        by: Incarnation,
        from: Incarnation,
        topic: Topic,
        at: TopicPosition,
        cmd: CmdNo,
    },
    /// The core of a gateway hears that nobody is left in a topic there.
    Emptied {
        by: Incarnation,
        topic: Topic,
    },
    /// A gateway asks a home.
    Asked {
        cmd: CmdNo,
    },
    Made {
        cmd: CmdNo,
        caller: usize,
        via: usize,
        attempt: u32,
        carried: Epoch,
        wish: Wish,
    },
    #[allow(dead_code)]
    Answered {
        cmd: CmdNo,
        attempt: u32,
        outcome: Outcome,
    },
    Present {
        by: Incarnation,
        topic: Topic,
        user: String,
        joined: bool,
    },
    /// A client has entered a group and waits for the roster; and gets it.
    Entering {
        by: Incarnation,
        ticket: Ticket,
    },
    Entered {
        by: Incarnation,
        ticket: Ticket,
        topic: Topic,
        users: BTreeSet<String>,
    },
    /// Its client has left again before it was told.
    NotEntered {
        by: Incarnation,
        ticket: Ticket,
    },
    /// A report has reached its receiver.
    Reported {
        topic: Topic,
        report: Report,
    },
    /// A gateway answered that it is complete, although it could know for long that another register has
    /// members.
    CompleteInHalves {
        by: Incarnation,
        cmd: CmdNo,
        since: Duration,
    },
    /// The ledger has a view; and a register shows one.
    Committed {
        epoch: Epoch,
        before: Epoch,
    },
    Shown {
        no: usize,
        epoch: Epoch,
    },
    /// The ledger has what it once had.
    Forgotten,
    ResetPeer {
        by: Incarnation,
        peer: Incarnation,
        why: &'static str,
    },
    /// Faults have stopped and the time that the promise names has passed.
    Quiet {
        gateways: Vec<(Incarnation, Epoch, HomesLoad)>,
    },
}

/// A fact and its time.
#[derive(Debug, Clone)]
pub struct Record {
    pub now: Duration,
    pub fact: Fact,
}

pub type History = Vec<Record>;
