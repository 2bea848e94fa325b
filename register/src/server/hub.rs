//! The one task that owns the state machine and every stream's outgoing end.
//!
//! A stream that does not take what is sent to it loses its connection, never anybody else's time.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use broadgate_proto::{
    LEADER_HEADER,
    limits::MEMBERS_MAX,
    v1::{JoinReply, Role, View, ViewChange, join_reply::Reply},
    view::epoch,
};
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::{
    config::Config,
    core::Core,
    ledger::{LedgerReply, LedgerRequest},
    refused::{ClaimedMember, RefusedLately},
    replica::Replica,
    report,
    step::{ConnectionId, Effect, FromLedger, Happened, Input, Now, OperatorAnswer, RegisterRefusal},
    view_stream::{LastChange, OutgoingView, SentViews},
};

/// What may wait for one stream: a burst of views, beyond which it is not reading.
const OUTLET_MAX: usize = 64;
/// Requests waiting for the hub; members wait for room.
pub(super) const REQUESTS_MAX: usize = 1024;
/// Open Join and Watch streams.
const STREAMS_MAX: usize = 4 * MEMBERS_MAX;
/// Leases are looked at this often within one lease.
const TICKS_PER_LEASE: u32 = 10;

/// Gateways hear at most this often who was refused.
const REFUSED_INTERVAL: Duration = Duration::from_secs(1);

/// To an operator whose command was under way when the register lost its lead.
const LEAD_LOST: &str = "this register has just lost its lead, and does not know whether the command was carried \
                         out: look at `broadgate status`, and repeat it if it was not";

/// What one stream sends.
#[derive(Debug)]
pub(super) enum StreamItem {
    Reply(Reply),
    View(OutgoingView),
}

impl StreamItem {
    pub fn into_reply(self) -> JoinReply {
        JoinReply {
            reply: Some(match self {
                Self::Reply(reply) => reply,
                Self::View(OutgoingView::Whole(view)) => Reply::View(View::clone(&view)),
                Self::View(OutgoingView::Change(change)) => Reply::Change(ViewChange::clone(&change)),
            }),
        }
    }

    /// For a watcher; without the members if that knows views of this term already.
    pub fn into_view(self, known_term: u64) -> Option<View> {
        match self {
            Self::View(OutgoingView::Whole(view)) if known_term > 0 && epoch(&view).term == known_term => {
                Some(View { epoch: view.epoch, before: view.before, members: Vec::new() })
            }
            Self::View(OutgoingView::Whole(view)) => Some(View::clone(&view)),
            // Members alone get changes.
            Self::View(OutgoingView::Change(_)) | Self::Reply(_) => None,
        }
    }
}

/// What the gRPC side asks of the hub.
#[derive(Debug)]
pub(super) enum HubRequest {
    /// A new stream; answered with its number and its ends.
    Open { watch: bool, opened: oneshot::Sender<Result<StreamEnds, Status>> },
    /// About a Join stream.
    Input(Input),
    /// An operator's command.
    Command(Input, oneshot::Sender<Result<OperatorAnswer, RegisterRefusal>>),
    /// A stream has ended.
    Closed(ConnectionId),
}

/// One stream's ends.
#[derive(Debug)]
pub(super) struct StreamEnds {
    pub connection: ConnectionId,
    pub outgoing: mpsc::Receiver<Result<StreamItem, Status>>,
    /// Cancelled when the hub has dropped the stream.
    pub closed: CancellationToken,
}

struct Outlet {
    sender: mpsc::Sender<Result<StreamItem, Status>>,
    views: bool,
    /// Who it is, once it has said Hello.
    claimed: Option<ClaimedMember>,
    sent: SentViews,
    _closed: DropGuard,
}

struct Hub {
    replica: Replica,
    /// To the ledger, if the list is kept in one.
    orders: Option<mpsc::Sender<LedgerRequest>>,
    /// Operators whose commands were applied and not answered yet, in order.
    operators: VecDeque<oneshot::Sender<Result<OperatorAnswer, RegisterRefusal>>>,
    outlets: HashMap<ConnectionId, Outlet>,
    computed: LastChange,
    next: ConnectionId,
    started: Instant,
    /// Why a member was refused last.
    refused: String,
    /// Who was refused lately; the port notes those that it does not let in.
    lately: Arc<Mutex<RefusedLately>>,
    /// When gateways heard that last.
    told_refused: Duration,
}

