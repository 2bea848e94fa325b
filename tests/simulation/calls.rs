//! What callers ask of a gateway, until it is answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broadgate_proto::view;
use broadgate_proto::{id::Incarnation, limits, v1::Epoch};
use broadgate_topics::{HomeOp, HomeOutcome, HomeReply, Input, ReplyTo, Ticket, Topic};

use super::{
    gateway::Timer,
    history::{Cmd, CmdNo, Outcome, Receipt, Sim, What, Wish},
    net::{ConnId, DIALLER, LISTENER, Msg},
    world::World,
};

/// One attempt of a caller.
#[derive(Debug, Clone)]
pub struct Call {
    pub caller: usize,
    pub cmd: CmdNo,
    pub attempt: u32,
    pub wish: Wish,
    pub carried: Epoch,
}

/// Who wants to know.
#[derive(Debug, Clone, Copy)]
pub enum Asker {
    Caller { caller: usize, cmd: CmdNo, attempt: u32 },
    Peer(ConnId, u64),
}

#[derive(Debug)]
pub enum Rpc {
    Scatter { cmd: CmdNo, topics: Vec<Topic> },
    Change(Call),
}

#[derive(Debug)]
pub enum RpcAnswer {
    Receipt(Receipt),
    Outcome(Outcome),
}

/// What becomes of what the shards have done.
#[derive(Debug, Clone)]
pub enum Then {
    Placed(ReplyTo),
    Scattered(u64),
    ScatteredFor(ConnId, u64),
    Changed(Asker),
}

#[derive(Debug)]
struct Job {
    left: usize,
    receipt: Option<Receipt>,
    touched: BTreeSet<Topic>,
    then: Then,
}

#[derive(Debug)]
enum Pending {
    Home(Asker, Call),
    Settle(Asker),
}

#[derive(Debug)]
struct Scatter {
    asker: Asker,
    waiting: BTreeSet<Incarnation>,
    receipt: Receipt,
    complete: bool,
}

#[derive(Debug, Clone, Copy)]
enum Waits {
    Scatter(u64, Incarnation),
    Change(Asker),
}

/// Everything that a gateway has been asked and has not answered.
#[derive(Debug, Default)]
pub struct Desk {
    next: u64,
    tickets: BTreeMap<Ticket, Pending>,
    jobs: BTreeMap<u64, Job>,
    scatters: BTreeMap<u64, Scatter>,
    rpcs: BTreeMap<u64, (ConnId, Waits)>,
    /// Calls that carry a higher epoch than ours.
    early: BTreeMap<u64, (Asker, Call)>,
}

impl Desk {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether shards have something to do for it.
    pub fn executes(&self) -> bool {
        !self.jobs.is_empty()
    }
}

impl World {
    fn desk(&mut self, host: usize) -> Option<&mut Desk> {
        Some(&mut self.gateway(host)?.desk)
    }

    /// A call has come in.
    pub fn called(&mut self, host: usize, call: Call) {
        let asker = Asker::Caller { caller: call.caller, cmd: call.cmd, attempt: call.attempt };
        if self.gateway(host).is_none() {
            return self.reply_to(host, asker, Outcome::Refused("unreachable"));
        }
        self.begin(host, asker, call);
    }

    fn begin(&mut self, host: usize, asker: Asker, call: Call) {
        let Some(gateway) = self.gateway(host) else { return };
        if call.carried <= gateway.core.epoch() {
            return self.carry_on(host, asker, call);
        }
        let number = gateway.desk.number();
        gateway.desk.early.insert(number, (asker, call));
        self.timer(host, limits::LINK_TIMEOUT, Timer::CallLate(number));
    }

    pub fn call_late(&mut self, host: usize, number: u64) {
        if let Some((asker, _)) = self.desk(host).and_then(|desk| desk.early.remove(&number)) {
            self.reply_to(host, asker, Outcome::Refused("unavailable"));
        }
    }

