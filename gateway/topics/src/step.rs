//! The core's inputs and effects.

use std::{fmt::Debug, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, View},
};

use crate::{
    content::Content,
    inspection::TopicInspection,
    ledger::NotifiedState,
    membership::{
        Claim, DecidedClaim, LinkSession, MemberChange, MembershipChange, MembershipCount, PresenceChange,
        Report, TopicPosition,
    },
    report::ReportSubscription,
    retention::{HandedOver, HistoryPage, Position},
    topic::Topic,
    watch::Pattern,
};

/// The shell's number for an answer that it waits for.
pub type Ticket = u64;
/// A question to a topic's home.
#[derive(Debug, Clone)]
pub enum HomeOp<C: Content> {
    /// Executes a command at every gateway with clients in the topic, in the topic's order.
    Deliver(C::Command),
    /// Counts the clients of each of these topics, which all have the same home.
    Count(Vec<Topic>),
    /// Reads a page of the roster.
    Roster {
        /// The length of a page.
        limit: usize,
        /// The last user id of the page before; "" for the first.
        after: Arc<str>,
    },
    /// Reads the messages after this position of the group's history.
    History {
        /// The reader's position; none for the last messages.
        since: Option<Position>,
        /// At most so many messages.
        limit: usize,
    },
    /// Reads the group's last value.
    Last,
    /// Looks at how the topic stands.
    Inspect,
    /// Reports that a client entered the group and found no last value. It has no reply.
    Missed,
    /// Claims the idempotency key after which the topic is named, for the publish with this hash.
    Claim(u128),
}

/// A home's reply.
#[derive(Debug, Clone)]
pub enum HomeReply<C: Content> {
    /// It is not the home; this is its epoch.
    NotHome(Epoch),
    /// There is no room to park the question.
    Busy,
    /// Some of the topics have moved: ask every gateway instead.
    Moved,
    /// The command was executed.
    Done(HomeOutcome<C>),
    /// The counts, in the order of the question.
    Counted {
        /// The home's view.
        epoch: Epoch,
        /// Clients of each topic.
        clients: Vec<u64>,
        /// Gateways that have not synced.
        missing: Vec<Incarnation>,
    },
    /// A page of the roster.
    Roster {
        /// The home's view.
        epoch: Epoch,
        /// User ids with their member info.
        members: Vec<(Arc<str>, Arc<str>)>,
        /// The number of all users.
        total: u64,
        /// Gateways that have not synced.
        missing: Vec<Incarnation>,
    },
    /// A part of a history.
    History {
        /// The home's view.
        epoch: Epoch,
        /// The part.
        page: HistoryPage<C>,
    },
    /// The last value, if there is one.
    Last {
        /// The home's view.
        epoch: Epoch,
        /// The message, and its age.
        command: Option<(C::Command, Duration)>,
        /// Gateways that have not synced.
        missing: Vec<Incarnation>,
    },
    /// How the topic stands.
    Inspected(Box<TopicInspection>),
    /// Whether the key was new or claimed for the same publish; false if for another one.
    Claimed(bool),
}

/// The outcome of a command at its home.
#[derive(Debug, Clone)]
pub struct HomeOutcome<C: Content> {
    /// The home's view when it accepted the command.
    pub epoch: Epoch,
    /// All gateways' answers merged; none if no gateway had to be asked.
    pub answer: Option<C::Answer>,
    /// How many gateways answered.
    pub gateways: u32,
    /// Gateways that had not synced, or did not answer.
    pub missing: Vec<Incarnation>,
    /// Its position in the group's history, if there is one.
    pub position: Option<Position>,
    /// If the command is traced.
    pub trace: Option<Box<HomeTrace>>,
}

/// What a home did with a traced command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeTrace {
    /// The home.
    pub home: Incarnation,
    /// How long the command waited until all gateways had synced.
    pub parked: Duration,
    /// Its position in the topic's order; none if it took none.
    pub at: Option<TopicPosition>,
    /// The time from the question to the last gateway's answer.
    pub took: Duration,
    /// Gateways that had not synced when it was placed.
    pub unsynced: Vec<Incarnation>,
    /// Gateways with clients in the topic to which it could not be sent.
    pub unreachable: Vec<Incarnation>,
}

