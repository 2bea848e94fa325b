//! In which order one caller's commands to a topic go, and where to.
//!
//! All that is *out*, given to a gateway and not answered, is at one place: a stream to a gateway.
//! What comes back waits, under its old number, until all that is out has come back or been
//! answered; then everything goes in the order of the numbers, wherever the topic's home is now. So
//! nothing goes to another gateway while something is unanswered at a former one, and nothing that
//! has to be repeated is overtaken by what was made after it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
};

use slab::Slab;

use super::topic::RingTopic;

/// Topics that are kept without anything under way, so that a topic in use costs one look-up.
const IDLE_TOPICS_MAX: usize = 1024;

/// All topics with something under way, and some without. `P` is a place; `W` wakes a command's
/// caller.
#[derive(Debug)]
pub(super) struct CommandRoutes<P, W> {
    topics: HashMap<RingTopic, usize>,
    lanes: Slab<TopicLane<P, W>>,
    /// At so many lanes the empty ones are removed.
    sweep_at: usize,
}

#[derive(Debug)]
struct TopicLane<P, W> {
    topic: RingTopic,
    /// The number of the next command.
    next: u64,
    /// How many are out, and where.
    out: usize,
    place: Option<P>,
    /// Something has come back: nothing more goes until nothing is out.
    halted: bool,
    waiting: BTreeMap<u64, W>,
}

/// One command. It waits, or is out, until it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommandTicket {
    lane: usize,
    number: u64,
}

impl<P: Copy + Eq, W: Clone> TopicLane<P, W> {
    fn may_go(&self, number: u64, place: P) -> bool {
        let first = self.waiting.first_key_value().is_none_or(|(first, _)| *first >= number);
        first && !self.halted && (self.out == 0 || self.place == Some(place))
    }

    /// The first that waits, if it may be its turn.
    fn head(&self) -> Option<W> {
        if self.halted { None } else { self.waiting.first_key_value().map(|(_, waker)| waker.clone()) }
    }

    fn one_less(&mut self) -> Option<W> {
        self.out -= 1;
        if self.out > 0 {
            return None;
        }
        self.halted = false;
        self.head()
    }

    fn is_idle(&self) -> bool {
        self.out == 0 && self.waiting.is_empty()
    }
}

/// Whatever may let another one go returns that one's waker.
impl<P: Copy + Eq, W: Clone> CommandRoutes<P, W> {
    pub(super) fn new() -> Self {
        Self { topics: HashMap::new(), lanes: Slab::new(), sweep_at: IDLE_TOPICS_MAX }
    }

    /// A new command, after all that were made before. It must go, pass or wait at once.
    pub(super) fn enter(&mut self, topic: &RingTopic) -> CommandTicket {
        let lane = match self.topics.get(topic) {
            Some(lane) => *lane,
            None => self.open(topic.clone()),
        };
        let number = self.lanes[lane].next;
        self.lanes[lane].next += 1;
        CommandTicket { lane, number }
    }

    fn open(&mut self, topic: RingTopic) -> usize {
        if self.lanes.len() >= self.sweep_at {
            let topics = &mut self.topics;
            self.lanes.retain(|_, lane| {
                let idle = lane.is_idle();
                if idle {
                    topics.remove(&lane.topic);
                }
                !idle
            });
            self.sweep_at = self.lanes.len() * 2 + IDLE_TOPICS_MAX;
        }
        let lane = TopicLane {
            topic: topic.clone(),
            next: 0,
            out: 0,
            place: None,
            halted: false,
            waiting: BTreeMap::new(),
        };
        let lane = self.lanes.insert(lane);
        self.topics.insert(topic, lane);
        lane
    }

    /// May it go there now?
    pub(super) fn may_go(&self, CommandTicket { lane, number }: CommandTicket, place: P) -> bool {
        self.lanes[lane].may_go(number, place)
    }

    /// It goes, and is out until it comes back or leaves.
    pub(super) fn go(&mut self, CommandTicket { lane, number }: CommandTicket, place: P) -> Option<W> {
        let lane = &mut self.lanes[lane];
        debug_assert!(lane.may_go(number, place));
        lane.waiting.remove(&number);
        lane.place = Some(place);
        lane.out += 1;
        lane.head()
    }

    /// It goes, and nobody will answer it: it has left.
    pub(super) fn pass(&mut self, CommandTicket { lane, number }: CommandTicket) -> Option<W> {
        let lane = &mut self.lanes[lane];
        lane.waiting.remove(&number);
        lane.head()
    }

