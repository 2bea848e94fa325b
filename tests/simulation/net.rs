//! Connections between nodes: each way first in, first out, until it breaks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::{
    id::Incarnation,
    v1::{View, join_reply::Reply},
};
use broadgate_register::server::simulation::Input as RegisterInput;
use broadgate_topics::LinkMessage;

use super::{
    calls::{Rpc, RpcAnswer},
    history::Sim,
    rng::Rng,
    world::{Event, World},
};

/// Nodes are the hosts by number, and the registers.
pub const REGISTER: usize = 255;
/// The one that runs beside it in lives with two.
pub const OTHER_REGISTER: usize = 254;
/// The third one in lives with a ledger.
pub const THIRD_REGISTER: usize = 253;
/// All of them.
pub const REGISTERS: [usize; 3] = [REGISTER, OTHER_REGISTER, THIRD_REGISTER];
pub type ConnId = u64;

/// Which register is at this node, if one is.
pub const fn register_at(node: usize) -> Option<usize> {
    match node {
        REGISTER => Some(0),
        OTHER_REGISTER => Some(1),
        THIRD_REGISTER => Some(2),
        _ => None,
    }
}

/// The node of a register.
pub const fn register_node(no: usize) -> usize {
    REGISTERS[no]
}

/// The end that dialled, and the end that was dialled.
pub const DIALLER: usize = 0;
pub const LISTENER: usize = 1;

#[derive(Debug)]
pub enum Msg {
    Hello { from: Incarnation, to: Incarnation, view: Arc<View> },
    HelloOk { view: Arc<View> },
    Beat,
    Frame(LinkMessage<Sim>),
    Taken(usize),
    Rpc(u64, Rpc),
    RpcAnswer(u64, RpcAnswer),
    ToRegister(Box<RegisterInput>),
    FromRegister(Box<Reply>),
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    pub nodes: [usize; 2],
    /// Which run of each node.
    lives: [u64; 2],
    pub dead: [bool; 2],
    pub heard: [Duration; 2],
    /// Nothing may arrive at an end before this.
    fifo: [Duration; 2],
    stalled: [VecDeque<Msg>; 2],
    rng: Rng,
}

/// What a way between two nodes suffers from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path {
    pub holes: u32,
    pub slow: Duration,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Net {
    pub conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    paths: BTreeMap<(usize, usize), Path>,
    /// How many connections each pair of nodes has made: their chance depends on that alone.
    made: BTreeMap<(usize, usize), u64>,
}

impl World {
    pub fn path(&mut self, from: usize, to: usize) -> &mut Path {
        self.net.paths.entry((from, to)).or_default()
    }

    pub fn has_hole(&self, from: usize, to: usize) -> bool {
        self.net.paths.get(&(from, to)).is_some_and(|path| path.holes > 0)
    }

    /// Dials. None if nobody listens there.
    pub fn connect(&mut self, from: usize, to: usize) -> Option<ConnId> {
        let lives = [self.life_of(from)?, self.life_of(to)?];
        self.net.next += 1;
        let id = self.net.next;
        let made = self.net.made.entry((from, to)).or_default();
        *made += 1;
        let rng = Rng::of(&[self.seed, 1, from as u64, to as u64, *made]);
        let conn = Conn {
            nodes: [from, to],
            lives,
            dead: [false; 2],
            heard: [self.now; 2],
            fifo: [self.now; 2],
            stalled: Default::default(),
            rng,
        };
        self.net.conns.insert(id, conn);
        Some(id)
    }

    fn delay(&mut self, id: ConnId, to: usize) -> Option<Duration> {
        let conn = self.net.conns.get_mut(&id)?;
        let slow =
            self.net.paths.get(&(conn.nodes[1 - to], conn.nodes[to])).map_or(Duration::ZERO, |p| p.slow);
        // Now and then a packet is lost and sent again.
        let late = if conn.rng.percent(2) { 200_000 } else { 0 };
        Some(self.now + slow + Duration::from_micros(conn.rng.between(200, 3000) + late))
    }

    /// Says something from one end to the other.
    pub fn send(&mut self, id: ConnId, from: usize, msg: Msg) {
        let to = 1 - from;
        let Some(at) = self.delay(id, to) else { return };
        let Some(conn) = self.net.conns.get_mut(&id).filter(|conn| !conn.dead[from]) else { return };
        let at = at.max(conn.fifo[to] + Duration::from_micros(1));
        conn.fifo[to] = at;
        self.at(at, Event::Arrive { conn: id, end: to, msg });
    }

    /// Something has come to an end of a connection.
    pub fn arrive(&mut self, id: ConnId, end: usize, msg: Msg) {
        let Some(conn) = self.net.conns.get(&id) else { return };
        let [from, to] = [conn.nodes[1 - end], conn.nodes[end]];
        let hole = self.has_hole(from, to);
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        if hole || !conn.stalled[end].is_empty() {
            // It is sent again until the way is mended or an end gives up.
            conn.stalled[end].push_back(msg);
            return;
        }
        self.happen(Event::Read { conn: id, end, msg });
    }

