//! Watching groups: reports changes by comparing each group with what was last reported.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use broadgate_proto::v1::Epoch;

use crate::{
    home::TopicHome,
    membership::{MemberChange, MembershipChange},
    topic::{Topic, TopicKind},
};

/// The groups that a watcher watches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    /// The app.
    pub app: String,
    /// A group's name, or its prefix if the last character is `*`.
    pub pattern: String,
}

impl Pattern {
    /// Whether it matches this group.
    #[must_use]
    pub fn fits(&self, topic: &Topic) -> bool {
        let name = topic.name();
        let matches = match self.pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.pattern,
        };
        topic.kind() == TopicKind::Group && matches && self.app == topic.app() && !topic.is_silent()
    }
}

/// The users last reported for a group.
#[derive(Debug, Default)]
struct ReportedUsers(BTreeMap<Arc<str>, Arc<str>>);

/// What was reported, and what may have changed since.
#[derive(Debug, Default)]
pub(super) struct WatchedGroup {
    patterns: Vec<Pattern>,
    reported: HashMap<Topic, ReportedUsers>,
    changed: BTreeSet<Topic>,
    /// Groups whose whole state a new watcher needs.
    again: BTreeSet<Topic>,
    /// The view by which everything is still to be reported.
    complete: Option<Epoch>,
}

impl WatchedGroup {
    pub(super) fn is_on(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Replaces the watched groups: all are reported again. Earlier reports are not forgotten: watchers that
    /// got them need to know when they cease to be true.
    pub(super) fn watch(&mut self, patterns: Vec<Pattern>, all: impl Iterator<Item = Topic>, epoch: Epoch) {
        let fits = |topic: &Topic| patterns.iter().any(|pattern| pattern.fits(topic));
        self.reported.retain(|topic, _| fits(topic));
        self.changed.retain(fits);
        self.again.retain(fits);
        self.again.extend(self.reported.keys().cloned());
        self.changed.extend(self.reported.keys().cloned());
        self.patterns = patterns;
        self.changed_all(all, epoch);
    }

    pub(super) fn changed(&mut self, topic: &Topic) {
        if self.patterns.iter().any(|pattern| pattern.fits(topic)) {
            self.changed.insert(topic.clone());
        }
    }

    /// The ring or the watchers have changed: when everything is reported, that is reported, too.
    pub(super) fn changed_all(&mut self, all: impl Iterator<Item = Topic>, epoch: Epoch) {
        if !self.is_on() {
            return;
        }
        for topic in all {
            self.changed(&topic);
        }
        self.complete = Some(epoch);
    }

    /// Groups that moved to another home: the last reports hold until that home reports.
    pub(super) fn lose(&mut self, lost: impl Fn(&Topic) -> bool) -> Vec<Topic> {
        let mut moved: Vec<_> = self.reported.keys().filter(|topic| lost(topic)).cloned().collect();
        moved.sort_unstable();
        for topic in &moved {
            self.reported.remove(topic);
        }
        self.changed.retain(|topic| !lost(topic));
        self.again.retain(|topic| !lost(topic));
        moved
    }

    /// What there is to report.
    pub(super) fn news<'a>(
        &mut self,
        home: impl Fn(&Topic) -> Option<&'a TopicHome>,
    ) -> (Vec<(Topic, MembershipChange)>, Option<Epoch>) {
        let mut news = Vec::new();
        let again = std::mem::take(&mut self.again);
        for topic in std::mem::take(&mut self.changed) {
            let home = home(&topic).filter(|home| home.clients() > 0);
            match (self.reported.get_mut(&topic), home) {
                (None, None) => {}
                (None, Some(home)) => {
                    let users = users(home);
                    news.push((topic.clone(), MembershipChange::Is(changes(&users))));
                    self.reported.insert(topic, ReportedUsers(users));
                }
                (Some(reported), Some(home)) if again.contains(&topic) => {
                    reported.0 = users(home);
                    news.push((topic.clone(), MembershipChange::Is(changes(&reported.0))));
                }
                (Some(reported), Some(home)) => reported.compare(users(home), &topic, &mut news),
                (Some(reported), None) => {
                    reported.compare(BTreeMap::new(), &topic, &mut news);
                    news.push((topic.clone(), MembershipChange::Vacated));
                    self.reported.remove(&topic);
                }
            }
        }
        (news, self.complete.take())
    }
}

