//! What was reported of one group, and how much of it has arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::id::Incarnation;

use crate::{home::Home, membership::Report, topic::Topic};

/// What a receiver has heard of something: that it is so.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It has not, or has heard that it is no more.
    #[default]
    Nothing,
    /// It is on its way, or that it is no more; or was when its speaker died.
    Perhaps,
    /// It has.
    Surely,
}

/// What receivers have heard of a group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    /// That it has clients.
    pub occupied: Heard,
    /// Who is present; in a step, only those of whom something has changed.
    pub users: BTreeMap<Arc<str>, Heard>,
}

/// To be said to another gateway: the whole of what was told of a group, or one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) to: Incarnation,
    pub(super) topic: Topic,
    pub(super) whole: bool,
    /// To the next home: something of ours is still on its way.
    pub(super) more: bool,
    pub(super) told: Told,
}

/// What was reported of one group.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// As if everything had arrived. What was inherited and has perhaps not is reported again.
    pub(super) standing: Told,
    pub(super) clients: u64,
    /// What may not have arrived, in order. Few: it is taken out of the middle.
    pending: Vec<Report>,
    /// Who was told what has arrived: the heir, or the next home.
    pub(super) said_to: Option<Incarnation>,
    /// Is this for others to know?
    pub(super) inherited: bool,
    /// Whose reports of it are still on their way, and until when that is waited for.
    pub(super) waits: Option<(Incarnation, Duration)>,
}

/// What may have changed in a group since it was reported.
#[derive(Debug)]
pub(super) enum Changed {
    All,
    Users(BTreeSet<Arc<str>>),
}

impl Told {
    /// Has anybody perhaps heard anything?
    #[must_use]
    pub fn is_something(&self) -> bool {
        self.occupied != Heard::Nothing
    }

    fn take(&mut self, report: &Report) {
        match report {
            Report::Occupied => self.occupied = Heard::Surely,
            Report::Vacated => *self = Self::default(),
            Report::Came(user) => drop(self.users.insert(user.clone(), Heard::Surely)),
            Report::Left(user) => drop(self.users.remove(user)),
            Report::Count(_) | Report::Moved => {}
        }
    }

    /// The report is on its way: nobody knows which of the two has been heard.
    fn doubt(&mut self, report: &Report) {
        match report {
            Report::Occupied | Report::Vacated => self.occupied = Heard::Perhaps,
            Report::Came(user) | Report::Left(user) => {
                self.users.insert(user.clone(), Heard::Perhaps);
            }
            Report::Count(_) | Report::Moved => {}
        }
    }

    /// What another gateway says, or a journal.
    pub fn hear(&mut self, whole: bool, told: Self) {
        if whole || !told.is_something() {
            self.users.clear();
        }
        self.occupied = told.occupied;
        self.users.extend(told.users);
        self.users.retain(|_, heard| *heard != Heard::Nothing);
    }
}

impl Account {
    /// What was heard, by somebody who goes on from there.
    pub(super) fn inherited(
        told: Told,
        said_to: Option<Incarnation>,
        waits: Option<(Incarnation, Duration)>,
    ) -> Self {
        Self { standing: told, inherited: true, said_to, waits, ..Self::default() }
    }

    /// What is known to have arrived.
    fn arrived(&self) -> Told {
        let mut told = self.standing.clone();
        self.pending.iter().for_each(|report| told.doubt(report));
        told
    }

    pub(super) fn is_over(&self) -> bool {
        !self.standing.is_something() && self.pending.is_empty()
    }

    /// Nothing of it is on its way.
    pub(super) fn has_arrived(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn whole(&self, to: Incarnation, topic: &Topic) -> Word {
        let (more, told) = (!self.pending.is_empty(), self.arrived());
        Word { to, topic: topic.clone(), whole: true, more, told }
    }

    /// What differs by these reports.
    pub(super) fn step<'a>(
        &self,
        reports: impl IntoIterator<Item = &'a Report>,
        to: Incarnation,
        topic: &Topic,
    ) -> Word {
        let told = self.told_of(reports);
        Word { to, topic: topic.clone(), whole: false, more: !self.pending.is_empty(), told }
    }

