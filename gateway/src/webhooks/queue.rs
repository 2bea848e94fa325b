//! What waits for one endpoint, in which order it goes, and what becomes of it. Pure.
//!
//! Each channel is a *lane*: its events go one after the other, and while one of them is under way or
//! waits for another attempt, those behind it stay. Several lanes are under way at once. An event is
//! given up some time after its first attempt. While the endpoint is down that time runs for all that
//! waits, tried or not, so an outage costs what is older than that and no more.
//!
//! A full queue drops first what nobody misses: channels that came and went unheard, as a whole. Then the
//! oldest event of the channel of which most waits, among channels that need a signature or among those that
//! anybody may open, whichever has more of the queue. So a loud channel costs its own events, and so do many
//! channels that are made only to be left; and who has only the app's public key, however many channels it
//! holds open, drops nothing of signed channels for as long as those need half of the queue at most.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::limits::{
    WEBHOOK_POSTS_MAX, WEBHOOK_QUEUE_BYTES_MAX, WEBHOOK_QUEUE_EVENTS_MAX, WEBHOOK_RETRY_TIME_MAX,
};
use broadgate_pusher::channel::{Access, ChannelKind};

use super::{
    batch::{Linger, Room},
    event::{DropReason, EndpointEvent, OCCUPIED, VACATED, WebhookEffect},
    health::EndpointHealth,
    retry::{self, Chance},
};

/// The mean event of a full queue has so many bytes.
const LARGE_EVENT_BYTES: usize = WEBHOOK_QUEUE_BYTES_MAX / WEBHOOK_QUEUE_EVENTS_MAX;

/// What waits for one endpoint.
#[derive(Debug)]
pub(super) struct EndpointQueue {
    /// Several events in one post?
    pub(super) batch: bool,
    chance: Chance,
    events: BTreeMap<u64, QueuedEvent>,
    bytes: usize,
    lanes: HashMap<Arc<str>, EventLane>,
    /// Lanes that anybody may open, and those that need a signature.
    parts: [LaneGroup; 2],
    /// Lanes that could go, by the number of an event that was their first.
    ready: BTreeMap<u64, Arc<str>>,
    /// Lanes that wait for another attempt.
    waiting: BTreeMap<(Duration, u64), Arc<str>>,
    /// Until when what is not under way is tried.
    deadlines: BTreeSet<(Duration, u64)>,
    /// How many events of which lanes are under way together.
    flights: BTreeMap<u64, Vec<(Arc<str>, usize)>>,
    next_flight: u64,
    linger: Linger,
    health: EndpointHealth,
    /// Lanes whose last attempt failed.
    troubled: usize,
}

/// Lanes that share half of a full queue.
#[derive(Debug, Default)]
struct LaneGroup {
    events: usize,
    bytes: usize,
    /// By how much waits in them, and among equals the latest first.
    by_weight: BTreeSet<(usize, Reverse<u64>, Arc<str>)>,
    /// Channels that may have come and gone unheard, by the event that says so.
    gone: BTreeSet<(u64, Arc<str>)>,
}

#[derive(Debug)]
struct QueuedEvent {
    event: Arc<EndpointEvent>,
    since: Duration,
    deadline: Option<Duration>,
    tried: bool,
    flying: bool,
}

#[derive(Debug)]
struct EventLane {
    /// Its place in `parts`.
    part: usize,
    /// The number of its first event.
    born: u64,
    events: VecDeque<u64>,
    bytes: usize,
    /// Attempts that failed in a row.
    failures: u32,
    place: LaneState,
}

impl EventLane {
    /// Its place among all lanes. A large event counts as several, so that both limits are met by those
    /// who meet them.
    fn weight(&self, channel: &Arc<str>) -> (usize, Reverse<u64>, Arc<str>) {
        let weight = self.events.len() + self.bytes / LARGE_EVENT_BYTES;
        (weight, Reverse(self.born), Arc::clone(channel))
    }
}

#[derive(Debug, Clone, Copy)]
enum LaneState {
    Ready(u64),
    Waiting((Duration, u64)),
    Flying,
}