/// A frame from one gateway to another. A link preserves the order.
#[derive(Debug, Clone)]
pub enum LinkMessage<C: Content> {
    /// The sender has installed this view; the following frames belong to it.
    View(Arc<View>),
    /// To the home: the sender's current interest in a topic.
    InterestUpdate {
        /// Rises with every update from the sender to the receiver.
        serial: u64,
        /// The topic.
        topic: Topic,
        /// The number of clients; 0 retracts the interest.
        clients: u64,
        /// Presence members that have changed since the last update of the topic; in a sync, all.
        members: Vec<MemberChange>,
        /// Claims that are new or changed; in a sync, all that are undecided.
        claims: Vec<Claim>,
        /// The sender's clients know presence members, by this home or an earlier one.
        knows_roster: bool,
    },
    /// All of the sender's interest for this home has been sent.
    Synced {
        /// Counted among the interest updates.
        serial: u64,
        /// The view by which it chose the homes.
        epoch: Epoch,
        /// The number of topics and their checksum, if all interest was repeated.
        sum: Option<(u64, u64)>,
    },
    /// All interest updates up to this serial have been accepted.
    InterestAck(u64),
    /// To the home: a question.
    Ask {
        /// The sender's number for it; 0 if it wants no reply.
        id: u64,
        /// The topic.
        topic: Topic,
        /// The content.
        op: HomeOp<C>,
    },
    /// From the home: a reply.
    Reply {
        /// The number of the question.
        id: u64,
        /// The outcome.
        reply: HomeReply<C>,
    },
    /// From the home: place this among your clients.
    Deliver {
        /// The sender's number for it; 0 if it wants no answer.
        id: u64,
        /// The topic.
        topic: Topic,
        /// Its position in the topic's order.
        at: TopicPosition,
        /// The content.
        command: C::Command,
    },
    /// The outcome of a delivery.
    Placed {
        /// Its number.
        id: u64,
        /// None if the sender knows a later home of the topic.
        placed: Option<Option<C::Answer>>,
    },
    /// To the next home: the group's history.
    HandOver {
        /// The group.
        topic: Topic,
        /// Its history.
        history: HandedOver<C>,
    },
    /// To the home, or from it to a new gateway: the group's last value.
    Value {
        /// The group.
        topic: Topic,
        /// Its position in the group's order.
        at: TopicPosition,
        /// Its age.
        age: Duration,
        /// The message.
        command: C::Command,
    },
    /// From the home: the roster, or joins and leaves.
    Present {
        /// The topic.
        topic: Topic,
        /// Its position in the topic's order.
        at: TopicPosition,
        /// Whether it is the whole roster, or only what has changed.
        whole: bool,
        /// The members.
        members: Vec<MemberChange>,
    },
    /// From the home: decisions about the receiver's claims.
    ClaimDecisions {
        /// The topic.
        topic: Topic,
        /// Its position in the topic's order: after the roster that the receiver has got.
        at: TopicPosition,
        /// The decisions.
        claims: Vec<DecidedClaim>,
    },
    /// From the home to its heir, or to the next home: the group's notification ledger.
    Reported {
        /// Counted among the interest updates.
        serial: u64,
        /// The group.
        topic: Topic,
        /// Whether it is the whole ledger, or one step.
        whole: bool,
        /// To the next home: one of the sender's notifications is still in flight.
        more: bool,
        /// What receivers have been notified of.
        notified: NotifiedState,
    },
}

/// The recipient of a placing's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyTo {
    /// None.
    None,
    /// A delivery of this home.
    Own(u64),
    /// A delivery of a peer.
    Peer(Incarnation, LinkSession, u64),
}

