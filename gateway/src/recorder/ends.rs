//! The ends of a shard's clients.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use broadgate_proto::{
    id::ClientId,
    v1::{self, Cause},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::recorder::{
    fair::{self, FairRows},
    question::{EndQuestion, EndedWhose},
};

/// How a client's connection ended.
#[derive(Debug, Clone)]
pub(crate) struct ClientEnd {
    pub(crate) client: ClientId,
    pub(crate) app: Rc<str>,
    pub(crate) uid: Option<Rc<str>>,
    pub(crate) listener: Box<str>,
    pub(crate) protocol: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) opened_at_ms: u64,
    pub(crate) ended_at_ms: u64,
    pub(crate) cause: Cause,
    pub(crate) code: u16,
    pub(crate) reason: Box<str>,
    /// The setting whose limit was met; "" if none was.
    pub(crate) limit: &'static str,
    pub(crate) command: Option<Rc<ClosingCommand>>,
    /// The first of its groups.
    pub(crate) groups: Box<[Rc<str>]>,
    pub(crate) groups_total: u32,
    /// Messages that waited for it and were not written, and their bytes.
    pub(crate) unsent: (u64, u64),
    pub(crate) backlog_s: u32,
    pub(crate) silent_s: u32,
    pub(crate) worker: Option<Rc<str>>,
    pub(crate) unanswered: u32,
    /// Messages and bytes that it sent, and that it was sent.
    pub(crate) received: (u64, u64),
    pub(crate) sent: (u64, u64),
    pub(crate) loudest: Option<Box<LoudestGroup>>,
}

/// The command that closed a client, shared by all whom it closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClosingCommand {
    pub(crate) id: Box<str>,
    /// Who gave it; "" if an earlier version took it.
    pub(crate) by: Box<str>,
}

/// The group of a slow client to which most was sent lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoudestGroup {
    pub(crate) name: Rc<str>,
    pub(crate) bytes: u64,
    pub(crate) seconds: u32,
}

/// What a search compares: it lies together, so that all ends are looked at in some 100 µs.
#[derive(Debug)]
struct EndKey {
    at_ms: u64,
    client: u64,
    uid: u64,
    app: u64,
    address: IpAddr,
    cause: Cause,
}

/// The last ends of one kind: many of one address displace each other.
#[derive(Debug)]
struct EndList {
    max: usize,
    /// Of the ends, at the same places.
    keys: Vec<EndKey>,
    ends: FairRows<ClientEnd>,
    /// Since when none is forgotten.
    since_ms: u64,
}

/// The last ends of a shard's clients.
#[derive(Debug)]
pub(crate) struct EndRecorder {
    /// Ends that the gateway caused.
    caused: EndList,
    /// Those that the clients caused, or their networks.
    own: EndList,
}

/// Where an end is remembered.
#[derive(Debug)]
pub(crate) struct EndPlace {
    is_own: bool,
    place: usize,
    number: u64,
}

/// The answer to a question: the newest ends, at most as many as were asked for, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct FoundEnds<'a> {
    pub(crate) newest: Vec<&'a ClientEnd>,
    pub(crate) total: u64,
}

/// What a search looks for, hashed once.
struct WantedKey<'a> {
    question: &'a EndQuestion,
    app: Option<u64>,
    uid: Option<u64>,
}

impl EndKey {
    fn of(end: &ClientEnd) -> Self {
        Self {
            at_ms: end.ended_at_ms,
            client: end.client.key,
            uid: end.uid.as_deref().map_or(0, hash),
            app: hash(&end.app),
            address: end.address.ip(),
            cause: end.cause,
        }
    }
}

