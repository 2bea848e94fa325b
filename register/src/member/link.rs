//! The member's thread: dials, greets, beats, and tells the process what the register says.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{
        self, Beat, Goodbye, Hello, JoinReply, JoinRequest, MemberState, SetState, View,
        join_request::Request,
    },
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::member::{
    Advertise, Config, MemberEvent, RegisterStatus, Wish, address,
    dial::{self, Dialed},
    life::{Life, Step},
    random::random,
    redial::Redial,
    rivals::{self, Found, Looking, Looks, Rival},
};

/// Requests waiting for one stream: a beat or a state each, at the pace of beats.
const REQUESTS_MAX: usize = 16;
/// From dialing to the opening of the stream.
const OPEN_TIME_MAX: Duration = Duration::from_secs(2);
/// Where the thread says what it knows.
pub(super) struct Told {
    pub views: watch::Sender<Arc<View>>,
    pub status: watch::Sender<RegisterStatus>,
    /// Every view, for members that must not miss one.
    pub every: Option<broadcast::Sender<Arc<View>>>,
}

impl Told {
    pub fn view(&self, view: Arc<View>) {
        if let Some(every) = &self.every {
            // Nobody may be listening.
            let _ = every.send(view.clone());
        }
        self.views.send_replace(view);
    }

    pub fn heard(&self, register: &str) {
        self.say(register, true, String::new(), Vec::new());
    }

    /// A register that is not configured has taken this member in.
    pub fn heard_at_another(&self, register: &str) {
        let trouble =
            "it is not among cluster.register, and one that is has stepped down for it: give every \
                       process its address"
                .to_owned();
        self.say(register, true, trouble, Vec::new());
    }

    pub fn away(&self, register: &str, trouble: String) {
        // What another register knows is still not known here.
        let outside = self.status.borrow().outside.clone();
        self.say(register, false, trouble, outside);
    }

    /// Another register is active, and knows of these gateways.
    pub fn split(&self, register: &str, trouble: String, outside: Vec<String>) {
        self.say(register, true, trouble, outside);
    }

    fn say(&self, register: &str, heard: bool, trouble: String, outside: Vec<String>) {
        metrics::gauge!("broadgate_member_register_heard").set(if heard { 1.0 } else { 0.0 });
        metrics::gauge!("broadgate_member_register_outside").set(outside.len() as f64);
        let status = RegisterStatus { address: register.to_owned(), heard, trouble, outside };
        self.status.send_if_modified(|old| std::mem::replace(old, status.clone()) != status);
    }
}

/// Runs a future on a thread and runtime of its own, so that a busy process is never late here.
pub(super) fn on_own_thread(
    name: &str,
    work: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(work))?;
    Ok(())
}

/// Why one stream is over.
enum End {
    /// The process wants no more, or this incarnation is dead.
    Over,
    /// The stream of a register that had taken us in broke.
    Broken(String),
    /// Another register should be tried.
    Next(String),
    /// This one should be followed.
    Elsewhere(Rival),
    /// The register has stepped down, and names this one.
    Referred(String),
    /// A register said no.
    Refused { sentence: String, fatal: bool },
}

/// One incarnation and everything it needs to belong.
pub(super) struct Link {
    config: Config,
    incarnation: Incarnation,
    wishes: watch::Receiver<Wish>,
    told: Told,
    events: mpsc::Sender<MemberEvent>,
    life: Life,
    redial: Redial,
    started: Instant,
    /// Said once, however often it happens.
    refusal_told: bool,
    trouble_told: bool,
    address_told: bool,
    split_told: bool,
    /// A register of a lower term, which another name may lead to as well.
    avoid: Option<SocketAddr>,
    /// What was found at the address that was tried last.
    strange: Option<(SocketAddr, String)>,
    /// Dropped when all is over.
    _end: oneshot::Sender<()>,
}

impl Link {
    pub fn new(
        config: Config,
        incarnation: Incarnation,
        wishes: watch::Receiver<Wish>,
        told: Told,
        events: mpsc::Sender<MemberEvent>,
        end: oneshot::Sender<()>,
    ) -> Self {
        let known = told.views.borrow().clone();
        Self {
            life: Life::new(known),
            redial: Redial::new(config.registers.clone()),
            config,
            incarnation,
            wishes,
            told,
            events,
            started: Instant::now(),
            refusal_told: false,
            trouble_told: false,
            address_told: false,
            split_told: false,
            avoid: None,
            strange: None,
            _end: end,
        }
    }

