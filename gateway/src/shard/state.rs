//! What a shard owns, and the turn of its loop.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet, VecDeque},
    rc::Rc,
    sync::Arc,
};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    limits, v1,
};
use broadgate_topics::remember::{Bounds, Remembered};
use tokio::sync::Notify;

use crate::{
    codec::encode::LiveBytes,
    config::Config,
    observers::Observers,
    shard::{
        app_connections::AppConnections,
        client::{Client, ClientStage},
        counters::ShardCounters,
        directory::Directory,
        outbox::JoinedFrames,
        outcome::Remembrance,
        pending_counts::PendingCounts,
        pusher::client::PusherTenant,
        read_budget::ReadBudget,
        slots::{Slot, Slots},
        tls::TlsShared,
        upcalls::Upcalls,
        wheel::Wheel,
        worker_links::{WorkerKey, Workers},
    },
};

/// How much one read takes at most.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// The tasks of a shard's thread share it; no borrow lives across an await.
pub(crate) type ShardHandle = Rc<RefCell<Shard>>;

/// What waits to be written to clients.
#[derive(Default)]
pub(crate) struct Outboxes {
    /// Clients with pending output, at most once each, in the order in which they will be written to.
    pub(crate) dirty: VecDeque<Slot>,
    /// The joined output of the client that was written to last.
    pub(crate) joined: JoinedFrames,
    /// Clients whose outbox is above its low-water mark.
    pub(crate) backlogged: HashSet<Slot>,
    /// Memory that the frames in all outboxes take.
    pub(crate) live: LiveBytes,
    /// Frames in all outboxes, each as often as a client has it.
    pub(crate) waiting_frames: usize,
    /// The second in which closing slow clients last gave no memory back.
    pub(crate) relieved: u32,
}

/// Which clients are read from, and how much.
pub(crate) struct Reads {
    /// Clients that have more to read than one turn takes, in the order in which they will be read.
    pub(crate) readers: VecDeque<Slot>,
    /// What may still be read in this turn.
    pub(crate) unread: ReadBudget,
    /// Clients that are not read until the next second: each once in a second.
    pub(crate) delayed: Vec<Slot>,
    /// Clients that are not read, because of their window.
    pub(crate) paused: HashSet<Slot>,
    pub(crate) scratch: Box<[u8]>,
}

/// Events on their way to workers.
#[derive(Default)]
pub(crate) struct UnsentEvents {
    /// Workers whose batch has something new.
    pub(crate) batched: Vec<WorkerKey>,
    /// Clients whose events wait for any worker.
    pub(crate) held: HashSet<Slot>,
    /// A client id is written here before it goes into an event.
    pub(crate) id_text: String,
}

/// What is known of commands that were carried out.
pub(crate) struct Executed {
    /// Answers, by the ids of commands.
    pub(crate) remembered: Remembered<Remembrance>,
    /// The id of the command that closes clients at this moment.
    pub(crate) commanded: Option<Box<str>>,
}

/// The rest of the gateway, as a shard reaches it.
#[derive(Default)]
pub(crate) struct ShardDeps {
    /// Where the shard tells who is in what; the topics' task is woken by it.
    pub(crate) homes: Option<(Arc<PendingCounts>, Arc<Notify>)>,
    pub(crate) upcalls: Option<Upcalls>,
    /// Who observes Pusher clients.
    pub(crate) observers: Observers,
    /// Where Pusher clients count as connections of their app in the cluster.
    pub(crate) places: Option<Arc<AppConnections>>,
}

/// One thread's clients.
pub(crate) struct Shard {
    pub(crate) index: u8,
    /// How many shards share the gateway.
    pub(crate) shards: u8,
    pub(crate) incarnation: Incarnation,
    /// The gateway's name, for answers.
    pub(crate) name: Rc<str>,
    pub(crate) config: Arc<Config>,
    pub(crate) clients: Slots<Client>,
    pub(crate) directory: Directory,
    pub(crate) workers: Workers,
    pub(crate) tally: ShardCounters,
    /// Seconds since the shard was started; moved on by the tick.
    pub(crate) second: u32,
    /// When to look at each open client again.
    pub(crate) wheel: Wheel<(Slot, u64)>,
    pub(crate) outboxes: Outboxes,
    pub(crate) reads: Reads,
    pub(crate) unsent: UnsentEvents,
    /// Clients that are being closed.
    pub(crate) closing: HashSet<Slot>,
    /// For audiences, so that sends do not allocate.
    pub(crate) selected: Vec<Slot>,
    pub(crate) executed: Executed,
    pub(crate) deps: ShardDeps,
    /// Of clients that come by TLS.
    pub(crate) tls: Arc<TlsShared>,
    /// Apps of clients here, by their ids.
    pub(crate) tenants: HashMap<Box<str>, Rc<PusherTenant>>,
    /// What Pusher clients did in this turn, for those who observe them.
    pub(crate) offers: Vec<v1::PusherEvent>,
    /// Wakes the loop for the end of the turn.
    pub(crate) turn: Rc<Notify>,
    turn_asked: bool,
}

