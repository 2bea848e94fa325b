//! The interest of this gateway's own clients, and what homes know of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use broadgate_proto::id::Incarnation;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    membership::{Claim, MemberChange, MembershipCount, PresenceChange, PresenceCount, TopicPosition},
    topic::{Topic, TopicKind},
};

/// This gateway's interest in one topic.
#[derive(Debug, Default)]
pub(super) struct TopicInterest {
    /// Clients of each shard; shards without any are left out.
    shards: Vec<(u8, u32)>,
    /// Presence members: their member info, and the clients of each shard.
    #[allow(clippy::box_collection, reason = "most topics have none, and there are many topics")]
    members: Option<Box<BTreeMap<Arc<str>, InterestMember>>>,
    /// The home's roster, as this gateway's clients know it.
    #[allow(clippy::box_collection, reason = "most topics have none, and there are many topics")]
    pub(super) present: Option<Box<BTreeMap<Arc<str>, Arc<str>>>>,
    /// The home that was last informed, and the serial of that update.
    pub(super) home: Option<Incarnation>,
    pub(super) serial: u64,
    /// The last position in the topic's order that was accepted.
    pub(super) last: TopicPosition,
}

#[derive(Debug)]
struct InterestMember {
    info: Arc<str>,
    shards: Vec<(u8, u32)>,
    /// An undecided claim: its number, and how many users may be present.
    claim: Option<(u64, u32)>,
}

/// Presence changes to announce to a home.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) members: Vec<MemberChange>,
    pub(super) claims: Vec<Claim>,
}

impl Changes {
    fn add(&mut self, user: &Arc<str>, member: &InterestMember) {
        let (user, info) = (user.clone(), member.info.clone());
        match member.claim {
            Some((number, max)) => self.claims.push(Claim { user, info, number, max }),
            None => self.members.push(MemberChange { user, info: Some(info) }),
        }
    }
}

impl TopicInterest {
    pub(super) fn clients(&self) -> u64 {
        self.shards.iter().map(|(_, clients)| u64::from(*clients)).sum()
    }

    /// All presence members and claims, for a sync. Claims get new numbers: the home may have forgotten its
    /// earlier decisions with everything else.
    pub(super) fn all_members(&mut self, last_claim: &mut u64) -> Changes {
        let mut all = Changes::default();
        for (user, member) in self.members.iter_mut().flat_map(|members| members.iter_mut()) {
            if let Some((number, _)) = &mut member.claim {
                *last_claim += 1;
                *number = *last_claim;
            }
            all.add(user, member);
        }
        all
    }

    /// Applies a shard's count; returns the presence members that changed by it.
    fn set_count(&mut self, count: &MembershipCount, last_claim: &mut u64) -> Changes {
        put(&mut self.shards, count.shard, count.clients);
        let mut changes = Changes::default();
        for member in &count.members {
            self.member(count.shard, member, last_claim, &mut changes);
        }
        changes
    }

    fn member(&mut self, shard: u8, presence: &PresenceCount, last_claim: &mut u64, changes: &mut Changes) {
        let PresenceCount { user, info, clients, max } = presence;
        let members = self.members.get_or_insert_default();
        if let Some(member) = members.get_mut(user) {
            put(&mut member.shards, shard, *clients);
            if member.shards.is_empty() {
                members.remove(user);
                changes.members.push(MemberChange { user: user.clone(), info: None });
            } else if *clients > 0 {
                let settled = max.is_none() && member.claim.take().is_some();
                if settled || member.info != *info {
                    member.info = info.clone();
                    changes.add(user, member);
                }
            }
        } else if *clients > 0 {
            let claim = max.map(|max| {
                *last_claim += 1;
                (*last_claim, max)
            });
            let member = InterestMember { info: info.clone(), shards: vec![(shard, *clients)], claim };
            changes.add(user, &member);
            members.insert(user.clone(), member);
        }
        if members.is_empty() {
            self.members = None;
        }
    }

    /// The home has decided a claim. A refused user is removed here; true if that happened.
    pub(super) fn decided(&mut self, user: &Arc<str>, number: u64, granted: bool) -> bool {
        let Some(members) = &mut self.members else { return false };
        let Some(member) = members.get_mut(user) else { return false };
        if member.claim.is_none_or(|(claimed, _)| claimed != number) {
            return false;
        }
        member.claim = None;
        if granted {
            return false;
        }
        members.remove(user);
        if members.is_empty() {
            self.members = None;
        }
        true
    }

