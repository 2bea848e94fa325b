//! Groups and apps by their places, for those who ask which are busy. Pure.

use std::rc::Rc;

use broadgate_pusher::channel::is_own;

use super::Directory;
use crate::{
    recorder::LoudestGroup,
    shard::{
        directory::entries::{EntryKind, TopicEntry},
        group_traffic::{GroupRow, GroupTraffic},
        slots::Slot,
    },
};

impl Directory {
    /// Copies for members of these groups were dropped.
    pub(crate) fn dropped(&mut self, app: &str, groups: &[Box<str>], count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Some(app) = self.app_id(app) else { return };
        for group in groups {
            if let Some(&topic) = self.apps[app as usize].groups.get(&**group) {
                self.topics[topic as usize].sent.dropped(count);
            }
        }
    }

    /// The group of a client to which most was sent lately; none if nothing was.
    pub(crate) fn loudest(&self, slot: Slot, second: u32) -> Option<LoudestGroup> {
        let places = self.places.get(slot as usize)?.as_ref()?;
        let topics = places.groups.iter().map(|place| &self.topics[place.topic as usize]);
        let loud = topics.map(|topic| (topic.sent.lately(second), &topic.name));
        let ((bytes, seconds), name) = loud.max_by_key(|((bytes, _), _)| *bytes)?;
        (bytes > 0).then(|| LoudestGroup { name: Rc::clone(name), bytes, seconds })
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
        let members = topic.members.len();
        Some((topic.sent.traffic(members), members as u64))
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
    use crate::{command::ClientFilter, shard::group_traffic::SentNow};

    #[test]
    fn what_is_sent_to_a_group_is_counted_for_each_member() {
        let mut directory = Directory::default();
        for slot in 0..3 {
            directory.enter(slot, "shop");
            directory.join(slot, "loud", usize::MAX);
            directory.bind(slot, "ann");
        }
        directory.join(0, "quiet", usize::MAX);
        let send = |directory: &mut Directory, messages, bytes| {
            let to =
                ClientFilter { app: "shop".into(), groups: vec!["loud".into()], ..ClientFilter::default() };
            directory.select(&to, (&[], &[]), SentNow { second: 1, messages, bytes }, &mut Vec::new());
        };
        send(&mut directory, 2, 50);
        // A close has no message.
        send(&mut directory, 0, 0);
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
        // Each message counts for those who are members then.
        directory.part(2, "loud");
        send(&mut directory, 1, 10);
        directory.join(2, "loud", usize::MAX);
        directory.exit(1);
        assert_eq!(groups(&directory, None)[0], ("loud".to_owned(), [6 + 2, 2 + 1, 150 + 20, 4], 2));
    }
}
