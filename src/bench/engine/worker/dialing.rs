//! How a client comes, is refused, comes back.

use std::sync::{Arc, atomic::Ordering};

use rustix::event::epoll::{self, EventData, EventFlags};
use serde_json::json;

use super::{
    super::{
        client::{Stage, dial},
        clock::now_ns,
        tls::Tls,
    },
    SOCKETIO_PING, SOCKETIO_PONG, Step, Worker,
};
use crate::{frames, target::Kind};

/// How long a client waits that was refused without a Retry-After.
const RETRY_NS: u64 = 1_000_000_000;

impl Worker {
    pub(super) fn dial_some(&mut self) {
        while self.dialing < self.plan.dialing_max {
            let due = self.retries.front().is_some_and(|(at, _)| *at <= now_ns());
            let again = if due { self.retries.pop_front().map(|(_, index)| index) } else { None };
            let Some(index) = again.or_else(|| self.waiting.pop_front()) else { return };
            self.dialing += 1;
            self.dial_one(index as usize);
        }
    }

    pub(super) fn dial_one(&mut self, index: usize) {
        let plan = Arc::clone(&self.plan);
        let target = &plan.targets[usize::from(self.clients[index].target)];
        let dialed = dial(target, std::process::id(), index * self.threads + self.me);
        let (fd, connected) = match dialed {
            Ok(dialed) => dialed,
            Err(error) => return self.refused(index, &error.to_string(), None),
        };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if let Err(error) = epoll::add(&self.epoll, &fd, EventData::new_u64(index as u64), flags) {
            return self.refused(index, &error.to_string(), None);
        }
        let client = &mut self.clients[index];
        client.fd = Some(fd);
        client.stage = Stage::Connecting;
        if connected {
            self.handshake(index);
        }
    }

    pub(super) fn handshake(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.stage = Stage::Handshaking;
        let target = &self.plan.targets[usize::from(client.target)];
        if target.is_tls {
            match Tls::new() {
                Ok(tls) => client.tls = Some(Box::new(tls)),
                Err(error) => return self.refused(index, &error.to_string(), None),
            }
        }
        let request = target.request(&self.plan.group_names[client.group as usize]);
        self.send(index, request.as_bytes());
    }

    /// A dial that has failed.
    pub(super) fn refused(&mut self, index: usize, why: &str, retry_after_s: Option<u64>) {
        self.dialing -= 1;
        let client = &mut self.clients[index];
        (client.fd, client.tls, client.stage) = (None, None, Stage::Idle);
        client.rest = Vec::new();
        if !self.plan.comes_back {
            let host = &self.plan.targets[usize::from(client.target)].host;
            self.failed.get_or_insert(format!("{host}: {why}"));
            return;
        }
        self.tally.refused += 1;
        let wait_ns = retry_after_s.map_or(RETRY_NS, |seconds| seconds * 1_000_000_000);
        self.retries.push_back((now_ns() + wait_ns, index as u32));
        let next = (client.target + 1) % self.plan.targets.len() as u16;
        client.target = next;
    }

    pub(super) fn closed(&mut self, index: usize, why: &str) {
        match self.clients[index].stage {
            Stage::Connecting | Stage::Handshaking | Stage::Subscribing => self.refused(index, why, None),
            Stage::Live | Stage::Deaf => {
                self.tally.closed += 1;
                self.plan.live.fetch_sub(1, Ordering::AcqRel);
                let client = &mut self.clients[index];
                (client.fd, client.tls, client.rest) = (None, None, Vec::new());
                client.stage = if self.plan.comes_back { Stage::Idle } else { Stage::Gone };
                if self.plan.comes_back {
                    client.target = (client.target + 1) % self.plan.targets.len() as u16;
                    self.waiting.push_back(index as u32);
                }
            }
            Stage::Idle | Stage::Gone => {}
        }
    }

    pub(super) fn upgraded(&mut self, index: usize) {
        let client = &mut self.clients[index];
        match self.plan.targets[usize::from(client.target)].kind {
            Kind::Pusher => {
                client.stage = Stage::Subscribing;
                let channel = &self.plan.group_names[client.group as usize];
                let event = json!({ "event": "pusher:subscribe", "data": { "channel": channel } });
                self.send(index, &frames::client(1, event.to_string().as_bytes()));
            }
            // Its server speaks first.
            Kind::SocketIo => client.stage = Stage::Subscribing,
            Kind::Raw | Kind::Ceiling => self.served(index),
        }
    }

    /// What a client hears until it is in its channel. To Socket.IO clients nothing confirms that: they then ask for a
    /// channel that every app refuses, and what they ask for takes effect in its order.
    pub(super) fn subscribing(&mut self, index: usize, payload: &[u8]) -> Step {
        let has = |text: &[u8]| payload.windows(text.len()).any(|part| part == text);
        if has(b"subscription_succeeded") || payload.starts_with(br##"42["subscription_error","#""##) {
            self.served(index);
        } else if has(b"pusher:error") || has(b"subscription_error") {
            self.refused(index, &String::from_utf8_lossy(payload), None);
            return Step::Close;
        } else if payload.starts_with(b"0{") {
            self.send(index, &frames::client(1, b"40"));
        } else if payload.starts_with(b"40") {
            let plan = Arc::clone(&self.plan);
            for channel in [&*plan.group_names[self.clients[index].group as usize], "#"] {
                let event = format!("42{}", json!(["subscribe", { "channel": channel }]));
                self.send(index, &frames::client(1, event.as_bytes()));
            }
        } else if payload == SOCKETIO_PING {
            self.send(index, &frames::client(1, SOCKETIO_PONG));
        }
        Step::More
    }

    pub(super) fn served(&mut self, index: usize) {
        self.clients[index].stage = Stage::Live;
        self.dialing -= 1;
        self.plan.live.fetch_add(1, Ordering::AcqRel);
    }
}
