//! What this gateway's own clients are in, and what their homes have been told of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use broadgate_proto::id::Incarnation;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    step::{At, ComeOrGone, MemberChange, Standing},
    topic::{Kind, Topic},
};

/// How our clients stand in one topic.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Clients of each shard; shards without any are left out.
    shards: Vec<(u8, u32)>,
    /// Presence members: what others see of them, and the clients of each shard.
    #[allow(clippy::box_collection, reason = "most topics have none, and there are many topics")]
    members: Option<Box<BTreeMap<Arc<str>, HeldMember>>>,
    /// Whom the home's presence says to be there; our clients were told of these.
    #[allow(clippy::box_collection, reason = "most topics have none, and there are many topics")]
    pub(super) present: Option<Box<BTreeMap<Arc<str>, Arc<str>>>>,
    /// The topic's home as it was told last, and the serial of that.
    pub(super) home: Option<Incarnation>,
    pub(super) serial: u64,
    /// The last place in the topic's order that was taken.
    pub(super) last: At,
}

#[derive(Debug)]
struct HeldMember {
    info: Arc<str>,
    shards: Vec<(u8, u32)>,
}

impl Held {
    pub(super) fn clients(&self) -> u64 {
        self.shards.iter().map(|(_, clients)| u64::from(*clients)).sum()
    }

    /// All presence members, for a sync.
    pub(super) fn all_members(&self) -> Vec<MemberChange> {
        let members = self.members.iter().flat_map(|members| members.iter());
        members
            .map(|(user, member)| MemberChange { user: user.clone(), info: Some(member.info.clone()) })
            .collect()
    }

    /// Takes what a shard says; returns the presence members for whom that makes a difference.
    fn stand(&mut self, standing: &Standing) -> Vec<MemberChange> {
        put(&mut self.shards, standing.shard, standing.clients);
        let mut changes = Vec::new();
        for (user, info, clients) in &standing.members {
            if let Some(change) = self.member(standing.shard, user, info, *clients) {
                changes.push(change);
            }
        }
        changes
    }

    fn member(&mut self, shard: u8, user: &Arc<str>, info: &Arc<str>, clients: u32) -> Option<MemberChange> {
        let members = self.members.get_or_insert_default();
        if let Some(member) = members.get_mut(user) {
            put(&mut member.shards, shard, clients);
            if member.shards.is_empty() {
                members.remove(user);
                if members.is_empty() {
                    self.members = None;
                }
                return Some(MemberChange { user: user.clone(), info: None });
            }
            if clients == 0 || member.info == *info {
                return None;
            }
            member.info = info.clone();
        } else if clients > 0 {
            let member = HeldMember { info: info.clone(), shards: vec![(shard, clients)] };
            members.insert(user.clone(), member);
        } else {
            return None;
        }
        Some(MemberChange { user: user.clone(), info: Some(info.clone()) })
    }

