//! The shards of a gateway and their clients. A mailbox and what a shard says are first in, first out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use broadgate_proto::{id::Incarnation, limits};
use broadgate_topics::{
    Input, MembershipCount, PresenceCount, ReplyTo, Topic, TopicKind, TopicPosition,
    remember::{Bounds, HeapSize, Remembered},
};

use super::{
    calls::Then,
    gateway::Timer,
    history::{ClientNo, Cmd, CmdNo, Fact, Receipt, What, Wish},
    rng::Rng,
    world::{Event, World},
};

/// As a shard's.
const BOUNDS: Bounds = Bounds {
    count: limits::COMMAND_IDS_MAX,
    bytes: limits::COMMAND_IDS_BYTES_MAX,
    time: limits::COMMAND_ID_TIME,
};

impl HeapSize for Receipt {
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// One client, from open to close.
#[derive(Debug)]
pub struct Client {
    pub slot: usize,
    pub by: Incarnation,
    shard: usize,
    pub open: bool,
    slow: bool,
    uid: Option<Topic>,
    /// Its groups, and as whom it is present there.
    groups: BTreeMap<Topic, Option<String>>,
}

impl Client {
    fn is_in(&self, topic: &Topic) -> bool {
        self.open
            && match topic.kind() {
                TopicKind::All => true,
                TopicKind::Uid => self.uid.as_ref() == Some(topic),
                TopicKind::Group => self.groups.contains_key(topic),
            }
    }
}

#[derive(Debug)]
enum Work {
    Place { job: u64, topic: Topic, at: TopicPosition, cmd: Cmd },
    Scatter { job: u64, cmd: CmdNo, topics: Vec<Topic> },
    Change { job: u64, cmd: CmdNo, wish: Wish },
}

#[derive(Debug)]
enum Said {
    /// How it stands in a topic; and whether a client that has come is to be told who is present.
    MembershipCount {
        standing: MembershipCount,
        enters: bool,
    },
    Done {
        job: u64,
        receipt: Option<Receipt>,
        touched: Vec<Topic>,
    },
}

#[derive(Debug)]
pub struct Shard {
    clients: Vec<ClientNo>,
    mailbox: VecDeque<Work>,
    said: VecDeque<Said>,
    fifo: [Duration; 2],
    done: Remembered<Receipt>,
    rng: Rng,
}

impl Shard {
    pub fn new(seed: u64) -> Self {
        Self {
            clients: Vec::new(),
            mailbox: VecDeque::new(),
            said: VecDeque::new(),
            fifo: [Duration::ZERO; 2],
            done: Remembered::new(BOUNDS, BOUNDS),
            rng: Rng::of(&[seed]),
        }
    }

    fn next_turn(&mut self, which: usize, now: Duration) -> Duration {
        let at = (now + Duration::from_micros(self.rng.between(20, 1500))).max(self.fifo[which]);
        self.fifo[which] = at + Duration::from_micros(1);
        at - now
    }
}

impl World {
    fn shard(&mut self, host: usize, shard: usize) -> Option<&mut Shard> {
        self.gateway(host)?.shards.get_mut(shard)
    }

    fn give(&mut self, host: usize, shard: usize, work: Work) {
        let now = self.now;
        if let Some(one) = self.shard(host, shard) {
            one.mailbox.push_back(work);
            let delay = one.next_turn(0, now);
            self.timer(host, delay, Timer::Shard(shard));
        }
    }

    fn say(&mut self, host: usize, shard: usize, said: Said) {
        let now = self.now;
        if let Some(one) = self.shard(host, shard) {
            one.said.push_back(said);
            let delay = one.next_turn(1, now);
            self.timer(host, delay, Timer::FromShard(shard));
        }
    }

    fn tell_all_shards(&mut self, host: usize, then: Then, work: impl Fn(u64) -> Work) {
        let Some(count) = self.gateway(host).map(|gateway| gateway.shards.len()) else { return };
        let job = self.new_job(host, count, then);
        for shard in 0..count {
            self.give(host, shard, work(job));
        }
    }

