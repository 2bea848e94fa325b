//! One thread's loop over its clients.

mod dialing;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
};

use broadgate::failure::Failure;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventFlags},
    },
    io::Errno,
    net::{RecvFlags, SendFlags, getsockname, recv, send, sockopt},
};

use crate::{
    engine::{
        client::{Client, Stage, retry_after},
        clock::now_ns,
        payload,
        plan::Plan,
        report_lines,
        tally::{self, Tally},
        window::Window,
    },
    frames::{self, Frame},
};

/// One of so many clients notes down latencies, so that noting is not the bottleneck.
const SAMPLED: usize = 16;
const EVENTS_MAX: usize = 1024;
/// All clients of the thread read into this.
const BUFFER_BYTES: usize = 256 * 1024;
/// How often a thread that has nothing to do looks whether it shall stop.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

const SOCKETIO_PING: &[u8] = b"2";
const SOCKETIO_PONG: &[u8] = b"3";

/// What a frame was, for the loop that must not hold the client meanwhile.
enum Step {
    More,
    Close,
}

pub(crate) struct Worker {
    plan: Arc<Plan>,
    me: usize,
    threads: usize,
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// Clients of this thread in each group that count as receivers.
    pub(super) members: Vec<u32>,
    waiting: VecDeque<u32>,
    /// Who dials again, and when.
    retries: VecDeque<(u64, u32)>,
    dialing: usize,
    pub(crate) tally: Tally,
    /// Receipts of each message in flight.
    counts: Vec<u32>,
    completed: bool,
    /// Messages to report to the process that started this one.
    done: Vec<u64>,
    buffer: Vec<u8>,
    /// What was opened of one read, and what is sealed for one write; empty between two calls.
    plain: Vec<u8>,
    sealed: Vec<u8>,
    text_place: usize,
    /// Echoes are answered by the next message until then.
    pub(crate) echo_until: u64,
    /// What ends the run.
    failed: Option<String>,
}

