//! Groups and apps by their places, for those who ask which are busy. Pure.

use std::rc::Rc;

use broadgate_pusher::channel::is_own;

use super::{Directory, EntryKind, TopicEntry};
use crate::shard::{
    group_traffic::{GroupRow, GroupTraffic},
    slots::Slot,
};

impl Directory {
    /// Copies for members of these groups were dropped.
    pub(crate) fn dropped(&mut self, app: &str, groups: &[Box<str>], count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Some(&app) = self.app_ids.get(app) else { return };
        for group in groups {
            if let Some(&topic) = self.apps[app as usize].groups.get(&**group) {
                self.topics[topic as usize].traffic.dropped(count);
            }
        }
    }

    /// Every group has a place below this one.
    pub(crate) fn places_of_topics(&self) -> u32 {
        u32::try_from(self.topics.capacity()).unwrap_or(u32::MAX)
    }

    /// What was sent to the group at a place, and how many members it has; none if there is no group of the app.
    pub(crate) fn traffic(&self, place: u32, app: Option<&str>) -> Option<(GroupTraffic, u64)> {
        let topic = self.topics.get(place as usize).filter(|topic| topic.kind == EntryKind::Group)?;
        if app.is_some_and(|app| self.app_of_topic(topic).is_none_or(|own| **own != *app)) {
            return None;
        }
        Some((topic.traffic, topic.members.len() as u64))
    }

    /// The names of the group at a place; none of the server's own.
    pub(crate) fn group_at(&self, place: u32) -> Option<GroupRow> {
        let topic = self.topics.get(place as usize).filter(|topic| !is_own(&topic.name))?;
        Some(GroupRow { app: Rc::clone(self.app_of_topic(topic)?), name: Rc::clone(&topic.name) })
    }

    /// It is that of each of its members.
    fn app_of_topic(&self, topic: &TopicEntry) -> Option<&Rc<str>> {
        let app = self.app_of(*topic.members.first()?)?;
        Some(&self.apps[app as usize].name)
    }

    /// The number of a client's app.
    pub(crate) fn app_number(&self, slot: Slot) -> Option<usize> {
        self.app_of(slot).map(|app| app as usize)
    }

    /// Apps that have had clients here, by their numbers, with how many they have.
    pub(crate) fn apps(&self) -> impl Iterator<Item = (&Rc<str>, u64)> {
        self.apps.iter().map(|app| (&app.name, app.all.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::ClientFilter, shard::recent_bytes::SentNow};

    #[test]
    fn what_is_sent_to_a_group_is_counted_for_each_member() {
        let mut directory = Directory::default();
        for slot in 0..3 {
            directory.enter(slot, "shop");
            directory.join(slot, "loud", usize::MAX);
            directory.bind(slot, "ann");
        }
        directory.join(0, "quiet", usize::MAX);
        let mut send = |messages, bytes| {
            let to =
                ClientFilter { app: "shop".into(), groups: vec!["loud".into()], ..ClientFilter::default() };
            directory.select(&to, (&[], &[]), SentNow { second: 1, messages, bytes }, &mut Vec::new());
        };
        send(2, 50);
        // A close has no message.
        send(0, 0);
        directory.dropped("shop", &["loud".into(), "unknown".into()], 4);
        let groups = |directory: &Directory, app: Option<&str>| -> Vec<(String, [u64; 4], u64)> {
            let places = 0..directory.places_of_topics();
            let found = places.filter_map(|place| {
                let (traffic, members) = directory.traffic(place, app)?;
                Some((
                    directory.group_at(place)?.name.to_string(),
                    traffic.since(GroupTraffic::default()),
                    members,
                ))
            });
            found.collect()
        };
        let expected = [("loud".to_owned(), [6, 2, 150, 4], 3), ("quiet".to_owned(), [0; 4], 1)];
        assert_eq!(groups(&directory, None), expected, "uids are no groups");
        assert_eq!(groups(&directory, Some("shop")), expected);
        assert_eq!(groups(&directory, Some("other")), []);
    }
}