    pub fn place(&mut self, host: usize, back: ReplyTo, topic: &Topic, at: TopicPosition, cmd: &Cmd) {
        self.tell_all_shards(host, Then::Placed(back), |job| {
            let (topic, cmd) = (topic.clone(), cmd.clone());
            Work::Place { job, topic, at, cmd }
        });
    }

    pub fn scatter_here(&mut self, host: usize, then: Then, cmd: CmdNo, topics: &[Topic]) {
        self.tell_all_shards(host, then, |job| Work::Scatter { job, cmd, topics: topics.to_vec() });
    }

    pub fn change_here(&mut self, host: usize, then: Then, cmd: CmdNo, client: ClientNo, wish: Wish) {
        let job = self.new_job(host, 1, then);
        let shard = self.clients[client as usize].shard;
        self.give(host, shard, Work::Change { job, cmd, wish });
    }

    pub fn shard_works(&mut self, host: usize, shard: usize) {
        let Some(work) = self.shard(host, shard).and_then(|shard| shard.mailbox.pop_front()) else { return };
        let (job, receipt, touched) = match work {
            Work::Place { job, topic, at, cmd } => {
                let touched = match &cmd.what {
                    What::Send => Vec::new(),
                    What::Exclusive(_) => vec![topic.clone()],
                    What::JoinAll(group) => vec![group.clone()],
                };
                let receipt = self.remembered(host, shard, cmd.no);
                let receipt = receipt.unwrap_or_else(|| self.carry_out(host, shard, &topic, at, &cmd));
                self.remember(host, shard, cmd.no, receipt);
                (job, Some(receipt), touched)
            }
            Work::Scatter { job, cmd, topics } => {
                let receipt = self.remembered(host, shard, cmd);
                let receipt = receipt.unwrap_or_else(|| self.send_to(host, shard, &topics, None, cmd));
                self.remember(host, shard, cmd, receipt);
                (job, Some(receipt), Vec::new())
            }
            Work::Change { job, cmd, wish } => {
                let (done, touched) = self.change(host, shard, cmd, &wish);
                (job, done.then(Receipt::default), touched)
            }
        };
        self.say(host, shard, Said::Done { job, receipt, touched });
    }

    fn remembered(&mut self, host: usize, shard: usize, cmd: CmdNo) -> Option<Receipt> {
        self.shard(host, shard)?.done.get("a", &cmd.to_string()).copied()
    }

    fn remember(&mut self, host: usize, shard: usize, cmd: CmdNo, receipt: Receipt) {
        let now = self.now;
        if let Some(shard) = self.shard(host, shard) {
            shard.done.put("a", &cmd.to_string(), receipt, now);
        }
    }

    pub fn shard_says(&mut self, host: usize, shard: usize) {
        let Some(said) = self.shard(host, shard).and_then(|shard| shard.said.pop_front()) else { return };
        match said {
            Said::MembershipCount { standing, enters } => {
                let (topic, user) = (standing.topic.clone(), standing.members.first().cloned());
                self.input(host, Input::MembershipCount(standing));
                if enters {
                    self.enters(host, topic, user.map(|member| member.user));
                }
            }
            Said::Done { job, receipt, touched } => self.job_part(host, job, receipt, touched),
        }
    }

    fn carry_out(
        &mut self,
        host: usize,
        shard: usize,
        topic: &Topic,
        at: TopicPosition,
        cmd: &Cmd,
    ) -> Receipt {
        match &cmd.what {
            What::Send => self.send_to(host, shard, std::slice::from_ref(topic), Some(at), cmd.no),
            What::Exclusive(client) => {
                let others = self.members(host, shard, std::slice::from_ref(topic));
                for other in others.into_iter().filter(|other| other != client) {
                    self.close_client(host, other);
                }
                self.bind(host, shard, *client, topic);
                Receipt::default()
            }
            What::JoinAll(group) => {
                for client in self.members(host, shard, std::slice::from_ref(topic)) {
                    self.enter(host, client, group, None);
                }
                Receipt::default()
            }
        }
    }

