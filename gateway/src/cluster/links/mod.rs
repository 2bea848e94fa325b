//! The links to the other gateways of the view: one ordered stream for each.

mod batch;
mod link;
pub(crate) mod parts;
mod pending_batches;
mod trouble;
mod views;

pub(crate) use self::{
    parts::JoinedParts,
    pending_batches::{PendingBatches, ReadyMessages},
    views::{ViewStore, views_sent},
};

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use broadgate_proto::{
    id::Incarnation,
    limits::LINK_BATCHES_MAX,
    v1::{self, MemberState, View},
    view,
};
use broadgate_tasks::Spawner;
use broadgate_tls::Credentials;
use broadgate_topics::LinkSession;
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{cluster::handle::ClusterHandle, identity::Identity, refusals::now_ms};

pub(crate) use self::batch::{OutgoingBatch, SentCommands};

/// Every other gateway of the view, whatever its state. A draining one still has clients; one that leaves has none, but
/// peers may still be waiting for its answers.
pub(crate) struct Peers {
    links: ArcSwap<BTreeMap<Incarnation, Arc<PeerLink>>>,
    /// Locked while the links change: views come from the cluster task, a new incarnation from the
    /// membership.
    changing: Mutex<()>,
    credentials: Credentials,
    me: Arc<ArcSwap<Identity>>,
    homes: ClusterHandle,
    view: Arc<ArcSwap<View>>,
    /// The last views, the installed one among them.
    pub(crate) views: Arc<ViewStore>,
    link_timeout: Duration,
    next_session: AtomicU64,
    spawner: Spawner,
}

/// This gateway's end of a link.
pub(crate) struct PeerLink {
    name: String,
    /// It has announced that it has no clients any more.
    leaves: AtomicBool,
    up: Arc<AtomicBool>,
    /// Its last try was refused: the other one has another secret.
    refused: Arc<AtomicBool>,
    /// When it was last heard before its link broke, in milliseconds since the Unix epoch; at first, when it was first
    /// dialled.
    silent_since_ms: Arc<AtomicU64>,
    batches: mpsc::Sender<OutgoingBatch>,
    /// Ends the link's task.
    gone: CancellationToken,
}

impl PeerLink {
    fn may_have_clients(&self) -> bool {
        !self.leaves.load(Ordering::Relaxed)
    }
}

impl Peers {
    pub(crate) fn new(
        credentials: Credentials,
        me: Arc<ArcSwap<Identity>>,
        homes: ClusterHandle,
        link_timeout: Duration,
        spawner: Spawner,
    ) -> Self {
        Self {
            links: ArcSwap::default(),
            changing: Mutex::new(()),
            credentials,
            me,
            homes,
            view: Arc::default(),
            views: Arc::default(),
            link_timeout,
            next_session: AtomicU64::new(1),
            spawner,
        }
    }

    /// Closes every link: this gateway is another incarnation now.
    pub(crate) fn forget_all(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for link in self.links.swap(Arc::default()).values() {
            link.gone.cancel();
        }
    }

    /// Follows a view: dials new gateways, closes links to those that left.
    pub(crate) fn follow(&self, view: &Arc<View>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.views.add(view);
        self.view.store(Arc::clone(view));
        let me = self.me.load();
        let before = self.links.load();
        let mut after = BTreeMap::new();
        for member in view::gateways(view) {
            let Ok(incarnation) = member.incarnation.parse::<Incarnation>() else { continue };
            if incarnation == me.incarnation {
                continue;
            }
            let link = before.get(&incarnation).cloned().unwrap_or_else(|| self.dial(incarnation, member));
            link.leaves.store(view::is_leaving(member), Ordering::Relaxed);
            after.insert(incarnation, link);
        }
        for (incarnation, link) in before.iter() {
            if !after.contains_key(incarnation) {
                link.gone.cancel();
            }
        }
        self.links.store(Arc::new(after));
    }

