//! The handles of a member and of a watcher: each starts its thread.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{MemberState, View},
};
use broadgate_tasks::Tasks;
use broadgate_tls::Credentials;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{
    config::Config,
    event::{MemberEvent, Wish},
    link::RegisterLink,
    random,
    status::{RegisterStatus, StatusPublisher},
    thread, watching,
};

/// The threads, as errors name them.
const THREAD: &str = "register-link";
const WATCH_THREAD: &str = "register-watch";
/// Events waiting to be taken; each kind comes at most once, so this is never met.
const EVENTS_MAX: usize = 8;
/// Views that a member has not taken yet; one that is further behind misses some, and notices.
const VIEWS_MAX: usize = 256;
/// How long [`ClusterMember::leave`] waits for the register to agree.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(1);

/// This process in its cluster. Dropping it without [`ClusterMember::leave`] is a crash to the others:
/// the register sees silence and removes it when its lease ends.
#[derive(Debug)]
pub struct ClusterMember {
    incarnation: Incarnation,
    wish: watch::Sender<Wish>,
    views: watch::Receiver<Arc<View>>,
    every_view: broadcast::Receiver<Arc<View>>,
    status: watch::Receiver<RegisterStatus>,
    events: mpsc::Receiver<MemberEvent>,
    ended: oneshot::Receiver<()>,
    tasks: Tasks,
}

/// Joins a cluster, as a new incarnation in state *joining*. Returns at once; the views tell when
/// the register has taken it in.
#[must_use]
pub fn join(config: Config) -> ClusterMember {
    let (bits, no_entropy) = match random::random() {
        Ok(bits) => (bits, None),
        Err(error) => (0, Some(error.to_string())),
    };
    let incarnation = Incarnation::from_bits(bits);
    let known = Arc::new(config.known.clone().unwrap_or_default());
    let (wish, wishes) = watch::channel(Wish { state: MemberState::Joining, leave: false, learned: None });
    let (view_sender, views) = watch::channel(known);
    let (status_sender, status) = watch::channel(RegisterStatus::first(&config.registers));
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let (end, ended) = oneshot::channel();
    let (every, every_view) = broadcast::channel(VIEWS_MAX);
    let publisher = StatusPublisher { views: view_sender, status: status_sender, every: Some(every) };
    let link = RegisterLink::new(config, incarnation, wishes, publisher, event_sender.clone(), end);
    let mut tasks = Tasks::default();
    // An incarnation that is not random could be somebody else's.
    let started = no_entropy.map_or_else(
        || thread::start(&mut tasks, THREAD, link.run()).map_err(|error| error.to_string()),
        Err,
    );
    if let Err(error) = started {
        let sentence = format!("the membership thread could not start: {error}");
        let _ = event_sender.try_send(MemberEvent::Refused { sentence, fatal: true });
    }
    ClusterMember { incarnation, wish, views, every_view, status, events, ended, tasks }
}

impl ClusterMember {
    /// This run of this process.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The newest view; at first the one known from before, or an empty one of epoch 0.0.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Every view one by one: since this member joined at the first call, from now on at others.
    pub fn every_view(&mut self) -> broadcast::Receiver<Arc<View>> {
        let later = self.every_view.resubscribe();
        std::mem::replace(&mut self.every_view, later)
    }

    /// Which register is being followed.
    #[must_use]
    pub fn register(&self) -> RegisterStatus {
        self.status.borrow().clone()
    }

    /// The same as it changes.
    #[must_use]
    pub fn registers(&self) -> watch::Receiver<RegisterStatus> {
        self.status.clone()
    }

    /// Tells the cluster where this member stands; said again after every redial.
    pub fn set_state(&self, state: MemberState) {
        self.wish.send_if_modified(|wish| std::mem::replace(&mut wish.state, state) != state);
    }

    /// Takes a view that a peer passed on. A higher one is installed; one of a higher term also
    /// means that another register is active, and the member goes to look for it.
    pub fn learn(&self, view: Arc<View>) {
        self.wish.send_if_modified(|wish| {
            let known = wish.learned.as_deref().map(broadgate_proto::view::epoch).unwrap_or_default();
            let newer = broadgate_proto::view::epoch(&view) > known;
            if newer {
                wish.learned = Some(view);
            }
            newer
        });
    }

    /// The next thing to act on; waits for ever if there is none. Cancel safe.
    pub async fn event(&mut self) -> MemberEvent {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => event,
            failed = self.tasks.failed() => match self.events.try_recv() {
                // The thread has said why it ends.
                Ok(event) => event,
                Err(_) => MemberEvent::Failed { sentence: format!("{failed:#}") },
            },
        }
    }

    /// Leaves: the others see it go at once. Waits for the register to agree, at most a second.
    pub async fn leave(self) {
        self.wish.send_modify(|wish| wish.leave = true);
        // Ended either way: the lease does what the register could not be told.
        let _ = tokio::time::timeout(LEAVE_TIME_MAX, self.ended).await;
    }
}

/// The views of a cluster, for a program that is no member. Dropping it stops it.
#[derive(Debug)]
pub struct ViewWatch {
    views: watch::Receiver<Arc<View>>,
    status: watch::Receiver<RegisterStatus>,
    /// The thread ends when this is gone.
    _alive: watch::Sender<()>,
    _tasks: Tasks,
}

/// Follows the views of a cluster. Returns at once.
#[must_use]
pub fn watch(registers: Vec<String>, credentials: impl Into<Credentials>) -> ViewWatch {
    let (view_sender, views) = watch::channel(Arc::default());
    let (status_sender, status) = watch::channel(RegisterStatus::first(&registers));
    let (alive, stop) = watch::channel(());
    let publisher = StatusPublisher { views: view_sender, status: status_sender, every: None };
    let following = watching::run(registers, credentials.into(), publisher, stop);
    let mut tasks = Tasks::default();
    if let Err(error) = thread::start(&mut tasks, WATCH_THREAD, following) {
        tracing::error!(%error, "the thread that follows the cluster's views could not start");
    }
    ViewWatch { views, status, _alive: alive, _tasks: tasks }
}

impl ViewWatch {
    /// The newest view; at first an empty one of epoch 0.0.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Which register is being followed.
    #[must_use]
    pub fn register(&self) -> RegisterStatus {
        let status = self.status.borrow().clone();
        if self.status.has_changed().is_ok() {
            return status;
        }
        let trouble = format!("thread {WATCH_THREAD:?} ended unexpectedly: start this program again");
        RegisterStatus { heard: false, trouble, ..status }
    }
}
