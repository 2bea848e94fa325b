//! One thread: its listener, its clients, its copies of their groups' logs.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send},
};

use crate::ceiling::{
    client::{Asked, Client, HEAD_BYTES_MAX, Member, Role, asked},
    frames::{self, Heard},
    groups::Group,
    listen,
    publish::{self, Batch},
    shared::{CeilingArgs, Mode, Shared},
    stats,
};

/// Writes between two looks at what has come: some 300 µs.
const VISITS: usize = 64;
const BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;
const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

pub(super) struct Thread {
    me: usize,
    shared: Arc<Shared>,
    epoll: OwnedFd,
    listener: OwnedFd,
    clients: Vec<Option<Client>>,
    free: Vec<u32>,
    groups: Vec<Group>,
    /// Groups that have something to be written, oldest first.
    busy: VecDeque<u32>,
    buffer: Vec<u8>,
    out: Vec<u8>,
    deliveries: u64,
    writes: u64,
    echoes: u64,
}

impl Thread {
    pub(super) fn open(me: usize, args: &CeilingArgs, shared: Arc<Shared>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let listener = listen::open(args.bind, args.congestion.as_deref())?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&epoll, &shared.inboxes[me].bell, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Self {
            me,
            shared,
            epoll,
            listener,
            clients: Vec::new(),
            free: Vec::new(),
            groups: Vec::new(),
            busy: VecDeque::new(),
            buffer: vec![0; BUFFER_BYTES],
            out: Vec::new(),
            deliveries: 0,
            writes: 0,
            echoes: 0,
        })
    }

    /// Returns only with what has broken.
    pub(super) fn run(mut self) -> io::Error {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            if let Err(error) = self.wait(&mut events) {
                return error;
            }
            for event in events.drain(..) {
                let event: Event = event;
                match event.data.u64() {
                    LISTENER => self.accept(),
                    BELL => self.shared.inboxes[self.me].hush(),
                    slot => self.ready(slot as u32, event.flags),
                }
            }
            for batch in self.shared.inboxes[self.me].take() {
                self.append(&batch);
            }
            self.write_some();
        }
    }

    fn wait(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let inbox = &self.shared.inboxes[self.me];
        let may_sleep = self.busy.is_empty() && inbox.may_sleep();
        let counts = &self.shared.counts[self.me];
        counts.deliveries.store(self.deliveries, Ordering::Relaxed);
        counts.writes.store(self.writes, Ordering::Relaxed);
        counts.echoes.store(self.echoes, Ordering::Relaxed);
        let timeout = if may_sleep { None } else { Some(&NOW) };
        let waited = epoll::wait(&self.epoll, spare_capacity(events), timeout);
        if may_sleep {
            inbox.woke();
        }
        match waited {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&mut self) {
        // As many as wait, but others shall not wait long.
        for _ in 0..VISITS {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let Ok(fd) = accept_with(&self.listener, flags) else { return };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                (self.clients.len() - 1) as u32
            });
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            if epoll::add(&self.epoll, &fd, EventData::new_u64(slot.into()), flags).is_err() {
                self.free.push(slot);
                continue;
            }
            self.clients[slot as usize] = Some(Client { fd, role: Role::New, rest: Vec::new() });
            self.shared.counts[self.me].accepted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ready(&mut self, slot: u32, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.unblock(slot);
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            self.read(slot);
        }
    }

    /// Reads until there is no more: the event comes once. A read that does not fill the buffer
    /// has taken all.
    fn read(&mut self, slot: u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::as_mut) {
            let rest = client.rest.len();
            if rest + 4096 > buffer.len() {
                buffer.resize(rest + BUFFER_BYTES, 0);
            }
            buffer[..rest].copy_from_slice(&client.rest);
            match recv(&client.fd, &mut buffer[rest..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.close(slot),
                Ok((len, _)) => {
                    client.rest.clear();
                    let took_all = rest + len < buffer.len();
                    self.received(slot, &buffer[..rest + len]);
                    if !took_all {
                        continue;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.close(slot),
            }
            break;
        }
        self.buffer = buffer;
    }

    fn received(&mut self, slot: u32, bytes: &[u8]) {
        let Some(client) = self.clients[slot as usize].as_mut() else { return };
        let used = match &client.role {
            Role::New => self.head(slot, bytes),
            Role::Publisher => publish::parse(bytes, &self.shared.names).map(|(batch, used)| {
                self.publish(batch);
                used
            }),
            Role::Member(_) => self.echo(slot, bytes),
        };
        let Some(used) = used else { return self.close(slot) };
        if used < bytes.len()
            && let Some(client) = self.clients[slot as usize].as_mut()
        {
            client.rest = bytes[used..].to_vec();
        } else if let Some(client) = self.clients[slot as usize].as_mut()
            && client.rest.capacity() > 0
        {
            client.rest = Vec::new();
        }
    }

    /// How many bytes were used; none if the connection is to be closed.
    fn head(&mut self, slot: u32, bytes: &[u8]) -> Option<usize> {
        let Some((asked, used)) = asked(bytes) else {
            return (bytes.len() < HEAD_BYTES_MAX).then_some(0);
        };
        let shared = Arc::clone(&self.shared);
        let client = self.clients[slot as usize].as_mut()?;
        match asked {
            Asked::Nonsense => None,
            Asked::Stats => {
                let text = stats::json(&shared.counts);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
                send(&client.fd, (head + &text).as_bytes(), SendFlags::NOSIGNAL).ok()?;
                Some(used)
            }
            Asked::Publish => {
                client.role = Role::Publisher;
                // What came with the head.
                let (batch, more) = publish::parse(&bytes[used..], &shared.names)?;
                self.publish(batch);
                Some(used + more)
            }
            Asked::Group(name, answer) => {
                send(&client.fd, &answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok()?;
                let number = shared.names.number(name);
                if self.groups.len() <= number as usize {
                    self.groups.resize_with(number as usize + 1, Group::default);
                }
                let group = &mut self.groups[number as usize];
                let (cursor, seen) = (group.log.end(), group.log.messages());
                let place = group.enter(slot);
                client.role = Role::Member(Member { group: number, place, cursor, seen, blocked: false });
                Some(used)
            }
        }
    }

    fn echo(&mut self, slot: u32, bytes: &[u8]) -> Option<usize> {
        self.out.clear();
        let Heard::Used(used) = frames::echo(bytes, &mut self.out) else { return None };
        if self.out.is_empty() {
            return Some(used);
        }
        let client = self.clients[slot as usize].as_ref()?;
        let Role::Member(member) = &client.role else { return None };
        let sent = send(&client.fd, &self.out, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok()?;
        self.echoes += 1;
        // Echoes have no outbox: who sends and does not read has lost.
        (sent == self.out.len() && !member.blocked).then_some(used)
    }

    fn publish(&mut self, batch: Batch) {
        if batch.ends.is_empty() {
            return;
        }
        let batch = Arc::new(batch);
        let shared = Arc::clone(&self.shared);
        for (other, inbox) in shared.inboxes.iter().enumerate() {
            if other != self.me {
                inbox.put(Arc::clone(&batch));
            }
        }
        self.append(&batch);
    }

    fn append(&mut self, batch: &Batch) {
        let mut start = 0;
        for &(number, end) in &batch.ends {
            let frame = &batch.bytes[start..end];
            start = end;
            let Some(group) = self.groups.get_mut(number as usize) else { continue };
            if group.append(frame) {
                self.busy.push_back(number);
            }
            if group.log.wants_trim() {
                let cursor = |slot: &u32| match self.clients[*slot as usize].as_ref()?.role {
                    Role::Member(ref member) => Some(member.cursor),
                    _ => None,
                };
                let least = group.members.iter().filter_map(cursor).min();
                group.log.trim(least.unwrap_or(u64::MAX));
            }
        }
    }

    /// Writes to the next members of the busy groups.
    fn write_some(&mut self) {
        let mut visits = 0;
        while visits < VISITS {
            let Some(&number) = self.busy.front() else { return };
            let group = &mut self.groups[number as usize];
            match group.visit() {
                Some(slot) => {
                    self.write(slot);
                    visits += 1;
                }
                None => {
                    if group.blocked == 0 {
                        group.log.clear();
                    }
                    self.busy.pop_front();
                }
            }
        }
    }

    /// Writes what has gathered for a client.
    fn write(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let Role::Member(member) = &mut client.role else { return };
        if member.blocked {
            return;
        }
        let Some(group) = self.groups.get_mut(member.group as usize) else { return };
        loop {
            let Some(bytes) = group.log.after(member.cursor) else { return self.close(slot) };
            if bytes.is_empty() {
                break;
            }
            let piece = match self.shared.mode {
                Mode::Merged => bytes,
                Mode::Single => &bytes[..frames::first_len(bytes)],
            };
            self.writes += 1;
            match send(&client.fd, piece, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(len) if len == piece.len() => member.cursor += len as u64,
                Ok(len) => {
                    member.cursor += len as u64;
                    member.blocked = true;
                    group.blocked += 1;
                    return;
                }
                Err(Errno::AGAIN) => {
                    member.blocked = true;
                    group.blocked += 1;
                    return;
                }
                Err(_) => return self.close(slot),
            }
        }
        self.deliveries += group.log.messages() - member.seen;
        member.seen = group.log.messages();
    }

    fn unblock(&mut self, slot: u32) {
        let Some(Some(client)) = self.clients.get_mut(slot as usize) else { return };
        if let Role::Member(member) = &mut client.role
            && member.blocked
        {
            member.blocked = false;
            if let Some(group) = self.groups.get_mut(member.group as usize) {
                group.blocked -= 1;
            }
            self.write(slot);
        }
    }

    fn close(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        let Role::Member(member) = client.role else { return };
        let Some(group) = self.groups.get_mut(member.group as usize) else { return };
        group.blocked -= usize::from(member.blocked);
        if let Some(moved) = group.leave(member.place)
            && let Some(Some(Client { role: Role::Member(moved), .. })) = self.clients.get_mut(moved as usize)
        {
            moved.place = member.place;
        }
    }
}