/// How many of the ids that callers chose are remembered.
const fn chosen_ids() -> Bounds {
    Bounds {
        count: limits::COMMAND_IDS_MAX,
        bytes: limits::COMMAND_IDS_BYTES_MAX,
        time: limits::COMMAND_ID_TIME,
    }
}

/// How many of the ids that were made for callers are remembered.
const fn made_ids() -> Bounds {
    Bounds {
        count: limits::COMMAND_IDS_MADE_MAX,
        bytes: limits::COMMAND_IDS_MADE_BYTES_MAX,
        time: limits::COMMAND_ID_TIME,
    }
}

impl Shard {
    pub(crate) fn new(index: u8, incarnation: Incarnation, name: &str, config: Arc<Config>) -> Self {
        Self {
            index,
            shards: 1,
            incarnation,
            name: name.into(),
            config,
            clients: Slots::default(),
            directory: Directory::default(),
            workers: Workers::default(),
            tally: ShardCounters::new(index),
            second: 1,
            wheel: Wheel::default(),
            closing: HashSet::new(),
            selected: Vec::new(),
            tenants: HashMap::new(),
            offers: Vec::new(),
            turn: Rc::new(Notify::new()),
            turn_asked: false,
            outboxes: Outboxes::default(),
            reads: Reads {
                readers: VecDeque::new(),
                unread: ReadBudget::default(),
                delayed: Vec::new(),
                paused: HashSet::new(),
                scratch: vec![0; SCRATCH_BYTES].into(),
            },
            unsent: UnsentEvents::default(),
            executed: Executed { remembered: Remembered::new(chosen_ids(), made_ids()), commanded: None },
            deps: ShardDeps::default(),
            tls: Arc::default(),
        }
    }

    /// A client of this shard and app, also one that is going: until its worker has answered what it did,
    /// the worker may still change its session.
    pub(crate) fn find_also_going(&self, id: ClientId, app: &str) -> Option<Slot> {
        let ours = id.incarnation == self.incarnation && id.shard == self.index;
        let client = self.clients.get(id.slot).filter(|client| ours && client.key == id.key)?;
        (&*client.app == app && !matches!(client.stage, ClientStage::Handshake(_))).then_some(id.slot)
    }

    pub(crate) fn id(&self, slot: Slot, key: u64) -> ClientId {
        ClientId { incarnation: self.incarnation, shard: self.index, slot, key }
    }

    /// The slot of an open client of this shard.
    pub(crate) fn find(&self, id: ClientId) -> Option<Slot> {
        let ours = id.incarnation == self.incarnation && id.shard == self.index;
        let client = self.clients.get(id.slot).filter(|_| ours)?;
        (client.key == id.key && client.is_open()).then_some(id.slot)
    }

    /// An open client of this shard and app.
    pub(crate) fn find_in(&self, id: ClientId, app: &str) -> Option<Slot> {
        self.find(id).filter(|&slot| self.directory.is_in_app(slot, app))
    }

    pub(crate) fn is_mine(&self, id: &ClientId) -> bool {
        id.incarnation == self.incarnation && id.shard == self.index
    }

    /// Something waits for the end of the turn: everything that is ready now is handled first, so
    /// that a socket is written once for all of it.
    pub(crate) fn ask_turn(&mut self) {
        if !self.turn_asked {
            self.turn_asked = true;
            self.turn.notify_one();
        }
    }

    /// Tells the homes what has changed.
    pub(crate) fn tell_standings(&mut self) {
        if self.directory.has_changes()
            && let Some((pending_counts, wake)) = &self.deps.homes
        {
            pending_counts.put(self.directory.take_changes(self.index), wake);
        }
    }

    /// Writes what has gathered: to the first clients of the line, and to every worker.
    pub(crate) fn end_turn(&mut self) {
        self.turn_asked = false;
        self.tell_standings();
        self.flush_some();
        for key in std::mem::take(&mut self.unsent.batched) {
            self.send_batch(key);
        }
        self.hand_offers();
        self.relieve();
        self.serve_readers();
    }
}