    /// What is told, as far as these reports concern it.
    pub(super) fn told_of<'a>(&self, reports: impl IntoIterator<Item = &'a Report>) -> Told {
        let mut told = Told { occupied: self.standing.occupied, ..Told::default() };
        for report in reports {
            if let Report::Came(user) | Report::Left(user) = report {
                let standing = self.standing.users.get(user).copied().unwrap_or_default();
                told.users.insert(user.clone(), standing);
            }
        }
        for report in &self.pending {
            match report {
                Report::Came(user) | Report::Left(user) if !told.users.contains_key(user) => {}
                report => told.doubt(report),
            }
        }
        told
    }

    /// A report is made; if it is awaited, it must be said when it has arrived.
    pub(super) fn report(&mut self, report: &Report, awaited: bool) {
        self.standing.take(report);
        if awaited {
            self.pending.push(report.clone());
        }
    }

    /// A report has arrived, or never will. False if it is not one of those on their way.
    pub(super) fn arrives(&mut self, report: &Report) -> bool {
        let at = self.pending.iter().position(|pending| pending == report);
        at.map(|at| self.pending.remove(at)).is_some()
    }

    /// What is to be reported: what differs from what is.
    pub(super) fn compare(&mut self, home: Option<&Home>, changed: &Changed) -> Vec<Report> {
        let mut news = Vec::new();
        let Some(home) = home.filter(|home| home.clients() > 0) else {
            news.extend(self.standing.users.keys().cloned().map(Report::Left));
            news.extend(self.standing.is_something().then_some(Report::Vacated));
            self.clients = 0;
            return news;
        };
        news.extend((self.standing.occupied != Heard::Surely).then_some(Report::Occupied));
        let users = &self.standing.users;
        let is_present = |user: &str| home.roster.as_ref().is_some_and(|roster| roster.has(user));
        let is_heard = |user: &str| users.get(user) == Some(&Heard::Surely);
        match changed {
            Changed::Users(some) if self.standing.occupied == Heard::Surely => {
                let gone = some.iter().filter(|user| users.contains_key(*user) && !is_present(user));
                news.extend(gone.cloned().map(Report::Left));
                let come = some.iter().filter(|user| is_present(user) && !is_heard(user));
                news.extend(come.cloned().map(Report::Came));
            }
            _ => {
                let gone = users.keys().filter(|user| !is_present(user));
                news.extend(gone.cloned().map(Report::Left));
                let all = home.roster.iter().flat_map(|roster| roster.page(usize::MAX, ""));
                let come = all.map(|(user, _)| user).filter(|user| !is_heard(user));
                news.extend(come.map(Report::Came));
            }
        }
        let clients = home.clients();
        if std::mem::replace(&mut self.clients, clients) != clients {
            news.push(Report::Count(clients));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_has_perhaps_been_heard() {
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let (room, heir) = (Topic::group("a", "room"), Incarnation::from_bits(2));
        let mut account = Account::default();
        let reports = [Report::Occupied, Report::Came(ann.clone()), Report::Came(bob.clone())];
        reports.iter().for_each(|report| account.report(report, true));
        let step = account.step(&reports[..2], heir, &room);
        assert!(step.more && !step.whole);
        assert_eq!(
            (step.told.occupied, step.told.users),
            (Heard::Perhaps, [(ann.clone(), Heard::Perhaps)].into())
        );
        assert!(account.arrives(&reports[0]) && account.arrives(&reports[1]));
        let whole = account.whole(heir, &room);
        let heard = [(ann.clone(), Heard::Surely), (bob.clone(), Heard::Perhaps)];
        assert_eq!((whole.told.occupied, &whole.told.users), (Heard::Surely, &heard.into()));
        // Who has left is perhaps believed to be there until that has arrived.
        let left = Report::Left(ann.clone());
        account.report(&left, true);
        assert!(account.arrives(&reports[2]) && !account.arrives(&reports[2]));
        assert_eq!(account.step([&left], heir, &room).told.users, [(ann.clone(), Heard::Perhaps)].into());
        assert!(account.arrives(&left) && account.has_arrived());
        assert_eq!(account.step([&left], heir, &room).told.users, [(ann.clone(), Heard::Nothing)].into());
        let mut heir = whole.told;
        heir.hear(false, account.step([&left], Incarnation::from_bits(2), &room).told);
        assert_eq!(heir.users, [(bob, Heard::Perhaps)].into());
        heir.hear(false, Told::default());
        assert_eq!(heir, Told::default());
    }
}
