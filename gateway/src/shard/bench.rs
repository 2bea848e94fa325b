//! What the benchmarks in `gateway/benches/` may do with a shard's insides. It speaks of messages,
//! clients and groups, so that outboxes and directories stay private and can be rebuilt. Only with the
//! feature `bench`, and for nobody else.

use std::{
    hint::black_box,
    io::IoSlice,
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};

use broadgate_proto::{
    limits::{DROPS_KEPT_MAX, MOVES_KEPT_MAX, SENDS_KEPT_MAX},
    v1::{self, Audience, SendRequest, answer::Answer, command::Command, send_request::Payload},
};
use broadgate_pusher::outgoing;
use tokio::{net::TcpStream, runtime::Runtime, time::sleep};

use crate::{
    callers::{Caller, CallerCounts, CallerKind},
    codec::encode::{Encoder, Frames, LiveBytes},
    command::{ClientFilter, ParsedCommand, first_names},
    config::{GatewaySettings, RecorderSizes},
    recorder::{SentNote, SentRecorder},
    refusals::now_ms,
    shard::{
        counters::ShardCounters,
        directory::Directory,
        fixture,
        group_traffic::SentNow,
        outbox::{JoinedFrames, Outbox, Piece, SLICES_MAX},
        outcome::PartialAnswer,
        queries,
        slots::Slot,
        state::ShardHandle,
        worker_links::Workers,
    },
};

const APP: &str = "default";
const GROUP: &str = "room-1";
/// As long as the group's name.
const UID: &str = "user-1";

/// A message, framed for whom its [`Framing`] knows.
pub struct Message(Frames);

/// Makes messages out of payloads, as a gateway does once for all its clients.
pub struct Framing(Encoder);

impl Framing {
    /// For WebSocket clients alone.
    #[must_use]
    pub fn websocket() -> Self {
        Self(Encoder { websocket: true, text: false, frame: false, pusher: false })
    }

    /// For WebSocket and Pusher clients.
    #[must_use]
    pub fn pusher() -> Self {
        Self(Encoder { pusher: true, ..Self::websocket().0 })
    }

    /// A text.
    #[must_use]
    pub fn text(&self, payload: &str) -> Message {
        Message(self.0.text(payload.as_bytes()))
    }

    /// A Pusher event in a channel: its object is written, and framed.
    #[must_use]
    pub fn event(&self, name: &str, channel: &str, data: &str) -> Message {
        Message(self.0.event(outgoing::event(name, Some(channel), data).as_bytes()))
    }
}

/// The outboxes of clients that get the same.
pub struct Fanout {
    outboxes: Vec<Outbox>,
    joined: JoinedFrames,
    live: LiveBytes,
}

impl Fanout {
    /// Outboxes with nothing in them.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        let mut outboxes = Vec::new();
        outboxes.resize_with(clients, Outbox::default);
        Self { outboxes, joined: JoinedFrames::default(), live: LiveBytes::default() }
    }

    /// Appends these messages to every outbox, which gets them all before the next one is looked at.
    pub fn push(&mut self, messages: &[Message]) {
        let live = &self.live;
        let shared: Vec<_> =
            messages.iter().filter_map(|Message(frames)| frames.share(live).websocket).collect();
        for outbox in &mut self.outboxes {
            shared.iter().for_each(|frame| outbox.push(Rc::clone(frame)));
        }
    }

    /// Empties one outbox after the other, into sockets that take everything; returns the bytes.
    pub fn flush(&mut self) -> usize {
        let Self { outboxes, joined, .. } = self;
        outboxes.iter_mut().map(|outbox| empty(outbox, joined)).sum()
    }
}

fn empty(outbox: &mut Outbox, joined: &mut JoinedFrames) -> usize {
    let mut sent = 0;
    while !outbox.is_empty() {
        let taken = match outbox.piece(joined) {
            Piece::One(bytes) => black_box(bytes).len(),
            Piece::Several => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = outbox.slices(&mut slices);
                black_box(&slices[..count]).iter().map(|slice| slice.len()).sum()
            }
        };
        outbox.advance(taken);
        sent += taken;
    }
    sent
}

