//! Changed counts on their way from the shards to the homes, kept by topic until the cluster task takes them:
//! never more than one entry for each topic, and no shard ever waits.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use broadgate_topics::{MembershipCount, Topic};
use tokio::sync::Notify;

/// One shard's.
#[derive(Debug, Default)]
pub(crate) struct PendingCounts {
    changed: Mutex<HashMap<Topic, MembershipCount>>,
}

impl PendingCounts {
    /// Adds what has changed. It is there for the actor before anything that is sent to it afterwards.
    pub(crate) fn put(&self, pending_counts: Vec<MembershipCount>, wake: &Notify) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        for mut count in pending_counts {
            if let Some(former) = changed.remove(&count.topic) {
                for member in former.members {
                    if count.members.iter().all(|newer| newer.user != member.user) {
                        count.members.push(member);
                    }
                }
            }
            changed.insert(count.topic.clone(), count);
        }
        wake.notify_one();
    }

    /// Takes everything, in no order: topics are independent.
    pub(crate) fn take(&self) -> Vec<MembershipCount> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut *changed).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broadgate_topics::PresenceCount;

    #[test]
    fn the_newest_counts_and_no_user_is_forgotten() {
        let (pending_counts, wake) = (PendingCounts::default(), Notify::new());
        let count = |clients, members: &[(&str, u32)]| MembershipCount {
            topic: Topic::group("a", "room"),
            shard: 0,
            clients,
            members: members
                .iter()
                .map(|&(user, clients)| PresenceCount {
                    user: user.into(),
                    info: "".into(),
                    clients,
                    max: None,
                })
                .collect(),
        };
        pending_counts.put(vec![count(1, &[("ann", 1)])], &wake);
        pending_counts.put(vec![count(2, &[("bob", 1)]), count(3, &[("bob", 2)])], &wake);
        let taken = pending_counts.take();
        assert_eq!((taken.len(), taken[0].clients), (1, 3));
        let mut users: Vec<_> =
            taken[0].members.iter().map(|member| (&*member.user, member.clients)).collect();
        users.sort_unstable();
        assert_eq!(users, [("ann", 1), ("bob", 2)]);
        assert!(pending_counts.take().is_empty());
    }
}