/// The hub's side of a ledger.
#[derive(Debug)]
pub(super) struct ToLedger {
    pub orders: mpsc::Sender<LedgerRequest>,
    pub replies: mpsc::Receiver<LedgerReply>,
}

/// Runs until `shutdown`; every stream ends with it.
pub(super) async fn run(
    config: Config,
    ledger: Option<ToLedger>,
    (mut requests, lately): (mpsc::Receiver<HubRequest>, Arc<Mutex<RefusedLately>>),
    started: std::time::Instant,
    shutdown: impl Future,
) {
    let (orders, mut replies) = ledger.map(|ledger| (ledger.orders, ledger.replies)).unzip();
    let mut hub = Hub::new(&config, orders, (lately, started));
    let mut ticks = interval((config.lease / TICKS_PER_LEASE).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        let wake = hub.wakes_at();
        tokio::select! {
            // Replies of the ledger come first: others are answered by them. Beats that have arrived count before a
            // lease is looked at.
            biased;
            _ = &mut shutdown => return,
            reply = next_reply(&mut replies) => match reply {
                Some(reply) => hub.ledger(reply),
                None => return,
            },
            request = requests.recv() => match request {
                Some(request) => hub.request(request),
                None => return,
            },
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => hub.apply(Input::Tick),
            _ = ticks.tick() => {
                hub.apply(Input::Tick);
                hub.tell_refused();
            }
        }
    }
}

/// The ledger's next reply; pending for ever without a ledger.
async fn next_reply(replies: &mut Option<mpsc::Receiver<LedgerReply>>) -> Option<LedgerReply> {
    match replies {
        Some(replies) => replies.recv().await,
        None => std::future::pending().await,
    }
}

impl Outlet {
    /// A gateway that was taken in.
    fn is_gateway(&self) -> bool {
        self.views && self.claimed.as_ref().is_some_and(|claimed| claimed.role == Role::Gateway)
    }
}

/// What time it is for a register that was started then.
pub(super) fn now(started: std::time::Instant) -> Now {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now { up: started.elapsed(), unix_ms: u64::try_from(wall.as_millis()).unwrap_or_default() }
}

impl Hub {
    fn new(
        config: &Config,
        orders: Option<mpsc::Sender<LedgerRequest>>,
        (lately, started): (Arc<Mutex<RefusedLately>>, std::time::Instant),
    ) -> Self {
        let replica = if orders.is_some() {
            report::leads(false);
            Replica::over_ledger(config.beat, config.lease)
        } else {
            report::leads(true);
            // Without entropy another register's views might get the names of ours, as unlikely as that is.
            let salt = getrandom::u32().unwrap_or_default() as u16;
            Replica::in_memory(Core::new(config.beat, config.lease, MEMBERS_MAX).with_salt(salt))
        };
        Self {
            replica,
            orders,
            operators: VecDeque::new(),
            outlets: HashMap::new(),
            computed: LastChange::default(),
            next: 1,
            started: started.into(),
            refused: String::new(),
            lately,
            told_refused: Duration::ZERO,
        }
    }

    fn now(&self) -> Now {
        now(self.started.into_std())
    }

    fn lately(&self) -> MutexGuard<'_, RefusedLately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the gateways who was refused, if that has changed.
    fn tell_refused(&mut self) {
        let now = self.now();
        if now.up < self.told_refused + REFUSED_INTERVAL {
            return;
        }
        let Some(refused) = self.lately().take_changed(now) else { return };
        self.told_refused = now.up;
        let gateways = self.outlets.iter().filter(|(_, outlet)| outlet.is_gateway());
        let gateways: Vec<_> = gateways.map(|(connection, _)| *connection).collect();
        for connection in gateways {
            self.send(connection, StreamItem::Reply(Reply::Refused(refused.clone())));
        }
    }

    /// When a view has to be made, if one waits.
    fn wakes_at(&self) -> Option<Instant> {
        self.replica.wakes_at().map(|at| self.started + at)
    }

