//! The task that owns this gateway's part in the homes: it feeds the pure core and acts on what that
//! decides. What is ready in one turn goes out together: one batch for each peer, one message for each
//! shard.
//!
//! | file | what |
//! |---|---|
//! | `links/` | the links to the other gateways |
//! | `alarm.rs` | whether most gateways have vanished at once |
//! | `wire.rs` | what gateways say to each other, as messages of the contract and back |
//! | `parcel.rs` | histories and last values, likewise |
//! | `reports.rs` | what the gateway itself is told of groups |
//! | `turn.rs` | what one turn has gathered, and acting on it |
//! | `watchers.rs` | streams that are told what happens in groups |

mod alarm;
pub(crate) mod links;
mod parcel;
mod reports;
mod turn;
mod watchers;
mod wire;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    limits::{BATCH_COMMANDS_MAX, LEASE},
    v1::{self, View},
};
use broadgate_topics::{
    Back, Core, Frame, HeldCounts, Input, Keeping, Limits, NotPresent, Op, Reply, Reporting, Session, Ticket,
    Topic,
};
use metrics::{counter, gauge};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use self::{alarm::Alarm, reports::Reports, turn::Turn, watchers::Watchers};
pub(crate) use self::{
    reports::Seen,
    watchers::{WATCHER_BATCHES_MAX, Watcher},
    wire::{Unreadable, decode},
};
use crate::{
    command::{Live, Refusal},
    inbox,
    shard::{Entry, Pool, Standings},
    webhooks::Journal,
};

/// Events waiting for the actor; whoever has more waits.
const EVENTS_MAX: usize = 1024;
/// While something waits for time to pass.
const TICK: Duration = Duration::from_millis(50);

/// What became of a question to a home.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every one is a reply, and it is moved twice")]
pub(crate) enum Routed {
    Reply(Reply<Live>),
    /// No home could be reached in time.
    NoHome,
}

/// What a peer's hello was answered with.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// The newest view here, now that the peer's is known.
    pub(crate) view: Arc<View>,
    /// Is the peer in it?
    pub(crate) known: bool,
}

/// What happens to the actor.
#[derive(Debug)]
pub(crate) enum Event {
    /// The register, or a peer, tells of a view.
    View(Arc<View>),
    /// A peer says hello.
    Greet {
        peer: Incarnation,
        view: Arc<View>,
        reply: oneshot::Sender<Greeting>,
    },
    /// Our link to a peer is open; what is said to it goes in here. It is ours in this incarnation.
    Opened {
        me: Incarnation,
        peer: Incarnation,
        link: Link,
    },
    Closed {
        peer: Incarnation,
        generation: u64,
    },
    /// A peer's link to us is open; cancelling ends it.
    Heard {
        peer: Incarnation,
        session: Session,
        cut: CancellationToken,
    },
    Unheard {
        peer: Incarnation,
        session: Session,
        since: Instant,
    },
    Said {
        peer: Incarnation,
        session: Session,
        frames: Vec<Frame<Live>>,
    },
    /// A peer asked something that cannot be understood here.
    Refuse {
        peer: Incarnation,
        id: u64,
        refused: Refusal,
    },
    Taken {
        peer: Incarnation,
        generation: u64,
        bytes: usize,
    },
    /// A caller asks a home; without a reply it wants none.
    Route {
        topic: Topic,
        op: Op<Live>,
        reply: Option<oneshot::Sender<Routed>>,
    },
    /// A caller waits until the homes know what has changed here.
    Settle {
        topics: Vec<Topic>,
        reply: oneshot::Sender<Vec<Incarnation>>,
    },
    /// Clients of ours are in groups, as the shards have said.
    Enter(Vec<Entry>),
    /// A claim to presence that is no client's, as its owner has said: what becomes of it?
    Claim {
        topic: Topic,
        user: Arc<str>,
        reply: oneshot::Sender<Option<NotPresent>>,
    },
    /// Shards have carried something out.
    Placed {
        me: Incarnation,
        placed: Vec<(Back, Option<v1::answer::Answer>, Vec<Topic>)>,
    },
    /// A stream wants to be told what happens in groups.
    Watch(Watcher),
    /// The gateway itself wants to be told what happens in these groups.
    Report(Vec<Reporting>, inbox::Sender<Seen>),
    /// The gateway is another incarnation now, and knows nothing of what the former one knew.
    Reborn(Incarnation),
}