    pub fn calls_wait_no_more(&mut self, host: usize) {
        let Some(gateway) = self.gateway(host) else { return };
        let epoch = gateway.core.epoch();
        let early = &mut gateway.desk.early;
        let now: Vec<u64> =
            early.iter().filter(|(_, (_, call))| call.carried <= epoch).map(|(no, _)| *no).collect();
        let calls: Vec<_> = now.iter().filter_map(|number| early.remove(number)).collect();
        for (asker, call) in calls {
            self.carry_on(host, asker, call);
        }
    }

    fn carry_on(&mut self, host: usize, asker: Asker, call: Call) {
        let no = call.cmd;
        let deliver = |what, also| HomeOp::Deliver(Cmd { no, what, also });
        match call.wish.clone() {
            Wish::Send(topics) if topics.len() > 1 => self.scatter(host, asker, no, &topics),
            Wish::Send(topics) => self.route(host, asker, call, topics[0].clone(), deliver(What::Send, None)),
            Wish::Fire(topic) => {
                self.input(host, Input::Route { ticket: None, topic, op: deliver(What::Send, None) });
            }
            Wish::Exclusive(client, topic) => {
                let also = Some(self.clients[client as usize].by);
                self.route(host, asker, call, topic, deliver(What::Exclusive(client), also));
            }
            Wish::JoinAll(topic, group) => {
                self.route(host, asker, call, topic, deliver(What::JoinAll(group), None));
            }
            Wish::Count(topic) => self.route(host, asker, call, topic.clone(), HomeOp::Count(vec![topic])),
            Wish::Roster(topic) => {
                let op = HomeOp::Roster { limit: 1000, after: "".into() };
                self.route(host, asker, call, topic, op);
            }
            Wish::Join(client, ..) | Wish::Leave(client, _) | Wish::Bind(client, _) => {
                self.change_of(host, asker, call, client);
            }
        }
    }

    fn route(&mut self, host: usize, asker: Asker, call: Call, topic: Topic, op: HomeOp<Sim>) {
        let Some(desk) = self.desk(host) else { return };
        let ticket = desk.number();
        desk.tickets.insert(ticket, Pending::Home(asker, call));
        self.input(host, Input::Route { ticket: Some(ticket), topic, op });
    }

    /// The gateway that holds the client changes it.
    fn change_of(&mut self, host: usize, asker: Asker, call: Call, client: u32) {
        let by = self.clients[client as usize].by;
        let me = self.gateway(host).map(|gateway| gateway.me);
        if me == Some(by) {
            return self.change_here(host, Then::Changed(asker), call.cmd, client, call.wish);
        }
        let here = matches!(asker, Asker::Caller { .. });
        let Some(conn) = self.open_link(host, by).filter(|_| here) else {
            return self.reply_to(host, asker, Outcome::Refused("its gateway cannot be reached"));
        };
        self.rpc(host, conn, Waits::Change(asker), Rpc::Change(call), Duration::from_secs(6));
    }

    fn rpc(&mut self, host: usize, conn: ConnId, waits: Waits, rpc: Rpc, patience: Duration) {
        let Some(desk) = self.desk(host) else { return };
        let id = desk.number();
        desk.rpcs.insert(id, (conn, waits));
        self.send(conn, DIALLER, Msg::Rpc(id, rpc));
        self.timer(host, patience, Timer::RpcLate(id));
    }

    pub fn rpc_asked(&mut self, host: usize, conn: ConnId, id: u64, rpc: Rpc) {
        match rpc {
            Rpc::Scatter { cmd, topics } => {
                self.scatter_here(host, Then::ScatteredFor(conn, id), cmd, &topics)
            }
            Rpc::Change(call) => self.begin(host, Asker::Peer(conn, id), call),
        }
    }

    pub fn rpc_answered(&mut self, host: usize, id: u64, answer: RpcAnswer) {
        let Some((_, waits)) = self.desk(host).and_then(|desk| desk.rpcs.remove(&id)) else { return };
        match (waits, answer) {
            (Waits::Scatter(scatter, peer), RpcAnswer::Receipt(receipt)) => {
                self.scattered(host, scatter, Some(peer), Some(receipt));
            }
            (Waits::Change(asker), RpcAnswer::Outcome(outcome)) => self.reply_to(host, asker, outcome),
            _ => {}
        }
    }