    fn request(&mut self, request: HubRequest) {
        match request {
            HubRequest::Open { watch, opened } => self.open(watch, opened),
            // Messages from before a connection was dropped must not revive it.
            HubRequest::Input(input)
                if input.sender().is_some_and(|from| !self.outlets.contains_key(&from)) => {}
            HubRequest::Input(input) => {
                if let Input::Hello { connection, hello, origin } = &input
                    && let Some(outlet) = self.outlets.get_mut(connection)
                {
                    outlet.sent.changes = hello.changes;
                    let from = origin.address.map(|address| address.to_string()).unwrap_or_default();
                    outlet.claimed = hello.member.as_ref().map(|member| ClaimedMember::of(member, from));
                }
                self.apply(input);
            }
            HubRequest::Command(input, answer) => {
                self.operators.push_back(answer);
                self.apply(input);
            }
            HubRequest::Closed(connection) => {
                self.outlets.remove(&connection);
                self.apply(Input::Lost { connection });
            }
        }
    }

    fn ledger(&mut self, reply: LedgerReply) {
        let started = self.started;
        let up = |at: Instant| at.saturating_duration_since(started);
        let input = match reply {
            LedgerReply::Leader(leader) => FromLedger::Leader(leader),
            LedgerReply::Elected(mut elected, until) => {
                elected.until = up(until);
                FromLedger::Elected(elected)
            }
            LedgerReply::Renewed(guard, until) => FromLedger::Renewed { guard, until: up(until) },
            LedgerReply::Written(guard, number, outcome) => FromLedger::Written { guard, number, outcome },
            LedgerReply::Lost(guard, why) => FromLedger::Lost { guard, why },
        };
        let effects = self.replica.ledger(input, self.now());
        self.act(effects);
    }

    /// What a register answers that does not lead.
    fn elsewhere(&self) -> Status {
        RegisterRefusal::StandsBy { leader: self.replica.leader().map(str::to_owned) }.into()
    }

    fn open(&mut self, watch: bool, opened: oneshot::Sender<Result<StreamEnds, Status>>) {
        if self.outlets.len() >= STREAMS_MAX {
            counter!("broadgate_register_refused_total", "reason" => "streams").increment(1);
            let sentence = format!("the register has {STREAMS_MAX} open streams, as many as it may have");
            let _ = opened.send(Err(Status::resource_exhausted(sentence)));
            return;
        }
        let Some(view) = self.replica.view().cloned() else {
            let _ = opened.send(Err(self.elsewhere()));
            return;
        };
        let connection = self.next;
        self.next += 1;
        let (sender, outgoing) = mpsc::channel(OUTLET_MAX);
        let closed = CancellationToken::new();
        let ends = StreamEnds { connection, outgoing, closed: closed.clone() };
        if opened.send(Ok(ends)).is_err() {
            return;
        }
        let sent = SentViews::default();
        let outlet = Outlet { sender, views: watch, claimed: None, sent, _closed: closed.drop_guard() };
        self.outlets.insert(connection, outlet);
        if watch {
            self.show(connection, &view);
        }
    }

    /// Applies one input and acts on its effects.
    fn apply(&mut self, input: Input) {
        let effects = self.replica.apply(input, self.now());
        self.act(effects);
    }

