//! The handle of the task that owns this gateway's topics, and the task's events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broadgate_proto::{
    id::Incarnation,
    v1::{self, View},
};
use broadgate_topics::{
    HomeOp, HomeReply, InterestCounts, LinkMessage, LinkSession, NotPresent, ReplyTo, ReportSubscription,
    Topic,
};
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{reports::ChannelChange, watchers::GroupWatcher},
    command::{CommandRefusal, GatewayContent},
    fair_queue,
    shard::EnterUpcall,
};

/// Events queued for the actor; senders wait beyond that.
pub(super) const EVENTS_MAX: usize = 1024;

/// The outcome of a question to a home.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every one is a reply, and it is moved twice")]
pub(crate) enum Routed {
    Reply(HomeReply<GatewayContent>),
    /// No home was reachable in time.
    NoHome,
}

/// The answer to a peer's hello.
#[derive(Debug)]
pub(crate) struct HelloAnswer {
    /// The newest view here, the peer's included.
    pub(crate) view: Arc<View>,
    /// Whether it contains the peer.
    pub(crate) known: bool,
}

/// An event of the actor.
#[derive(Debug)]
pub(crate) enum ClusterEvent {
    /// A view from the register, or from a peer.
    View(Arc<View>),
    /// A peer's hello.
    Greet {
        peer: Incarnation,
        view: Arc<View>,
        reply: oneshot::Sender<HelloAnswer>,
    },
    /// The link to a peer is open; `link` sends to it. It belongs to this incarnation.
    OutboundUp {
        me: Incarnation,
        peer: Incarnation,
        link: OutgoingLink,
    },
    /// It has broken; the peer has been silent on it since then.
    OutboundDown {
        peer: Incarnation,
        generation: u64,
        since: Instant,
    },
    /// A peer's link to us is open; cancelling ends it.
    InboundUp {
        peer: Incarnation,
        session: LinkSession,
        cut: CancellationToken,
    },
    InboundDown {
        peer: Incarnation,
        session: LinkSession,
        since: Instant,
    },
    Received {
        peer: Incarnation,
        session: LinkSession,
        frames: Vec<LinkMessage<GatewayContent>>,
    },
    /// A peer's question that this gateway does not understand.
    Refuse {
        peer: Incarnation,
        id: u64,
        refused: CommandRefusal,
    },
    Taken {
        peer: Incarnation,
        generation: u64,
        bytes: usize,
    },
    /// A caller asks a home; without a reply it wants none.
    Route {
        topic: Topic,
        op: HomeOp<GatewayContent>,
        reply: Option<oneshot::Sender<Routed>>,
    },
    /// A caller waits until the homes have acknowledged all changes here.
    Settle {
        topics: Vec<Topic>,
        reply: oneshot::Sender<Vec<Incarnation>>,
    },
    /// Clients of this gateway have entered groups; the shards have reported them.
    Enter(Vec<EnterUpcall>),
    /// A claim without a client, which its owner has reported: asks for its decision.
    Claim {
        topic: Topic,
        user: Arc<str>,
        reply: oneshot::Sender<Option<NotPresent>>,
    },
    /// Shards have executed a placing.
    Placed {
        me: Incarnation,
        placed: Vec<(ReplyTo, Option<v1::answer::Answer>, Vec<Topic>)>,
    },
    /// A stream starts to watch groups.
    Watch(GroupWatcher),
    /// Replaces the groups with reports.
    Report(Vec<ReportSubscription>, fair_queue::FairSender<ChannelChange>),
    /// Asks for a reply when this gateway has come so far with leaving.
    Leave(LeaveStep, oneshot::Sender<()>),
    /// The gateway is another incarnation now, without the former one's state.
    Reborn(Incarnation),
}

/// What a gateway without clients waits for, in this order, before it leaves the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveStep {
    /// All that was placed among its clients is answered, and the next homes have what it handed over.
    Answered,
    /// Every other gateway knows that nothing concerns it any more.
    Known,
}

/// The outgoing end of a link to a peer.
#[derive(Debug, Clone)]
pub(crate) struct OutgoingLink {
    /// Distinguishes it from an earlier one to the same peer.
    pub(crate) generation: u64,
    pub(crate) batches: mpsc::Sender<Vec<v1::PeerMessage>>,
    /// The peer understands views by number.
    pub(crate) numbers: bool,
}

/// A handle of the actor.
#[derive(Clone)]
pub(crate) struct ClusterHandle {
    pub(super) events: mpsc::Sender<ClusterEvent>,
    pub(super) interest: Arc<InterestGauges>,
}