    /// Belongs until the process leaves, ends, or is removed.
    pub async fn run(mut self) {
        if self.aim_at_the_active().await.is_none() {
            return;
        }
        loop {
            let wait = self.redial.wait(random().unwrap_or_default());
            let register = self.redial.target().to_owned();
            if self.unwanted_within(sleep(wait)).await.is_none() {
                return;
            }
            match self.round(&register).await {
                End::Over => {
                    self.told.away(&register, "this member is none any more".to_owned());
                    return;
                }
                End::Broken(why) => {
                    tracing::warn!(register, why, "lost the register; the last view stays");
                    self.told.away(&register, why);
                }
                End::Next(why) => {
                    self.redial.next();
                    self.tell_trouble(&register, &why);
                    self.told.away(&register, why);
                }
                End::Elsewhere(rival) => {
                    let why = format!("register {} is active under a higher term", rival.register);
                    tracing::warn!(
                        register,
                        why,
                        "two registers are active: going to the other; run only one"
                    );
                    self.redial.aim(&rival.register);
                    self.told.away(&register, why);
                }
                End::Referred(other) => {
                    let why = format!("it has stepped down for the register {other}");
                    if other != register {
                        tracing::error!(
                            register,
                            other,
                            "the register has stepped down for another one: going there; run only one, and give \
                             every process its address"
                        );
                    }
                    self.redial.refer(&other);
                    self.told.away(&register, why);
                }
                End::Refused { sentence, fatal } => {
                    self.redial.next();
                    self.tell_refusal(&register, &sentence, fatal);
                    self.told.away(&register, sentence);
                    if fatal {
                        return;
                    }
                }
            }
        }
    }

    /// Who knows no view yet could make a cluster of its own at a register that is not the active one.
    async fn aim_at_the_active(&mut self) -> Option<()> {
        let (registers, secret) = (self.config.registers.clone(), self.config.secret.clone());
        if registers.len() < 2 {
            return Some(());
        }
        let found = self.unwanted_within(rivals::look(&registers, &secret)).await?;
        if let Some(active) = found.into_iter().max_by_key(Rival::term) {
            self.redial.aim(&active.register);
        }
        Some(())
    }

    fn tell_trouble(&mut self, register: &str, why: &str) {
        if self.redial.all_failed() && !std::mem::replace(&mut self.trouble_told, true) {
            tracing::warn!(register, why, "no register takes this member in; trying on, the last view stays");
        } else {
            tracing::debug!(register, why, "trying the next register");
        }
    }

    fn tell_refusal(&mut self, register: &str, sentence: &str, fatal: bool) {
        if fatal || !std::mem::replace(&mut self.refusal_told, true) {
            let sentence = format!("register {register} refused this process: {sentence}");
            tracing::error!("{sentence}");
            let _ = self.events.try_send(MemberEvent::Refused { sentence, fatal });
        }
    }

