//! What goes into the core and what comes out.

use std::{fmt::Debug, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, View},
};

use crate::{
    account::Told,
    content::Content,
    keep::{HandedOver, Page, Position},
    membership::{At, Claim, ComeOrGone, Decided, GroupChange, MemberChange, Report, Session, Standing},
    report::Reporting,
    topic::Topic,
    watch::Pattern,
};

/// The shell's number for something that it waits for.
pub type Ticket = u64;
/// What is asked of a topic's home.
#[derive(Debug, Clone)]
pub enum Op<C: Content> {
    /// Carry it out at every gateway with clients of the topic, in the topic's order.
    Deliver(C::Command),
    /// How many clients has each of these topics? All have the same home.
    Count(Vec<Topic>),
    /// Who is present? At most so many, after that user id.
    Roster {
        /// The length of a page.
        limit: usize,
        /// The last user id of the page before; "" for the first.
        after: Arc<str>,
    },
    /// What followed this position in the group's history, at most so many messages.
    History {
        /// Where the reader stands; none for the last messages.
        since: Option<Position>,
        /// How many messages.
        limit: usize,
    },
    /// The group's last value.
    Last,
    /// A client has entered the group and found no last value. It has no reply.
    Missed,
    /// A backend publishes this, by a hash of it, under the key after which the topic is named.
    Claim(u128),
}

/// What a home answers.
#[derive(Debug, Clone)]
pub enum Reply<C: Content> {
    /// It is not the home; this is its epoch.
    NotHome(Epoch),
    /// There is no room for what has to wait.
    Busy,
    /// Not all that was asked about has this home any more: ask in another way.
    Moved,
    /// It was carried out.
    Done(Done<C>),
    /// As many as asked, in the same order.
    Counted {
        /// The home's view.
        epoch: Epoch,
        /// Clients of each topic.
        clients: Vec<u64>,
        /// Gateways that have not said what they hold.
        missing: Vec<Incarnation>,
    },
    /// A page of those who are present.
    Roster {
        /// The home's view.
        epoch: Epoch,
        /// User ids with what others see of them.
        members: Vec<(Arc<str>, Arc<str>)>,
        /// How many there are in all.
        total: u64,
        /// Gateways that have not said what they hold.
        missing: Vec<Incarnation>,
    },
    /// A part of a history.
    History {
        /// The home's view.
        epoch: Epoch,
        /// The part.
        page: Page<C>,
    },
    /// The last value, if there is one.
    Last {
        /// The home's view.
        epoch: Epoch,
        /// The message, and how old it is.
        command: Option<(C::Command, Duration)>,
        /// Gateways that have not said what they keep.
        missing: Vec<Incarnation>,
    },
    /// The key is new, or was claimed for the same; false if it was for something else.
    Claimed(bool),
}

/// What became of a command at its home.
#[derive(Debug, Clone)]
pub struct Done<C: Content> {
    /// The home's view when it took the command.
    pub epoch: Epoch,
    /// All gateways' answers together; none if nobody had to be asked.
    pub answer: Option<C::Answer>,
    /// How many gateways answered.
    pub gateways: u32,
    /// Gateways that had not synced, or did not answer.
    pub missing: Vec<Incarnation>,
    /// Where it stands in the group's history, if there is one.
    pub position: Option<Position>,
}

/// What one gateway says to another. A link keeps the order.
#[derive(Debug, Clone)]
pub enum Frame<C: Content> {
    /// The speaker has installed this view; what follows was said in it.
    View(Arc<View>),
    /// To the home: how the speaker's clients stand in a topic now.
    Hold {
        /// Rises with every hold from the speaker to the receiver.
        serial: u64,
        /// Which topic.
        topic: Topic,
        /// How many clients; 0 for none any more.
        clients: u64,
        /// Presence members that have changed since the last hold of the topic; in a sync, all.
        members: Vec<MemberChange>,
        /// Claims that are new or changed; in a sync, all that are undecided.
        claims: Vec<Claim>,
        /// The speaker's clients were told of presence members, by this home or an earlier one.
        told: bool,
    },
    /// Everything that the speaker holds and whose home the receiver is has been said.
    Synced {
        /// Counted among the holds.
        serial: u64,
        /// The view by which it chose the homes.
        epoch: Epoch,
        /// How many topics that is and what they add up to, if they were said anew.
        sum: Option<(u64, u64)>,
    },
    /// All holds up to this serial have been taken.
    Held(u64),
    /// To the home: do this.
    Ask {
        /// The speaker's number for it; 0 if it wants no reply.
        id: u64,
        /// About this topic.
        topic: Topic,
        /// What.
        op: Op<C>,
    },
    /// From the home.
    Reply {
        /// The number of the ask.
        id: u64,
        /// What became of it.
        reply: Reply<C>,
    },
    /// From the home: place this among your clients.
    Deliver {
        /// The speaker's number for it; 0 if it wants no answer.
        id: u64,
        /// The topic.
        topic: Topic,
        /// Where it stands in the topic's order.
        at: At,
        /// What.
        command: C::Command,
    },
    /// What became of a delivery.
    Placed {
        /// Its number.
        id: u64,
        /// None if the speaker knows a later home of the topic.
        placed: Option<Option<C::Answer>>,
    },
    /// To the next home: what the group has kept.
    HandOver {
        /// The group.
        topic: Topic,
        /// Its history.
        history: HandedOver<C>,
    },
    /// To the home, or from it to a gateway that is new: the group's last value.
    Value {
        /// The group.
        topic: Topic,
        /// Where it stands in the group's order.
        at: At,
        /// How old it is.
        age: Duration,
        /// The message.
        command: C::Command,
    },
    /// From the home: who has come and gone.
    Present {
        /// The topic.
        topic: Topic,
        /// Where it stands in the topic's order.
        at: At,
        /// Everybody who is present, or only what has changed.
        whole: bool,
        /// Who.
        members: Vec<MemberChange>,
    },
    /// From the home: what became of the receiver's claims.
    Decided {
        /// The topic.
        topic: Topic,
        /// Where it stands in the topic's order: after what the receiver was told of who is present.
        at: At,
        /// Each.
        claims: Vec<Decided>,
    },
    /// From the home to its heir, or to the next home: what was reported of a group, and has arrived.
    Reported {
        /// Counted among the holds.
        serial: u64,
        /// The group.
        topic: Topic,
        /// All of it, or one step.
        whole: bool,
        /// To the next home: something of the speaker's is still on its way.
        more: bool,
        /// What was told.
        told: Told,
    },
}