/// How many groups and uids have clients here, for any reader.
#[derive(Default)]
pub(super) struct InterestGauges {
    pub(super) groups: AtomicU64,
    pub(super) uids: AtomicU64,
    /// Gateways that have not synced, and commands that wait for that, as of the last second.
    pub(super) unsynced: AtomicU64,
    pub(super) parked: AtomicU64,
    /// Microseconds that the actor has spent in its turns.
    pub(super) busy_us: AtomicU64,
}

impl ClusterHandle {
    /// The handle, and the actor's end of it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<ClusterEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { events, interest: Arc::default() }, receiver)
    }

    /// How many groups and uids have clients here. Clients whose join was answered are counted.
    pub(crate) fn interest(&self) -> InterestCounts {
        let InterestGauges { groups, uids, .. } = &*self.interest;
        InterestCounts { groups: groups.load(Ordering::Relaxed), uids: uids.load(Ordering::Relaxed) }
    }

    /// Gateways that have not synced, and commands parked until they have.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let InterestGauges { unsynced, parked, .. } = &*self.interest;
        (unsynced.load(Ordering::Relaxed), parked.load(Ordering::Relaxed))
    }

    /// How long the actor has been working, or waiting for room in the queues of shards and peers.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_micros(self.interest.busy_us.load(Ordering::Relaxed))
    }

    pub(super) fn set_busy(&self, busy: Duration) {
        let micros = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        self.interest.busy_us.store(micros, Ordering::Relaxed);
    }

    pub(super) fn set_waiting(&self, unsynced: u64, parked: u64) {
        self.interest.unsynced.store(unsynced, Ordering::Relaxed);
        self.interest.parked.store(parked, Ordering::Relaxed);
    }

    pub(super) fn set_interest(&self, InterestCounts { groups, uids }: InterestCounts) {
        self.interest.groups.store(groups, Ordering::Relaxed);
        self.interest.uids.store(uids, Ordering::Relaxed);
    }

    /// Waits while the actor's queue is full.
    pub(crate) async fn send(&self, event: ClusterEvent) {
        // It ends with the gateway.
        let _ = self.events.send(event).await;
    }

    /// Does not wait: if the actor's queue is full, the event is dropped and counted.
    pub(crate) fn offer(&self, event: ClusterEvent) {
        if self.events.try_send(event).is_err() {
            counter!("broadgate_gateway_homes_drops_total", "reason" => "actor_busy").increment(1);
        }
    }

    /// Asks a topic's home; the receiver gets the answer.
    pub(crate) async fn route(&self, topic: Topic, op: HomeOp<GatewayContent>) -> oneshot::Receiver<Routed> {
        let (reply, routed) = oneshot::channel();
        self.send(ClusterEvent::Route { topic, op, reply: Some(reply) }).await;
        routed
    }

    /// Waits until a topic's home has decided a claim.
    ///
    /// # Errors
    /// If there is no room, or if the home has not decided in time.
    pub(crate) async fn granted(&self, (topic, user): (Topic, Arc<str>)) -> Result<(), NotPresent> {
        let (reply, decided) = oneshot::channel();
        self.send(ClusterEvent::Claim { topic, user, reply }).await;
        match decided.await {
            Ok(None) => Ok(()),
            Ok(Some(refused)) => Err(refused),
            Err(_) => Err(NotPresent::Undecided),
        }
    }

    /// Waits until the actor has handled everything queued before this call.
    pub(crate) async fn catch_up(&self) {
        // Consequences of events are handled in the turn after theirs.
        for _ in 0..2 {
            let (reply, settled) = oneshot::channel();
            self.send(ClusterEvent::Settle { topics: Vec::new(), reply }).await;
            let _ = settled.await;
        }
    }

    /// Waits until this gateway has come so far with leaving.
    pub(crate) async fn leave(&self, step: LeaveStep) {
        let (reply, reached) = oneshot::channel();
        self.send(ClusterEvent::Leave(step, reply)).await;
        let _ = reached.await;
    }

    /// Waits until the homes of these topics have acknowledged all changes here; returns those that did not
    /// in time.
    pub(crate) async fn settle(&self, topics: Vec<Topic>) -> Vec<Incarnation> {
        if topics.is_empty() {
            return Vec::new();
        }
        let (reply, settled) = oneshot::channel();
        self.send(ClusterEvent::Settle { topics, reply }).await;
        settled.await.unwrap_or_default()
    }
}
