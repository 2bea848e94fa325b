//! How a process belongs to a cluster.
//!
//! [`join`] starts a thread of its own that beats, follows the register's views and redials; the
//! rest of the process may be as busy as it likes without a beat being late. While no register can
//! be reached, everything goes on with the last view. [`watch()`] is the same for programs that are
//! no members.
//!
//! | file | what |
//! |---|---|
//! | `life.rs` | pure: what a register's replies and its silence mean |
//! | `redial.rs` | pure: which register next, and after how long |
//! | `link.rs` | the thread: acts on what the two decide |
//! | `rivals.rs` | whether another register is active by mistake |
//! | `watching.rs` | the same for programs that are no members |
//! | `dial.rs` | from `host:port` to a gRPC channel |
//! | `leader.rs` | what a process reads out of a view |

use std::{collections::HashMap, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    secret::Secret,
    v1::{MemberState, Role, View},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) mod address;
mod dial;
pub mod leader;
mod life;
mod link;
mod random;
mod redial;
mod rivals;
mod watching;

/// What a member decides, for simulations of whole clusters.
#[doc(hidden)]
pub mod simulation {
    pub use super::{
        life::{Life, Step},
        redial::Redial,
        rivals::{Found, Looks, Rival},
    };
}

/// Events waiting to be taken; each kind is told at most once, so it is never met.
const EVENTS_MAX: usize = 8;
/// Views that a member has not taken yet; one that is further behind misses some, and is told.
const VIEWS_MAX: usize = 256;
/// How long [`Member::leave`] waits for the register to agree.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(1);

/// Who joins which cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` of each register; IPv6 addresses in brackets. DNS names are resolved anew at
    /// every redial, and all addresses of a name are tried in turn.
    pub registers: Vec<String>,
    /// The secret of the cluster.
    pub secret: Secret,
    /// Gateway or worker.
    pub role: Role,
    /// Chosen by the operator; not empty.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// What a worker takes events for.
    pub services: Vec<String>,
    /// Where clients reach a gateway, by listener name.
    pub listeners: HashMap<String, String>,
    /// Where others reach this member.
    pub advertise: Advertise,
    /// The view known from an earlier incarnation of this process.
    pub known: Option<View>,
}

/// Where other members reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertise {
    /// Nowhere: workers dial, nobody dials them.
    None,
    /// At this `host:port`.
    Address(String),
    /// At this port of the local address of the connection to the register.
    LocalPort(u16),
}

/// What a member has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEvent {
    /// This incarnation is not in the view any more and never will be again: let go of everything
    /// and [`join`] anew.
    Removed {
        /// Why, in the register's words.
        reason: String,
    },
    /// An operator wants this member to drain.
    Drain,
    /// A register refused this member.
    Refused {
        /// What to print.
        sentence: String,
        /// Repeating will not help: the process should exit. Otherwise the member goes on trying,
        /// and says it only once.
        fatal: bool,
    },
}

/// Which register is being followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterStatus {
    /// Its address as configured: the one that answers, or that is being tried.
    pub address: String,
    /// Does it answer now?
    pub heard: bool,
    /// Why it did not when it was last tried, or which other register is active as well; empty if all is
    /// well.
    pub trouble: String,
    /// Gateways that only another register knows: until members agree on one, no answer is complete.
    pub outside: Vec<String>,
}

/// What the process wants of its membership. The thread reads the newest.
#[derive(Debug, Clone)]
struct Wish {
    state: MemberState,
    leave: bool,
    learned: Option<Arc<View>>,
}

/// This process in its cluster. Dropping it without [`Member::leave`] is a crash to the others:
/// the register sees silence and removes it when its lease ends.
#[derive(Debug)]
pub struct Member {
    incarnation: Incarnation,
    wish: watch::Sender<Wish>,
    views: watch::Receiver<Arc<View>>,
    every_view: broadcast::Receiver<Arc<View>>,
    status: watch::Receiver<RegisterStatus>,
    events: mpsc::Receiver<MemberEvent>,
    ended: oneshot::Receiver<()>,
}

/// Joins a cluster, as a new incarnation in state *joining*. Returns at once; the views tell when
/// the register has taken it in.
#[must_use]
pub fn join(config: Config) -> Member {
    let (bits, no_entropy) = match random::random() {
        Ok(bits) => (bits, None),
        Err(error) => (0, Some(error.to_string())),
    };
    let incarnation = Incarnation::from_bits(bits);
    let known = Arc::new(config.known.clone().unwrap_or_default());
    let (wish, wishes) = watch::channel(Wish { state: MemberState::Joining, leave: false, learned: None });
    let (view_sender, views) = watch::channel(known);
    let (status_sender, status) = watch::channel(first_status(&config.registers));
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let (end, ended) = oneshot::channel();
    let (every, every_view) = broadcast::channel(VIEWS_MAX);
    let told = link::Told { views: view_sender, status: status_sender, every: Some(every) };
    let link = link::Link::new(config, incarnation, wishes, told, event_sender.clone(), end);
    // An incarnation that is not random could be somebody else's.
    let started = no_entropy.map_or_else(
        || link::on_own_thread("register-link", link.run()).map_err(|error| error.to_string()),
        Err,
    );
    if let Err(error) = started {
        let sentence = format!("the thread that belongs to the cluster could not start: {error}");
        let _ = event_sender.try_send(MemberEvent::Refused { sentence, fatal: true });
    }
    Member { incarnation, wish, views, every_view, status, events, ended }
}

impl Member {
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

    /// The next thing to act on; waits for ever if there is none. May be dropped in a `select!`
    /// without losing an event.
    pub async fn event(&mut self) -> MemberEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
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
pub struct Watch {
    views: watch::Receiver<Arc<View>>,
    status: watch::Receiver<RegisterStatus>,
    /// The thread ends when this is gone.
    _alive: watch::Sender<()>,
}

/// Follows the views of a cluster. Returns at once.
#[must_use]
pub fn watch(registers: Vec<String>, secret: Secret) -> Watch {
    let (view_sender, views) = watch::channel(Arc::default());
    let (status_sender, status) = watch::channel(first_status(&registers));
    let (alive, stop) = watch::channel(());
    let told = link::Told { views: view_sender, status: status_sender, every: None };
    let following = watching::run(registers, secret, told, stop);
    if let Err(error) = link::on_own_thread("register-watch", following) {
        tracing::error!(%error, "the thread that follows the cluster's views could not start");
    }
    Watch { views, status, _alive: alive }
}

impl Watch {
    /// The newest view; at first an empty one of epoch 0.0.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Which register is being followed.
    #[must_use]
    pub fn register(&self) -> RegisterStatus {
        self.status.borrow().clone()
    }
}

fn first_status(registers: &[String]) -> RegisterStatus {
    RegisterStatus { address: registers.first().cloned().unwrap_or_default(), ..RegisterStatus::default() }
}
