//! The one task that owns the state machine and every stream's outgoing end.
//!
//! A stream that does not take what is sent to it loses its connection, never anybody else's time.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use broadgate_proto::{
    limits::MEMBERS_MAX,
    v1::{JoinReply, View, join_reply::Reply},
};
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::{
    config::Config,
    core::Core,
    report,
    step::{Answer, ConnectionId, Effect, Input, Now, Refusal},
};

/// What may wait for one stream: a burst of views, beyond which it is not reading.
const OUTLET_MAX: usize = 64;
/// Requests waiting for the hub; members wait for room.
pub(super) const REQUESTS_MAX: usize = 1024;
/// Open Join and Watch streams.
const STREAMS_MAX: usize = 4 * MEMBERS_MAX;
/// Leases are looked at this often within one lease.
const TICKS_PER_LEASE: u32 = 10;

/// What one stream sends. A view is shared until it is encoded.
#[derive(Debug)]
pub(super) enum Outgoing {
    Reply(Reply),
    View(Arc<View>),
}

impl Outgoing {
    pub fn into_reply(self) -> JoinReply {
        JoinReply {
            reply: Some(match self {
                Self::Reply(reply) => reply,
                Self::View(view) => Reply::View(View::clone(&view)),
            }),
        }
    }

    pub fn into_view(self) -> Option<View> {
        match self {
            Self::View(view) => Some(View::clone(&view)),
            Self::Reply(_) => None,
        }
    }
}

/// What the gRPC side asks of the hub.
#[derive(Debug)]
pub(super) enum Request {
    /// A new stream; answered with its number and its ends.
    Open { watch: bool, opened: oneshot::Sender<Result<Opened, Status>> },
    /// About a Join stream.
    Input(Input),
    /// An operator's command.
    Command(Input, oneshot::Sender<Result<Answer, Refusal>>),
    /// A stream has ended.
    Closed(ConnectionId),
}

/// One stream's ends.
#[derive(Debug)]
pub(super) struct Opened {
    pub connection: ConnectionId,
    pub outgoing: mpsc::Receiver<Result<Outgoing, Status>>,
    /// Cancelled when the hub has dropped the stream.
    pub closed: CancellationToken,
}

struct Outlet {
    sender: mpsc::Sender<Result<Outgoing, Status>>,
    views: bool,
    _closed: DropGuard,
}

struct Hub {
    core: Core,
    outlets: HashMap<ConnectionId, Outlet>,
    next: ConnectionId,
    started: Instant,
    /// Why a member was refused last.
    refused: String,
}

/// Runs until `shutdown`; every stream ends with it.
pub(super) async fn run(config: Config, mut requests: mpsc::Receiver<Request>, shutdown: impl Future) {
    // Without entropy another register's views might get the names of ours, as unlikely as that is.
    let salt = getrandom::u32().unwrap_or_default() as u16;
    let core = Core::new(config.beat, config.lease, MEMBERS_MAX).with_salt(salt);
    let outlets = HashMap::new();
    let mut hub = Hub { core, outlets, next: 1, started: Instant::now(), refused: String::new() };
    let mut ticks = interval((config.lease / TICKS_PER_LEASE).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            // Beats that have arrived count before a lease is looked at.
            biased;
            _ = &mut shutdown => return,
            request = requests.recv() => match request {
                Some(request) => hub.request(request),
                None => return,
            },
            _ = ticks.tick() => drop(hub.apply(Input::Tick)),
        }
    }
}