/// A shard's clients, of which the first are in one group, and have one uid.
pub struct Group {
    directory: Directory,
    audience: ClientFilter,
    uid: ClientFilter,
    selected: Vec<Slot>,
}

impl Group {
    /// So many clients, numbered from 0, the first `members` of which are in the group.
    #[must_use]
    pub fn new(clients: u32, members: u32) -> Self {
        let audience =
            ClientFilter { app: APP.into(), groups: vec![GROUP.into()], ..ClientFilter::default() };
        let uid = ClientFilter { app: APP.into(), uids: vec![UID.into()], ..ClientFilter::default() };
        let mut group = Self { directory: Directory::default(), audience, uid, selected: Vec::new() };
        for client in 0..clients {
            group.directory.enter(client, APP);
        }
        for client in 0..members {
            group.join(client);
            group.directory.bind(client, UID);
        }
        group.take_changes();
        group
    }

    /// Whom a message to the group reaches, but these.
    pub fn select(&mut self, except: &[u32]) -> &[u32] {
        self.directory.select(&self.audience, (&[], except), SentNow::default(), &mut self.selected);
        &self.selected
    }

    /// Whom a message to the uid reaches: the same clients, and nothing is counted.
    pub fn select_uncounted(&mut self) -> &[u32] {
        self.directory.select(&self.uid, (&[], &[]), SentNow::default(), &mut self.selected);
        &self.selected
    }

    /// A client joins; false if there is no such client.
    pub fn join(&mut self, client: u32) -> bool {
        self.directory.join(client, GROUP, usize::MAX)
    }

    /// A client leaves; false if it was not in the group.
    pub fn part(&mut self, client: u32) -> bool {
        self.directory.part(client, GROUP)
    }

    /// Sends membership changes at the end of a turn; returns the number of topics.
    pub fn take_changes(&mut self) -> usize {
        self.directory.take_changes(0).len()
    }
}

/// A shard as those know it who ask how it is.
pub struct Polled {
    directory: Directory,
    workers: Workers,
    tally: ShardCounters,
}

impl Polled {
    /// So many groups, with a client in each.
    #[must_use]
    pub fn new(groups: u32) -> Self {
        let mut directory = Directory::default();
        for client in 0..groups {
            directory.enter(client, APP);
            directory.join(client, &format!("room-{client}"), usize::MAX);
        }
        directory.take_changes(0);
        Self { directory, workers: Workers::default(), tally: ShardCounters::new(0) }
    }

    /// What a shard says of itself; returns the number of clients.
    pub fn stats(&self) -> u64 {
        queries::stats(&self.directory, &self.workers, &self.tally).clients
    }

    /// A page of so many groups; returns how many are on it.
    pub fn page(&self, limit: usize) -> usize {
        let names = self.directory.groups_after(APP, "", "");
        first_names(names.take(limit), limit).names.len()
    }
}

/// What a shard remembers of its sends: as many as it can, so each displaces another.
pub struct RememberedSends {
    recorder: SentRecorder,
    command: ParsedCommand,
}

impl RememberedSends {
    /// With a command to a group.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it is filled")]
    pub fn new() -> Self {
        let to = ClientFilter { app: APP.into(), groups: vec![GROUP.into()], ..ClientFilter::default() };
        let order = ParsedCommand::Send {
            to,
            frames: Frames::default(),
            by_group: Vec::new(),
            dry: false,
            traced: false,
        };
        let (app, id, by) = (APP.into(), "order-991".into(), "app:default/b6e2".into());
        let command = ParsedCommand::Once {
            app,
            id,
            by,
            order: Box::new(order),
            traceparent: "".into(),
            placed_at: OnceLock::new(),
        };
        let recorder = SentRecorder::new((SENDS_KEPT_MAX, MOVES_KEPT_MAX, DROPS_KEPT_MAX), now_ms());
        let mut all = Self { recorder, command };
        (0..SENDS_KEPT_MAX).for_each(|_| all.send());
        all
    }