    /// It waits for its turn.
    pub(super) fn wait(&mut self, CommandTicket { lane, number }: CommandTicket, waker: W) {
        self.lanes[lane].waiting.insert(number, waker);
    }

    /// It was out and not answered: it waits to be repeated, in its old place.
    pub(super) fn back(&mut self, CommandTicket { lane, number }: CommandTicket, waker: W) -> Option<W> {
        let lane = &mut self.lanes[lane];
        lane.waiting.insert(number, waker);
        lane.halted = true;
        lane.one_less()
    }

    /// It was answered, or its caller has given up.
    pub(super) fn leave(&mut self, CommandTicket { lane, number }: CommandTicket) -> Option<W> {
        let lane = &mut self.lanes[lane];
        if lane.waiting.remove(&number).is_some() { lane.head() } else { lane.one_less() }
    }

    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.lanes.iter().all(|(_, lane)| lane.is_idle())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    fn topic() -> RingTopic {
        RingTopic::group("", "g")
    }

    #[test]
    fn nothing_goes_elsewhere_before_the_former_place_has_answered() {
        let mut routes = CommandRoutes::new();
        let [one, two, three] = std::array::from_fn(|_| routes.enter(&topic()));
        assert!(routes.may_go(one, 'a'));
        assert_eq!(routes.go(one, 'a'), None);
        assert!(routes.may_go(two, 'a') && !routes.may_go(two, 'b'));
        routes.wait(two, "two");
        assert!(!routes.may_go(three, 'a'), "not before the second");
        routes.wait(three, "three");
        let other = routes.enter(&RingTopic::uid("", "g"));
        assert!(routes.may_go(other, 'b'), "another topic");
        assert_eq!(routes.pass(other), None);
        assert_eq!(routes.leave(one), Some("two"));
        assert_eq!(routes.go(two, 'b'), Some("three"));
        assert_eq!(routes.leave(two), Some("three"));
        assert_eq!(routes.pass(three), None);
        assert!(routes.is_idle());
    }

    #[test]
    fn what_comes_back_goes_before_what_was_made_later() {
        let mut routes = CommandRoutes::new();
        let [one, two, three] = std::array::from_fn(|_| routes.enter(&topic()));
        routes.go(one, 'a');
        routes.go(two, 'a');
        assert_eq!(routes.back(one, "one"), None);
        assert!(!routes.may_go(one, 'a'), "the second must come back first");
        assert!(!routes.may_go(three, 'a'));
        routes.wait(three, "three");
        assert_eq!(routes.back(two, "two"), Some("one"));
        assert_eq!(routes.go(one, 'b'), Some("two"));
        assert_eq!(routes.leave(two), Some("three"), "given up");
        assert!(routes.may_go(three, 'b') && !routes.may_go(three, 'a'));
    }