    fn act(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Commit(write) => self.order(LedgerRequest::Write(write)),
                Effect::Follow(guard) => {
                    self.order(LedgerRequest::Resign(guard));
                    // What they asked for may have been committed, or not.
                    for operator in self.operators.drain(..) {
                        let _ = operator.send(Err(RegisterRefusal::Unavailable(LEAD_LOST.to_owned())));
                    }
                    for (_, outlet) in std::mem::take(&mut self.outlets) {
                        let _ = outlet.sender.try_send(Err(self.elsewhere()));
                    }
                }
                Effect::Reply(connection, reply) => {
                    let is_welcome = matches!(reply, Reply::Welcome(_));
                    if is_welcome && let Some(outlet) = self.outlets.get_mut(&connection) {
                        outlet.views = true;
                    }
                    self.send(connection, StreamItem::Reply(reply));
                    if is_welcome && self.outlets.get(&connection).is_some_and(Outlet::is_gateway) {
                        let refused = self.lately().messages();
                        if !refused.members.is_empty() {
                            self.send(connection, StreamItem::Reply(Reply::Refused(refused)));
                        }
                    }
                }
                Effect::Show(connection, view) => self.show(connection, &view),
                Effect::Close(connection) => drop(self.outlets.remove(&connection)),
                Effect::Refuse(connection, refusal) => {
                    counter!("broadgate_register_refused_total", "reason" => refusal.label()).increment(1);
                    self.warn_of(&refusal);
                    self.note_refused(connection, &refusal);
                    if let Some(outlet) = self.outlets.remove(&connection) {
                        let _ = outlet.sender.try_send(Err(refusal.into()));
                    }
                }
                Effect::View(view) => self.broadcast(&view),
                Effect::Answer(result) => {
                    if let Some(operator) = self.operators.pop_front() {
                        let _ = operator.send(result);
                    }
                }
                Effect::AnswerNewest(result) => {
                    if let Some(operator) = self.operators.pop_back() {
                        let _ = operator.send(result);
                    }
                }
                Effect::Happened(happened) => {
                    if let Happened::Joined(member) | Happened::Redialled(member) = &happened {
                        self.lately().took_in(member);
                    }
                    report::happened(&happened);
                }
            }
        }
    }

    fn order(&self, order: LedgerRequest) {
        let Some(orders) = &self.orders else { return };
        if orders.try_send(order).is_err() {
            counter!("broadgate_register_ledger_errors_total", "reason" => "busy").increment(1);
            // A write that never ends makes this register give its lead up.
            tracing::error!("the task of the ledger takes no orders");
        }
    }

    /// Remembers a refusal that will come again. Those by a register that has stepped down or does not lead pass.
    fn note_refused(&self, connection: ConnectionId, refusal: &RegisterRefusal) {
        let claimed = self.outlets.get(&connection).and_then(|outlet| outlet.claimed.clone());
        let (
            Some(claimed),
            RegisterRefusal::Invalid(_) | RegisterRefusal::Full(_) | RegisterRefusal::Taken(_),
        ) = (claimed, refusal)
        else {
            return;
        };
        self.lately().note(claimed, refusal.label(), &refusal.to_string(), self.now());
    }

    /// A member that is refused comes back every other second: one sentence is said once.
    fn warn_of(&mut self, refusal: &RegisterRefusal) {
        let sentence = refusal.to_string();
        if self.refused != sentence {
            tracing::warn!(%refusal, "a member was refused");
            self.refused = sentence;
        }
    }

    fn broadcast(&mut self, view: &Arc<View>) {
        report::view(view);
        let receivers: Vec<_> = self
            .outlets
            .iter()
            .filter(|(_, outlet)| outlet.views)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in receivers {
            self.show(connection, view);
        }
    }

    fn show(&mut self, connection: ConnectionId, view: &Arc<View>) {
        let Some(outlet) = self.outlets.get_mut(&connection) else { return };
        let view = outlet.sent.next(view, &mut self.computed);
        report::sent(&view);
        self.send(connection, StreamItem::View(view));
    }

    fn send(&mut self, connection: ConnectionId, outgoing: StreamItem) {
        let Some(outlet) = self.outlets.get(&connection) else { return };
        if let Err(error) = outlet.sender.try_send(Ok(outgoing)) {
            let reason = match error {
                mpsc::error::TrySendError::Full(_) => "slow",
                mpsc::error::TrySendError::Closed(_) => "closed",
            };
            counter!("broadgate_register_disconnects_total", "reason" => reason).increment(1);
            // The reader notices and reports the stream as closed: its lease runs on.
            self.outlets.remove(&connection);
        }
    }
}