/// The outgoing end of a link to a peer.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// Tells it from an earlier one to the same peer.
    pub(crate) generation: u64,
    pub(crate) batches: mpsc::Sender<Vec<v1::Said>>,
}

/// A handle of the actor.
#[derive(Clone)]
pub(crate) struct Homes {
    events: mpsc::Sender<Event>,
    held: Arc<Held>,
}

/// How many groups and uids have clients here, for whoever asks.
#[derive(Default)]
struct Held {
    groups: AtomicU64,
    uids: AtomicU64,
}

impl Homes {
    /// The handle, and what the actor is started with.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { events, held: Arc::default() }, receiver)
    }

    /// How many groups and uids have clients here. Who was answered that it is in one is counted.
    pub(crate) fn held(&self) -> HeldCounts {
        let Held { groups, uids } = &*self.held;
        HeldCounts { groups: groups.load(Ordering::Relaxed), uids: uids.load(Ordering::Relaxed) }
    }

    fn set_held(&self, HeldCounts { groups, uids }: HeldCounts) {
        self.held.groups.store(groups, Ordering::Relaxed);
        self.held.uids.store(uids, Ordering::Relaxed);
    }

    /// Waits while the actor has enough to do.
    pub(crate) async fn tell(&self, event: Event) {
        // It ends with the gateway.
        let _ = self.events.send(event).await;
    }

    /// Does not wait: what the actor has no room for is dropped, and counted.
    pub(crate) fn offer(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            counter!("broadgate_gateway_homes_drops_total", "reason" => "actor_busy").increment(1);
        }
    }

    /// Asks a topic's home; the answer comes out of the receiver.
    pub(crate) async fn route(&self, topic: Topic, op: Op<Live>) -> oneshot::Receiver<Routed> {
        let (reply, routed) = oneshot::channel();
        self.tell(Event::Route { topic, op, reply: Some(reply) }).await;
        routed
    }

    /// Waits until a topic's home has decided about a claim to presence.
    ///
    /// # Errors
    /// If there is no room, or if the home has not decided in time.
    pub(crate) async fn granted(&self, (topic, user): (Topic, Arc<str>)) -> Result<(), NotPresent> {
        let (reply, decided) = oneshot::channel();
        self.tell(Event::Claim { topic, user, reply }).await;
        match decided.await {
            Ok(None) => Ok(()),
            Ok(Some(refused)) => Err(refused),
            Err(_) => Err(NotPresent::Undecided),
        }
    }

    /// Waits until the actor has taken what had come to it when this was called.
    pub(crate) async fn catch_up(&self) {
        // What follows from events is taken in the turn after theirs.
        for _ in 0..2 {
            let (reply, settled) = oneshot::channel();
            self.tell(Event::Settle { topics: Vec::new(), reply }).await;
            let _ = settled.await;
        }
    }

    /// Waits until the homes of these topics know what has changed here; returns those that did not say
    /// so in time.
    pub(crate) async fn settle(&self, topics: Vec<Topic>) -> Vec<Incarnation> {
        if topics.is_empty() {
            return Vec::new();
        }
        let (reply, settled) = oneshot::channel();
        self.tell(Event::Settle { topics, reply }).await;
        settled.await.unwrap_or_default()
    }
}

/// Who waits to be told about a group.
enum Waiter {
    Client(ClientId),
    Claim(oneshot::Sender<Option<NotPresent>>),
}

/// What the actor acts upon.
pub(crate) struct Around {
    pub(crate) shards: Pool,
    /// What each shard has to tell, and what wakes the actor for it.
    pub(crate) standings: Vec<Arc<Standings>>,
    pub(crate) wake: Arc<Notify>,
    /// A view was installed.
    pub(crate) installed: OnView,
    /// What receivers of webhooks have heard, if there is a spool.
    pub(crate) journal: Option<Arc<Journal>>,
}