    fn members(&mut self, host: usize, shard: usize, topics: &[Topic]) -> Vec<ClientNo> {
        let Some(all) = self.shard(host, shard).map(|shard| shard.clients.clone()) else { return Vec::new() };
        let is_in = |no: &ClientNo| topics.iter().any(|topic| self.clients[*no as usize].is_in(topic));
        all.into_iter().filter(is_in).collect()
    }

    fn send_to(
        &mut self,
        host: usize,
        shard: usize,
        topics: &[Topic],
        at: Option<TopicPosition>,
        cmd: CmdNo,
    ) -> Receipt {
        let mut receipt = Receipt::default();
        for client in self.members(host, shard, topics) {
            if self.clients[client as usize].slow {
                receipt.dropped += 1;
            } else {
                receipt.clients += 1;
                let topic = topics[0].clone();
                self.note(Fact::Got { client, topic, at, cmd });
            }
        }
        receipt
    }

    /// Done, and what it may have changed.
    fn change(&mut self, host: usize, shard: usize, cmd: CmdNo, wish: &Wish) -> (bool, Vec<Topic>) {
        let (Wish::Join(client, topic, _) | Wish::Leave(client, topic) | Wish::Bind(client, topic)) = wish
        else {
            return (false, Vec::new());
        };
        if !self.clients[*client as usize].open {
            return (false, Vec::new());
        }
        let mut touched = vec![topic.clone()];
        touched.extend(self.clients[*client as usize].uid.clone());
        if self.remembered(host, shard, cmd).is_none() {
            match wish {
                Wish::Join(client, topic, user) => self.enter(host, *client, topic, user.clone()),
                Wish::Leave(client, topic) => self.leave(host, *client, topic),
                _ => self.bind(host, shard, *client, topic),
            }
            self.remember(host, shard, cmd, Receipt::default());
        }
        (true, touched)
    }

    fn enter(&mut self, host: usize, client: ClientNo, topic: &Topic, user: Option<String>) {
        let one = &mut self.clients[client as usize];
        if one.is_in(topic) {
            return;
        }
        match topic.kind() {
            TopicKind::Group => drop(one.groups.insert(topic.clone(), user.clone())),
            TopicKind::Uid => one.uid = Some(topic.clone()),
            TopicKind::All => {}
        }
        self.note(Fact::In { client, topic: topic.clone(), user: user.clone() });
        self.stand(host, client, topic, user, true);
    }

    fn leave(&mut self, host: usize, client: ClientNo, topic: &Topic) {
        let one = &mut self.clients[client as usize];
        if !one.is_in(topic) {
            return;
        }
        let user = one.groups.remove(topic).flatten();
        if topic.kind() == TopicKind::Uid {
            one.uid = None;
        }
        self.note(Fact::Out { client, topic: topic.clone() });
        self.stand(host, client, topic, user, false);
    }

    fn bind(&mut self, host: usize, shard: usize, client: ClientNo, topic: &Topic) {
        let here = self.gateway(host).is_some_and(|gateway| gateway.shards[shard].clients.contains(&client));
        let one_uid = self.clients[client as usize].uid.clone();
        if !here || !self.clients[client as usize].open || one_uid.as_ref() == Some(topic) {
            return;
        }
        if let Some(former) = one_uid {
            self.leave(host, client, &former);
        }
        self.enter(host, client, topic, None);
    }