    /// What has come is read.
    pub fn read(&mut self, id: ConnId, end: usize, msg: Msg) {
        let Some(to) = self.net.conns.get(&id).map(|conn| conn.nodes[end]) else { return };
        let (life, now) = (self.life_of(to), self.now);
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        if conn.dead[end] || life != Some(conn.lives[end]) {
            // The listener there now knows nothing of it.
            if life.is_some() {
                conn.dead[end] = true;
                self.tell_end(id, 1 - end);
            }
            return;
        }
        conn.heard[end] = now;
        if let Some(no) = register_at(to) {
            self.register_hears(no, id, msg);
        } else {
            self.gateway_hears(to, id, end, msg);
        }
    }

    /// This end is over; the other one learns it, if anything gets through.
    pub fn end(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        if !std::mem::replace(&mut conn.dead[end], true) {
            conn.stalled[end].clear();
            self.tell_end(id, 1 - end);
        }
    }

    fn tell_end(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.net.conns.get(&id) else { return };
        let [from, to] = [conn.nodes[1 - end], conn.nodes[end]];
        if conn.dead[end] || self.has_hole(from, to) {
            return;
        }
        if let Some(at) = self.delay(id, end) {
            self.at(at, Event::Ended { conn: id, end });
        }
    }

    /// An end hears that the other one is over.
    pub fn ended(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let (node, life) = (conn.nodes[end], conn.lives[end]);
        if std::mem::replace(&mut conn.dead[end], true) || self.life_of(node) != Some(life) {
            return;
        }
        self.end_is_over(id, end);
    }

    /// An end gives up by itself.
    pub fn give_up(&mut self, id: ConnId, end: usize) {
        if self.net.conns.get(&id).is_some_and(|conn| !conn.dead[end]) {
            self.end(id, end);
            self.end_is_over(id, end);
        }
    }

    fn end_is_over(&mut self, id: ConnId, end: usize) {
        let Some(node) = self.net.conns.get(&id).map(|conn| conn.nodes[end]) else { return };
        if let Some(no) = register_at(node) {
            self.register_loses(no, id);
        } else {
            self.gateway_loses(node, id, end);
        }
    }

    /// All of a node's ends die with it. Unless it dies silently, the others hear of it.
    pub fn node_gone(&mut self, node: usize, silently: bool) {
        let ids: Vec<_> =
            self.net.conns.iter().filter(|(_, c)| c.nodes.contains(&node)).map(|(id, _)| *id).collect();
        for id in ids {
            for end in [DIALLER, LISTENER] {
                let Some(conn) = self.net.conns.get_mut(&id).filter(|conn| conn.nodes[end] == node) else {
                    continue;
                };
                if !std::mem::replace(&mut conn.dead[end], true) && !silently {
                    self.tell_end(id, 1 - end);
                }
            }
        }
        self.net.conns.retain(|_, conn| !(conn.dead[0] && conn.dead[1]));
    }

    /// Breaks every connection that goes this way: both ends notice, each at its time.
    pub fn reset(&mut self, from: usize, to: usize) {
        let goes = |conn: &Conn| conn.nodes == [from, to];
        let ids: Vec<_> = self.net.conns.iter().filter(|(_, c)| goes(c)).map(|(id, _)| *id).collect();
        for id in ids {
            for end in [DIALLER, LISTENER] {
                if let Some(at) = self.delay(id, end) {
                    self.at(at, Event::Ended { conn: id, end });
                }
            }
        }
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.path(from, to).holes += 1;
    }

    pub fn mend(&mut self, from: usize, to: usize) {
        let path = self.path(from, to);
        path.holes = path.holes.saturating_sub(1);
        if path.holes > 0 {
            return;
        }
        let ids: Vec<_> = self.net.conns.keys().copied().collect();
        for id in ids {
            for end in [DIALLER, LISTENER] {
                let Some(conn) = self.net.conns.get_mut(&id) else { continue };
                if conn.nodes[1 - end] != from || conn.nodes[end] != to {
                    continue;
                }
                for msg in std::mem::take(&mut conn.stalled[end]) {
                    self.happen(Event::Arrive { conn: id, end, msg });
                }
                // The pending news of the other end arrives now.
                if self.net.conns.get(&id).is_some_and(|c| c.dead[1 - end] && !c.dead[end]) {
                    self.tell_end(id, end);
                }
            }
        }
    }
}

impl Net {
    pub fn slowness(&self, from: usize, to: usize) -> Duration {
        self.paths.get(&(from, to)).map_or(Duration::ZERO, |path| path.slow)
    }

    /// Nothing is slow or cut any more; the world mends what waits.
    pub fn heal(&mut self) {
        for path in self.paths.values_mut() {
            path.holes = path.holes.min(1);
            path.slow = Duration::ZERO;
        }
    }
}