/// What follows the installed views.
pub(crate) type OnView = Box<dyn Fn(&Arc<View>) + Send + Sync>;

pub(crate) struct Actor {
    me: Incarnation,
    limits: Limits,
    keeping: Keeping,
    core: Core<Live>,
    around: Around,
    homes: Homes,
    links: BTreeMap<Incarnation, Link>,
    sessions: BTreeMap<Incarnation, (Session, CancellationToken)>,
    callers: HashMap<Ticket, oneshot::Sender<Routed>>,
    settling: HashMap<Ticket, oneshot::Sender<Vec<Incarnation>>>,
    entering: HashMap<Ticket, Waiter>,
    next_ticket: Ticket,
    started: Instant,
    alarm: Alarm,
    watchers: Watchers,
    reports: Reports,
    turn: Turn,
}

/// A core that goes on from what the journal says.
fn core(me: Incarnation, limits: Limits, keeping: &Keeping, journal: Option<&Journal>) -> Core<Live> {
    let core = Core::new(me, limits).keeping(keeping.clone());
    match journal {
        Some(journal) => core.journaled(journal.restored()),
        None => core,
    }
}

impl Actor {
    pub(crate) fn new(
        me: Incarnation,
        limits: Limits,
        keeping: Keeping,
        around: Around,
        homes: Homes,
    ) -> Self {
        Self {
            me,
            core: core(me, limits, &keeping, around.journal.as_deref()),
            limits,
            keeping,
            reports: Reports::new(Arc::clone(&around.wake)),
            around,
            homes,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            callers: HashMap::new(),
            settling: HashMap::new(),
            entering: HashMap::new(),
            next_ticket: 1,
            started: Instant::now(),
            alarm: Alarm::new(LEASE),
            watchers: Watchers::default(),
            turn: Turn::default(),
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        let wake = Arc::clone(&self.around.wake);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = events.recv_many(&mut batch, BATCH_COMMANDS_MAX) => {}
                () = wake.notified() => {}
                _ = tick.tick(), if self.core.wants_ticks() => self.apply(Input::Tick),
                _ = second.tick() => {
                    // What is kept for a time is given back when it is over.
                    self.apply(Input::Tick);
                    if let Some(none) = self.watchers.sweep() {
                        self.apply(Input::Watch(none));
                    }
                    self.publish();
                }
            }
            // Before the events: one of them may ask whether the homes know.
            for standings in self.around.standings.clone() {
                for standing in standings.take() {
                    self.apply(Input::Standing(standing));
                }
            }
            self.homes.set_held(self.core.held_counts());
            for event in batch.drain(..) {
                self.handle(event);
            }
            for (topic, report) in self.reports.arrived(self.me) {
                self.apply(Input::Arrived(topic, report));
            }
            self.act().await;
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::View(view) => self.apply(Input::View(view)),
            Event::Greet { peer, view, reply } => {
                self.apply(Input::View(view));
                let known = self.core.knows(peer);
                let _ = reply.send(Greeting { view: Arc::clone(self.core.view()), known });
            }
            Event::Opened { me, peer, link } if me == self.me => {
                self.links.insert(peer, link);
                self.apply(Input::Opened(peer));
            }
            Event::Closed { peer, generation } => {
                if self.links.get(&peer).is_some_and(|link| link.generation == generation) {
                    self.links.remove(&peer);
                    self.apply(Input::Closed(peer));
                }
            }
            // Greeted by a former incarnation: it has to say hello to this one.
            Event::Heard { peer, cut, .. } if !self.core.knows(peer) => cut.cancel(),
            Event::Heard { peer, session, cut } => {
                self.sessions.insert(peer, (session, cut));
                self.apply(Input::Heard(peer, session));
            }
            Event::Unheard { peer, session, since } => {
                if self.sessions.get(&peer).is_some_and(|(known, _)| *known == session) {
                    self.sessions.remove(&peer);
                }
                let since = since.saturating_duration_since(self.started);
                self.apply(Input::Unheard(peer, session, since));
            }
            Event::Said { peer, session, frames } => {
                for frame in frames {
                    self.apply(Input::Said(peer, session, frame));
                }
            }
            Event::Refuse { peer, id, refused } => self.refuse(peer, id, refused),
            Event::Taken { peer, generation, bytes } => {
                if self.links.get(&peer).is_some_and(|link| link.generation == generation) {
                    self.apply(Input::Taken(peer, bytes));
                }
            }
            Event::Route { topic, op, reply } => {
                let ticket = reply.map(|reply| {
                    let ticket = self.ticket();
                    self.callers.insert(ticket, reply);
                    ticket
                });
                self.apply(Input::Route { ticket, topic, op });
            }
            Event::Settle { topics, reply } => {
                let ticket = self.ticket();
                self.settling.insert(ticket, reply);
                self.apply(Input::Settle { ticket, topics });
            }
            Event::Enter(entries) => {
                for Entry { client, topic, user } in entries {
                    self.enter(Waiter::Client(client), topic, user);
                }
            }
            Event::Claim { topic, user, reply } => {
                self.enter(Waiter::Claim(reply), topic, Some(user));
            }
            Event::Placed { me, placed } if me == self.me => {
                for (back, answer, touched) in placed {
                    self.apply(Input::Placed { back, answer, touched });
                }
            }
            // Of a former incarnation.
            Event::Opened { .. } | Event::Placed { .. } => {}
            Event::Watch(watcher) => {
                let patterns = self.watchers.add(watcher);
                self.apply(Input::Watch(patterns));
            }
            Event::Report(about, channels) => {
                self.reports.tell(about.clone(), channels);
                self.apply(Input::Report(about));
            }
            Event::Reborn(me) => self.be_reborn(me),
        }
    }

    fn enter(&mut self, waiter: Waiter, topic: Topic, user: Option<Arc<str>>) {
        let ticket = self.ticket();
        self.entering.insert(ticket, waiter);
        self.apply(Input::Enter { ticket, topic, user });
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn refuse(&mut self, peer: Incarnation, id: u64, refused: Refusal) {
        let done = broadgate_topics::Done {
            epoch: self.core.epoch(),
            answer: Some(v1::answer::Answer::Error(refused)),
            gateways: 0,
            missing: Vec::new(),
            position: None,
        };
        if id > 0 {
            self.turn.say(peer, Frame::Reply { id, reply: Reply::Done(done) });
        }
    }

    fn be_reborn(&mut self, me: Incarnation) {
        self.me = me;
        self.core = core(me, self.limits, &self.keeping, self.around.journal.as_deref());
        self.turn = Turn::default();
        self.links.clear();
        for (_, cut) in std::mem::take(&mut self.sessions).into_values() {
            cut.cancel();
        }
        // Whoever waited is told that nothing is known: dropping says so.
        self.callers.clear();
        self.settling.clear();
        self.entering.clear();
        self.watchers = Watchers::default();
        self.apply(Input::Report(self.reports.about()));
    }

    fn apply(&mut self, input: Input<Live>) {
        let effects = self.core.apply(input, self.started.elapsed());
        for effect in effects {
            self.effect(effect);
        }
    }

    /// Once a second, for metrics.
    fn publish(&mut self) {
        let halved = self.alarm.is_on(self.started.elapsed());
        gauge!("broadgate_gateway_cluster_halved").set(f64::from(u8::from(halved)));
        let load = self.core.load();
        gauge!("broadgate_gateway_homes").set(load.homes as f64);
        gauge!("broadgate_gateway_kept_bytes").set(load.kept_bytes as f64);
        gauge!("broadgate_gateway_homes_parked").set(load.parked as f64);
        gauge!("broadgate_gateway_homes_asked").set(load.asked as f64);
        gauge!("broadgate_gateway_homes_deliveries").set(load.deliveries as f64);
        gauge!("broadgate_gateway_peers_unsynced").set(load.unsynced as f64);
    }
}
