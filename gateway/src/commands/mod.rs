//! From a command to its answer: whom it concerns, in what order it is placed, what came back.
//!
//! A caller's commands are placed, one batch after the other, into the mailboxes of the shards and the
//! queues of the peer links; both keep order, so at any one client they take effect in the order in
//! which the caller made them. Answers are awaited apart from that.

mod local;
mod merge;
mod placed;
mod status;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use broadgate_proto::{
    id::{ClientId, Incarnation},
    v1::{self, View, command::Command},
};
use broadgate_register::member::{RegisterStatus, view};
use tokio::sync::watch;
use tonic::Code;

pub(crate) use self::{local::Local, placed::Placed};
use crate::{
    me::Me,
    orders::{Concerns, Order, Parser, Refusal, refusal},
    peers::Peers,
};

/// Places commands and gathers their answers.
pub(crate) struct Dispatcher {
    pub(crate) me: Arc<ArcSwap<Me>>,
    pub(crate) local: Local,
    pub(crate) peers: Peers,
    pub(crate) parser: Parser,
    pub(crate) link_timeout: Duration,
    pub(crate) register: Box<dyn Fn() -> RegisterStatus + Send + Sync>,
    pub(crate) views: watch::Receiver<Arc<View>>,
    pub(crate) started: Instant,
    /// For commands whose caller made no id.
    pub(crate) next_id: AtomicU64,
}

/// One command on its way.
pub(crate) struct Placing {
    /// The caller's number.
    pub(crate) id: u64,
    pub(crate) command: Command,
    pub(crate) order: Result<Arc<Order>, Refusal>,
    /// Incarnations that were named and are in no view, with how many clients.
    pub(crate) unknown: Vec<(Incarnation, Vec<ClientId>)>,
    /// Gateways asked.
    pub(crate) asked: usize,
}

impl Dispatcher {
    /// Puts the commands of one caller into every queue that they concern, in order.
    pub(crate) async fn place(self: &Arc<Self>, commands: Vec<v1::Command>) -> Placed {
        let view = self.views.borrow().clone();
        let me = self.me.load();
        let mut placings = Vec::with_capacity(commands.len());
        let mut here: Vec<(usize, Arc<Order>)> = Vec::new();
        let mut there: BTreeMap<Incarnation, Vec<(usize, v1::Command)>> = BTreeMap::new();
        for (index, v1::Command { id, command, .. }) in commands.into_iter().enumerate() {
            let mut placing = self.parse(id, command);
            if let Ok(order) = &placing.order {
                // A page of clients goes from gateway to gateway; see `placed`.
                if !matches!(**order, Order::ListClients { .. }) {
                    let order = Arc::clone(order);
                    self.route(&me, &mut placing, &order, |target| {
                        if target == me.incarnation {
                            here.push((index, Arc::clone(&order)));
                        } else {
                            let command = v1::Command { id: index as u64, command: None, after: None };
                            there.entry(target).or_default().push((index, command));
                        }
                    });
                }
            }
            placings.push(placing);
        }
        let local = self.local.execute(here).await;
        let mut remote = Vec::with_capacity(there.len());
        for (target, mut batch) in there {
            for (index, command) in &mut batch {
                command.command = Some(placings[*index].command.clone());
            }
            let name = self.peers.name(target);
            remote.push((
                name,
                self.peers.send(target, batch.into_iter().map(|(_, command)| command).collect()),
            ));
        }
        Placed::new(Arc::clone(self), view::epoch(&view), placings, local, remote)
    }

    fn parse(&self, id: u64, command: Option<Command>) -> Placing {
        let order = match &command {
            Some(command) => self.parser.parse(command),
            // A newer caller's: prost leaves out what it does not know.
            None => Err(refusal(Code::Unimplemented, "this gateway does not know the command")),
        };
        let mut command = command.unwrap_or(Command::Status(v1::StatusRequest {}));
        if let Some(command_id) = command_id(&mut command).filter(|command_id| command_id.is_empty()) {
            let number = self.next_id.fetch_add(1, Ordering::Relaxed);
            *command_id = format!("{}-{number}", self.me.load().incarnation);
        }
        Placing { id, command, order, unknown: Vec::new(), asked: 0 }
    }

    /// Calls `to` for every gateway that an order concerns.
    fn route(&self, me: &Me, placing: &mut Placing, order: &Order, mut to: impl FnMut(Incarnation)) {
        match order.concerns() {
            Concerns::All => {
                to(me.incarnation);
                placing.asked += 1;
                for peer in self.peers.all() {
                    to(peer);
                    placing.asked += 1;
                }
                placing.unknown = self.unknown_of(me, order);
            }
            Concerns::Some(homes) => {
                for (home, clients) in homes {
                    if home == me.incarnation || self.peers.has(home) {
                        to(home);
                        placing.asked += 1;
                    } else {
                        placing.unknown.push((home, clients));
                    }
                }
            }
        }
    }

    /// Clients that are listed beside groups or uids, and whose gateway is in no view.
    fn unknown_of(&self, me: &Me, order: &Order) -> Vec<(Incarnation, Vec<ClientId>)> {
        let listed: &[_] = match order {
            Order::Send { to, .. } | Order::Close { to, .. } => &to.clients,
            Order::Join { who, .. } | Order::Leave { who, .. } => &who.clients,
            Order::Online { clients, .. } => clients,
            _ => &[],
        };
        let mut unknown: BTreeMap<Incarnation, Vec<_>> = BTreeMap::new();
        for &client in listed {
            let home = client.incarnation;
            if home != me.incarnation && !self.peers.has(home) {
                unknown.entry(home).or_default().push(client);
            }
        }
        unknown.into_iter().collect()
    }

    /// One command, placed and answered.
    pub(crate) async fn run(self: &Arc<Self>, command: Command) -> v1::answer::Answer {
        let placed = self.place(vec![v1::Command { id: 0, command: Some(command), after: None }]).await;
        let answer = placed.answers().await.pop().and_then(|answer| answer.answer);
        answer.unwrap_or_else(|| {
            v1::answer::Answer::Error(refusal(Code::Internal, "the command was not answered"))
        })
    }
}

fn command_id(command: &mut Command) -> Option<&mut String> {
    Some(match command {
        Command::Send(request) => &mut request.command_id,
        Command::Close(request) => &mut request.command_id,
        Command::Bind(request) => &mut request.command_id,
        Command::Unbind(request) => &mut request.command_id,
        Command::Join(request) => &mut request.command_id,
        Command::Leave(request) => &mut request.command_id,
        Command::Dissolve(request) => &mut request.command_id,
        Command::SetSession(request) => &mut request.command_id,
        Command::MergeSession(request) => &mut request.command_id,
        _ => return None,
    })
}
