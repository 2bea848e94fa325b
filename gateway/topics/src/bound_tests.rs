//! What a broken link and callers can leave at a gateway is bounded.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    v1::{Epoch, Member, MemberState, Role, View},
};

use super::*;

/// Commands are their sizes.
#[derive(Debug, Clone)]
enum Sizes {}

impl Content for Sizes {
    type Command = usize;
    type Answer = ();

    fn bytes(command: &usize) -> usize {
        *command
    }

    fn also(_: &usize) -> Option<Incarnation> {
        None
    }

    fn merge(_: &mut Option<()>, (): ()) {}
}

const TOPICS: u64 = 1000;

/// Two gateways, and the frames in flight between them.
struct Pair {
    now: Duration,
    cores: [Core<Sizes>; 2],
    session: LinkSession,
    frames: VecDeque<(usize, LinkMessage<Sizes>)>,
    /// Tickets that were answered as busy.
    busy: Vec<Ticket>,
    dropped: Vec<&'static str>,
}

fn id(gateway: usize) -> Incarnation {
    Incarnation::from_bits(gateway as u64 + 1)
}

fn topic(number: u64) -> Topic {
    Topic::group("a", &number.to_string())
}

impl Pair {
    fn new() -> Self {
        let cores = [0, 1].map(|gateway| Core::new(id(gateway), TopicLimits::default()));
        let (frames, busy, dropped) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut pair = Self { now: Duration::ZERO, cores, session: 0, frames, busy, dropped };
        let members = [0, 1].map(|gateway| Member {
            incarnation: id(gateway).to_string(),
            role: Role::Gateway.into(),
            state: MemberState::Ready.into(),
            ring_version: 1,
            ..Member::default()
        });
        let (epoch, before) = (Some(Epoch::new(1, 1)), Some(Epoch::new(1, 0)));
        let view = Arc::new(View { epoch, before, members: members.into() });
        (0..2).for_each(|gateway| pair.apply(gateway, Input::View(Arc::clone(&view))));
        pair.open();
        pair
    }

    fn apply(&mut self, gateway: usize, input: Input<Sizes>) {
        for effect in self.cores[gateway].apply(input, self.now) {
            match effect {
                Effect::Send(_, frame) => self.frames.push_back((1 - gateway, frame)),
                Effect::Answer(ticket, HomeReply::Busy) => self.busy.push(ticket),
                Effect::Dropped(why) => self.dropped.push(why),
                _ => {}
            }
        }
    }

    fn open(&mut self) {
        self.session += 1;
        self.frames.clear();
        for gateway in 0..2 {
            self.apply(gateway, Input::InboundUp(id(1 - gateway), self.session));
            self.apply(gateway, Input::OutboundUp(id(1 - gateway)));
        }
        self.settle();
    }

    fn break_links(&mut self) {
        for gateway in 0..2 {
            self.apply(gateway, Input::OutboundDown(id(1 - gateway), self.now));
            self.apply(gateway, Input::InboundDown(id(1 - gateway), self.session, self.now));
        }
        self.frames.clear();
    }

    fn settle(&mut self) {
        while let Some((to, frame)) = self.frames.pop_front() {
            self.apply(to, Input::Received(id(1 - to), self.session, frame));
        }
    }

    fn set_count(&mut self, clients: u32) {
        for number in 0..TOPICS {
            let count = MembershipCount { topic: topic(number), shard: 0, clients, members: Vec::new() };
            self.apply(0, Input::MembershipCount(count));
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        (0..2).for_each(|gateway| self.apply(gateway, Input::Tick));
    }

    /// Topics with interest at the first gateway, those whose home is the second, and retractions that are
    /// not acknowledged.
    fn kept(&self) -> (u64, usize, usize) {
        let retracted = self.cores[0].shared.peers.retracted();
        (self.cores[0].interest_counts().groups, self.cores[1].load().homes, retracted)
    }
}

#[test]
fn what_is_retracted_on_a_broken_link_is_kept_for_two_link_timeouts() {
    let mut pair = Pair::new();
    pair.set_count(1);
    pair.settle();
    let (entries, at_other, retracted) = pair.kept();
    assert_eq!((entries, retracted), (TOPICS, 0));
    assert!(at_other > TOPICS as usize / 4, "{at_other}");
    pair.break_links();
    // A long partition, in which clients join and leave.
    let patience = 2 * TopicLimits::default().link_timeout;
    for _ in 0..5 {
        pair.set_count(0);
        assert_eq!(pair.kept().2, at_other, "the home has to hear of them");
        pair.wait(patience / 2);
        assert_eq!(pair.kept().2, at_other, "for a while");
        pair.wait(patience / 2);
        assert_eq!((pair.kept().0, pair.kept().2), (0, 0), "nothing is left of them");
        pair.set_count(1);
    }
    pair.set_count(0);
    pair.wait(patience);
    pair.open();
    assert_eq!(pair.kept(), (0, 0, 0), "the sync says it by leaving them out");
}

#[test]
fn what_is_retracted_on_a_link_that_works_is_kept_until_it_was_taken() {
    let mut pair = Pair::new();
    pair.set_count(1);
    pair.settle();
    let at_other = pair.kept().1;
    pair.set_count(0);
    pair.wait(3 * TopicLimits::default().link_timeout);
    assert_eq!(pair.kept().2, at_other);
    pair.settle();
    assert_eq!(pair.kept(), (0, 0, 0));
}

#[test]
fn questions_to_a_home_that_cannot_be_asked_are_bounded_in_bytes() {
    const BYTES: usize = 1024 * 1024;
    let mut pair = Pair::new();
    let far = (0..).map(topic).find(|topic| pair.cores[0].home_of(topic) == Some(id(1))).unwrap();
    pair.break_links();
    let most = TopicLimits::default().asked_bytes_max / BYTES;
    let ask = |pair: &mut Pair, ticket: Option<Ticket>, bytes: usize| {
        pair.apply(0, Input::Route { ticket, topic: far.clone(), op: HomeOp::Deliver(bytes) });
    };
    for ticket in 0..2 * most as Ticket {
        ask(&mut pair, Some(ticket), BYTES);
    }
    assert_eq!(pair.cores[0].load().asked, most - 1);
    assert_eq!(pair.busy, (most as Ticket - 1..2 * most as Ticket).collect::<Vec<_>>());
    // It counts without a ticket; and small questions cost something, too.
    ask(&mut pair, None, BYTES);
    assert_eq!(pair.dropped.last(), Some(&"asked_full"));
    let before = pair.busy.len();
    (0..BYTES as Ticket / 256).for_each(|ticket| ask(&mut pair, Some(ticket), 0));
    assert!(pair.busy.len() > before);
    // Giving up makes room.
    pair.wait(TopicLimits::default().parking_time_max + 3 * TopicLimits::default().link_timeout);
    assert_eq!((pair.cores[0].load().asked, pair.cores[0].routes.bytes()), (0, 0));
    let before = pair.busy.len();
    ask(&mut pair, Some(7), BYTES);
    assert_eq!(pair.busy.len(), before);
}

#[test]
fn view_of_a_false_term_from_a_peer_is_dropped() {
    let mut pair = Pair::new();
    let before = Arc::clone(pair.cores[0].view());
    let view = Arc::new(View { epoch: Some(Epoch::new(u64::MAX, 1)), ..View::default() });
    pair.apply(0, Input::Received(id(1), pair.session, LinkMessage::View(view)));
    assert_eq!(pair.dropped, ["view_of_a_false_term"]);
    assert_eq!(*pair.cores[0].view(), before);
}
