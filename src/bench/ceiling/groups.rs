//! Groups by name, for all threads; and a thread's own part of one.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::log::Log;

/// Numbers for names. Locked once per handshake and once per run of a publisher's messages.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<Vec<u8>, u32>>);

impl Names {
    /// The group's number, which it gets when it is first named.
    pub(super) fn number(&self, name: &[u8]) -> u32 {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = names.get(name) {
            return *number;
        }
        let number = u32::try_from(names.len()).unwrap_or(u32::MAX);
        names.insert(name.to_vec(), number);
        number
    }
}

/// A thread's members of a group, and what is to be written to them.
///
/// Members are visited in a circle, and each takes all that has gathered: what comes while others
/// are written to is merged for those that follow, and nobody waits for it.
#[derive(Default)]
pub(super) struct Group {
    pub(super) log: Log,
    /// Slots of clients.
    pub(super) members: Vec<u32>,
    next: usize,
    /// Members that have not been visited since something was appended.
    left: usize,
    /// Members that take no more for now.
    pub(super) blocked: usize,
}

impl Group {
    /// Appends; true if the group had nothing to be written before.
    pub(super) fn append(&mut self, frame: &[u8]) -> bool {
        if self.members.is_empty() {
            return false;
        }
        self.log.append(frame);
        let was_idle = self.left == 0;
        self.left = self.members.len();
        was_idle
    }

    /// The next member to write to; none when all have been visited.
    pub(super) fn visit(&mut self) -> Option<u32> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        if self.next >= self.members.len() {
            self.next = 0;
        }
        let slot = self.members.get(self.next).copied();
        self.next += 1;
        slot
    }

    pub(super) fn enter(&mut self, slot: u32) -> usize {
        self.members.push(slot);
        self.members.len() - 1
    }

    /// Takes the member at this place out; tells who stands there now.
    pub(super) fn leave(&mut self, place: usize) -> Option<u32> {
        if place < self.members.len() {
            self.members.swap_remove(place);
        }
        // Clients that moved here may have been before or behind the circle's position: visit all.
        self.left = if self.left > 0 { self.members.len() } else { 0 };
        self.members.get(place).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(group: &mut Group, count: usize) -> Vec<Option<u32>> {
        (0..count).map(|_| group.visit()).collect()
    }

    #[test]
    fn what_comes_during_a_round_makes_it_go_on_from_where_it_is() {
        let mut group = Group::default();
        for slot in [7, 8, 9] {
            group.enter(slot);
        }
        assert!(group.append(b"a"));
        assert_eq!(visits(&mut group, 2), [Some(7), Some(8)]);
        assert!(!group.append(b"b"));
        assert_eq!(visits(&mut group, 4), [Some(9), Some(7), Some(8), None]);
    }

    #[test]
    fn nobody_is_left_out_when_a_member_leaves_during_a_round() {
        let mut group = Group::default();
        for slot in [7, 8, 9] {
            group.enter(slot);
        }
        group.append(b"a");
        assert_eq!(group.visit(), Some(7));
        assert_eq!(group.leave(0), Some(9));
        let mut seen = visits(&mut group, 2);
        seen.sort_unstable();
        assert_eq!((seen, group.visit()), (vec![Some(8), Some(9)], None));
    }

    #[test]
    fn names_keep_their_numbers() {
        let names = Names::default();
        assert_eq!([names.number(b"a"), names.number(b"b"), names.number(b"a")], [0, 1, 0]);
    }
}