fn hash(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

impl<'a> WantedKey<'a> {
    fn of(question: &'a EndQuestion) -> Self {
        let uid = if let EndedWhose::Uid(uid) = &question.whose { Some(hash(uid)) } else { None };
        Self { question, app: question.app.as_deref().map(hash), uid }
    }

    /// Names are compared by hash; [`Self::is_end`] makes sure.
    fn may_be(&self, key: &EndKey) -> bool {
        let of = match &self.question.whose {
            EndedWhose::All => true,
            EndedWhose::Uid(_) => self.uid == Some(key.uid),
            EndedWhose::Client(client) => client.key == key.client,
            EndedWhose::Address(net) => net.contains(&key.address),
        };
        of && self.app.is_none_or(|app| app == key.app)
            && self.question.cause.is_none_or(|cause| cause == key.cause)
            && self.question.is_time(key.at_ms)
    }

    fn is_end(&self, end: &ClientEnd) -> bool {
        let of = match &self.question.whose {
            EndedWhose::Uid(uid) => end.uid.as_deref() == Some(&**uid),
            EndedWhose::Client(client) => *client == end.client,
            EndedWhose::All | EndedWhose::Address(_) => true,
        };
        of && self.question.is_app(&end.app)
    }
}

impl EndList {
    fn new(max: usize, now_ms: u64) -> Self {
        let since_ms = if max == 0 { 0 } else { now_ms };
        Self { max, keys: Vec::with_capacity(max), ends: FairRows::new(max), since_ms }
    }

    /// Returns its place and number.
    fn record(&mut self, end: ClientEnd) -> Option<(usize, u64)> {
        let key = EndKey::of(&end);
        let owner = fair::owner(Some(key.address), key.cause.as_str_name());
        let (place, forgotten) = self.ends.add(owner, end)?;
        match forgotten {
            None => self.keys.push(key),
            Some(forgotten) => {
                self.keys[place] = key;
                self.since_ms = self.since_ms.max(forgotten.ended_at_ms);
            }
        }
        Some((place, self.ends.at(place).0))
    }

    fn find<'a>(&'a self, wanted: &WantedKey<'_>, found: &mut FoundEnds<'a>) {
        let places = self.keys.iter().enumerate().filter(|(_, key)| wanted.may_be(key));
        let rows = places.map(|(place, _)| self.ends.at(place)).filter(|(_, end)| wanted.is_end(end));
        let mut rows: Vec<(u64, &ClientEnd)> = rows.collect();
        found.total += rows.len() as u64;
        let (limit, newest_first) = (wanted.question.limit, |(number, _): &(u64, _)| Reverse(*number));
        if rows.len() > limit {
            rows.select_nth_unstable_by_key(limit, newest_first);
            rows.truncate(limit);
        }
        rows.sort_unstable_by_key(newest_first);
        found.newest.extend(rows.into_iter().map(|(_, end)| end));
    }
}

impl EndRecorder {
    /// How many ends of each kind are kept; 0 is none.
    pub(crate) fn new((caused, own): (usize, usize), now_ms: u64) -> Self {
        Self { caused: EndList::new(caused, now_ms), own: EndList::new(own, now_ms) }
    }

    /// Whether an end with this cause would be kept.
    pub(crate) fn keeps(&self, cause: Cause) -> bool {
        if is_own(cause) { self.own.max > 0 } else { self.caused.max > 0 }
    }

    /// Returns its place, if it is kept.
    pub(crate) fn record(&mut self, end: ClientEnd) -> Option<EndPlace> {
        let is_own = is_own(end.cause);
        let list = if is_own { &mut self.own } else { &mut self.caused };
        list.record(end).map(|(place, number)| EndPlace { is_own, place, number })
    }

    /// Adds what the close left unsent, if the end is still remembered.
    pub(crate) fn add_unsent(&mut self, at: &EndPlace, (messages, bytes): (u64, u64)) {
        let list = if at.is_own { &mut self.own } else { &mut self.caused };
        if list.ends.at(at.place).0 == at.number {
            let end = list.ends.at_mut(at.place);
            end.unsent = (end.unsent.0 + messages, end.unsent.1 + bytes);
        }
    }

    pub(crate) fn find(&self, question: &EndQuestion) -> FoundEnds<'_> {
        let wanted = WantedKey::of(question);
        let mut found = FoundEnds::default();
        self.caused.find(&wanted, &mut found);
        self.own.find(&wanted, &mut found);
        found.newest.sort_by_key(|end| std::cmp::Reverse(end.ended_at_ms));
        found.newest.truncate(question.limit);
        found
    }

    /// Since when nothing is forgotten: of those that the gateway caused, and of the clients' own.
    pub(crate) fn since_ms(&self) -> (u64, u64) {
        (self.caused.since_ms, self.own.since_ms)
    }
}

/// Whether the client, or its network, has ended the connection.
fn is_own(cause: Cause) -> bool {
    matches!(cause, Cause::Client | Cause::Lost)
}