impl EndpointQueue {
    pub(super) fn new(batch: bool, seed: u64) -> Self {
        Self {
            batch,
            chance: Chance(seed),
            events: BTreeMap::new(),
            bytes: 0,
            lanes: HashMap::new(),
            parts: Default::default(),
            ready: BTreeMap::new(),
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            flights: BTreeMap::new(),
            next_flight: 0,
            linger: Linger::default(),
            health: EndpointHealth::default(),
            troubled: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes an event in. If that is too much, [`Self::make_room`] follows.
    pub(super) fn push(&mut self, now: Duration, event: Arc<EndpointEvent>, out: &mut Vec<WebhookEffect>) {
        let (seq, bytes, channel) = (event.seq, event.bytes(), Arc::clone(&event.channel));
        let (name, vacated) = (Arc::clone(&channel), event.is(VACATED));
        let deadline = self.health.is_down().then_some(now + WEBHOOK_RETRY_TIME_MAX);
        self.deadlines.extend(deadline.map(|deadline| (deadline, seq)));
        self.events.insert(seq, QueuedEvent { event, since: now, deadline, tried: false, flying: false });
        self.bytes += bytes;
        if self.ready.is_empty() {
            self.linger.begin(now);
        }
        let lane = self.lanes.entry(Arc::clone(&channel)).or_insert_with(|| {
            self.ready.insert(seq, channel);
            let part = usize::from(ChannelKind::of(&name).access != Access::Public);
            let place = LaneState::Ready(seq);
            EventLane { part, born: seq, events: VecDeque::new(), bytes: 0, failures: 0, place }
        });
        let part = &mut self.parts[lane.part];
        if !lane.events.is_empty() {
            part.by_weight.remove(&lane.weight(&name));
        }
        lane.events.push_back(seq);
        lane.bytes += bytes;
        part.events += 1;
        part.bytes += bytes;
        part.by_weight.insert(lane.weight(&name));
        if vacated {
            part.gone.insert((seq, name));
        }
        if matches!(lane.place, LaneState::Ready(_)) {
            self.linger.add(bytes);
        }
        while self.events.len() > WEBHOOK_QUEUE_EVENTS_MAX || self.bytes > WEBHOOK_QUEUE_BYTES_MAX {
            if !self.make_room(out) {
                break;
            }
        }
    }

    /// Drops what is missed least. False if everything is under way.
    fn make_room(&mut self, out: &mut Vec<WebhookEffect>) -> bool {
        let [open, signed] = &self.parts;
        let open_has_more = if self.events.len() > WEBHOOK_QUEUE_EVENTS_MAX {
            open.events > signed.events
        } else {
            open.bytes > signed.bytes
        };
        let parts = if open_has_more { [0, 1] } else { [1, 0] };
        parts.into_iter().any(|part| self.make_room_in(part, out))
    }

    fn make_room_in(&mut self, part: usize, out: &mut Vec<WebhookEffect>) -> bool {
        while let Some((_, channel)) = self.parts[part].gone.pop_first() {
            if !self.came_and_went(&channel) {
                continue;
            }
            let whole: Vec<u64> =
                self.lanes.get(&channel).map_or(Vec::new(), |lane| lane.events.iter().copied().collect());
            whole.into_iter().for_each(|seq| self.drop_full(seq, out));
            return true;
        }
        // The oldest of the channel of which most waits: its newest state still reaches the receiver.
        let victim = self.parts[part].by_weight.iter().rev().find_map(|(_, _, channel)| {
            let waits = |seq: &&u64| self.events.get(seq).is_some_and(|queued| !queued.flying);
            self.lanes.get(channel)?.events.iter().find(waits).copied()
        });
        victim.is_some_and(|seq| {
            self.drop_full(seq, out);
            true
        })
    }

    fn drop_full(&mut self, seq: u64, out: &mut Vec<WebhookEffect>) {
        let removed = self.remove(seq);
        out.extend(
            removed.map(|it| WebhookEffect::Dropped { event: it.event, reason: DropReason::QueueFull }),
        );
    }

    /// Has nobody heard of the channel, and is it empty again?
    fn came_and_went(&self, channel: &Arc<str>) -> bool {
        let Some(lane) = self.lanes.get(channel) else { return false };
        let mut events = lane.events.iter().filter_map(|seq| self.events.get(seq));
        let unheard = events.next().is_some_and(|first| !first.tried && first.event.is(OCCUPIED));
        let state = |queued: &&QueuedEvent| queued.event.is(OCCUPIED) || queued.event.is(VACATED);
        unheard && events.rev().find(state).is_some_and(|last| last.event.is(VACATED))
    }

    /// Does what is due now.
    pub(super) fn poll(&mut self, now: Duration, out: &mut Vec<WebhookEffect>) {
        while let Some(&(_, seq)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            let Some(removed) = self.remove(seq) else { break };
            self.health.gave_up();
            out.push(WebhookEffect::Dropped { event: removed.event, reason: DropReason::GivenUp });
        }
        while let Some(waiting) = self.waiting.first_entry().filter(|waiting| waiting.key().0 <= now) {
            let channel = waiting.remove();
            self.make_ready(&channel);
        }
        while self.could_post().is_some_and(|at| at <= now) {
            let post = self.take_off(now);
            out.push(post);
        }
    }

    /// When `poll` has something to do.
    pub(super) fn next(&self) -> Option<Duration> {
        let waiting = self.waiting.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        [waiting, deadline, self.could_post()].into_iter().flatten().min()
    }

    /// A post has arrived, or has not.
    pub(super) fn done(&mut self, now: Duration, flight: u64, arrived: bool, out: &mut Vec<WebhookEffect>) {
        let Some(lanes) = self.flights.remove(&flight) else { return };
        if !arrived {
            let news = self.health.failed(now, &mut self.chance);
            lanes.iter().for_each(|(channel, _)| self.try_again(now, channel));
            if self.health.is_down() {
                self.start_clocks(now);
            }
            out.extend(news.map(WebhookEffect::News));
            return;
        }
        for (channel, count) in lanes {
            for _ in 0..count {
                let first = self.lanes.get(&channel).and_then(|lane| lane.events.front().copied());
                let Some(delivered) = first.and_then(|seq| self.remove(seq)) else { break };
                let waited = now.saturating_sub(delivered.since);
                out.push(WebhookEffect::Delivered { event: delivered.event, waited });
            }
            self.calm(&channel);
            self.make_ready(&channel);
        }
        if self.health.is_down() {
            self.recover();
        }
        self.health.succeeded();
        if self.troubled == 0 {
            out.extend(self.health.untroubled().map(WebhookEffect::News));
        }
    }

    /// The endpoint is gone, and everything that waits for it.
    pub(super) fn close(self, out: &mut Vec<WebhookEffect>) {
        let dropped =
            |it: QueuedEvent| WebhookEffect::Dropped { event: it.event, reason: DropReason::EndpointGone };
        out.extend(self.events.into_values().map(dropped));
    }

    /// From when on a post could be made, if anything were to wake us for it.
    fn could_post(&self) -> Option<Duration> {
        if self.ready.is_empty() {
            return None;
        }
        let at = if self.batch { self.linger.until() } else { Duration::ZERO };
        match self.health.asked_at() {
            Some(asked) => self.flights.is_empty().then_some(asked.max(at)),
            None => (self.flights.len() < WEBHOOK_POSTS_MAX).then_some(at),
        }
    }

    /// Which lanes go together, and how many events of each: the oldest first. What has failed before
    /// goes alone, since it may be what the receiver does not bear.
    fn pick(&self) -> Vec<(Arc<str>, usize)> {
        let mut picked = Vec::new();
        let mut room = Room::default();
        let mut alone = false;
        for channel in self.ready.values() {
            let Some(lane) = self.lanes.get(channel) else { continue };
            let troubled = lane.failures > 0;
            if picked.is_empty() {
                alone = troubled || !self.batch;
            } else if troubled {
                continue;
            }
            let fits = |seq: &&u64| self.events.get(seq).is_some_and(|it| room.takes(it.event.bytes()));
            let most = if self.batch { usize::MAX } else { 1 };
            let count = lane.events.iter().take(most).take_while(fits).count();
            if count > 0 {
                picked.push((Arc::clone(channel), count));
            }
            if alone || room.is_full() {
                break;
            }
        }
        picked
    }

    fn take_off(&mut self, now: Duration) -> WebhookEffect {
        let picked = self.pick();
        let mut events = Vec::new();
        for (channel, count) in &picked {
            let Some(lane) = self.lanes.get_mut(channel) else { continue };
            if let LaneState::Ready(key) = std::mem::replace(&mut lane.place, LaneState::Flying) {
                self.ready.remove(&key);
            }
            for &seq in lane.events.iter().take(*count) {
                let Some(queued) = self.events.get_mut(&seq) else { continue };
                (queued.flying, queued.tried) = (true, true);
                let deadline = *queued.deadline.get_or_insert(now + WEBHOOK_RETRY_TIME_MAX);
                self.deadlines.remove(&(deadline, seq));
                events.push(Arc::clone(&queued.event));
            }
        }
        events.sort_by_key(|event| event.seq);
        self.next_flight += 1;
        self.flights.insert(self.next_flight, picked);
        WebhookEffect::Post { flight: self.next_flight, events }
    }

    /// Takes an event out, wherever its lane stands.
    fn remove(&mut self, seq: u64) -> Option<QueuedEvent> {
        let queued = self.events.remove(&seq)?;
        self.bytes -= queued.event.bytes();
        if let Some(deadline) = queued.deadline {
            self.deadlines.remove(&(deadline, seq));
        }
        let channel = &queued.event.channel;
        let lane = self.lanes.get_mut(channel)?;
        let part = &mut self.parts[lane.part];
        if queued.event.is(VACATED) {
            part.gone.remove(&(seq, Arc::clone(channel)));
        }
        part.by_weight.remove(&lane.weight(channel));
        let place = lane.events.binary_search(&seq).ok();
        place.and_then(|place| lane.events.remove(place));
        lane.bytes -= queued.event.bytes();
        part.events -= 1;
        part.bytes -= queued.event.bytes();
        if !lane.events.is_empty() {
            part.by_weight.insert(lane.weight(channel));
        }
        if lane.events.is_empty() {
            self.calm(channel);
            self.leave(channel);
            self.lanes.remove(channel);
        } else if place == Some(0) && matches!(lane.place, LaneState::Waiting(_)) {
            // The next one has not failed.
            self.calm(channel);
            self.make_ready(channel);
        }
        Some(queued)
    }

    /// A lane leaves the place where it stood.
    fn leave(&mut self, channel: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(channel) else { return };
        match std::mem::replace(&mut lane.place, LaneState::Flying) {
            LaneState::Ready(key) => drop(self.ready.remove(&key)),
            LaneState::Waiting(key) => drop(self.waiting.remove(&key)),
            LaneState::Flying => {}
        }
    }

    fn make_ready(&mut self, channel: &Arc<str>) {
        self.leave(channel);
        let Some(lane) = self.lanes.get_mut(channel) else { return };
        let Some(&first) = lane.events.front() else { return };
        lane.place = LaneState::Ready(first);
        self.ready.insert(first, Arc::clone(channel));
        self.linger.end();
    }

    /// A lane whose attempt has failed waits.
    fn try_again(&mut self, now: Duration, channel: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(channel) else { return };
        let Some(&first) = lane.events.front() else { return };
        for seq in &lane.events {
            let Some(queued) = self.events.get_mut(seq).filter(|queued| queued.flying) else { break };
            queued.flying = false;
            self.deadlines.extend(queued.deadline.map(|deadline| (deadline, *seq)));
        }
        self.troubled += usize::from(lane.failures == 0);
        lane.failures = lane.failures.saturating_add(1);
        let key = (now + retry::wait(lane.failures, &mut self.chance), first);
        lane.place = LaneState::Waiting(key);
        self.waiting.insert(key, Arc::clone(channel));
    }

    /// Nothing of a lane has failed any more.
    fn calm(&mut self, channel: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(channel) else { return };
        self.troubled -= usize::from(std::mem::take(&mut lane.failures) > 0);
    }

    /// The endpoint is down: from now on time runs for all that waits.
    fn start_clocks(&mut self, now: Duration) {
        for (seq, queued) in self.events.iter_mut().filter(|(_, queued)| queued.deadline.is_none()) {
            let deadline = now + WEBHOOK_RETRY_TIME_MAX;
            queued.deadline = Some(deadline);
            self.deadlines.insert((deadline, *seq));
        }
    }

    /// The endpoint is back: everything may go, and what was never tried has all its time before it.
    fn recover(&mut self) {
        for (seq, queued) in self.events.iter_mut().filter(|(_, queued)| !queued.tried) {
            if let Some(deadline) = queued.deadline.take() {
                self.deadlines.remove(&(deadline, *seq));
            }
        }
        self.lanes.values_mut().for_each(|lane| lane.failures = 0);
        self.troubled = 0;
        for channel in std::mem::take(&mut self.waiting).into_values() {
            self.make_ready(&channel);
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