    /// A user's state here: undecided, or present.
    pub(super) fn claims(&self, user: &str) -> Option<bool> {
        Some(self.members.as_ref()?.get(user)?.claim.is_some())
    }

    /// Applies the home's roster; returns the changes that are new here.
    pub(super) fn present(&mut self, whole: bool, members: Vec<MemberChange>) -> Vec<PresenceChange> {
        let mut known = self.present.take().unwrap_or_default();
        let mut news = Vec::new();
        if whole {
            let named: BTreeMap<&Arc<str>, ()> = members.iter().map(|member| (&member.user, ())).collect();
            known.retain(|user, info| {
                let stays = named.contains_key(user);
                if !stays {
                    news.push(PresenceChange { user: user.clone(), info: info.clone(), here: false });
                }
                stays
            });
        }
        for MemberChange { user, info } in members {
            match info {
                // New member info of a present user is no join.
                Some(info) if known.insert(user.clone(), info.clone()).is_none() => {
                    news.push(PresenceChange { user, info, here: true });
                }
                Some(_) => {}
                None => {
                    let gone = known.remove(&user);
                    news.extend(gone.map(|info| PresenceChange { user, info, here: false }));
                }
            }
        }
        self.present = (!known.is_empty()).then_some(known);
        news
    }
}

fn put(shards: &mut Vec<(u8, u32)>, shard: u8, clients: u32) {
    match shards.iter().position(|(known, _)| *known == shard) {
        Some(at) if clients == 0 => drop(shards.swap_remove(at)),
        Some(at) => shards[at].1 = clients,
        None if clients > 0 => shards.push((shard, clients)),
        None => {}
    }
}

/// All topics of this gateway's clients.
#[derive(Debug, Default)]
pub(super) struct Interest {
    topics: HashMap<Topic, TopicInterest>,
    /// Groups and uids with clients: counted incrementally, since it can be asked at any time.
    counts: InterestCounts,
}

/// How many groups and uids have clients at this gateway.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct InterestCounts {
    /// Groups.
    pub groups: u64,
    /// Uids.
    pub uids: u64,
}

impl InterestCounts {
    fn change(&mut self, kind: TopicKind, had: bool, has: bool) {
        let count = match kind {
            TopicKind::Group => &mut self.groups,
            TopicKind::Uid => &mut self.uids,
            TopicKind::All => return,
        };
        *count = *count + u64::from(has && !had) - u64::from(had && !has);
    }
}

impl Interest {
    /// Applies a shard's count for a topic.
    pub(super) fn set_count(&mut self, count: &MembershipCount, last_claim: &mut u64) -> Changes {
        let had = self.has(&count.topic);
        let changes = if count.clients == 0 && !self.topics.contains_key(&count.topic) {
            Changes::default()
        } else {
            self.topics.entry(count.topic.clone()).or_default().set_count(count, last_claim)
        };
        if let Some(entry) = self.topics.get_mut(&count.topic)
            && entry.shards.is_empty()
        {
            entry.present = None;
        }
        self.counts.change(count.topic.kind(), had, self.has(&count.topic));
        changes
    }

    pub(super) const fn counts(&self) -> InterestCounts {
        self.counts
    }

    pub(super) fn get(&self, topic: &Topic) -> Option<&TopicInterest> {
        self.topics.get(topic)
    }

    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut TopicInterest> {
        self.topics.get_mut(topic)
    }

    /// Whether the home's roster contains this user; true where no user is asked for.
    pub(super) fn names(&self, topic: &Topic, user: &Option<Arc<str>>) -> bool {
        let Some(user) = user else { return true };
        let present = self.topics.get(topic).and_then(|entry| entry.present.as_ref());
        present.is_some_and(|present| present.contains_key(user))
    }

