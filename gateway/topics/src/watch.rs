//! Whoever watches groups is told what happens in them: by comparing what is with what was told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use broadgate_proto::v1::Epoch;

use crate::{
    home::Home,
    membership::{GroupChange, MemberChange},
    topic::{Kind, Topic},
};

/// Which groups somebody watches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    /// The app.
    pub app: String,
    /// A group's name, or how it begins if the last character is `*`.
    pub pattern: String,
}

impl Pattern {
    /// Is this one of the groups?
    #[must_use]
    pub fn fits(&self, topic: &Topic) -> bool {
        let name = topic.name();
        let matches = match self.pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.pattern,
        };
        topic.kind() == Kind::Group && matches && self.app == topic.app() && !topic.is_silent()
    }
}

/// Who was told to be in a group.
#[derive(Debug, Default)]
struct Told(BTreeMap<Arc<str>, Arc<str>>);

/// What was told, and what may have changed since.
#[derive(Debug, Default)]
pub(super) struct Watched {
    patterns: Vec<Pattern>,
    told: HashMap<Topic, Told>,
    changed: BTreeSet<Topic>,
    /// Groups that somebody who is new has to be told of as a whole.
    again: BTreeSet<Topic>,
    /// The view by which everything is still to be told.
    complete: Option<Epoch>,
}

impl Watched {
    pub(super) fn is_on(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Other groups are watched now: all are told anew. What was told before is not forgotten: who heard
    /// it has to hear when it is no more.
    pub(super) fn watch(&mut self, patterns: Vec<Pattern>, all: impl Iterator<Item = Topic>, epoch: Epoch) {
        let fits = |topic: &Topic| patterns.iter().any(|pattern| pattern.fits(topic));
        self.told.retain(|topic, _| fits(topic));
        self.changed.retain(fits);
        self.again.retain(fits);
        self.again.extend(self.told.keys().cloned());
        self.changed.extend(self.told.keys().cloned());
        self.patterns = patterns;
        self.changed_all(all, epoch);
    }

    pub(super) fn changed(&mut self, topic: &Topic) {
        if self.patterns.iter().any(|pattern| pattern.fits(topic)) {
            self.changed.insert(topic.clone());
        }
    }

    /// The ring has changed, or the watchers have: when everything is told, that is told too.
    pub(super) fn changed_all(&mut self, all: impl Iterator<Item = Topic>, epoch: Epoch) {
        if !self.is_on() {
            return;
        }
        for topic in all {
            self.changed(&topic);
        }
        self.complete = Some(epoch);
    }

    /// Groups that have another home now: what was told of them stands until that tells of them.
    pub(super) fn lose(&mut self, lost: impl Fn(&Topic) -> bool) -> Vec<Topic> {
        let mut moved: Vec<_> = self.told.keys().filter(|topic| lost(topic)).cloned().collect();
        moved.sort_unstable();
        for topic in &moved {
            self.told.remove(topic);
        }
        self.changed.retain(|topic| !lost(topic));
        self.again.retain(|topic| !lost(topic));
        moved
    }

    /// What there is to tell.
    pub(super) fn news<'a>(
        &mut self,
        home: impl Fn(&Topic) -> Option<&'a Home>,
    ) -> (Vec<(Topic, GroupChange)>, Option<Epoch>) {
        let mut news = Vec::new();
        let again = std::mem::take(&mut self.again);
        for topic in std::mem::take(&mut self.changed) {
            let home = home(&topic).filter(|home| home.clients() > 0);
            match (self.told.get_mut(&topic), home) {
                (None, None) => {}
                (None, Some(home)) => {
                    let users = users(home);
                    news.push((topic.clone(), GroupChange::Is(changes(&users))));
                    self.told.insert(topic, Told(users));
                }
                (Some(told), Some(home)) if again.contains(&topic) => {
                    told.0 = users(home);
                    news.push((topic.clone(), GroupChange::Is(changes(&told.0))));
                }
                (Some(told), Some(home)) => told.compare(users(home), &topic, &mut news),
                (Some(told), None) => {
                    told.compare(BTreeMap::new(), &topic, &mut news);
                    news.push((topic.clone(), GroupChange::Vacated));
                    self.told.remove(&topic);
                }
            }
        }
        (news, self.complete.take())
    }
}

impl Told {
    fn compare(
        &mut self,
        now: BTreeMap<Arc<str>, Arc<str>>,
        topic: &Topic,
        news: &mut Vec<(Topic, GroupChange)>,
    ) {
        for user in self.0.keys().filter(|user| !now.contains_key(*user)) {
            news.push((topic.clone(), GroupChange::Left(user.clone())));
        }
        for (user, info) in now.iter().filter(|(user, _)| !self.0.contains_key(*user)) {
            news.push((topic.clone(), GroupChange::Joined(user.clone(), info.clone())));
        }
        self.0 = now;
    }
}

fn users(home: &Home) -> BTreeMap<Arc<str>, Arc<str>> {
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
            home::{Hold, Homes},
            membership::MemberChange,
        },
        *,
    };

    fn hold(homes: &mut Homes, topic: &Topic, clients: u64, users: &[(&str, bool)]) {
        let change =
            |&(user, here): &(&str, bool)| MemberChange { user: user.into(), info: here.then(|| "".into()) };
        let members: Vec<_> = users.iter().map(change).collect();
        let home = homes.take(topic, Epoch::new(1, 1));
        home.hold(
            Incarnation::from_bits(1),
            0,
            Hold { clients, members: &members, claims: Vec::new(), told: false },
        );
    }

    fn news(watched: &mut Watched, homes: &Homes) -> Vec<String> {
        let (news, complete) = watched.news(|topic| homes.get(topic));
        let text = |(topic, change): &(Topic, GroupChange)| format!("{} {change:?}", topic.name());
        let mut texts: Vec<_> = news.iter().map(text).collect();
        texts.extend(complete.map(|epoch| format!("told {epoch}")));
        texts
    }

    #[test]
    fn another_watcher_takes_no_news_from_the_first() {
        let (mut watched, mut homes) = (Watched::default(), Homes::default());
        let pattern = Pattern { app: "a".into(), pattern: "room-*".into() };
        let (room, gone) = (Topic::group("a", "room-1"), Topic::group("a", "room-2"));
        hold(&mut homes, &room, 1, &[("ann", true)]);
        hold(&mut homes, &gone, 1, &[("bob", true)]);
        watched.watch(vec![pattern.clone()], homes.topics(), Epoch::new(1, 1));
        let first = news(&mut watched, &homes);
        assert!(first.len() == 3 && first[0].contains("room-1 Is") && first[2] == "told 1.1", "{first:?}");
        hold(&mut homes, &gone, 0, &[]);
        homes.forget_if_idle(&gone);
        hold(&mut homes, &room, 2, &[("cid", true)]);
        watched.changed(&gone);
        watched.changed(&room);
        // Before anything is told, somebody else begins to watch.
        watched.watch(vec![pattern], homes.topics(), Epoch::new(1, 1));
        let second = news(&mut watched, &homes);
        assert!(second[0].starts_with("room-1 Is") && second[0].contains("cid"), "{second:?}");
        assert_eq!(second[1..], ["room-2 Left(\"bob\")", "room-2 Vacated", "told 1.1"]);
        assert!(news(&mut watched, &homes).is_empty());
    }
}
