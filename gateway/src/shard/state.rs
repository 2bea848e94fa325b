//! What a shard owns, and the turn of its loop.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet, VecDeque},
    rc::Rc,
    sync::Arc,
};

use broadgate_proto::{
    id::{ClientId, Incarnation},
    limits,
};
use broadgate_topics::remember::{Bounds, Remembered};
use tokio::sync::Notify;

use crate::{
    callers::CallerCounts,
    codec::encode::LiveBytes,
    config::Config,
    recorder::{ClosingCommand, EndRecorder, SentRecorder, UnheardSends},
    refusals::{self, RefusalContext, Refusals},
    shard::{
        app_connections::AppConnections,
        clients::ShardClients,
        counters::{Drop, ShardCounters},
        directory::Directory,
        ending::{ClosingEnd, EndDetails},
        outbox::JoinedFrames,
        outcome::Remembrance,
        pending_counts::PendingCounts,
        pusher::{offers::Offers, tenants::Tenants},
        read_budget::ReadBudget,
        slots::Slot,
        surveys::Surveys,
        taps::ShardTaps,
        tls::TlsShared,
        turn::Turn,
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
    pub(crate) unassigned: HashSet<Slot>,
    /// A client id is written here before it goes into an event.
    pub(crate) id_text: String,
}

/// What is known of commands that were carried out.
pub(crate) struct Executed {
    /// Answers, by the ids of commands.
    pub(crate) remembered: Remembered<Remembrance>,
    /// The command that closes clients at this moment.
    pub(crate) commanded: Option<Rc<ClosingCommand>>,
}

/// The rest of the gateway, as a shard reaches it.
#[derive(Default)]
pub(crate) struct ShardDeps {
    /// Where the shard tells who is in what; the topics' task is woken by it.
    pub(crate) homes: Option<(Arc<PendingCounts>, Arc<Notify>)>,
    pub(crate) upcalls: Option<Upcalls>,
    /// Where Pusher clients count as connections of their app in the cluster.
    pub(crate) places: Option<Arc<AppConnections>>,
    /// Of the whole gateway.
    pub(crate) refusals: Option<Arc<Refusals>>,
    /// Of the whole gateway as well.
    pub(crate) callers: Option<Arc<CallerCounts>>,
    /// Likewise: what homes here have sent to nobody.
    pub(crate) unheard: Option<Arc<UnheardSends>>,
}

impl ShardDeps {
    /// Counts, remembers and logs that something was refused to a client.
    pub(crate) fn refuse(&self, refused: &RefusalContext<'_>) {
        if let Some(refusals) = &self.refusals {
            refused.count_and_log(refusals);
        }
    }
}

/// One thread's clients.
pub(crate) struct Shard {
    /// How many shards share the gateway.
    pub(crate) shards: u8,
    /// The gateway's name, for answers.
    pub(crate) name: Rc<str>,
    pub(crate) config: Arc<Config>,
    pub(crate) clients: ShardClients,
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
    pub(crate) closing: HashMap<Slot, ClosingEnd>,
    /// How the last clients ended.
    pub(crate) ends: EndRecorder,
    /// What was sent, and who came and went.
    pub(crate) sent: SentRecorder,
    /// What is known of the end that is under way.
    pub(crate) ending: EndDetails,
    /// What is measured for those who ask what is busy.
    pub(crate) surveys: Surveys,
    /// For audiences, so that sends do not allocate.
    pub(crate) selected: Vec<Slot>,
    pub(crate) executed: Executed,
    pub(crate) deps: ShardDeps,
    /// Of clients that come by TLS.
    pub(crate) tls: Arc<TlsShared>,
    /// Apps of clients here, by their ids.
    pub(crate) tenants: Tenants,
    /// Socket.IO clients whose id was issued by polling; as many as clients at most.
    pub(crate) issued_ids: HashMap<u64, Slot>,
    /// What Pusher clients did in this turn, for those who observe them.
    pub(crate) offers: Offers,
    /// What operators look at.
    pub(crate) taps: ShardTaps,
    pub(crate) turn: Turn,
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
        let recorder = config.settings.recorder;
        let sent = (recorder.sends_max, recorder.joins_max, recorder.drops_max);
        Self {
            shards: 1,
            name: name.into(),
            config,
            clients: ShardClients::new(index, incarnation),
            directory: Directory::default(),
            workers: Workers::default(),
            tally: ShardCounters::new(index),
            second: 1,
            wheel: Wheel::default(),
            closing: HashMap::new(),
            ends: EndRecorder::new((recorder.caused_max, recorder.own_max), refusals::now_ms()),
            sent: SentRecorder::new(sent, refusals::now_ms()),
            ending: EndDetails::default(),
            surveys: Surveys::default(),
            selected: Vec::new(),
            issued_ids: HashMap::new(),
            tenants: Tenants::default(),
            offers: Offers::default(),
            taps: ShardTaps::default(),
            turn: Turn::default(),
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

    /// An open client of this shard and app.
    pub(crate) fn find_in(&self, id: ClientId, app: &str) -> Option<Slot> {
        self.clients.find(id).filter(|&slot| self.directory.is_in_app(slot, app))
    }

    /// Sends the homes the counts that have changed.
    pub(crate) fn send_counts(&mut self) {
        if self.directory.has_changes()
            && let Some((pending_counts, wake)) = &self.deps.homes
        {
            pending_counts.put(self.directory.take_changes(self.clients.shard), wake);
        }
    }

    /// Writes what has gathered: to the first clients of the line, and to every worker.
    pub(crate) fn end_turn(&mut self) {
        self.turn.ends();
        self.send_counts();
        self.flush_some();
        for key in std::mem::take(&mut self.unsent.batched) {
            self.send_batch(key);
        }
        let unseen = self.offers.hand();
        if unseen > 0 {
            self.tally.drop(Drop::WatcherSlow, unseen);
        }
        self.relieve();
        self.reads.serve(&mut self.clients);
    }
}
