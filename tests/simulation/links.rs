//! The links between the gateways of a view: dialled, greeted, beaten, mended.

use std::{sync::Arc, time::Duration};

use broadgate_proto::view;
use broadgate_proto::{id::Incarnation, limits, v1::View};
use broadgate_topics::{Content as _, HomeOp, Input, LinkMessage};

use super::{
    bugs::Bug,
    gateway::Timer,
    history::{Fact, Sim},
    net::{ConnId, DIALLER, LISTENER, Msg, register_at},
    register::host_at,
    world::World,
};

/// This gateway's link to a peer.
#[derive(Debug)]
pub struct Dial {
    host: usize,
    pub conn: Option<ConnId>,
    pub open: bool,
    failed: u32,
}

impl World {
    /// Dials new gateways of the view, and closes links to those outside.
    pub fn links_follow(&mut self, host: usize, view: &View) {
        let mut fresh = Vec::new();
        let unfenced = self.bug == Some(Bug::NoFencing);
        let Some(gateway) = self.gateway(host) else { return };
        let mut gone: Vec<Incarnation> = gateway.dials.keys().chain(gateway.heard.keys()).copied().collect();
        for member in view::gateways(view) {
            let Ok(peer) = member.incarnation.parse::<Incarnation>() else { continue };
            gone.retain(|one| *one != peer);
            if let Some(at) = host_at(&member.address).filter(|_| peer != gateway.me)
                && !gateway.dials.contains_key(&peer)
            {
                gateway.dials.insert(peer, Dial { host: at, conn: None, open: false, failed: 0 });
                fresh.push(peer);
            }
        }
        let mut conns = Vec::new();
        for peer in gone {
            let dialled = gateway.dials.remove(&peer).and_then(|dial| dial.conn);
            conns.extend(dialled.map(|conn| (conn, DIALLER)));
            if !unfenced {
                conns.extend(gateway.heard.remove(&peer).map(|(conn, _)| (conn, LISTENER)));
            }
        }
        for (conn, end) in conns {
            self.end(conn, end);
            self.rpcs_of_lost(host, conn);
        }
        for peer in fresh {
            self.timer(host, Duration::from_millis(1), Timer::Dial(peer));
        }
    }

    pub fn dial(&mut self, host: usize, peer: Incarnation) {
        let Some(to) =
            self.gateway(host).and_then(|g| g.dials.get(&peer)).filter(|d| d.conn.is_none()).map(|d| d.host)
        else {
            return;
        };
        let Some(conn) = self.connect(host, to) else { return self.dial_later(host, peer) };
        let Some(gateway) = self.gateway(host) else { return };
        if let Some(dial) = gateway.dials.get_mut(&peer) {
            dial.conn = Some(conn);
        }
        let (from, view) = (gateway.me, Arc::clone(gateway.core.view()));
        self.send(conn, DIALLER, Msg::Hello { from, to: peer, view });
        self.timer(host, limits::LINK_BEAT, Timer::LinkBeat(conn, DIALLER));
    }

    fn dial_later(&mut self, host: usize, peer: Incarnation) {
        let Some(gateway) = self.gateway(host) else { return };
        let jitter = gateway.rng.between(0, 50);
        let Some(dial) = gateway.dials.get_mut(&peer) else { return };
        let wait = (50 << dial.failed.min(5)).min(1000) + jitter;
        dial.failed += 1;
        self.timer(host, Duration::from_millis(wait), Timer::Dial(peer));
    }

    /// Something has come over a connection of this gateway.
    pub fn gateway_hears(&mut self, host: usize, conn: ConnId, end: usize, msg: Msg) {
        if let Msg::FromRegister(reply) = msg {
            return self.member_hears(host, conn, *reply);
        }
        if let Msg::Hello { from, to, view } = msg {
            return self.link_greeted(host, conn, [from, to], view);
        }
        if end == DIALLER {
            return self.dialler_hears(host, conn, msg);
        }
        let Some(gateway) = self.gateway(host) else { return };
        let Some((peer, session)) = gateway
            .heard
            .iter()
            .find(|(_, (one, _))| *one == conn)
            .map(|(peer, (_, session))| (*peer, *session))
        else {
            return;
        };
        match msg {
            Msg::Frame(frame) => {
                let bytes = bytes(&frame);
                self.input(host, Input::Received(peer, session, frame));
                if bytes > 0 {
                    self.send(conn, LISTENER, Msg::Taken(bytes));
                }
            }
            Msg::Rpc(id, rpc) => self.rpc_asked(host, conn, id, rpc),
            _ => {}
        }
    }