    pub fn rpc_fails(&mut self, host: usize, id: u64) {
        let Some((_, waits)) = self.desk(host).and_then(|desk| desk.rpcs.remove(&id)) else { return };
        match waits {
            Waits::Scatter(scatter, peer) => self.scattered(host, scatter, Some(peer), None),
            Waits::Change(asker) => self.reply_to(host, asker, Outcome::Refused("no answer of its gateway")),
        }
    }

    pub fn rpcs_of_lost(&mut self, host: usize, conn: ConnId) {
        let Some(desk) = self.desk(host) else { return };
        let lost: Vec<u64> =
            desk.rpcs.iter().filter(|(_, (one, _))| *one == conn).map(|(id, _)| *id).collect();
        for id in lost {
            self.rpc_fails(host, id);
        }
    }

    /// Every gateway places it among its own clients.
    fn scatter(&mut self, host: usize, asker: Asker, cmd: CmdNo, topics: &[Topic]) {
        let Some(gateway) = self.gateway(host) else { return };
        let id = gateway.desk.number();
        let all = view::gateways(gateway.core.view()).filter(|member| !view::is_leaving(member));
        let mut waiting: BTreeSet<Incarnation> =
            all.filter_map(|member| member.incarnation.parse().ok()).collect();
        let me = gateway.me;
        waiting.insert(me);
        let peers: Vec<_> = waiting.iter().copied().filter(|peer| *peer != me).collect();
        let scatter = Scatter { asker, waiting, receipt: Receipt::default(), complete: true };
        gateway.desk.scatters.insert(id, scatter);
        self.scatter_here(host, Then::Scattered(id), cmd, topics);
        for peer in peers {
            if let Some(conn) = self.open_link(host, peer) {
                let rpc = Rpc::Scatter { cmd, topics: topics.to_vec() };
                self.rpc(host, conn, Waits::Scatter(id, peer), rpc, limits::LINK_TIMEOUT);
            } else {
                self.scattered(host, id, Some(peer), None);
            }
        }
        self.timer(host, limits::LINK_TIMEOUT, Timer::ScatterLate(id));
    }

    /// One gateway has answered, or will not; no peer is this gateway itself.
    fn scattered(&mut self, host: usize, id: u64, peer: Option<Incarnation>, receipt: Option<Receipt>) {
        let Some(gateway) = self.gateway(host) else { return };
        let who = peer.unwrap_or(gateway.me);
        let epoch = gateway.core.epoch();
        let Some(scatter) = gateway.desk.scatters.get_mut(&id) else { return };
        if !scatter.waiting.remove(&who) {
            return;
        }
        scatter.complete &= receipt.is_some() || gateway.left.contains(&who);
        scatter.receipt.clients += receipt.unwrap_or_default().clients;
        scatter.receipt.dropped += receipt.unwrap_or_default().dropped;
        if scatter.waiting.is_empty()
            && let Some(scatter) = gateway.desk.scatters.remove(&id)
        {
            let (complete, receipt) = (scatter.complete, scatter.receipt);
            self.reply_to(host, scatter.asker, Outcome::Receipt { epoch, ordered: false, complete, receipt });
        }
    }

    pub fn scatter_late(&mut self, host: usize, id: u64) {
        let waiting = self.desk(host).and_then(|desk| desk.scatters.get(&id)).map(|one| one.waiting.clone());
        for peer in waiting.unwrap_or_default() {
            self.scattered(host, id, Some(peer), None);
        }
    }

    pub fn new_job(&mut self, host: usize, left: usize, then: Then) -> u64 {
        let Some(desk) = self.desk(host) else { return 0 };
        let job = desk.number();
        desk.jobs.insert(job, Job { left, receipt: None, touched: BTreeSet::new(), then });
        job
    }

