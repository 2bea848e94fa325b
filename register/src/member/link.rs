//! The member's thread: dials, greets, beats, and tells the process what the register says.

use std::{net::SocketAddr, time::Duration};

use broadgate_proto::id::Incarnation;
use broadgate_tls::Credentials;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use crate::member::{
    config::Config,
    dial,
    event::{MemberEvent, Wish},
    life::{FollowStep, Following},
    random::random,
    redial::Redial,
    rivals::{self, Rival},
    status::StatusPublisher,
};

mod stream;

/// Why one stream is over.
enum RegisterLinkEnd {
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
    /// The register stands by; the one at this address leads.
    Standby(String),
    /// A register said no.
    Refused { sentence: String, fatal: bool },
}

/// One incarnation and everything it needs to belong.
pub(super) struct RegisterLink {
    config: Config,
    incarnation: Incarnation,
    wishes: watch::Receiver<Wish>,
    publisher: StatusPublisher,
    events: mpsc::Sender<MemberEvent>,
    life: Following,
    redial: Redial,
    started: Instant,
    /// Each is logged once, however often it happens.
    refusal_logged: bool,
    trouble_logged: bool,
    address_logged: bool,
    split_logged: bool,
    /// A register of a lower term, which another name may lead to as well.
    avoid: Option<SocketAddr>,
    /// What was found at the address that was tried last.
    strange: Option<(SocketAddr, String)>,
    /// The leader, as one that stands by has named it.
    led: Option<String>,
    /// A register has taken this incarnation in, has not removed it, and has not heard its goodbye.
    belongs: bool,
    /// It leaves, and joins only to say so.
    says_goodbye: bool,
    /// Dropped when all is over.
    _end: oneshot::Sender<()>,
}

impl RegisterLink {
    pub fn new(
        mut config: Config,
        incarnation: Incarnation,
        wishes: watch::Receiver<Wish>,
        publisher: StatusPublisher,
        events: mpsc::Sender<MemberEvent>,
        end: oneshot::Sender<()>,
    ) -> Self {
        let known = publisher.views.borrow().clone();
        let Credentials { secret, tls } = config.credentials;
        // Whom a register does not let in cannot say who it is in a Hello.
        config.credentials = Credentials { secret: secret.of_member(config.role, &config.name), tls };
        Self {
            life: Following::new(known),
            redial: Redial::new(config.registers.clone()),
            config,
            incarnation,
            wishes,
            publisher,
            events,
            started: Instant::now(),
            refusal_logged: false,
            trouble_logged: false,
            address_logged: false,
            split_logged: false,
            avoid: None,
            strange: None,
            led: None,
            belongs: false,
            says_goodbye: false,
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
                return self.leave_late(&register).await;
            }
            match self.round(&register).await {
                RegisterLinkEnd::Over => {
                    self.publisher.away(&register, "this member has left the cluster".to_owned());
                    return self.leave_late(&register).await;
                }
                RegisterLinkEnd::Broken(why) => {
                    tracing::warn!(register, why, "lost the register; the last view stays");
                    self.publisher.away(&register, why);
                }
                RegisterLinkEnd::Next(why) => {
                    self.redial.next();
                    self.log_trouble(&register, &why);
                    self.publisher.away(&register, why);
                }
                RegisterLinkEnd::Elsewhere(rival) => {
                    let why = format!("register {} is active under a higher term", rival.register);
                    tracing::warn!(
                        register,
                        why,
                        "two registers are active: switching to the other; run only one"
                    );
                    self.redial.aim(&rival.register);
                    self.publisher.away(&register, why);
                }
                RegisterLinkEnd::Referred(other) => {
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
                    self.publisher.away(&register, why);
                }
                RegisterLinkEnd::Standby(leader) => {
                    let why = format!("it stands by, and the register at {leader} leads");
                    tracing::debug!(register, why, "going to the leader");
                    self.redial.refer(&leader);
                    self.led = Some(leader);
                    self.publisher.away(&register, why);
                }
                RegisterLinkEnd::Refused { sentence, fatal } => {
                    self.redial.next();
                    self.report_refusal(&register, &sentence, fatal);
                    self.publisher.refused(&register, sentence);
                    if fatal {
                        return;
                    }
                }
            }
        }
    }

    /// Says goodbye at the register that was tried last, if the process leaves while none knows that: otherwise its lease
    /// would have to end, as if it had died. The process does not wait long for it.
    async fn leave_late(&mut self, register: &str) {
        if self.belongs && self.wishes.borrow().leave && !std::mem::replace(&mut self.says_goodbye, true) {
            let _ = self.round(register).await;
        }
    }

    /// Who knows no view yet could make a cluster of its own at a register that is not the active one.
    async fn aim_at_the_active(&mut self) -> Option<()> {
        let (registers, credentials) = (self.config.registers.clone(), self.config.credentials.clone());
        if registers.len() < 2 {
            return Some(());
        }
        let found = self.unwanted_within(rivals::look(&registers, &credentials, 0)).await?;
        if let Some(active) = found.into_iter().max_by_key(Rival::term) {
            self.redial.aim(&active.register);
        }
        Some(())
    }

    fn log_trouble(&mut self, register: &str, why: &str) {
        if self.redial.all_failed() && !std::mem::replace(&mut self.trouble_logged, true) {
            tracing::warn!(register, why, "no register takes this member in; trying on, the last view stays");
        } else {
            tracing::debug!(register, why, "trying the next register");
        }
    }

    fn report_refusal(&mut self, register: &str, sentence: &str, fatal: bool) {
        if fatal || !std::mem::replace(&mut self.refusal_logged, true) {
            let sentence = format!("register {register} refused this process: {sentence}");
            tracing::error!("{sentence}");
            let _ = self.events.try_send(MemberEvent::Refused { sentence, fatal });
        }
    }

    /// The output of a future, unless the process leaves or ends meanwhile. What peers pass on is
    /// taken in too, so that views go on while no register can be reached.
    async fn unwanted_within<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        self.within(work, !self.says_goodbye).await
    }

    /// The same, also if the process leaves meanwhile.
    async fn ended_within<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        self.within(work, false).await
    }

    async fn within<T>(&mut self, work: impl Future<Output = T>, until_it_leaves: bool) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                output = &mut work => return Some(output),
                changed = self.wishes.changed() => {
                    if changed.is_err() || until_it_leaves && self.wishes.borrow().leave {
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
        if let FollowStep::Install(view) = step {
            self.publisher.view(view);
        }
        elsewhere
    }

    /// Tries all addresses of one register.
    async fn round(&mut self, register: &str) -> RegisterLinkEnd {
        let addresses = match self.unwanted_within(dial::resolve(register)).await {
            None => return RegisterLinkEnd::Over,
            Some(Err(error)) => return RegisterLinkEnd::Next(format!("{error:#}")),
            Some(Ok(addresses)) => addresses,
        };
        let mut last = RegisterLinkEnd::Next(format!("register {register:?} has no address"));
        let avoid = self.avoid.take().filter(|avoid| addresses.iter().any(|other| other != avoid));
        for address in addresses.into_iter().filter(|address| Some(*address) != avoid) {
            last = self.attempt(register, address).await;
            if !matches!(last, RegisterLinkEnd::Next(_)) {
                return last;
            }
        }
        last
    }

    fn emit(&self, event: MemberEvent) {
        if let Err(error) = self.events.try_send(event) {
            metrics::counter!("broadgate_member_events_dropped_total").increment(1);
            tracing::error!(%error, "an event of the membership was not taken by this process");
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}
