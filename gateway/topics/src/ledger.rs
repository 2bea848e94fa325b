//! The notification ledger of one group: what was reported of it, and what has been delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::id::Incarnation;

use crate::{home::TopicHome, membership::Report, topic::Topic};

/// Whether a receiver has been notified of a fact.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Not notified, or notified that it has ended.
    #[default]
    None,
    /// A notification of it, or of its end, is in flight; or was when its sender died.
    Unknown,
    /// Notified.
    Confirmed,
}

/// What receivers have been notified of about a group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct NotifiedState {
    /// That it is occupied.
    pub occupied: Delivery,
    /// The users present; in a step, only those that changed.
    pub users: BTreeMap<Arc<str>, Delivery>,
}

/// An update for another gateway: a group's whole ledger, or one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LedgerUpdate {
    pub(super) to: Incarnation,
    pub(super) topic: Topic,
    pub(super) whole: bool,
    /// To the next home: one of our notifications is still in flight.
    pub(super) more: bool,
    pub(super) notified: NotifiedState,
}

/// What was reported of one group.
#[derive(Debug, Default)]
pub(super) struct NotificationLedger {
    /// As if every report had been delivered. An inherited fact that may not have been delivered is reported
    /// again.
    pub(super) state: NotifiedState,
    pub(super) clients: u64,
    /// Reports in flight, in order. Few: one is removed from the middle.
    pending: Vec<Report>,
    /// The gateway that has the delivered state: the heir, or the next home.
    pub(super) sent_to: Option<Incarnation>,
    /// Whether it was inherited from another gateway.
    pub(super) inherited: bool,
    /// The gateway whose reports of it are still in flight, and how long to wait for it.
    pub(super) waits: Option<(Incarnation, Duration)>,
}

/// What may have changed in a group since its last report.
#[derive(Debug)]
pub(super) enum Changed {
    All,
    Users(BTreeSet<Arc<str>>),
}

impl NotifiedState {
    /// Whether any receiver may have been notified.
    #[must_use]
    pub fn is_something(&self) -> bool {
        self.occupied != Delivery::None
    }

    fn take(&mut self, report: &Report) {
        match report {
            Report::Occupied => self.occupied = Delivery::Confirmed,
            Report::Vacated => *self = Self::default(),
            Report::Joined(user) => drop(self.users.insert(user.clone(), Delivery::Confirmed)),
            Report::Left(user) => drop(self.users.remove(user)),
            Report::Count(_) | Report::Moved => {}
        }
    }

    /// The report is in flight: receivers may know the state before it or after it.
    fn mark_unknown(&mut self, report: &Report) {
        match report {
            Report::Occupied | Report::Vacated => self.occupied = Delivery::Unknown,
            Report::Joined(user) | Report::Left(user) => {
                self.users.insert(user.clone(), Delivery::Unknown);
            }
            Report::Count(_) | Report::Moved => {}
        }
    }

    /// Applies an update from another gateway, or from a journal.
    pub fn update(&mut self, whole: bool, notified: Self) {
        if whole || !notified.is_something() {
            self.users.clear();
        }
        self.occupied = notified.occupied;
        self.users.extend(notified.users);
        self.users.retain(|_, delivery| *delivery != Delivery::None);
    }
}

impl NotificationLedger {
    /// A ledger taken over from another gateway.
    pub(super) fn inherited(
        notified: NotifiedState,
        sent_to: Option<Incarnation>,
        waits: Option<(Incarnation, Duration)>,
    ) -> Self {
        Self { state: notified, inherited: true, sent_to, waits, ..Self::default() }
    }

    /// The delivered state, with in-flight reports as unknown.
    fn arrived(&self) -> NotifiedState {
        let mut notified = self.state.clone();
        self.pending.iter().for_each(|report| notified.mark_unknown(report));
        notified
    }

    pub(super) fn is_over(&self) -> bool {
        !self.state.is_something() && self.pending.is_empty()
    }

    /// Whether no report is in flight.
    pub(super) fn has_arrived(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn whole(&self, to: Incarnation, topic: &Topic) -> LedgerUpdate {
        let (more, notified) = (!self.pending.is_empty(), self.arrived());
        LedgerUpdate { to, topic: topic.clone(), whole: true, more, notified }
    }

    /// The update that covers these reports.
    pub(super) fn step<'a>(
        &self,
        reports: impl IntoIterator<Item = &'a Report>,
        to: Incarnation,
        topic: &Topic,
    ) -> LedgerUpdate {
        let notified = self.notified_of(reports);
        LedgerUpdate { to, topic: topic.clone(), whole: false, more: !self.pending.is_empty(), notified }
    }