    /// The command is sent: what that costs besides placing it.
    pub fn send(&mut self) {
        self.recorder.begin();
        if let Some(note) = self.command.sent_note(now_ms()) {
            self.recorder.sent(0, &SentNote { clients: 10, ..note });
        }
    }
}

/// A shard whose clients have real sockets.
pub struct Connected {
    shard: ShardHandle,
    clients: Vec<Slot>,
    sent: usize,
    _others: Vec<TcpStream>,
    /// Where the sockets live; dropped last.
    _runtime: Runtime,
}

/// Commands to all clients of a shard, each with an id of its own.
pub struct Orders(Vec<Arc<ParsedCommand>>);

impl Connected {
    /// So many clients, all in one group. The shard keeps the last `remembered` sends. Does an operator tap a client
    /// of another shard?
    ///
    /// # Panics
    /// If there are not as many sockets as that takes.
    #[must_use]
    pub fn new(clients: usize, remembered: usize, tapped: bool) -> Self {
        let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = builder.expect("a runtime for the sockets");
        let recorder = RecorderSizes { sends_max: remembered, ..RecorderSizes::default() };
        let settings = GatewaySettings { recorder, ..GatewaySettings::default() };
        let (shard, others) = runtime.block_on(async {
            let made = fixture::shard_with(&vec![GROUP; clients], settings).await;
            // The runtime learns which sockets take something.
            sleep(Duration::from_millis(10)).await;
            made
        });
        shard.borrow_mut().taps.open = tapped;
        let clients = shard.borrow().directory.all_of(APP).to_vec();
        Self { shard, clients, sent: 0, _others: others, _runtime: runtime }
    }

    /// Places messages in all outboxes, one message after the other; returns how many found room.
    pub fn place(&mut self, messages: &[Message]) -> usize {
        let shard = &mut *self.shard.borrow_mut();
        let mut placed = 0;
        for Message(frames) in messages {
            let shared = frames.share(&shard.outboxes.live);
            placed += self.clients.iter().filter(|&&slot| shard.place(slot, &shared).is_ok()).count();
        }
        placed
    }

    /// Writes to all of them.
    pub fn flush(&mut self) {
        self.shard.borrow_mut().flush_all();
    }

    /// So many commands that were not carried out before.
    pub fn orders(&mut self, count: usize) -> Orders {
        let ids = self.sent..self.sent + count;
        self.sent += count;
        Orders(ids.map(|id| fixture::to_group(GROUP, &format!("order-{id:06}"), "0123456789")).collect())
    }

    /// Carries them out, each for itself; returns how many clients they reached.
    pub fn execute(&mut self, orders: &Orders) -> u64 {
        let shard = &mut *self.shard.borrow_mut();
        let clients = |order: &Arc<ParsedCommand>| match shard.execute_once(order).part {
            PartialAnswer::Answer(Answer::Receipt(receipt)) => receipt.clients,
            _ => 0,
        };
        orders.0.iter().map(clients).sum()
    }
}

/// What a gateway counts of its callers.
pub struct Counted {
    counts: CallerCounts,
    caller: Caller,
    command: Command,
}

impl Counted {
    /// One that sends to a group.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it is filled")]
    pub fn new() -> Self {
        let (kind, payload) = (CallerKind::Local, Some(Payload::Text("0123456789".to_owned())));
        let caller = Caller { kind, worker: None, how: "grpc", note: None, traceparent: None, from: None };
        let to = Some(Audience { groups: vec![GROUP.to_owned()], ..Audience::default() });
        let command = Command::Send(SendRequest { to, payload, ..v1::SendRequest::default() });
        Self { counts: CallerCounts::new(), caller, command }
    }

    /// So many commands, in batches of this size.
    pub fn count(&self, commands: usize, batch: usize) {
        for _ in 0..commands / batch {
            let commands = std::iter::repeat_n(&self.command, batch);
            self.counts.count(black_box(&self.caller), commands);
        }
    }
}