/// An input of a gateway's homes.
#[derive(Debug, Clone)]
pub enum Input<C: Content> {
    /// A view from the register, or from a peer's hello.
    View(Arc<View>),
    /// The link that this gateway dialled is open: the peer has received the hello.
    OutboundUp(Incarnation),
    /// It has broken: what was not acknowledged may be lost. Nothing has been heard on it since then.
    OutboundDown(Incarnation, Duration),
    /// The peer's link to this gateway is open.
    InboundUp(Incarnation, LinkSession),
    /// It has broken; the peer has been silent since then.
    InboundDown(Incarnation, LinkSession, Duration),
    /// A frame from a peer.
    Received(Incarnation, LinkSession, LinkMessage<C>),
    /// A peer has accepted so many bytes of commands.
    Taken(Incarnation, usize),
    /// A shard's membership of a topic has changed.
    MembershipCount(MembershipCount),
    /// A caller's question to a topic's home. Without a ticket it wants no answer.
    Route {
        /// The caller's ticket.
        ticket: Option<Ticket>,
        /// The topic.
        topic: Topic,
        /// The content.
        op: HomeOp<C>,
    },
    /// The shards have executed a placing, which may have changed these topics' clients.
    Placed {
        /// The recipient.
        back: ReplyTo,
        /// The outcome; none if no shard was asked.
        answer: Option<C::Answer>,
        /// The topics that it may have changed.
        touched: Vec<Topic>,
    },
    /// Asks for [`Effect::Settled`] when the homes of these topics have acknowledged all changes so far.
    Settle {
        /// The caller's ticket.
        ticket: Ticket,
        /// The topics.
        topics: Vec<Topic>,
    },
    /// A client of this gateway has entered a group and needs its state.
    Enter {
        /// The caller's ticket.
        ticket: Ticket,
        /// The group.
        topic: Topic,
        /// The client's user.
        user: Option<Arc<str>>,
    },
    /// Replaces the watched groups: their whole state is reported first.
    Watch(Vec<Pattern>),
    /// Replaces the groups with reports.
    Report(Vec<ReportSubscription>),
    /// A report was delivered to its receivers, or given up.
    Arrived(Topic, Report),
    /// Time has passed.
    Tick,
}

/// The state that a client gets when it enters a group. Every other change of the group comes before this and
/// is contained in it, or comes after.
#[derive(Debug, Clone)]
pub struct Entered<C: Content> {
    /// The roster, with member info.
    pub members: Vec<(Arc<str>, Arc<str>)>,
    /// Reads the group's last value.
    pub value: Option<C::Command>,
    /// Homes that have not answered in time.
    pub missing: Vec<Incarnation>,
    /// The client is not in the group: its user is not present there.
    pub refused: Option<NotPresent>,
}

/// Why a claimed user is not present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPresent {
    /// The group has its maximum of users.
    Full,
    /// Its home has not decided in time.
    Undecided,
}

/// An effect of a gateway's homes.
#[derive(Debug, Clone)]
pub enum Effect<C: Content> {
    /// Send this frame on the link to a peer.
    Send(Incarnation, LinkMessage<C>),
    /// Place this among this gateway's own clients.
    Place {
        /// To be returned with the answer.
        back: ReplyTo,
        /// The topic.
        topic: Topic,
        /// Its position in the topic's order.
        at: TopicPosition,
        /// The content.
        command: C::Command,
    },
    /// A caller's answer.
    Answer(Ticket, HomeReply<C>),
    /// The home was unreachable: the caller's command may or may not have been executed.
    NoHome(Ticket),
    /// The homes have acknowledged the changes; these have not in time.
    Settled(Ticket, Vec<Incarnation>),
    /// A client has entered a group.
    Entered(Ticket, Topic, Entered<C>),
    /// Joins and leaves of presence members in a topic with clients here.
    Present {
        /// The topic.
        topic: Topic,
        /// The members.
        members: Vec<PresenceChange>,
    },
    /// A change in a watched group whose home this gateway is.
    Group(Topic, MembershipChange),
    /// The state of all watched groups whose home this gateway is by this view has been reported.
    GroupsComplete(Epoch),
    /// A fact to report about a group.
    Report {
        /// The group.
        topic: Topic,
        /// The content.
        report: Report,
        /// Whether [`Input::Arrived`] must follow when it is delivered or given up.
        awaited: bool,
    },
    /// A command that this home has placed nowhere: no gateway has clients in its topic.
    Unheard(C::Command),
    /// A command that this home has placed in a group with reports.
    Ordered(Topic, C::Command),
    /// A journal entry: what receivers have been notified of, for a group whose home this gateway is.
    Notified {
        /// The group.
        topic: Topic,
        /// Whether it is the whole ledger, or one step.
        whole: bool,
        /// The content.
        notified: NotifiedState,
    },
    /// A client found no last value in a group with reports.
    Missed(Topic),
    /// A view was installed.
    Installed(Arc<View>),
    /// The peer's state mismatches: reset both links to it.
    ResetPeer(Incarnation, &'static str),
    /// A frame was dropped, for this reason.
    Dropped(&'static str),
}
