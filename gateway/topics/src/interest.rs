//! What this gateway's own clients are in, and what their homes have been told of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use broadgate_proto::id::Incarnation;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    membership::{At, Claim, ComeOrGone, MemberChange, Standing, StandingMember},
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
    /// The home has not decided: the claim's number, and how many users may be present.
    claim: Option<(u64, u32)>,
}

/// What a home is to be told of presence members.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) members: Vec<MemberChange>,
    pub(super) claims: Vec<Claim>,
}

impl Changes {
    fn add(&mut self, user: &Arc<str>, member: &HeldMember) {
        let (user, info) = (user.clone(), member.info.clone());
        match member.claim {
            Some((number, max)) => self.claims.push(Claim { user, info, number, max }),
            None => self.members.push(MemberChange { user, info: Some(info) }),
        }
    }
}

impl Held {
    pub(super) fn clients(&self) -> u64 {
        self.shards.iter().map(|(_, clients)| u64::from(*clients)).sum()
    }

    /// All presence members and claims, for a sync. Claims get other numbers: what was decided about them
    /// before may be forgotten with what the home is told anew.
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

    /// Takes what a shard says; returns the presence members for whom that makes a difference.
    fn stand(&mut self, standing: &Standing, last_claim: &mut u64) -> Changes {
        put(&mut self.shards, standing.shard, standing.clients);
        let mut changes = Changes::default();
        for member in &standing.members {
            self.member(standing.shard, member, last_claim, &mut changes);
        }
        changes
    }

    fn member(&mut self, shard: u8, stands: &StandingMember, last_claim: &mut u64, changes: &mut Changes) {
        let StandingMember { user, info, clients, max } = stands;
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
            let member = HeldMember { info: info.clone(), shards: vec![(shard, *clients)], claim };
            changes.add(user, &member);
            members.insert(user.clone(), member);
        }
        if members.is_empty() {
            self.members = None;
        }
    }

    /// The home has decided about a claim. Who is refused is nobody here any more; true if that is so.
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

    /// How one of our users stands: undecided, or present.
    pub(super) fn claims(&self, user: &str) -> Option<bool> {
        Some(self.members.as_ref()?.get(user)?.claim.is_some())
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
    pub(super) fn stand(&mut self, standing: &Standing, last_claim: &mut u64) -> Changes {
        let had = self.has(&standing.topic);
        let changes = if standing.clients == 0 && !self.topics.contains_key(&standing.topic) {
            Changes::default()
        } else {
            self.topics.entry(standing.topic.clone()).or_default().stand(standing, last_claim)
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

    /// Topics of a home with claims that it has not decided.
    pub(super) fn claiming(&self, home: Incarnation) -> Vec<Topic> {
        let claims = |held: &Held| {
            let mut members = held.members.iter().flat_map(|members| members.values());
            held.home == Some(home) && members.any(|member| member.claim.is_some())
        };
        let mut topics: Vec<_> =
            self.topics.iter().filter(|(_, held)| claims(held)).map(|(topic, _)| topic.clone()).collect();
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

    fn standing(shard: u8, clients: u32, members: &[(&str, &str, u32)], max: Option<u32>) -> Standing {
        let member = |&(user, info, clients): &(&str, &str, u32)| StandingMember {
            user: user.into(),
            info: info.into(),
            clients,
            max,
        };
        let members = members.iter().map(member).collect();
        Standing { topic: Topic::group("a", "room"), shard, clients, members }
    }

    fn text(changes: &Changes) -> Vec<String> {
        let members = changes.members.iter().map(|change| format!("{}={:?}", change.user, change.info));
        let claims = changes.claims.iter().map(|claim| format!("{}?{}", claim.user, claim.number));
        members.chain(claims).collect()
    }

    #[test]
    fn a_user_comes_with_its_first_client_and_goes_with_its_last() {
        let mut interest = Interest::default();
        let stand = |interest: &mut Interest, shard, clients, members: &[(&str, &str, u32)]| {
            text(&interest.stand(&standing(shard, clients, members, None), &mut 0))
        };
        assert_eq!(stand(&mut interest, 0, 1, &[("ann", "A", 1)]), ["ann=Some(\"A\")"]);
        assert!(stand(&mut interest, 1, 1, &[("ann", "A", 1)]).is_empty());
        assert_eq!(interest.counts(), HeldCounts { groups: 1, uids: 0 }, "in two shards, and one group");
        assert!(stand(&mut interest, 0, 0, &[("ann", "A", 0)]).is_empty());
        assert_eq!(stand(&mut interest, 1, 1, &[("ann", "B", 1)]), ["ann=Some(\"B\")"]);
        assert_eq!(stand(&mut interest, 1, 0, &[("ann", "B", 0)]), ["ann=None"]);
        let topic = Topic::group("a", "room");
        assert!(!interest.has(&topic) && interest.get(&topic).is_some(), "kept until its home knows");
        interest.forget_if_empty(&topic);
        assert_eq!((interest.len(), interest.counts()), (0, HeldCounts::default()));
        assert!(stand(&mut interest, 1, 0, &[]).is_empty());
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn a_claim_is_made_once_and_an_old_answer_is_not_taken_for_a_new_one() {
        let (mut interest, mut last, topic) = (Interest::default(), 0, Topic::group("a", "room"));
        let mut stand = |interest: &mut Interest, shard, clients, max| {
            text(&interest.stand(&standing(shard, clients, &[("ann", "A", clients)], max), &mut last))
        };
        let ann: Arc<str> = "ann".into();
        assert_eq!(stand(&mut interest, 0, 1, Some(1)), ["ann?1"]);
        assert!(stand(&mut interest, 1, 1, Some(1)).is_empty(), "it shares the claim");
        assert_eq!(text(&interest.get_mut(&topic).unwrap().all_members(&mut 0)), ["ann?1"]);
        assert_eq!(stand(&mut interest, 0, 0, Some(1)), Vec::<String>::new());
        assert_eq!(stand(&mut interest, 1, 0, Some(1)), ["ann=None"]);
        assert_eq!(stand(&mut interest, 1, 1, Some(1)), ["ann?2"]);
        let held = interest.get_mut(&topic).unwrap();
        assert!(!held.decided(&ann, 1, false), "of the former claim");
        assert_eq!(held.claims("ann"), Some(true));
        assert!(!held.decided(&ann, 2, true));
        assert_eq!(
            (held.claims("ann"), text(&held.all_members(&mut 0))),
            (Some(false), vec!["ann=Some(\"A\")".to_owned()])
        );
        assert!(!held.decided(&ann, 2, false), "decided already");
        // Another claim, refused: nobody is there until somebody comes again.
        stand(&mut interest, 1, 0, Some(1));
        assert_eq!(stand(&mut interest, 1, 1, Some(1)), ["ann?3"]);
        assert!(interest.get_mut(&topic).unwrap().decided(&ann, 3, false));
        assert_eq!(interest.get(&topic).unwrap().claims("ann"), None);
        assert!(stand(&mut interest, 1, 0, Some(1)).is_empty());
        // A worker's seat has no limit, and settles a claim.
        assert_eq!(stand(&mut interest, 0, 1, Some(1)), ["ann?4"]);
        assert_eq!(stand(&mut interest, 1, 1, None), ["ann=Some(\"A\")"]);
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