impl From<RegisterRefusal> for Status {
    fn from(refusal: RegisterRefusal) -> Self {
        match refusal {
            RegisterRefusal::Invalid(sentence) => Self::invalid_argument(sentence),
            RegisterRefusal::NotFound(sentence) => Self::not_found(sentence),
            RegisterRefusal::Full(sentence) => Self::resource_exhausted(sentence),
            RegisterRefusal::Taken(sentence) => Self::already_exists(sentence),
            RegisterRefusal::Unavailable(sentence) => Self::unavailable(sentence),
            RegisterRefusal::StandsBy { ref leader } => {
                let mut status = Self::unavailable(refusal.to_string());
                if let Some(leader) = leader.as_deref().and_then(|leader| leader.parse().ok()) {
                    status.metadata_mut().insert(LEADER_HEADER, leader);
                }
                status
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::{
        id::Incarnation,
        v1::{Hello, Member, MemberState, Role},
    };

    use super::*;
    use crate::server::{check::PeerOrigin, step::Elected};

    async fn running(
        ledger: Option<ToLedger>,
        requests: mpsc::Receiver<HubRequest>,
        shutdown: impl Future<Output = ()>,
    ) {
        let lately = Arc::new(Mutex::new(RefusedLately::new()));
        run(Config::default(), ledger, (requests, lately), std::time::Instant::now(), shutdown).await;
    }

    async fn open(hub: &mpsc::Sender<HubRequest>) -> StreamEnds {
        let (opened, answer) = oneshot::channel();
        hub.send(HubRequest::Open { watch: false, opened }).await.unwrap();
        answer.await.unwrap().unwrap()
    }

    async fn join(hub: &mpsc::Sender<HubRequest>, bits: u64) -> StreamEnds {
        let opened = open(hub).await;
        let member = Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            role: Role::Worker.into(),
            name: "worker".into(),
            ..Member::default()
        };
        let hello = Box::new(Hello { member: Some(member), ..Hello::default() });
        let hello = Input::Hello { connection: opened.connection, origin: PeerOrigin::default(), hello };
        hub.send(HubRequest::Input(hello)).await.unwrap();
        opened
    }

    #[tokio::test]
    async fn operator_whose_command_was_under_way_learns_that_the_lead_is_lost() {
        let (hub, requests) = mpsc::channel(REQUESTS_MAX);
        let (orders, _orders) = mpsc::channel(64);
        let (ledger_replies, replies) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let ledger = Some(ToLedger { orders, replies });
        let task = tokio::spawn(running(ledger, requests, stop.clone().cancelled_owned()));
        let elected =
            Elected { guard: 1, until: Duration::ZERO, salt: 7, views: Vec::new(), removed: Vec::new() };
        let until = Instant::now() + Duration::from_secs(60);
        ledger_replies.send(LedgerReply::Elected(Box::new(elected), until)).await.unwrap();
        let _member = join(&hub, 1).await;
        let (answer, answered) = oneshot::channel();
        let incarnation = Incarnation::from_bits(1).to_string();
        hub.send(HubRequest::Command(Input::Leave { incarnation }, answer)).await.unwrap();
        // It has been read when this is answered; nothing is committed.
        open(&hub).await;
        ledger_replies.send(LedgerReply::Lost(1, "another leads".to_owned())).await.unwrap();
        let Ok(Err(RegisterRefusal::Unavailable(sentence))) = answered.await else { panic!("answered") };
        assert!(sentence.contains("lost its lead"), "{sentence}");
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn member_that_does_not_read_is_disconnected() {
        let (hub, requests) = mpsc::channel(REQUESTS_MAX);
        let stop = CancellationToken::new();
        let task = tokio::spawn(running(None, requests, stop.clone().cancelled_owned()));
        let slow = join(&hub, 1).await;
        let mut quick = join(&hub, 2).await;
        let connection = quick.connection;
        let mut states = [MemberState::Ready, MemberState::Draining].into_iter().cycle();
        while !slow.closed.is_cancelled() {
            let state = states.next().unwrap();
            hub.send(HubRequest::Input(Input::SetState { connection, state })).await.unwrap();
            quick.outgoing.recv().await.unwrap().unwrap();
        }
        assert!(!quick.closed.is_cancelled());
        // What it had said before must not bring it back.
        hub.send(HubRequest::Input(Input::Beat { connection: slow.connection, number: 1 })).await.unwrap();
        stop.cancel();
        task.await.unwrap();
        assert!(quick.closed.is_cancelled());
    }
}