    /// Whether this gateway has clients in it.
    pub(super) fn has(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|entry| !entry.shards.is_empty())
    }

    /// An entry without clients is removed once its home has acknowledged that.
    pub(super) fn forget_if_empty(&mut self, topic: &Topic) {
        if self.topics.get(topic).is_some_and(|entry| entry.shards.is_empty()) {
            self.topics.remove(topic);
        }
    }

    /// The topics whose home a gateway is, in any order: the updates of a link concern different topics.
    pub(super) fn of_home(&self, home: Incarnation) -> Vec<Topic> {
        let mut topics: Vec<_> = self
            .topics
            .iter()
            .filter(|(_, entry)| entry.home == Some(home) && !entry.shards.is_empty())
            .map(|(topic, _)| topic.clone())
            .collect();
        // A seed replays a cluster: hash-map order must not show.
        topics.sort_unstable();
        topics
    }

    /// Topics of a home with undecided claims.
    pub(super) fn claiming(&self, home: Incarnation) -> Vec<Topic> {
        let claims = |entry: &TopicInterest| {
            let mut members = entry.members.iter().flat_map(|members| members.values());
            entry.home == Some(home) && members.any(|member| member.claim.is_some())
        };
        let mut topics: Vec<_> =
            self.topics.iter().filter(|(_, entry)| claims(entry)).map(|(topic, _)| topic.clone()).collect();
        topics.sort_unstable();
        topics
    }

    pub(super) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<_> = self.topics.keys().cloned().collect();
        topics.sort_unstable();
        topics
    }

    /// A checksum of the interest of each home.
    pub(super) fn sums(&self) -> BTreeMap<Incarnation, Sum> {
        let mut sums: BTreeMap<Incarnation, Sum> = BTreeMap::new();
        for (topic, entry) in &self.topics {
            if let (Some(home), clients @ 1..) = (entry.home, entry.clients()) {
                sums.entry(home).or_default().add(topic, clients);
            }
        }
        sums
    }

    /// All topics, those without clients included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }
}

/// The checksum that both ends of a sync compare.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) topics: u64,
    pub(super) sum: u64,
}