    /// One shard has done its part.
    pub fn job_part(&mut self, host: usize, job: u64, receipt: Option<Receipt>, touched: Vec<Topic>) {
        let Some(desk) = self.desk(host) else { return };
        let Some(one) = desk.jobs.get_mut(&job) else { return };
        one.touched.extend(touched);
        one.left -= 1;
        if let Some(receipt) = receipt {
            let all = one.receipt.get_or_insert_default();
            all.clients += receipt.clients;
            all.dropped += receipt.dropped;
        }
        if one.left > 0 {
            return;
        }
        let Some(done) = desk.jobs.remove(&job) else { return };
        let touched: Vec<_> = done.touched.into_iter().collect();
        match done.then {
            Then::Placed(back) => self.input(host, Input::Placed { back, answer: done.receipt, touched }),
            Then::Scattered(id) => self.scattered(host, id, None, done.receipt),
            Then::ScatteredFor(conn, id) => {
                let answer = RpcAnswer::Receipt(done.receipt.unwrap_or_default());
                self.send(conn, LISTENER, Msg::RpcAnswer(id, answer));
            }
            Then::Changed(asker) if done.receipt.is_none() => {
                self.reply_to(host, asker, Outcome::Refused("no such client"));
            }
            Then::Changed(asker) => {
                let Some(desk) = self.desk(host) else { return };
                let ticket = desk.number();
                desk.tickets.insert(ticket, Pending::Settle(asker));
                self.input(host, Input::Settle { ticket, topics: touched });
            }
        }
    }

    pub fn is_settled(&mut self, host: usize, ticket: Ticket, complete: bool) {
        let Some(gateway) = self.gateway(host) else { return };
        let epoch = gateway.core.epoch();
        if let Some(Pending::Settle(asker)) = gateway.desk.tickets.remove(&ticket) {
            self.reply_to(host, asker, Outcome::Changed { epoch, complete });
        }
    }

    pub fn home_answers(&mut self, host: usize, ticket: Ticket, reply: HomeReply<Sim>) {
        let Some(Pending::Home(asker, _)) = self.desk(host).and_then(|desk| desk.tickets.remove(&ticket))
        else {
            return;
        };
        let outcome = match reply {
            HomeReply::NotHome(_) => Outcome::Refused("not home"),
            HomeReply::Busy => Outcome::Refused("busy"),
            HomeReply::Moved => Outcome::Refused("moved"),
            // Not asked here: what groups keep has tests of its own.
            HomeReply::History { .. }
            | HomeReply::Last { .. }
            | HomeReply::Inspected(_)
            | HomeReply::Claimed(_) => Outcome::Refused("kept"),
            HomeReply::Done(HomeOutcome { epoch, answer, missing, .. }) => {
                let receipt = answer.unwrap_or_default();
                Outcome::Receipt { epoch, ordered: true, complete: missing.is_empty(), receipt }
            }
            HomeReply::Counted { epoch, clients, missing } => {
                Outcome::Counted { epoch, complete: missing.is_empty(), clients: clients[0] }
            }
            HomeReply::Roster { epoch, members, missing, .. } => {
                let users = members.into_iter().map(|(user, _)| user.to_string()).collect();
                Outcome::Roster { epoch, complete: missing.is_empty(), users }
            }
        };
        self.reply_to(host, asker, outcome);
    }

    pub fn no_home(&mut self, host: usize, ticket: Ticket) {
        let Some(Pending::Home(asker, call)) = self.desk(host).and_then(|desk| desk.tickets.remove(&ticket))
        else {
            return;
        };
        match &call.wish {
            Wish::Send(topics) => self.scatter(host, asker, call.cmd, topics),
            _ => self.reply_to(host, asker, Outcome::Refused("no home")),
        }
    }

    fn reply_to(&mut self, host: usize, asker: Asker, mut outcome: Outcome) {
        match asker {
            Asker::Caller { caller, cmd, attempt } => {
                self.complete_or_not(host, cmd, &mut outcome);
                // Its port is closed once it has left, and the others have ended their links to it.
                let has_left = self.gateway(host).is_some_and(|gateway| gateway.has_left);
                if has_left && !outcome.complete() {
                    outcome = Outcome::Refused("unreachable");
                }
                self.tell_caller(caller, cmd, attempt, outcome);
            }
            Asker::Peer(conn, id) => {
                self.send(conn, LISTENER, Msg::RpcAnswer(id, RpcAnswer::Outcome(outcome)))
            }
        }
    }
}