    fn link_greeted(&mut self, host: usize, conn: ConnId, [from, to]: [Incarnation; 2], view: Arc<View>) {
        // Another gateway may have that address now: the frames are not for it.
        if self.gateway(host).is_none_or(|gateway| gateway.me != to) {
            return self.end(conn, LISTENER);
        }
        self.view_comes(host, view);
        // By taking that view it may have found itself removed: then nobody answers.
        if self.net.conns.get(&conn).is_none_or(|conn| conn.dead[LISTENER]) {
            return;
        }
        let Some(gateway) = self.gateway(host) else { return };
        let view = Arc::clone(gateway.core.view());
        if view::find(&view, from).is_none() {
            return self.end(conn, LISTENER);
        }
        gateway.next_session += 1;
        let session = gateway.next_session;
        let former = gateway.heard.insert(from, (conn, session));
        if let Some((former, _)) = former {
            self.end(former, LISTENER);
        }
        self.input(host, Input::InboundUp(from, session));
        self.send(conn, LISTENER, Msg::HelloOk { view });
        self.timer(host, limits::LINK_BEAT, Timer::LinkBeat(conn, LISTENER));
    }

    fn peer_of_dialled(&mut self, host: usize, conn: ConnId) -> Option<Incarnation> {
        let dials = &self.gateway(host)?.dials;
        dials.iter().find(|(_, dial)| dial.conn == Some(conn)).map(|(peer, _)| *peer)
    }

    fn dialler_hears(&mut self, host: usize, conn: ConnId, msg: Msg) {
        let Some(peer) = self.peer_of_dialled(host, conn) else { return };
        match msg {
            Msg::HelloOk { view } => {
                self.view_comes(host, view);
                // Unless the view has dropped it.
                if self.peer_of_dialled(host, conn) != Some(peer) {
                    return;
                }
                if let Some(dial) = self.gateway(host).and_then(|gateway| gateway.dials.get_mut(&peer)) {
                    dial.open = true;
                    dial.failed = 0;
                }
                self.input(host, Input::OutboundUp(peer));
            }
            Msg::Taken(bytes) => self.input(host, Input::Taken(peer, bytes)),
            Msg::RpcAnswer(id, answer) => self.rpc_answered(host, id, answer),
            _ => {}
        }
    }

    pub fn link_says(&mut self, host: usize, peer: Incarnation, frame: LinkMessage<Sim>) {
        if let Some(conn) = self.open_link(host, peer) {
            if let LinkMessage::Ask { op: HomeOp::Deliver(command), .. } = &frame {
                self.note(Fact::Asked { cmd: command.no });
            }
            self.send(conn, DIALLER, Msg::Frame(frame));
        }
    }

    pub fn open_link(&mut self, host: usize, peer: Incarnation) -> Option<ConnId> {
        let dial = self.gateway(host)?.dials.get(&peer)?;
        dial.conn.filter(|_| dial.open)
    }

    pub fn link_beats(&mut self, host: usize, conn: ConnId, end: usize) {
        let Some(state) = self.net.conns.get(&conn).filter(|conn| !conn.dead[end]) else { return };
        if self.now >= state.heard[end] + limits::LINK_TIMEOUT {
            return self.give_up(conn, end);
        }
        self.send(conn, end, Msg::Beat);
        self.timer(host, limits::LINK_BEAT, Timer::LinkBeat(conn, end));
    }

    /// A connection of this gateway is over.
    pub fn gateway_loses(&mut self, host: usize, conn: ConnId, end: usize) {
        let Some(state) = self.net.conns.get(&conn) else { return };
        let heard_last = state.heard[end];
        if register_at(state.nodes[LISTENER]).is_some() {
            if self.gateway(host).is_some_and(|gateway| gateway.member.stream == Some(conn)) {
                self.member_loses(host);
            }
            return;
        }
        if end == DIALLER {
            let Some(peer) = self.peer_of_dialled(host, conn) else { return };
            let Some(dial) = self.gateway(host).and_then(|gateway| gateway.dials.get_mut(&peer)) else {
                return;
            };
            dial.conn = None;
            if std::mem::replace(&mut dial.open, false) {
                self.input(host, Input::OutboundDown(peer, heard_last));
            }
            self.rpcs_of_lost(host, conn);
            self.dial_later(host, peer);
            return;
        }
        let Some(gateway) = self.gateway(host) else { return };
        let found = gateway.heard.iter().find(|(_, (one, _))| *one == conn);
        if let Some((peer, session)) = found.map(|(peer, (_, session))| (*peer, *session)) {
            gateway.heard.remove(&peer);
            self.input(host, Input::InboundDown(peer, session, heard_last));
        }
    }

    /// Both links with the peer are reset.
    pub fn distrust(&mut self, host: usize, peer: Incarnation) {
        let Some(gateway) = self.gateway(host) else { return };
        let heard = gateway.heard.get(&peer).map(|(conn, _)| *conn);
        let dialled = gateway.dials.get(&peer).and_then(|dial| dial.conn);
        if let Some(conn) = heard {
            self.give_up(conn, LISTENER);
        }
        if let Some(conn) = dialled {
            self.give_up(conn, DIALLER);
        }
    }
}

fn bytes(frame: &LinkMessage<Sim>) -> usize {
    match frame {
        LinkMessage::Ask { op: HomeOp::Deliver(command), .. } | LinkMessage::Deliver { command, .. } => {
            Sim::bytes(command)
        }
        _ => 0,
    }
}