    fn dial(&self, incarnation: Incarnation, member: &v1::Member) -> Arc<PeerLink> {
        let (batches, queue) = mpsc::channel(LINK_BATCHES_MAX);
        let up = Arc::new(AtomicBool::new(false));
        let (gone, refused) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let silent_since_ms = Arc::new(AtomicU64::new(now_ms()));
        let dialer = link::Dialer {
            me: Arc::clone(&self.me),
            to: incarnation,
            name: member.name.clone(),
            address: member.address.clone(),
            credentials: self.credentials.clone(),
            homes: self.homes.clone(),
            view: Arc::clone(&self.view),
            views: Arc::clone(&self.views),
            silence_max: self.link_timeout,
            up: Arc::clone(&up),
            refused: Arc::clone(&refused),
            silent_since_ms: Arc::clone(&silent_since_ms),
        };
        self.spawner.spawn("link to a gateway", dialer.run(queue, gone.clone()));
        let leaves = AtomicBool::default();
        let name = member.name.clone();
        Arc::new(PeerLink { name, leaves, up, refused, silent_since_ms, batches, gone })
    }

    /// A number for a peer's link to us; they rise.
    pub(crate) fn next_session(&self) -> LinkSession {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Those that may have clients.
    pub(crate) fn all(&self) -> Vec<Incarnation> {
        let links = self.links.load();
        links.iter().filter(|(_, link)| link.may_have_clients()).map(|(peer, _)| *peer).collect()
    }

    /// Whether it is in the view, and may have clients.
    pub(crate) fn has(&self, peer: Incarnation) -> bool {
        self.links.load().get(&peer).is_some_and(|link| link.may_have_clients())
    }

    /// Whether its last word was that it has no clients any more. It has answered all that was placed among them before:
    /// what it does not answer has found none, so nothing is missing.
    pub(crate) fn has_left(&self, peer: Incarnation) -> bool {
        self.views.last_state_of(peer) == Some(MemberState::Leaving)
    }

    /// A gateway's name, for answers; also of one that has gone while it was waited for.
    pub(crate) fn name(&self, peer: Incarnation) -> String {
        let me = self.me.load();
        if peer == me.incarnation {
            return me.name.clone();
        }
        let name = self.links.load().get(&peer).map(|link| link.name.clone());
        name.or_else(|| self.views.last_name_of(peer)).unwrap_or_else(|| peer.to_string())
    }

    /// Names of the peers whose link is up.
    pub(crate) fn up(&self) -> Vec<String> {
        let links = self.links.load();
        links.values().filter(|link| link.up.load(Ordering::Relaxed)).map(|link| link.name.clone()).collect()
    }

    /// The peers that are not heard, and may have clients.
    pub(crate) fn silent(&self) -> Vec<v1::SilentPeer> {
        let (links, now) = (self.links.load(), now_ms());
        let is_silent = |link: &PeerLink| !link.up.load(Ordering::Relaxed) && link.may_have_clients();
        let silent = links.iter().filter(|(_, link)| is_silent(link));
        let message = |(peer, link): (&Incarnation, &Arc<PeerLink>)| v1::SilentPeer {
            incarnation: peer.to_string(),
            name: link.name.clone(),
            silent_ms: now.saturating_sub(link.silent_since_ms.load(Ordering::Relaxed)),
        };
        silent.map(message).collect()
    }

    /// Names of the peers that refuse this gateway's secret.
    pub(crate) fn refused_by(&self) -> Vec<String> {
        let links = self.links.load();
        let refusing = links.values().filter(|link| link.refused.load(Ordering::Relaxed));
        refusing.map(|link| link.name.clone()).collect()
    }

    /// Queues commands for a peer, with indexes as ids. Never waits: a peer whose queue is full is not asked,
    /// and the answer names it.
    pub(crate) fn send(&self, peer: Incarnation, commands: Vec<v1::Command>) -> SentCommands {
        let indexes =
            commands.iter().map(|command| usize::try_from(command.id).unwrap_or(usize::MAX)).collect();
        let (reply, answers) = oneshot::channel();
        let batch = OutgoingBatch { commands, until: Instant::now() + self.link_timeout, reply };
        let links = self.links.load();
        let queued = links.get(&peer).is_some_and(|link| link.batches.try_send(batch).is_ok());
        if !queued {
            counter!("broadgate_gateway_peer_batches_dropped_total", "reason" => "queue_full").increment(1);
        }
        SentCommands { indexes, answers: queued.then_some(answers) }
    }
}