    #[test]
    fn topics_without_commands_are_forgotten() {
        let mut routes = CommandRoutes::<char, ()>::new();
        let busy = routes.enter(&topic());
        routes.go(busy, 'a');
        for uid in 0..10 * IDLE_TOPICS_MAX {
            let ticket = routes.enter(&RingTopic::uid("", &uid.to_string()));
            routes.pass(ticket);
        }
        assert!(routes.lanes.len() <= IDLE_TOPICS_MAX + 2 && routes.lanes.len() == routes.topics.len());
        assert_eq!(routes.enter(&topic()).lane, busy.lane);
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum State {
        Waiting,
        Out(usize),
        Done,
        GivenUp,
    }

    /// A caller, and gateways that carry commands out once, each stream in order.
    struct World {
        routes: CommandRoutes<usize, usize>,
        commands: Vec<(CommandTicket, State)>,
        /// What was written to each stream; none if it broke.
        places: Vec<Option<VecDeque<usize>>>,
        refusing: BTreeSet<usize>,
        /// What the caller has not heard yet: (command, was it answered?).
        replies: Vec<(usize, bool)>,
        woken: Vec<usize>,
        done: Vec<usize>,
    }

    impl World {
        fn new() -> Self {
            Self {
                routes: CommandRoutes::new(),
                commands: Vec::new(),
                places: vec![Some(VecDeque::new())],
                refusing: BTreeSet::new(),
                replies: Vec::new(),
                woken: Vec::new(),
                done: Vec::new(),
            }
        }

        /// Some caller's view of the home may be older than another's.
        fn place(&self, stale: usize) -> usize {
            let older = self.places.len().saturating_sub(1 + stale);
            if self.places[older].is_some() { older } else { self.places.len() - 1 }
        }

        fn make(&mut self, stale: usize) {
            let command = self.commands.len();
            let ticket = self.routes.enter(&topic());
            self.commands.push((ticket, State::Waiting));
            self.try_go(command, stale);
        }

        fn try_go(&mut self, command: usize, stale: usize) {
            let (ticket, state) = self.commands[command];
            if state != State::Waiting {
                return;
            }
            let place = self.place(stale);
            if self.routes.may_go(ticket, place) {
                let woken = self.routes.go(ticket, place);
                self.woken.extend(woken);
                self.commands[command].1 = State::Out(place);
                self.places[place].as_mut().unwrap().push_back(command);
            } else {
                self.routes.wait(ticket, command);
            }
        }

        fn carry_out(&mut self, command: usize) {
            if !self.done.contains(&command) {
                self.done.push(command);
            }
        }

        fn process(&mut self, place: usize) {
            let Some(command) = self.places[place].as_mut().and_then(VecDeque::pop_front) else { return };
            let refused = self.refusing.contains(&place);
            if !refused {
                self.carry_out(command);
            }
            self.replies.push((command, !refused));
        }

        fn break_stream(&mut self, place: usize, carried_out: usize) {
            for (at, command) in self.places[place].take().unwrap_or_default().into_iter().enumerate() {
                if at < carried_out && !self.refusing.contains(&place) {
                    self.carry_out(command);
                }
                self.replies.push((command, false));
            }
            if place + 1 == self.places.len() {
                self.places.push(Some(VecDeque::new()));
            }
        }

        fn hear(&mut self, at: usize) {
            if self.replies.is_empty() {
                return;
            }
            let (command, answered) = self.replies.swap_remove(at % self.replies.len());
            let (ticket, state) = self.commands[command];
            let State::Out(place) = state else { return };
            let woken = if answered {
                self.commands[command].1 = State::Done;
                self.routes.leave(ticket)
            } else {
                self.commands[command].1 = State::Waiting;
                // Its caller tries again by itself.
                self.woken.push(command);
                self.routes.back(ticket, command)
            };
            self.woken.extend(woken);
            if !self.commands.iter().any(|(_, state)| *state == State::Out(place)) {
                self.refusing.remove(&place);
            }
        }

        fn give_up(&mut self, command: usize) {
            let (ticket, state) = self.commands[command];
            if matches!(state, State::Waiting | State::Out(_)) {
                self.commands[command].1 = State::GivenUp;
                let woken = self.routes.leave(ticket);
                self.woken.extend(woken);
            }
        }

        fn run_one(&mut self, at: usize, stale: usize) {
            if !self.woken.is_empty() {
                let command = self.woken.swap_remove(at % self.woken.len());
                self.try_go(command, stale);
            }
        }

        fn step(&mut self, what: u8, which: usize) {
            let place = which % self.places.len();
            match what {
                0..=3 => self.make(which % 3),
                4 => self.places.push(Some(VecDeque::new())),
                5..=8 => self.process(place),
                9 => self.break_stream(place, which % 4),
                10..=13 => self.hear(which),
                14..=16 => self.run_one(which, which % 3),
                17 => drop(self.refusing.insert(place)),
                _ if self.commands.is_empty() => {}
                _ => self.give_up(which % self.commands.len()),
            }
        }

        /// Nothing fails any more. A command that is repeated for ever is not idle in the end.
        fn settle(&mut self) {
            for _ in 0..3000 {
                for place in 0..self.places.len() {
                    self.process(place);
                }
                self.hear(0);
                self.run_one(0, 0);
            }
        }
    }

    proptest! {
        #[test]
        fn commands_take_effect_in_the_order_made_and_none_is_stuck(
            steps in prop::collection::vec((0u8..19, 0usize..1000), 0..300),
        ) {
            let mut world = World::new();
            for (what, which) in steps {
                world.step(what, which);
            }
            world.settle();
            prop_assert!(world.routes.is_idle());
            let given_up = |command: &usize| world.commands[*command].1 == State::GivenUp;
            let done: Vec<_> = world.done.iter().copied().filter(|command| !given_up(command)).collect();
            let all: Vec<_> = (0..world.commands.len()).filter(|command| !given_up(command)).collect();
            prop_assert_eq!(done, all);
        }
    }
}
