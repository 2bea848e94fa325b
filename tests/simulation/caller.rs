//! Callers: what an SDK does. One asks one gateway at a time, pipelined and in order.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use broadgate_proto::v1::Epoch;
use broadgate_topics::{Topic, TopicKind};

use super::{
    calls::Call,
    history::{CmdNo, Fact, Outcome, Wish},
    rng::Rng,
    world::{Event, World},
};

/// Commands from here on are made when faults have stopped, and are not repeated.
pub const LAST: CmdNo = 1 << 40;
const PATIENCE: Duration = Duration::from_secs(12);
const ATTEMPTS_MAX: u32 = 4;

#[derive(Debug)]
pub struct Caller {
    pub host: usize,
    /// It goes there when nothing is unanswered.
    moving: Option<usize>,
    epoch: Epoch,
    pending: BTreeMap<CmdNo, (u32, usize)>,
    wishes: BTreeMap<CmdNo, (u32, Wish)>,
    queue: VecDeque<CmdNo>,
    fifo: [Duration; 2],
    rng: Rng,
}

impl Caller {
    pub fn new(seed: u64, no: usize, host: usize) -> Self {
        Self {
            host,
            moving: None,
            epoch: Epoch::default(),
            pending: BTreeMap::new(),
            wishes: BTreeMap::new(),
            queue: VecDeque::new(),
            fifo: [Duration::ZERO; 2],
            rng: Rng::of(&[seed, 5, no as u64]),
        }
    }

    fn turn(&mut self, which: usize, now: Duration) -> Duration {
        let at = (now + Duration::from_micros(self.rng.between(100, 1500))).max(self.fifo[which]);
        self.fifo[which] = at + Duration::from_micros(1);
        at
    }
}

impl World {
    pub fn wish(&mut self, caller: usize, cmd: CmdNo, wish: Wish) {
        let one = &mut self.callers[caller];
        one.wishes.insert(cmd, (0, wish));
        one.queue.push_back(cmd);
        self.caller_goes_on(caller);
    }

    pub fn move_caller(&mut self, caller: usize, host: usize) {
        self.callers[caller].moving = Some(host);
        self.caller_goes_on(caller);
    }

    fn caller_goes_on(&mut self, caller: usize) {
        let one = &mut self.callers[caller];
        if one.pending.is_empty()
            && let Some(host) = one.moving.take()
        {
            one.host = host;
        }
        while self.callers[caller].moving.is_none()
            && let Some(cmd) = self.callers[caller].queue.pop_front()
        {
            self.attempt(caller, cmd);
        }
    }

    fn attempt(&mut self, caller: usize, cmd: CmdNo) {
        let now = self.now;
        let one = &mut self.callers[caller];
        let Some((attempt, wish)) = one.wishes.get_mut(&cmd) else { return };
        *attempt += 1;
        let (attempt, wish, carried, host) = (*attempt, wish.clone(), one.epoch, one.host);
        if !matches!(wish, Wish::Fire(_)) {
            one.pending.insert(cmd, (attempt, host));
            self.after(PATIENCE, Event::Patience { caller, cmd, attempt });
        }
        let at = self.callers[caller].turn(0, now);
        self.note(Fact::Made { cmd, caller, via: host, attempt, carried, wish: wish.clone() });
        let call = Call { caller, cmd, attempt, wish, carried };
        self.at(at, Event::Called { host, call });
    }

    pub fn again(&mut self, caller: usize, cmd: CmdNo) {
        self.callers[caller].queue.push_back(cmd);
        self.caller_goes_on(caller);
    }

    /// The gateway's answer goes its way back.
    pub fn tell_caller(&mut self, caller: usize, cmd: CmdNo, attempt: u32, outcome: Outcome) {
        let at = self.callers[caller].turn(1, self.now);
        self.at(at, Event::Answered { caller, cmd, attempt, outcome });
    }

    pub fn calls_of_dead(&mut self, host: usize) {
        for caller in 0..self.callers.len() {
            let there = self.callers[caller].pending.iter().filter(|(_, (_, at))| *at == host);
            let lost: Vec<_> = there.map(|(cmd, (attempt, _))| (*cmd, *attempt)).collect();
            for (cmd, attempt) in lost {
                self.tell_caller(caller, cmd, attempt, Outcome::Refused("unreachable"));
            }
        }
    }

    pub fn answered(&mut self, caller: usize, cmd: CmdNo, attempt: u32, outcome: Outcome) {
        let hosts = self.live_hosts();
        let mut rng = Rng::of(&[self.seed, 6, cmd, attempt.into()]);
        let one = &mut self.callers[caller];
        if one.pending.get(&cmd).is_none_or(|(pending, _)| *pending != attempt) {
            return;
        }
        one.pending.remove(&cmd);
        one.epoch = one.epoch.max(outcome.epoch());
        if outcome == Outcome::Refused("unreachable")
            && let Some(&host) = hosts.get(rng.index(hosts.len()))
        {
            one.moving = Some(host);
        }
        if !outcome.complete() && attempt < ATTEMPTS_MAX && cmd < LAST && rng.percent(60) {
            let wait = Duration::from_millis(rng.between(50, 800));
            self.after(wait, Event::Again { caller, cmd });
        }
        self.note(Fact::Answered { cmd, attempt, outcome });
        self.caller_goes_on(caller);
    }

    /// An auditor of each gateway asks for everything.
    pub fn ask_everything(&mut self, host: usize) {
        let caller = self.auditor(host);
        for (index, topic) in self.script.topics().into_iter().enumerate() {
            let cmd = LAST + (host as u64) * 1000 + index as u64 * 2;
            if topic.kind() == TopicKind::Group {
                self.wish(caller, cmd + 1, Wish::Roster(topic.clone()));
            }
            self.wish(caller, cmd, Wish::Count(topic));
        }
    }

    pub fn publish_last(&mut self, host: usize, topic: Topic) {
        let index = self.script.topics().iter().position(|one| *one == topic).unwrap_or_default();
        let caller = self.auditor(host);
        self.wish(caller, LAST + 1_000_000 + index as u64, Wish::Send(vec![topic]));
    }

    fn auditor(&mut self, host: usize) -> usize {
        let no = self.callers.len();
        self.callers.push(Caller::new(self.seed, no, host));
        no
    }
}