    /// Takes what the home says of who is present; returns what is news here.
    pub(super) fn present(&mut self, whole: bool, members: Vec<MemberChange>) -> Vec<ComeOrGone> {
        let mut known = self.present.take().unwrap_or_default();
        let mut news = Vec::new();
        if whole {
            let named: BTreeMap<&Arc<str>, ()> = members.iter().map(|member| (&member.user, ())).collect();
            known.retain(|user, info| {
                let stays = named.contains_key(user);
                if !stays {
                    news.push(ComeOrGone { user: user.clone(), info: info.clone(), here: false });
                }
                stays
            });
        }
        for MemberChange { user, info } in members {
            match info {
                // Another info of somebody who is there is no coming.
                Some(info) if known.insert(user.clone(), info.clone()).is_none() => {
                    news.push(ComeOrGone { user, info, here: true });
                }
                Some(_) => {}
                None => {
                    let gone = known.remove(&user);
                    news.extend(gone.map(|info| ComeOrGone { user, info, here: false }));
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
    topics: HashMap<Topic, Held>,
    /// Groups and uids with clients: counted as they come and go, since anybody may ask at any time.
    counts: HeldCounts,
}

/// How many groups and uids have clients at this gateway.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HeldCounts {
    /// Groups.
    pub groups: u64,
    /// Uids.
    pub uids: u64,
}

impl HeldCounts {
    fn change(&mut self, kind: Kind, had: bool, has: bool) {
        let count = match kind {
            Kind::Group => &mut self.groups,
            Kind::Uid => &mut self.uids,
            Kind::All => return,
        };
        *count = *count + u64::from(has && !had) - u64::from(had && !has);
    }
}

impl Interest {
    /// Takes what a shard says of a topic.
    pub(super) fn stand(&mut self, standing: &Standing) -> Vec<MemberChange> {
        let had = self.has(&standing.topic);
        let changes = if standing.clients == 0 && !self.topics.contains_key(&standing.topic) {
            Vec::new()
        } else {
            self.topics.entry(standing.topic.clone()).or_default().stand(standing)
        };
        if let Some(held) = self.topics.get_mut(&standing.topic)
            && held.shards.is_empty()
        {
            held.present = None;
        }
        self.counts.change(standing.topic.kind(), had, self.has(&standing.topic));
        changes
    }

    pub(super) const fn counts(&self) -> HeldCounts {
        self.counts
    }

    pub(super) fn get(&self, topic: &Topic) -> Option<&Held> {
        self.topics.get(topic)
    }

    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut Held> {
        self.topics.get_mut(topic)
    }

    /// Does the home's presence name this user? Nobody has to be named where nobody is asked for.
    pub(super) fn names(&self, topic: &Topic, user: &Option<Arc<str>>) -> bool {
        let Some(user) = user else { return true };
        let present = self.topics.get(topic).and_then(|held| held.present.as_ref());
        present.is_some_and(|present| present.contains_key(user))
    }

    /// Have we clients in it?
    pub(super) fn has(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|held| !held.shards.is_empty())
    }

    /// An entry without clients is kept until its home has taken that; then it goes.
    pub(super) fn forget_if_empty(&mut self, topic: &Topic) {
        if self.topics.get(topic).is_some_and(|held| held.shards.is_empty()) {
            self.topics.remove(topic);
        }
    }

    /// The topics that a gateway is the home of, in no order that matters: a link's holds are about
    /// different topics.
    pub(super) fn of_home(&self, home: Incarnation) -> Vec<Topic> {
        let mut topics: Vec<_> = self
            .topics
            .iter()
            .filter(|(_, held)| held.home == Some(home) && !held.shards.is_empty())
            .map(|(topic, _)| topic.clone())
            .collect();
        // A seed replays a cluster: no order of a hash map may show.
        topics.sort_unstable();
        topics
    }

    pub(super) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<_> = self.topics.keys().cloned().collect();
        topics.sort_unstable();
        topics
    }

    /// What is held of each home: how many topics, and what they add up to.
    pub(super) fn sums(&self) -> BTreeMap<Incarnation, Sum> {
        let mut sums: BTreeMap<Incarnation, Sum> = BTreeMap::new();
        for (topic, held) in &self.topics {
            if let (Some(home), clients @ 1..) = (held.home, held.clients()) {
                sums.entry(home).or_default().add(topic, clients);
            }
        }
        sums
    }

    /// Topics held, those without clients included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }
}

/// By which both ends of a sync compare what was said.
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
    use super::*;

    fn standing(shard: u8, clients: u32, members: &[(&str, &str, u32)]) -> Standing {
        let members = members.iter().map(|&(user, info, count)| (user.into(), info.into(), count)).collect();
        Standing { topic: Topic::group("a", "room"), shard, clients, members }
    }

    fn text(changes: &[MemberChange]) -> Vec<String> {
        changes.iter().map(|change| format!("{}={:?}", change.user, change.info)).collect()
    }

    #[test]
    fn a_user_comes_with_its_first_client_and_goes_with_its_last() {
        let mut interest = Interest::default();
        assert_eq!(text(&interest.stand(&standing(0, 1, &[("ann", "A", 1)]))), ["ann=Some(\"A\")"]);
        assert!(interest.stand(&standing(1, 1, &[("ann", "A", 1)])).is_empty());
        assert_eq!(interest.counts(), HeldCounts { groups: 1, uids: 0 }, "in two shards, and one group");
        assert!(interest.stand(&standing(0, 0, &[("ann", "A", 0)])).is_empty());
        assert_eq!(text(&interest.stand(&standing(1, 1, &[("ann", "B", 1)]))), ["ann=Some(\"B\")"]);
        assert_eq!(text(&interest.stand(&standing(1, 0, &[("ann", "B", 0)]))), ["ann=None"]);
        let topic = Topic::group("a", "room");
        assert!(!interest.has(&topic) && interest.get(&topic).is_some(), "kept until its home knows");
        interest.forget_if_empty(&topic);
        assert_eq!((interest.len(), interest.counts()), (0, HeldCounts::default()));
        assert!(interest.stand(&standing(1, 0, &[])).is_empty());
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn whatever_the_home_repeats_is_told_once() {
        let change =
            |user: &str, info: Option<&str>| MemberChange { user: user.into(), info: info.map(Into::into) };
        let text = |news: &[ComeOrGone]| -> Vec<String> {
            news.iter()
                .map(|one| format!("{}={}{}", one.user, if one.here { "+" } else { "-" }, one.info))
                .collect()
        };
        let mut held = Held::default();
        let first = held.present(true, vec![change("ann", Some("A")), change("bob", Some("B"))]);
        assert_eq!(first.len(), 2);
        assert!(held.present(false, vec![change("ann", Some("A2"))]).is_empty());
        assert_eq!(text(&held.present(true, vec![change("ann", Some("A"))])), ["bob=-B"]);
        assert!(held.present(false, vec![change("bob", None)]).is_empty());
        assert_eq!(text(&held.present(false, vec![change("ann", None)])), ["ann=-A"]);
        assert!(held.present.is_none());
    }
}