impl Worker {
    pub(super) fn new(plan: Arc<Plan>, me: usize, threads: usize, clients: usize) -> Result<Self, Failure> {
        let mut members = vec![0; plan.groups as usize];
        let mine = (me..clients).step_by(threads);
        let clients: Vec<_> = mine
            .map(|index| {
                let group = u32::try_from(index).unwrap_or(0) % plan.groups;
                members[group as usize] += 1;
                // A client that reconnects starts like all others.
                let spread = if plan.comes_back { 0 } else { index % plan.targets.len() };
                let target = u16::try_from(spread).unwrap_or(0);
                let expected = group.into();
                Client {
                    fd: None,
                    stage: Stage::Idle,
                    waits: false,
                    target,
                    group,
                    expected,
                    rest: Vec::new(),
                    tls: None,
                }
            })
            .collect();
        Ok(Self {
            me,
            threads,
            epoll: epoll::create(CreateFlags::CLOEXEC).map_err(std::io::Error::from)?,
            waiting: (0..u32::try_from(clients.len()).unwrap_or(u32::MAX)).collect(),
            clients,
            members,
            retries: VecDeque::new(),
            dialing: 0,
            tally: Tally::new().map_err(|error| Failure::Failed(error.to_string()))?,
            counts: vec![0; plan.window.slots()],
            completed: false,
            done: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            plain: Vec::new(),
            sealed: Vec::new(),
            text_place: 0,
            echo_until: 0,
            failed: None,
            plan,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.clients.len()
    }

    /// Until it shall stop.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        while !self.plan.stop.load(Ordering::Acquire) {
            self.dial_some();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&TICK)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
            for event in events.drain(..) {
                self.ready(event.data.u64() as usize, event.flags);
            }
            if !self.done.is_empty() {
                report_lines::done(&mut self.done)?;
            }
            if std::mem::take(&mut self.completed) {
                self.plan.window.wake();
            }
            if let Some(failed) = self.failed.take() {
                self.plan.stop.store(true, Ordering::Release);
                return Err(Failure::Unreachable(failed));
            }
        }
        Ok(())
    }

    /// Everybody sends a first echo.
    pub(crate) fn start_echoes(&mut self, until: u64) {
        self.echo_until = until;
        for index in 0..self.clients.len() {
            self.clients[index].expected = 0;
            self.send_echo(index);
        }
    }

    /// Clients that wait for an echo.
    pub(crate) fn silent(&self) -> usize {
        self.clients.iter().filter(|client| client.waits).count()
    }

    pub(super) fn locals(&self) -> impl Iterator<Item = (SocketAddr, u32)> {
        self.clients.iter().filter_map(|client| {
            let address = getsockname(client.fd.as_ref()?).ok()?;
            Some((SocketAddr::try_from(address).ok()?, client.group))
        })
    }

    pub(super) fn deafen(&mut self, count: usize) {
        for client in self.clients.iter_mut().rev().filter(|client| client.stage == Stage::Live).take(count) {
            client.stage = Stage::Deaf;
            self.members[client.group as usize] -= 1;
        }
    }

    fn send(&mut self, index: usize, bytes: &[u8]) -> bool {
        let client = &mut self.clients[index];
        let Some(fd) = &client.fd else { return false };
        let bytes = match &mut client.tls {
            Some(tls) => {
                self.sealed.clear();
                if tls.seal(bytes, &mut self.sealed).is_err() {
                    return false;
                }
                &self.sealed
            }
            None => bytes,
        };
        // A client has so little to say that its socket takes it, or is broken; then it is read so.
        matches!(send(fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT), Ok(len) if len == bytes.len())
    }

    fn ready(&mut self, index: usize, flags: EventFlags) {
        match self.clients[index].stage {
            Stage::Idle | Stage::Gone | Stage::Deaf => return,
            Stage::Connecting => {
                let fd = self.clients[index].fd.as_ref();
                match fd.map(sockopt::socket_error) {
                    Some(Ok(Ok(()))) if flags.contains(EventFlags::OUT) => self.handshake(index),
                    Some(Ok(Err(error))) => return self.refused(index, &error.to_string(), None),
                    _ => return,
                }
            }
            _ => {}
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            self.read(index);
        }
    }

    /// Reads until there is no more: the event comes once. A read that does not fill the buffer
    /// has taken all.
    fn read(&mut self, index: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let client = &mut self.clients[index];
            let Some(fd) = &client.fd else { break };
            if client.tls.is_some() {
                if self.read_tls(index, &mut buffer) {
                    continue;
                }
                break;
            }
            let rest = client.rest.len();
            if rest + 4096 > buffer.len() {
                buffer.resize(rest + BUFFER_BYTES, 0);
            }
            buffer[..rest].copy_from_slice(&client.rest);
            match recv(fd, &mut buffer[rest..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.closed(index, "the server has closed the connection");
                    break;
                }
                Ok((len, _)) => {
                    let end = rest + len;
                    if rest > 0 {
                        client.rest = Vec::new();
                    }
                    let used = self.received(index, &buffer[..end]);
                    let client = &mut self.clients[index];
                    if used < end && client.fd.is_some() {
                        client.rest = buffer[used..end].to_vec();
                    }
                    if end < buffer.len() {
                        break;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => {
                    self.closed(index, &error.to_string());
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// The same for TLS; false when there is no more.
    fn read_tls(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let client = &mut self.clients[index];
        let (Some(fd), Some(tls)) = (&client.fd, &mut client.tls) else { return false };
        let room = tls.room(buffer);
        let asked = room.len();
        let read = match recv(fd, room, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err("the server has closed the connection".to_owned()),
            Ok((read, _)) => Ok(read),
            Err(Errno::AGAIN | Errno::INTR) => return false,
            Err(error) => Err(error.to_string()),
        };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        plain.append(&mut client.rest);
        self.sealed.clear();
        let opened = read.and_then(|read| {
            let opened = tls.open(buffer, read, &mut plain, &mut self.sealed);
            opened.map_err(|error| error.to_string()).map(|()| read)
        });
        if !self.sealed.is_empty() {
            // The rest of a handshake. If that cannot be sent, the connection ends, and that is read.
            let _ = send(fd, &self.sealed, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
        let goes_on = match opened {
            Ok(read) => {
                let used = self.received(index, &plain);
                let client = &mut self.clients[index];
                if client.fd.is_some() {
                    client.rest = plain[used..].to_vec();
                }
                read == asked
            }
            Err(why) => {
                self.closed(index, &why);
                false
            }
        };
        self.plain = plain;
        goes_on
    }

    /// How many bytes were used.
    fn received(&mut self, index: usize, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.clients[index].stage == Stage::Handshaking {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return 0 };
            used = end + 4;
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let retry_after_s = retry_after(&bytes[..used]);
                self.tally.refused_without_time += u64::from(retry_after_s.is_none());
                let line = String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
                self.refused(index, &format!("the handshake was answered {line:?}"), retry_after_s);
                return bytes.len();
            }
            self.upgraded(index);
        }
        let now = if index.is_multiple_of(SAMPLED) || self.echo_until > 0 { now_ns() } else { 0 };
        while let Some((frame, len)) = frames::next(&bytes[used..]) {
            used += len;
            if let Step::Close = self.frame(index, &frame, now) {
                return bytes.len();
            }
        }
        used
    }

    fn frame(&mut self, index: usize, frame: &Frame<'_>, now: u64) -> Step {
        match frame {
            Frame::Data(payload) if self.clients[index].stage == Stage::Live => {
                self.message(index, payload, now);
            }
            Frame::Data(payload) => return self.subscribing(index, payload),
            Frame::Ping(payload) => {
                self.send(index, &frames::client(10, payload));
            }
            Frame::Close => {
                self.closed(index, "the server has closed the client");
                return Step::Close;
            }
            Frame::Other => {}
        }
        Step::More
    }

    fn message(&mut self, index: usize, payload: &[u8], now: u64) {
        if self.echo_until > 0 {
            return self.echoed(index, payload, now);
        }
        if payload == SOCKETIO_PING {
            self.send(index, &frames::client(1, SOCKETIO_PONG));
            return;
        }
        let client = &mut self.clients[index];
        // Numbers of messages never begin so.
        let is_text = matches!(payload.first(), Some(b'{' | b'4'));
        let head =
            if is_text { payload::text_head(payload, &mut self.text_place) } else { payload::head(payload) };
        // Somebody else's message, or a reply to a ping.
        let Some((number, at)) = head else { return };
        let step = u64::from(self.plan.groups);
        let verdict = tally::judge(client.expected, number, step);
        self.tally.count(verdict);
        if matches!(verdict, tally::Verdict::Doubled | tally::Verdict::Disordered) {
            return;
        }
        client.expected = number + step;
        if now > 0 {
            self.tally.latency.saturating_record(now.saturating_sub(at));
        }
        let count = &mut self.counts[Window::slot(number)];
        *count += 1;
        if *count >= self.members[client.group as usize] {
            *count = 0;
            if self.plan.reports {
                self.done.push(number);
            } else {
                self.completed |= self.plan.window.received(number);
            }
        }
    }

    fn echoed(&mut self, index: usize, payload: &[u8], now: u64) {
        let client = &mut self.clients[index];
        let Some((number, at)) = payload::head(payload) else { return };
        self.tally.wrong += u64::from(number != client.expected || payload.len() != self.plan.echo_size);
        self.tally.delivered += 1;
        self.tally.latency.saturating_record(now.saturating_sub(at));
        client.expected += 1;
        client.waits = false;
        if now < self.echo_until {
            self.send_echo(index);
        }
    }

    fn send_echo(&mut self, index: usize) {
        self.clients[index].waits = true;
        let payload = payload::bytes(self.plan.echo_size, self.clients[index].expected, now_ns());
        self.send(index, &frames::client(2, &payload));
    }
}