    /// The delivered state of what these reports concern.
    pub(super) fn notified_of<'a>(&self, reports: impl IntoIterator<Item = &'a Report>) -> NotifiedState {
        let mut notified = NotifiedState { occupied: self.state.occupied, ..NotifiedState::default() };
        for report in reports {
            if let Report::Joined(user) | Report::Left(user) = report {
                let state = self.state.users.get(user).copied().unwrap_or_default();
                notified.users.insert(user.clone(), state);
            }
        }
        for report in &self.pending {
            match report {
                Report::Joined(user) | Report::Left(user) if !notified.users.contains_key(user) => {}
                report => notified.mark_unknown(report),
            }
        }
        notified
    }

    /// Records a report; an awaited one stays in flight until it is delivered or given up.
    pub(super) fn report(&mut self, report: &Report, awaited: bool) {
        self.state.take(report);
        if awaited {
            self.pending.push(report.clone());
        }
    }

    /// A report was delivered or given up. False if it is not one of those in flight.
    pub(super) fn arrives(&mut self, report: &Report) -> bool {
        let at = self.pending.iter().position(|pending| pending == report);
        at.map(|at| self.pending.remove(at)).is_some()
    }

    /// What there is to report: the differences between the ledger and the group.
    pub(super) fn compare(&mut self, home: Option<&TopicHome>, changed: &Changed) -> Vec<Report> {
        let mut news = Vec::new();
        let Some(home) = home.filter(|home| home.clients() > 0) else {
            news.extend(self.state.users.keys().cloned().map(Report::Left));
            news.extend(self.state.is_something().then_some(Report::Vacated));
            self.clients = 0;
            return news;
        };
        news.extend((self.state.occupied != Delivery::Confirmed).then_some(Report::Occupied));
        let users = &self.state.users;
        let is_present = |user: &str| home.roster.as_ref().is_some_and(|roster| roster.has(user));
        let is_heard = |user: &str| users.get(user) == Some(&Delivery::Confirmed);
        match changed {
            Changed::Users(some) if self.state.occupied == Delivery::Confirmed => {
                let gone = some.iter().filter(|user| users.contains_key(*user) && !is_present(user));
                news.extend(gone.cloned().map(Report::Left));
                let come = some.iter().filter(|user| is_present(user) && !is_heard(user));
                news.extend(come.cloned().map(Report::Joined));
            }
            _ => {
                let gone = users.keys().filter(|user| !is_present(user));
                news.extend(gone.cloned().map(Report::Left));
                let all = home.roster.iter().flat_map(|roster| roster.page(usize::MAX, ""));
                let come = all.map(|(user, _)| user).filter(|user| !is_heard(user));
                news.extend(come.map(Report::Joined));
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
        let mut ledger = NotificationLedger::default();
        let reports = [Report::Occupied, Report::Joined(ann.clone()), Report::Joined(bob.clone())];
        reports.iter().for_each(|report| ledger.report(report, true));
        let step = ledger.step(&reports[..2], heir, &room);
        assert!(step.more && !step.whole);
        assert_eq!(
            (step.notified.occupied, step.notified.users),
            (Delivery::Unknown, [(ann.clone(), Delivery::Unknown)].into())
        );
        assert!(ledger.arrives(&reports[0]) && ledger.arrives(&reports[1]));
        let whole = ledger.whole(heir, &room);
        let delivery = [(ann.clone(), Delivery::Confirmed), (bob.clone(), Delivery::Unknown)];
        assert_eq!((whole.notified.occupied, &whole.notified.users), (Delivery::Confirmed, &delivery.into()));
        // A user who has left may be believed present until the report is delivered.
        let left = Report::Left(ann.clone());
        ledger.report(&left, true);
        assert!(ledger.arrives(&reports[2]) && !ledger.arrives(&reports[2]));
        assert_eq!(
            ledger.step([&left], heir, &room).notified.users,
            [(ann.clone(), Delivery::Unknown)].into()
        );
        assert!(ledger.arrives(&left) && ledger.has_arrived());
        assert_eq!(ledger.step([&left], heir, &room).notified.users, [(ann.clone(), Delivery::None)].into());
        let mut heir = whole.notified;
        heir.update(false, ledger.step([&left], Incarnation::from_bits(2), &room).notified);
        assert_eq!(heir.users, [(bob, Delivery::Unknown)].into());
        heir.update(false, NotifiedState::default());
        assert_eq!(heir, NotifiedState::default());
    }
}