impl Hub {
    fn now(&self) -> Now {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now { up: self.started.elapsed(), unix_ms: u64::try_from(wall.as_millis()).unwrap_or_default() }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Open { watch, opened } => self.open(watch, opened),
            // Messages from before a connection was dropped must not revive it.
            Request::Input(input)
                if input.said_by().is_some_and(|from| !self.outlets.contains_key(&from)) => {}
            Request::Input(input) => drop(self.apply(input)),
            Request::Command(input, answer) => {
                if let Some(result) = self.apply(input) {
                    let _ = answer.send(result);
                }
            }
            Request::Closed(connection) => {
                self.outlets.remove(&connection);
                self.apply(Input::Lost { connection });
            }
        }
    }

    fn open(&mut self, watch: bool, opened: oneshot::Sender<Result<Opened, Status>>) {
        if self.outlets.len() >= STREAMS_MAX {
            counter!("broadgate_register_refused_total", "reason" => "streams").increment(1);
            let sentence = format!("the register has {STREAMS_MAX} open streams, as many as it may have");
            let _ = opened.send(Err(Status::resource_exhausted(sentence)));
            return;
        }
        let connection = self.next;
        self.next += 1;
        let (sender, outgoing) = mpsc::channel(OUTLET_MAX);
        let closed = CancellationToken::new();
        let ends = Opened { connection, outgoing, closed: closed.clone() };
        if opened.send(Ok(ends)).is_err() {
            return;
        }
        let outlet = Outlet { sender, views: watch, _closed: closed.drop_guard() };
        self.outlets.insert(connection, outlet);
        if watch {
            let view = self.core.view().clone();
            self.send(connection, Outgoing::View(view));
        }
    }

    /// Applies one input and acts on its effects; the answer is there if it was a command.
    fn apply(&mut self, input: Input) -> Option<Result<Answer, Refusal>> {
        let now = self.now();
        let mut answer = None;
        for effect in self.core.apply(input, now) {
            match effect {
                Effect::Reply(connection, reply) => {
                    if matches!(reply, Reply::Welcome(_))
                        && let Some(outlet) = self.outlets.get_mut(&connection)
                    {
                        outlet.views = true;
                    }
                    self.send(connection, Outgoing::Reply(reply));
                }
                Effect::Show(connection, view) => self.send(connection, Outgoing::View(view)),
                Effect::Close(connection) => drop(self.outlets.remove(&connection)),
                Effect::Refuse(connection, refusal) => {
                    counter!("broadgate_register_refused_total", "reason" => refusal.label()).increment(1);
                    self.warn_of(&refusal);
                    if let Some(outlet) = self.outlets.remove(&connection) {
                        let _ = outlet.sender.try_send(Err(refusal.into()));
                    }
                }
                Effect::View(view) => self.broadcast(&view),
                Effect::Answer(result) => answer = Some(result),
                Effect::Happened(happened) => report::happened(&happened),
            }
        }
        answer
    }

    /// A member that is refused comes back every other second: one sentence is said once.
    fn warn_of(&mut self, refusal: &Refusal) {
        let sentence = refusal.to_string();
        if self.refused != sentence {
            tracing::warn!(%refusal, "a member was refused");
            self.refused = sentence;
        }
    }

    fn broadcast(&mut self, view: &Arc<View>) {
        report::view(view);
        let hearing: Vec<_> = self
            .outlets
            .iter()
            .filter(|(_, outlet)| outlet.views)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in hearing {
            self.send(connection, Outgoing::View(view.clone()));
        }
    }

    fn send(&mut self, connection: ConnectionId, outgoing: Outgoing) {
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

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(sentence) => Self::invalid_argument(sentence),
            Refusal::NotFound(sentence) => Self::not_found(sentence),
            Refusal::Full(sentence) => Self::resource_exhausted(sentence),
            Refusal::Taken(sentence) => Self::already_exists(sentence),
            Refusal::Unavailable(sentence) => Self::unavailable(sentence),
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
    use crate::server::check::Origin;

    async fn open(hub: &mpsc::Sender<Request>) -> Opened {
        let (opened, answer) = oneshot::channel();
        hub.send(Request::Open { watch: false, opened }).await.unwrap();
        answer.await.unwrap().unwrap()
    }

    async fn join(hub: &mpsc::Sender<Request>, bits: u64) -> Opened {
        let opened = open(hub).await;
        let member = Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            role: Role::Worker.into(),
            name: "worker".into(),
            ..Member::default()
        };
        let hello = Box::new(Hello { member: Some(member), view: None });
        let hello = Input::Hello { connection: opened.connection, origin: Origin::default(), hello };
        hub.send(Request::Input(hello)).await.unwrap();
        opened
    }

    #[tokio::test]
    async fn member_that_does_not_read_is_disconnected() {
        let (hub, requests) = mpsc::channel(REQUESTS_MAX);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(Config::default(), requests, stop.clone().cancelled_owned()));
        let slow = join(&hub, 1).await;
        let mut quick = join(&hub, 2).await;
        let connection = quick.connection;
        let mut states = [MemberState::Ready, MemberState::Draining].into_iter().cycle();
        while !slow.closed.is_cancelled() {
            let state = states.next().unwrap();
            hub.send(Request::Input(Input::SetState { connection, state })).await.unwrap();
            quick.outgoing.recv().await.unwrap().unwrap();
        }
        assert!(!quick.closed.is_cancelled());
        // What it had said before must not bring it back.
        hub.send(Request::Input(Input::Beat { connection: slow.connection, number: 1 })).await.unwrap();
        stop.cancel();
        task.await.unwrap();
        assert!(quick.closed.is_cancelled());
    }
}