    /// The output of a future, unless the process leaves or ends meanwhile. What peers pass on is
    /// taken in too, so that views go on while no register can be reached.
    async fn unwanted_within<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                output = &mut work => return Some(output),
                changed = self.wishes.changed() => {
                    if changed.is_err() || self.wishes.borrow().leave {
                        return None;
                    }
                    self.learn();
                }
            }
        }
    }

    /// True if a peer knows of another, newer register.
    fn learn(&mut self) -> bool {
        let Some(view) = self.wishes.borrow_and_update().learned.clone() else { return false };
        let (step, elsewhere) = self.life.learn(view);
        if let Step::Install(view) = step {
            self.told.view(view);
        }
        elsewhere
    }

    /// Tries all addresses of one register.
    async fn round(&mut self, register: &str) -> End {
        let addresses = match self.unwanted_within(dial::resolve(register)).await {
            None => return End::Over,
            Some(Err(error)) => return End::Next(format!("{error:#}")),
            Some(Ok(addresses)) => addresses,
        };
        let mut last = End::Next(format!("register {register:?} has no address"));
        let avoid = self.avoid.take().filter(|avoid| addresses.iter().any(|other| other != avoid));
        for address in addresses.into_iter().filter(|address| Some(*address) != avoid) {
            last = self.attempt(register, address).await;
            if !matches!(last, End::Next(_)) {
                return last;
            }
        }
        last
    }

    async fn attempt(&mut self, register: &str, address: SocketAddr) -> End {
        let secret = self.config.secret.clone();
        let dialed = match self.unwanted_within(dial::connect(address, &secret)).await {
            None => return End::Over,
            Some(Err(error)) => return self.unasked(address, format!("{error:#}")).await,
            Some(Ok(dialed)) => dialed,
        };
        let member = match self.describe(&dialed) {
            Ok(member) => member,
            Err(sentence) => return End::Refused { sentence, fatal: true },
        };
        let state = member.state();
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        let view =
            Some(View::clone(self.life.known())).filter(|view| broadgate_proto::view::epoch(view).term > 0);
        let hello = Request::Hello(Hello { member: Some(member), view });
        let _ = requests.try_send(JoinRequest { request: Some(hello) });
        let Dialed { mut client, peer, .. } = dialed;
        let opening = timeout(OPEN_TIME_MAX, client.join(ReceiverStream::new(outgoing)));
        let replies = match self.unwanted_within(opening).await {
            None => return End::Over,
            Some(Err(_)) => {
                let why = format!("{address} did not open a stream in {OPEN_TIME_MAX:?}");
                return self.unasked(address, why).await;
            }
            Some(Ok(Err(status))) => {
                return match refusal(&status) {
                    End::Next(why) => self.unasked(address, why).await,
                    refused => refused,
                };
            }
            Some(Ok(Ok(response))) => response.into_inner(),
        };
        self.life.greeted(self.now());
        let looking = Looking::start(self.redial.all().to_vec(), secret);
        let looks = Looks::new(peer);
        let end = self.follow(register, state, requests, replies, (looking, looks)).await;
        if let End::Elsewhere(_) = end {
            self.avoid = Some(peer);
        }
        end
    }

    /// A register that could not even be asked: is something else at its address? Looked at until it has been
    /// told, and not at every try.
    async fn unasked(&mut self, address: SocketAddr, why: String) -> End {
        let known = self.strange.take().filter(|(known, _)| *known == address && self.trouble_told);
        let why = match known {
            Some((_, why)) => why,
            None => match self.unwanted_within(dial::explained(address, why)).await {
                Some(why) => why,
                None => return End::Over,
            },
        };
        self.strange = Some((address, why.clone()));
        End::Next(why)
    }

    /// What a look at the other registers has shown: which one is to be followed instead.
    fn compare(&mut self, register: &str, looks: &mut Looks, seen: Vec<Rival>) -> Option<Rival> {
        let Found { higher, lower, active, outside } = looks.take(seen, self.life.known());
        match active {
            Some(address) => {
                let why = format!("register {address} is active as well: run only one");
                if !std::mem::replace(&mut self.split_told, true) {
                    tracing::error!(
                        register,
                        why,
                        ?outside,
                        "two registers are active: answers are incomplete"
                    );
                }
                self.told.split(register, why, outside);
            }
            None if std::mem::take(&mut self.split_told) => self.tell_heard(register),
            None => {}
        }
        for rival in lower {
            let higher = broadgate_proto::view::epoch(self.life.known());
            tokio::spawn(rivals::tell(rival, self.config.secret.clone(), higher, looks.followed()));
        }
        higher
    }

    fn tell_heard(&self, register: &str) {
        if self.redial.is_given(register) {
            self.told.heard(register);
        } else {
            self.told.heard_at_another(register);
        }
    }

    /// What the register is told of this member.
    fn describe(&mut self, dialed: &Dialed) -> Result<v1::Member, String> {
        let address = match &self.config.advertise {
            Advertise::None => String::new(),
            Advertise::Address(address) => address.clone(),
            Advertise::LocalPort(port) => {
                SocketAddr::new(dialed.local.ip().to_canonical(), *port).to_string()
            }
        };
        if let Some(sentence) = address::refusal(&address, dialed.local, dialed.peer) {
            return Err(sentence);
        }
        if !address.is_empty() && !std::mem::replace(&mut self.address_told, true) {
            tracing::info!(%address, "advertising this address to the other members");
        }
        let config = &self.config;
        Ok(v1::Member {
            incarnation: self.incarnation.to_string(),
            role: config.role.into(),
            name: config.name.clone(),
            address,
            state: self.wishes.borrow().state.into(),
            ring_version: broadgate_proto::ring::RING_VERSION,
            version: config.version.clone(),
            services: config.services.clone(),
            since_ms: 0,
            listeners: config.listeners.clone(),
        })
    }

    /// The life of one stream.
    async fn follow(
        &mut self,
        register: &str,
        mut said: MemberState,
        requests: mpsc::Sender<JoinRequest>,
        mut replies: Streaming<JoinReply>,
        (mut looking, mut looks): (Looking, Looks),
    ) -> End {
        let mut welcomed = false;
        loop {
            // Looked at in every turn: it may have changed while the stream was being opened.
            let wanted = self.wishes.borrow().state;
            if wanted != said {
                said = wanted;
                send(&requests, Request::SetState(SetState { state: said.into() }));
            }
            let wake = self.started + self.life.wake();
            let step = tokio::select! {
                changed = self.wishes.changed() => {
                    if changed.is_err() {
                        return End::Over;
                    }
                    if self.learn() {
                        return End::Next("a peer knows of a register of a higher term".to_owned());
                    }
                    if self.wishes.borrow().leave {
                        return goodbye(&requests, &mut replies).await;
                    }
                    continue;
                }
                Some(seen) = looking.seen.recv(), if welcomed => {
                    if let Some(higher) = self.compare(register, &mut looks, seen) {
                        return End::Elsewhere(higher);
                    }
                    continue;
                }
                reply = replies.message() => match reply {
                    // A reply of a later version says nothing to this one, but it was heard.
                    Ok(Some(JoinReply { reply: None })) => continue,
                    Ok(Some(JoinReply { reply: Some(reply) })) => self.life.reply(reply, self.now()),
                    Ok(None) if welcomed => return End::Broken("it ended the stream".to_owned()),
                    Ok(None) => return End::Next("it ended the stream".to_owned()),
                    Err(status) if welcomed => return End::Broken(status.to_string()),
                    Err(status) => return refusal(&status),
                },
                () = sleep_until(wake) => self.life.tick(self.now()),
            };
            match step {
                Step::Nothing => {}
                Step::Welcomed => {
                    welcomed = true;
                    self.redial.heard();
                    self.refusal_told = false;
                    self.trouble_told = false;
                    self.tell_heard(register);
                    tracing::info!(register, incarnation = %self.incarnation, "the register took this member in");
                }
                Step::Install(view) => self.told.view(view),
                Step::Beat(number) => send(&requests, Request::Beat(Beat { number })),
                Step::Drain => self.tell(MemberEvent::Drain),
                Step::Dead(reason) => {
                    tracing::warn!(register, reason, incarnation = %self.incarnation, "removed from the cluster");
                    self.tell(MemberEvent::Removed { reason });
                    return End::Over;
                }
                Step::Next(why) => return End::Next(why),
                Step::Elsewhere(other) if address::is_register(&other) => return End::Referred(other),
                Step::Elsewhere(_) => {}
            }
        }
    }

    fn tell(&self, event: MemberEvent) {
        if let Err(error) = self.events.try_send(event) {
            metrics::counter!("broadgate_member_events_dropped_total").increment(1);
            tracing::error!(%error, "an event of the membership was not taken by this process");
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Queues a request. A full queue means that the register does not read: its silence ends the
/// stream soon.
fn send(requests: &mpsc::Sender<JoinRequest>, request: Request) {
    if requests.try_send(JoinRequest { request: Some(request) }).is_err() {
        metrics::counter!("broadgate_member_requests_dropped_total").increment(1);
    }
}

/// Says goodbye and waits for the register to end the stream; the caller bounds the wait.
async fn goodbye(requests: &mpsc::Sender<JoinRequest>, replies: &mut Streaming<JoinReply>) -> End {
    send(requests, Request::Goodbye(Goodbye {}));
    while let Ok(Some(_)) = replies.message().await {}
    End::Over
}

/// What a status in place of a welcome means.
pub(super) fn is_refusal(status: &Status) -> Option<bool> {
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition => Some(true),
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::AlreadyExists
        | Code::Unimplemented => Some(false),
        _ => None,
    }
}

fn refusal(status: &Status) -> End {
    match is_refusal(status) {
        // Only a register has the call.
        Some(fatal) if status.code() == Code::Unimplemented => {
            let sentence = format!("it is no register, but speaks gRPC, as gateways do; {}", dial::HINT);
            End::Refused { sentence, fatal }
        }
        Some(fatal) => End::Refused { sentence: status.message().to_owned(), fatal },
        None => End::Next(status.message().to_owned()),
    }
}