    /// Tells the homes how the client's shard stands in a topic now. A client that enters a group must learn
    /// who is present, seated or not.
    fn stand(&mut self, host: usize, client: ClientNo, topic: &Topic, user: Option<String>, comes: bool) {
        let shard = self.clients[client as usize].shard;
        let members = self.members(host, shard, std::slice::from_ref(topic));
        let clients = members.len() as u32;
        let standing_for = |user: &String| {
            let same =
                |no: &&ClientNo| self.clients[**no as usize].groups.get(topic) == Some(&Some(user.clone()));
            members.iter().filter(same).count() as u32
        };
        let changed = user.map(|user| PresenceCount {
            user: user.as_str().into(),
            info: "".into(),
            clients: standing_for(&user),
            max: None,
        });
        let standing = MembershipCount {
            topic: topic.clone(),
            shard: shard as u8,
            clients,
            members: changed.into_iter().collect(),
        };
        let enters = comes && topic.kind() == TopicKind::Group;
        self.say(host, shard, Said::MembershipCount { standing, enters });
    }

    pub fn connect_client(&mut self, slot: usize, host: usize) {
        if self.slots[slot].is_some_and(|no| self.clients[no as usize].open)
            || self.hosts[host].paused.is_some()
        {
            return;
        }
        let no = self.clients.len() as ClientNo;
        let Some(gateway) = self.gateway(host).filter(|gateway| gateway.takes_clients()) else { return };
        let shard = slot % gateway.shards.len();
        let (by, epoch) = (gateway.me, gateway.core.epoch());
        gateway.shards[shard].clients.push(no);
        let client = Client { slot, by, shard, open: false, slow: false, uid: None, groups: BTreeMap::new() };
        self.clients.push(client);
        self.slots[slot] = Some(no);
        self.note(Fact::Opened { client: no, by, epoch });
        let everybody = self.script.everybody();
        self.note(Fact::In { client: no, topic: everybody.clone(), user: None });
        self.clients[no as usize].open = true;
        self.stand(host, no, &everybody, None, false);
    }

    /// A client leaves, or is closed.
    pub fn close_client(&mut self, host: usize, client: ClientNo) {
        let one = &self.clients[client as usize];
        if !one.open {
            return;
        }
        let (shard, slot) = (one.shard, one.slot);
        let topics: Vec<_> = one.groups.keys().chain(&one.uid).cloned().collect();
        for topic in topics {
            self.leave(host, client, &topic);
        }
        self.clients[client as usize].open = false;
        let everybody = self.script.everybody();
        self.note(Fact::Out { client, topic: everybody.clone() });
        self.stand(host, client, &everybody, None, false);
        if let Some(shard) = self.shard(host, shard) {
            shard.clients.retain(|one| *one != client);
        }
        self.note(Fact::Closed { client });
        self.comes_back(slot);
    }

    pub fn close_some(&mut self, host: usize, most: usize) {
        let Some(gateway) = self.gateway(host) else { return };
        let clients: Vec<_> =
            gateway.shards.iter().flat_map(|shard| shard.clients.clone()).take(most).collect();
        for client in clients {
            self.close_client(host, client);
        }
    }

    pub fn clients_of_dead(&mut self, by: Incarnation) {
        for no in 0..self.clients.len() {
            if self.clients[no].by == by && std::mem::replace(&mut self.clients[no].open, false) {
                self.comes_back(self.clients[no].slot);
            }
        }
    }

    fn comes_back(&mut self, slot: usize) {
        let wait = Rng::of(&[self.seed, 3, slot as u64, self.now.as_micros() as u64]).between(200, 1500);
        self.after(Duration::from_millis(wait), Event::Reconnect { slot });
    }

    pub fn reconnect(&mut self, slot: usize) {
        let hosts = self.live_hosts();
        let mut rng = Rng::of(&[self.seed, 4, slot as u64, self.now.as_micros() as u64]);
        if let Some(&host) = hosts.get(rng.index(hosts.len())) {
            self.connect_client(slot, host);
        }
        if self.slots[slot].is_none_or(|no| !self.clients[no as usize].open) && !self.healed {
            self.comes_back(slot);
        }
    }

    /// Its outbox stops: everything placed from now on is dropped and reported.
    pub fn slow_down(&mut self, client: ClientNo) {
        let one = &mut self.clients[client as usize];
        if one.open && !std::mem::replace(&mut one.slow, true) {
            self.note(Fact::Slow { client });
        }
    }
}