impl Sum {
    pub(super) fn add(&mut self, topic: &Topic, clients: u64) {
        self.topics += 1;
        self.sum = self.sum.wrapping_add(xxh3_64(topic.key()).wrapping_mul(clients));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(shard: u8, clients: u32, members: &[(&str, &str, u32)], max: Option<u32>) -> MembershipCount {
        let member = |&(user, info, clients): &(&str, &str, u32)| PresenceCount {
            user: user.into(),
            info: info.into(),
            clients,
            max,
        };
        let members = members.iter().map(member).collect();
        MembershipCount { topic: Topic::group("a", "room"), shard, clients, members }
    }

    fn text(changes: &Changes) -> Vec<String> {
        let members = changes.members.iter().map(|change| format!("{}={:?}", change.user, change.info));
        let claims = changes.claims.iter().map(|claim| format!("{}?{}", claim.user, claim.number));
        members.chain(claims).collect()
    }

    #[test]
    fn a_user_comes_with_its_first_client_and_goes_with_its_last() {
        let mut interest = Interest::default();
        let set_count = |interest: &mut Interest, shard, clients, members: &[(&str, &str, u32)]| {
            text(&interest.set_count(&count(shard, clients, members, None), &mut 0))
        };
        assert_eq!(set_count(&mut interest, 0, 1, &[("ann", "A", 1)]), ["ann=Some(\"A\")"]);
        assert!(set_count(&mut interest, 1, 1, &[("ann", "A", 1)]).is_empty());
        assert_eq!(interest.counts(), InterestCounts { groups: 1, uids: 0 }, "in two shards, and one group");
        assert!(set_count(&mut interest, 0, 0, &[("ann", "A", 0)]).is_empty());
        assert_eq!(set_count(&mut interest, 1, 1, &[("ann", "B", 1)]), ["ann=Some(\"B\")"]);
        assert_eq!(set_count(&mut interest, 1, 0, &[("ann", "B", 0)]), ["ann=None"]);
        let topic = Topic::group("a", "room");
        assert!(!interest.has(&topic) && interest.get(&topic).is_some(), "kept until its home knows");
        interest.forget_if_empty(&topic);
        assert_eq!((interest.len(), interest.counts()), (0, InterestCounts::default()));
        assert!(set_count(&mut interest, 1, 0, &[]).is_empty());
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn a_claim_is_made_once_and_an_old_answer_is_not_taken_for_a_new_one() {
        let (mut interest, mut last, topic) = (Interest::default(), 0, Topic::group("a", "room"));
        let mut set_count = |interest: &mut Interest, shard, clients, max| {
            text(&interest.set_count(&count(shard, clients, &[("ann", "A", clients)], max), &mut last))
        };
        let ann: Arc<str> = "ann".into();
        assert_eq!(set_count(&mut interest, 0, 1, Some(1)), ["ann?1"]);
        assert!(set_count(&mut interest, 1, 1, Some(1)).is_empty(), "it shares the claim");
        assert_eq!(text(&interest.get_mut(&topic).unwrap().all_members(&mut 0)), ["ann?1"]);
        assert_eq!(set_count(&mut interest, 0, 0, Some(1)), Vec::<String>::new());
        assert_eq!(set_count(&mut interest, 1, 0, Some(1)), ["ann=None"]);
        assert_eq!(set_count(&mut interest, 1, 1, Some(1)), ["ann?2"]);
        let entry = interest.get_mut(&topic).unwrap();
        assert!(!entry.decided(&ann, 1, false), "of the former claim");
        assert_eq!(entry.claims("ann"), Some(true));
        assert!(!entry.decided(&ann, 2, true));
        assert_eq!(
            (entry.claims("ann"), text(&entry.all_members(&mut 0))),
            (Some(false), vec!["ann=Some(\"A\")".to_owned()])
        );
        assert!(!entry.decided(&ann, 2, false), "decided already");
        // Another claim, refused: the user is absent until a client joins again.
        set_count(&mut interest, 1, 0, Some(1));
        assert_eq!(set_count(&mut interest, 1, 1, Some(1)), ["ann?3"]);
        assert!(interest.get_mut(&topic).unwrap().decided(&ann, 3, false));
        assert_eq!(interest.get(&topic).unwrap().claims("ann"), None);
        assert!(set_count(&mut interest, 1, 0, Some(1)).is_empty());
        // A worker's seat has no limit, and settles a claim.
        assert_eq!(set_count(&mut interest, 0, 1, Some(1)), ["ann?4"]);
        assert_eq!(set_count(&mut interest, 1, 1, None), ["ann=Some(\"A\")"]);
    }

    proptest! {
        /// What is counted is what a walk over all topics would find.
        #[test]
        fn counts_are_those_of_a_walk(steps in prop::collection::vec((0..3u8, 0..4u8, 0..3u8, 0..3u32), 0..120)) {
            let (mut interest, mut last) = (Interest::default(), 0);
            for (kind, name, shard, clients) in steps {
                let name = name.to_string();
                let topic = match kind {
                    0 => Topic::all("a"),
                    1 => Topic::uid("a", &name),
                    _ => Topic::group("a", &name),
                };
                let count = MembershipCount { topic: topic.clone(), shard, clients, members: Vec::new() };
                interest.set_count(&count, &mut last);
                if name == "0" {
                    interest.forget_if_empty(&topic);
                }
                let walked = |kind| {
                    let with_clients = interest.topics.keys().filter(|topic| interest.has(topic));
                    with_clients.filter(|topic| topic.kind() == kind).count() as u64
                };
                let walked = InterestCounts { groups: walked(TopicKind::Group), uids: walked(TopicKind::Uid) };
                prop_assert_eq!(interest.counts(), walked);
            }
        }
    }

    #[test]
    fn repeated_rosters_change_nothing() {
        let change =
            |user: &str, info: Option<&str>| MemberChange { user: user.into(), info: info.map(Into::into) };
        let text = |news: &[PresenceChange]| -> Vec<String> {
            news.iter()
                .map(|one| format!("{}={}{}", one.user, if one.here { "+" } else { "-" }, one.info))
                .collect()
        };
        let mut entry = TopicInterest::default();
        let first = entry.present(true, vec![change("ann", Some("A")), change("bob", Some("B"))]);
        assert_eq!(first.len(), 2);
        assert!(entry.present(false, vec![change("ann", Some("A2"))]).is_empty());
        assert_eq!(text(&entry.present(true, vec![change("ann", Some("A"))])), ["bob=-B"]);
        assert!(entry.present(false, vec![change("bob", None)]).is_empty());
        assert_eq!(text(&entry.present(false, vec![change("ann", None)])), ["ann=-A"]);
        assert!(entry.present.is_none());
    }
}
