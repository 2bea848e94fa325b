//! Members that were refused, for operators: no view names them. Pure.

use std::time::Duration;

use broadgate_proto::{
    limits::{NAME_BYTES_MAX, REFUSAL_FIELD_BYTES_MAX, REFUSED_MEMBERS_MAX, REFUSED_MEMBERS_TIME},
    v1::{Member, RefusedMember, RefusedMembers, Role},
};

use super::step::Now;

/// What a refused member says of itself, as far as it has said it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClaimedMember {
    pub role: Role,
    pub name: String,
    /// Where it is reached, or where it came from.
    pub address: String,
    /// It has not shown what members show: anybody may have said this.
    pub is_stranger: bool,
}

impl ClaimedMember {
    /// Of a Hello from this address, before anything is checked.
    pub fn of(member: &Member, from: String) -> Self {
        let address = if member.address.is_empty() { from } else { cut(&member.address) };
        Self { role: member.role(), name: named(&member.name), address, is_stranger: false }
    }

    /// Of the metadata of a call that was not let in.
    pub fn stranger(said: &str, from: String) -> Self {
        let (role, name) = match said.split_once(' ') {
            Some(("gateway", name)) => (Role::Gateway, name),
            Some(("worker", name)) => (Role::Worker, name),
            _ => (Role::Unspecified, ""),
        };
        Self { role, name: named(name), address: from, is_stranger: true }
    }
}

/// The members that were refused lately, the one that was refused last at the end.
#[derive(Debug)]
pub(super) struct RefusedLately {
    all: Vec<RefusedOne>,
    /// Since the last look.
    changed: bool,
}

#[derive(Debug)]
struct RefusedOne {
    claimed: ClaimedMember,
    reason: &'static str,
    why: String,
    first_at_ms: u64,
    last_at_ms: u64,
    last: Duration,
    count: u64,
}

impl RefusedLately {
    pub const fn new() -> Self {
        Self { all: Vec::new(), changed: false }
    }

    /// One was refused, for this reason of a closed set. Beyond the limit one is forgotten: a stranger, if there is any.
    pub fn note(&mut self, claimed: ClaimedMember, reason: &'static str, why: &str, now: Now) {
        self.changed = true;
        let known = self.all.iter().position(|one| one.claimed == claimed && one.reason == reason);
        let mut one = match known {
            Some(at) => self.all.remove(at),
            None => {
                self.make_room();
                RefusedOne {
                    claimed,
                    reason,
                    why: String::new(),
                    first_at_ms: now.unix_ms,
                    last_at_ms: 0,
                    last: now.up,
                    count: 0,
                }
            }
        };
        (one.why, one.last_at_ms, one.last) = (cut(why), now.unix_ms, now.up);
        one.count += 1;
        self.all.push(one);
    }

    fn make_room(&mut self) {
        if self.all.len() >= REFUSED_MEMBERS_MAX {
            self.all.remove(self.all.iter().position(|one| one.claimed.is_stranger).unwrap_or(0));
        }
    }

    /// A member was taken in: what kept it out before is over.
    pub fn took_in(&mut self, member: &Member) {
        let is_it = |claimed: &ClaimedMember| claimed.role == member.role() && claimed.name == member.name;
        self.forget(|one| is_it(&one.claimed));
    }

    fn forget(&mut self, is_over: impl Fn(&RefusedOne) -> bool) {
        let before = self.all.len();
        self.all.retain(|one| !is_over(one));
        self.changed |= self.all.len() < before;
    }

    /// Those of the last time, if they have changed since this was called last.
    pub fn take_changed(&mut self, now: Now) -> Option<RefusedMembers> {
        self.forget(|one| now.up >= one.last + REFUSED_MEMBERS_TIME);
        std::mem::take(&mut self.changed).then(|| self.messages())
    }

    /// For those who have heard nothing yet.
    pub fn messages(&self) -> RefusedMembers {
        let message = |one: &RefusedOne| RefusedMember {
            role: one.claimed.role.into(),
            name: one.claimed.name.clone(),
            address: one.claimed.address.clone(),
            reason: one.reason.to_owned(),
            why: one.why.clone(),
            first_at_ms: one.first_at_ms,
            last_at_ms: one.last_at_ms,
            count: one.count,
        };
        RefusedMembers { members: self.all.iter().map(message).collect() }
    }
}

/// A name of bounded length.
fn named(text: &str) -> String {
    text[..text.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

/// A text of bounded length.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(2 * REFUSAL_FIELD_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Now {
        Now { up: Duration::from_secs(secs), unix_ms: 1000 * secs }
    }

    fn member(name: &str, role: Role) -> Member {
        Member { name: name.to_owned(), role: role.into(), ..Member::default() }
    }

    fn claimed(name: &str) -> ClaimedMember {
        ClaimedMember::of(&member(name, Role::Gateway), "10.0.0.9".to_owned())
    }

    #[test]
    fn those_that_are_refused_are_counted_until_they_are_taken_in() {
        let mut refused = RefusedLately::new();
        assert_eq!(refused.take_changed(at(0)), None);
        for secs in 1..4 {
            refused.note(claimed("a"), "taken", "the name is taken", at(secs));
        }
        refused.note(ClaimedMember::stranger("gateway b", "10.0.0.8".to_owned()), "secret", "no", at(4));
        let all = refused.take_changed(at(4)).unwrap().members;
        let seen: Vec<_> = all.iter().map(|one| (&*one.name, &*one.reason, one.count)).collect();
        assert_eq!(seen, [("a", "taken", 3), ("b", "secret", 1)]);
        assert_eq!((all[0].first_at_ms, all[0].last_at_ms, all[0].role()), (1000, 3000, Role::Gateway));
        assert_eq!((&*all[0].address, &*all[1].address), ("10.0.0.9", "10.0.0.8"));
        assert_eq!(refused.take_changed(at(5)), None, "nothing new");
        refused.took_in(&member("a", Role::Worker));
        assert_eq!(refused.take_changed(at(5)), None, "another one");
        refused.took_in(&member("a", Role::Gateway));
        assert_eq!(refused.take_changed(at(5)).unwrap().members.len(), 1);
        let over = Now { up: at(4).up + REFUSED_MEMBERS_TIME, unix_ms: 0 };
        assert_eq!(refused.take_changed(over).unwrap().members, []);
    }

    #[test]
    fn memory_is_bounded_and_strangers_displace_no_member() {
        let mut refused = RefusedLately::new();
        refused.note(claimed("a"), "taken", "no", at(1));
        for number in 0..2 * REFUSED_MEMBERS_MAX {
            let said = format!("worker {}{number}", "x".repeat(4096));
            let stranger = ClaimedMember::stranger(&said, format!("10.0.0.{number}"));
            refused.note(stranger, "secret", &"\u{e9}".repeat(4096), at(2));
        }
        let all = refused.messages().members;
        assert_eq!((all.len(), &*all[0].name), (REFUSED_MEMBERS_MAX, "a"));
        assert!(all.iter().all(|one| one.name.len() <= NAME_BYTES_MAX && one.why.len() <= 400));
        for number in 0..2 * REFUSED_MEMBERS_MAX {
            refused.note(claimed(&number.to_string()), "full", "no", at(3));
        }
        assert_eq!(refused.messages().members.len(), REFUSED_MEMBERS_MAX);
    }
}