/// To whom the outcome of a placing belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Nobody.
    Nobody,
    /// A delivery of this home.
    Own(u64),
    /// A delivery of a peer.
    Peer(Incarnation, Session, u64),
}

/// What can happen to a gateway's homes.
#[derive(Debug, Clone)]
pub enum Input<C: Content> {
    /// The register, or a peer in its hello, tells of a view.
    View(Arc<View>),
    /// The link that we dialled is open: the peer has heard our hello.
    Opened(Incarnation),
    /// It has broken: what was not taken may be lost.
    Closed(Incarnation),
    /// The peer's link to us is open.
    Heard(Incarnation, Session),
    /// It has broken; nothing was heard since then.
    Unheard(Incarnation, Session, Duration),
    /// A peer says something.
    Said(Incarnation, Session, Frame<C>),
    /// A peer has taken so many bytes of commands.
    Taken(Incarnation, usize),
    /// A shard's clients have changed.
    Standing(Standing),
    /// A caller wants this done by the topic's home. Without a ticket it wants no answer.
    Route {
        /// The caller's ticket.
        ticket: Option<Ticket>,
        /// About what.
        topic: Topic,
        /// What.
        op: Op<C>,
    },
    /// Our shards have carried out a placing, and these topics' clients may have changed by it.
    Placed {
        /// Whose it is.
        back: Back,
        /// What became of it; none if no shard was asked.
        answer: Option<C::Answer>,
        /// What it may have changed.
        touched: Vec<Topic>,
    },
    /// Tell when the homes of these topics know what has changed here so far.
    Settle {
        /// The caller's ticket.
        ticket: Ticket,
        /// Which topics.
        topics: Vec<Topic>,
    },
    /// A client of ours has entered a group, and is to be told what it needs to follow it.
    Enter {
        /// The caller's ticket.
        ticket: Ticket,
        /// The group.
        topic: Topic,
        /// The presence member for whom it stands.
        user: Option<Arc<str>>,
    },
    /// These groups are watched now: everything about them is to be told.
    Watch(Vec<Pattern>),
    /// These groups are reported of from now on.
    Report(Vec<Reporting>),
    /// A report has arrived at those who are told, or never will.
    Arrived(Topic, Report),
    /// Time has passed.
    Tick,
}

/// What a client that enters a group is told. Everything else about the group comes before this, and is
/// in it, or after.
#[derive(Debug, Clone)]
pub struct Entered<C: Content> {
    /// Who is present, and what others see of them.
    pub members: Vec<(Arc<str>, Arc<str>)>,
    /// The group's last value.
    pub value: Option<C::Command>,
    /// Homes that have not answered in time.
    pub missing: Vec<Incarnation>,
    /// The client does not follow the group: its user is not present there.
    pub refused: Option<NotPresent>,
}

/// Why a user whose presence was claimed is not present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPresent {
    /// The group has as many users as it may.
    Full,
    /// Its home has not decided in time.
    Undecided,
}

/// What a gateway's homes do.
#[derive(Debug, Clone)]
pub enum Effect<C: Content> {
    /// Say this on the link to a peer.
    Say(Incarnation, Frame<C>),
    /// Carry this out among our own clients.
    Place {
        /// To be given back with the answer.
        back: Back,
        /// The topic.
        topic: Topic,
        /// Where it stands in the topic's order.
        at: At,
        /// What.
        command: C::Command,
    },
    /// A caller's answer.
    Answer(Ticket, Reply<C>),
    /// The home could not be reached in time: the caller's command may have been carried out, or not.
    NoHome(Ticket),
    /// What had changed is known to the homes; these did not say so in time.
    Settled(Ticket, Vec<Incarnation>),
    /// A client that entered a group follows it from here.
    Entered(Ticket, Topic, Entered<C>),
    /// Presence members of a topic that our clients are in have come and gone.
    Present {
        /// The topic.
        topic: Topic,
        /// Who.
        members: Vec<ComeOrGone>,
    },
    /// Something has happened in a watched group whose home we are.
    Group(Topic, GroupChange),
    /// Everything about the watched groups whose home we are by this view has been told.
    GroupsTold(Epoch),
    /// Something has happened in a group that we report of.
    Report {
        /// The group.
        topic: Topic,
        /// What.
        report: Report,
        /// It is to be said when this has arrived, or never will.
        awaited: bool,
    },
    /// As the home of a group that we report of, we have given this its place.
    Ordered(Topic, C::Command),
    /// To be noted in the journal: what receivers have heard of a group whose home we are.
    Told {
        /// The group.
        topic: Topic,
        /// All of it, or one step.
        whole: bool,
        /// What.
        told: Told,
    },
    /// In a group that we report of, somebody has found no last value.
    Missed(Topic),
    /// A view was installed.
    Installed(Arc<View>),
    /// What a peer says cannot be true: both links to it must be made anew.
    Mistrust(Incarnation, &'static str),
    /// Something was dropped, for this reason.
    Dropped(&'static str),
}