impl ClientEnd {
    pub(crate) fn message(&self, gateway: &str) -> v1::EndedClient {
        let (loudest, command) = (self.loudest.as_deref(), self.command.as_deref());
        v1::EndedClient {
            client_id: self.client.to_string(),
            app: self.app.to_string(),
            uid: self.uid.as_deref().unwrap_or_default().to_owned(),
            gateway: gateway.to_owned(),
            listener: self.listener.to_string(),
            protocol: self.protocol.to_owned(),
            address: self.address.to_string(),
            opened_at_ms: self.opened_at_ms,
            ended_at_ms: self.ended_at_ms,
            cause: self.cause.into(),
            code: self.code.into(),
            reason: self.reason.to_string(),
            limit: self.limit.to_owned(),
            command_id: command.map_or_else(String::new, |command| command.id.to_string()),
            by: command.map_or_else(String::new, |command| command.by.to_string()),
            groups: self.groups.iter().map(ToString::to_string).collect(),
            groups_total: self.groups_total,
            unsent_messages: self.unsent.0,
            unsent_bytes: self.unsent.1,
            backlog_s: self.backlog_s,
            silent_s: self.silent_s,
            worker: self.worker.as_deref().unwrap_or_default().to_owned(),
            events_unanswered: self.unanswered,
            messages_in: self.received.0,
            bytes_in: self.received.1,
            messages_out: self.sent.0,
            bytes_out: self.sent.1,
            loudest_group: loudest.map_or_else(String::new, |loudest| loudest.name.to_string()),
            loudest_bytes: loudest.map_or(0, |loudest| loudest.bytes),
            loudest_s: loudest.map_or(0, |loudest| loudest.seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::{id::Incarnation, limits};
    use proptest::prelude::*;

    use super::*;

    fn end(number: u64, cause: Cause) -> ClientEnd {
        ClientEnd {
            client: ClientId { incarnation: Incarnation::from_bits(7), shard: 0, slot: 0, key: number },
            app: if number.is_multiple_of(2) { "even" } else { "odd" }.into(),
            uid: (!number.is_multiple_of(3)).then(|| (number % 3).to_string().into()),
            listener: "web".into(),
            protocol: "websocket",
            address: SocketAddr::from(([10, 0, (number % 4) as u8, 1], 1000)),
            opened_at_ms: 0,
            ended_at_ms: number,
            cause,
            code: 1000,
            reason: "".into(),
            limit: "",
            command: None,
            groups: Box::default(),
            groups_total: 0,
            unsent: (0, 0),
            backlog_s: 0,
            silent_s: 0,
            worker: None,
            unanswered: 0,
            received: (0, 0),
            sent: (0, 0),
            loudest: None,
        }
    }

    fn all() -> EndQuestion {
        EndQuestion {
            app: None,
            whose: EndedWhose::All,
            since_ms: 0,
            until_ms: u64::MAX,
            cause: None,
            limit: 100,
        }
    }

    fn numbers(recorder: &EndRecorder, question: &EndQuestion) -> (Vec<u64>, u64) {
        let found = recorder.find(question);
        (found.newest.iter().map(|end| end.client.key).collect(), found.total)
    }

    #[test]
    fn clients_own_ends_displace_none_that_the_gateway_caused() {
        let mut recorder = EndRecorder::new((2, 3), 5);
        assert_eq!(recorder.since_ms(), (5, 5));
        recorder.record(end(10, Cause::Slow));
        for number in 11..100 {
            recorder.record(end(number, if number % 2 == 0 { Cause::Client } else { Cause::Lost }));
        }
        assert_eq!(numbers(&recorder, &all()), (vec![99, 98, 97, 10], 4));
        assert_eq!(recorder.since_ms(), (5, 96), "the last one that was forgotten");
        let few = EndQuestion { limit: 2, ..all() };
        assert_eq!(numbers(&recorder, &few), (vec![99, 98], 4));
        let slow = EndQuestion { cause: Some(Cause::Slow), ..all() };
        assert_eq!(numbers(&recorder, &slow), (vec![10], 1));
        let later = EndQuestion { since_ms: 98, ..all() };
        assert_eq!(numbers(&recorder, &later), (vec![99, 98], 2));
        let earlier = EndQuestion { until_ms: 97, ..all() };
        assert_eq!(numbers(&recorder, &earlier), (vec![97, 10], 2));
    }

    #[test]
    fn flood_of_one_address_displaces_itself() {
        let mut recorder = EndRecorder::new((1000, 1000), 5);
        // Of the address of the flood, and of others.
        (0..8).for_each(|number| _ = recorder.record(end(number, Cause::Command)));
        (0..4).for_each(|number| _ = recorder.record(end(number, Cause::Protocol)));
        (0..9000).for_each(|number| _ = recorder.record(end(4 * number, Cause::Protocol)));
        let of = |cause| numbers(&recorder, &EndQuestion { cause: Some(cause), ..all() });
        assert_eq!(of(Cause::Command), ((0..8).rev().collect(), 8));
        let (newest, total) = of(Cause::Protocol);
        assert_eq!((newest[0], total), (4 * 8999, 992));
        let other = EndedWhose::Address("10.0.1.1/32".parse().unwrap());
        let of_another = EndQuestion { whose: other, cause: Some(Cause::Protocol), ..all() };
        assert_eq!(numbers(&recorder, &of_another), (vec![1], 1));
    }

    #[test]
    fn what_a_close_leaves_unsent_is_added_to_its_end_alone() {
        let mut recorder = EndRecorder::new((2, 0), 5);
        assert!(recorder.record(end(1, Cause::Lost)).is_none());
        let place = recorder.record(end(2, Cause::Command)).unwrap();
        recorder.add_unsent(&place, (3, 40));
        assert_eq!(recorder.find(&all()).newest[0].unsent, (3, 40));
        for number in 3..6 {
            recorder.record(end(number, Cause::Command));
        }
        recorder.add_unsent(&place, (3, 40));
        assert!(recorder.find(&all()).newest.iter().all(|end| end.unsent == (0, 0)));
    }

    #[test]
    fn zero_is_off() {
        let mut recorder = EndRecorder::new((0, 1), 5);
        assert!(!recorder.keeps(Cause::Silent) && recorder.keeps(Cause::Lost));
        recorder.record(end(1, Cause::Silent));
        assert_eq!(numbers(&recorder, &all()), (vec![], 0));
        assert_eq!(recorder.since_ms(), (0, 5));
    }

    /// Bytes of heap behind an end, if nobody shares its names.
    fn end_bytes(end: &ClientEnd) -> usize {
        let ClientEnd { app, uid, listener, reason, command, groups, worker, loudest, .. } = end;
        // Counts of references, and what an allocation costs.
        let shared = |name: &Rc<str>| name.len() + 32;
        shared(app)
            + uid.as_ref().map_or(0, shared)
            + worker.as_ref().map_or(0, shared)
            + groups.iter().map(|group| size_of::<Rc<str>>() + shared(group)).sum::<usize>()
            + listener.len()
            + reason.len()
            + command.as_ref().map_or(0, |command| size_of::<ClosingCommand>() + command.id.len())
            + loudest.as_ref().map_or(0, |loudest| size_of::<LoudestGroup>() + shared(&loudest.name))
    }

    fn heap_bytes(recorder: &EndRecorder) -> usize {
        let EndRecorder { caused, own } = recorder;
        let of = |EndList { keys, ends, .. }: &EndList| {
            keys.capacity() * size_of::<EndKey>() + ends.heap_bytes(end_bytes)
        };
        of(caused) + of(own)
    }

    /// A million clients come and go, each from an address of its own and with as much as is kept of one.
    #[test]
    fn memory_stays_flat_while_a_million_clients_end() {
        let max = (limits::ENDS_CAUSED_MAX, limits::ENDS_OWN_MAX);
        let mut recorder = EndRecorder::new(max, 0);
        let mut filled = None;
        let mut groups: Vec<Rc<str>> = Vec::new();
        for number in 0..1_000_000_u32 {
            if number.is_multiple_of(1000) {
                groups = (0..8).map(|group| format!("group-{number:07}-{group}").into()).collect();
            }
            let cause = if number.is_multiple_of(2) { Cause::Client } else { Cause::Slow };
            recorder.record(ClientEnd {
                address: SocketAddr::from((number.to_be_bytes(), 1000)),
                uid: Some(format!("user-{number:07}").into()),
                reason: "x".repeat(60).into(),
                worker: Some("chat-1".into()),
                groups: groups.clone().into(),
                ..end(number.into(), cause)
            });
            if number % 200_000 == 199_999 {
                let bytes = heap_bytes(&recorder);
                println!("{bytes} bytes after {} ends", number + 1);
                let before = *filled.get_or_insert(bytes);
                assert!(bytes < before + before / 100, "{bytes} after {number}, {before} before");
                assert!(bytes < 16 << 20, "{bytes}");
            }
        }
    }

    proptest! {
        #[test]
        fn who_is_asked_for_is_found_and_nobody_else(count in 0..60_u64, which in 0..5_u64) {
            let mut recorder = EndRecorder::new((100, 100), 0);
            (0..count).for_each(|number| _ = recorder.record(end(number, Cause::Command)));
            let found = |question: &EndQuestion, wanted: &dyn Fn(u64) -> bool| {
                let expected: Vec<u64> = (0..count).rev().filter(|number| wanted(*number)).collect();
                let total = expected.len() as u64;
                assert_eq!(numbers(&recorder, question), (expected, total));
            };
            let uid = EndedWhose::Uid(which.to_string().into());
            found(&EndQuestion { whose: uid.clone(), ..all() }, &|number| number % 3 == which && which > 0);
            let odd = EndQuestion { whose: uid, app: Some("odd".into()), ..all() };
            found(&odd, &|number| number % 3 == which && which > 0 && number % 2 == 1);
            let client = EndedWhose::Client(end(which, Cause::Command).client);
            found(&EndQuestion { whose: client, ..all() }, &|number| number == which);
            let net = format!("10.0.{which}.0/24").parse().unwrap();
            found(&EndQuestion { whose: EndedWhose::Address(net), ..all() }, &|number| number % 4 == which);
            let stranger = ClientId { slot: 1, ..end(which, Cause::Command).client };
            found(&EndQuestion { whose: EndedWhose::Client(stranger), ..all() }, &|_| false);
        }
    }
}