impl ReportedUsers {
    fn compare(
        &mut self,
        now: BTreeMap<Arc<str>, Arc<str>>,
        topic: &Topic,
        news: &mut Vec<(Topic, MembershipChange)>,
    ) {
        for user in self.0.keys().filter(|user| !now.contains_key(*user)) {
            news.push((topic.clone(), MembershipChange::Left(user.clone())));
        }
        for (user, info) in now.iter().filter(|(user, _)| !self.0.contains_key(*user)) {
            news.push((topic.clone(), MembershipChange::Joined(user.clone(), info.clone())));
        }
        self.0 = now;
    }
}

fn users(home: &TopicHome) -> BTreeMap<Arc<str>, Arc<str>> {
    home.roster.iter().flat_map(|roster| roster.page(usize::MAX, "")).collect()
}

fn changes(users: &BTreeMap<Arc<str>, Arc<str>>) -> Vec<MemberChange> {
    let change =
        |(user, info): (&Arc<str>, &Arc<str>)| MemberChange { user: user.clone(), info: Some(info.clone()) };
    users.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use broadgate_proto::id::Incarnation;

    use super::{
        super::{
            home::{GatewayInterest, TopicHomes},
            membership::MemberChange,
        },
        *,
    };

    fn hold(homes: &mut TopicHomes, topic: &Topic, clients: u64, users: &[(&str, bool)]) {
        let change =
            |&(user, here): &(&str, bool)| MemberChange { user: user.into(), info: here.then(|| "".into()) };
        let members: Vec<_> = users.iter().map(change).collect();
        let home = homes.take(topic, Epoch::new(1, 1), std::time::Duration::ZERO);
        home.apply(
            Incarnation::from_bits(1),
            0,
            GatewayInterest { clients, members: &members, claims: Vec::new(), knows_roster: false },
        );
    }

    fn news(watched: &mut WatchedGroup, homes: &TopicHomes) -> Vec<String> {
        let (news, complete) = watched.news(|topic| homes.get(topic));
        let text = |(topic, change): &(Topic, MembershipChange)| format!("{} {change:?}", topic.name());
        let mut texts: Vec<_> = news.iter().map(text).collect();
        texts.extend(complete.map(|epoch| format!("reported {epoch}")));
        texts
    }

    #[test]
    fn another_watcher_takes_no_news_from_the_first() {
        let (mut watched, mut homes) = (WatchedGroup::default(), TopicHomes::default());
        let pattern = Pattern { app: "a".into(), pattern: "room-*".into() };
        let (room, gone) = (Topic::group("a", "room-1"), Topic::group("a", "room-2"));
        hold(&mut homes, &room, 1, &[("ann", true)]);
        hold(&mut homes, &gone, 1, &[("bob", true)]);
        watched.watch(vec![pattern.clone()], homes.topics(), Epoch::new(1, 1));
        let first = news(&mut watched, &homes);
        assert!(
            first.len() == 3 && first[0].contains("room-1 Is") && first[2] == "reported 1.1",
            "{first:?}"
        );
        hold(&mut homes, &gone, 0, &[]);
        homes.forget_if_idle(&gone);
        hold(&mut homes, &room, 2, &[("cid", true)]);
        watched.changed(&gone);
        watched.changed(&room);
        // Another watcher starts before anything is reported.
        watched.watch(vec![pattern], homes.topics(), Epoch::new(1, 1));
        let second = news(&mut watched, &homes);
        assert!(second[0].starts_with("room-1 Is") && second[0].contains("cid"), "{second:?}");
        assert_eq!(second[1..], ["room-2 Left(\"bob\")", "room-2 Vacated", "reported 1.1"]);
        assert!(news(&mut watched, &homes).is_empty());
    }
}
