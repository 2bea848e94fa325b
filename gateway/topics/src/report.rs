//! Reports of groups whose home this gateway is, for webhooks and counts. Each fact is reported once, by
//! comparing the group with its ledger. What has been delivered is also known to the group's *heir*, the
//! gateway that will be its home when this one is gone: it continues from there, so that users lost with a
//! home are reported to have left, and nothing is reported twice. A live home that loses a group to another
//! gateway hands its ledger over, too, and the new home waits until everything is delivered, for the sake of
//! the order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    time::Duration,
};

use broadgate_proto::id::Incarnation;

use crate::{
    home::TopicHome,
    ledger::{Changed, LedgerUpdate, NotificationLedger, NotifiedState},
    membership::{LinkSession, MemberChange, Report},
    topic::Topic,
    watch::Pattern,
};

/// What the gateway itself wants to have reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportSubscription {
    /// The groups.
    pub pattern: Pattern,
    /// Whether the next home knows the ledger. Then [`Input::Arrived`](crate::Input::Arrived) must follow
    /// each report when it is delivered or given up.
    pub inherited: bool,
}

/// A ledger that a home has entrusted to this heir.
#[derive(Debug)]
struct Bequest {
    from: Incarnation,
    session: LinkSession,
    notified: NotifiedState,
}

/// The state of all reports.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// By app.
    about: HashMap<String, Vec<ReportSubscription>>,
    ledgers: HashMap<Topic, NotificationLedger>,
    changed: BTreeMap<Topic, Changed>,
    bequests: HashMap<Topic, Bequest>,
    /// Groups that have another home now, until it knows everything.
    outgoing: HashMap<Topic, NotificationLedger>,
    /// Entries for this gateway's journal, if it has one.
    journal: Option<Vec<Line>>,
}

/// A journal entry: a group's whole ledger, or one step.
pub(super) type Line = (Topic, bool, NotifiedState);

/// How long a home waits for its predecessor; after that, the order between the two is not guaranteed.
const FORMER_TIME_MAX: Duration = Duration::from_secs(10);

impl Reports {
    /// Replaces the groups to report.
    pub(super) fn about(&mut self, about: Vec<ReportSubscription>, all: impl Iterator<Item = Topic>) {
        self.about.clear();
        for reporting in about {
            self.about.entry(reporting.pattern.app.clone()).or_default().push(reporting);
        }
        let (about, journal) = (&self.about, &mut self.journal);
        self.ledgers.retain(|topic, _| {
            let stays = has(about, topic);
            if let Some(journal) = journal.as_mut().filter(|_| !stays) {
                journal.push((topic.clone(), true, NotifiedState::default()));
            }
            stays
        });
        self.outgoing.retain(|topic, _| has(about, topic));
        self.bequests.retain(|topic, _| has(about, topic));
        self.changed.retain(|topic, _| has(about, topic));
        self.changed_all(all);
    }

    /// Turns the journal on.
    pub(super) fn keep_journal(&mut self) {
        self.journal = Some(Vec::new());
    }

    pub(super) fn take_lines(&mut self) -> Vec<Line> {
        self.journal.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Removes a group from the journal.
    pub(super) fn strike(&mut self, topic: Topic) {
        if let Some(journal) = &mut self.journal {
            journal.push((topic, true, NotifiedState::default()));
        }
    }

    /// Restores a ledger from before this gateway, or all gateways, died. Clients that reconnect before
    /// `until` were never away.
    pub(super) fn restore(
        &mut self,
        topic: &Topic,
        notified: NotifiedState,
        me: Incarnation,
        until: Duration,
    ) {
        if !self.ledgers.contains_key(topic) {
            self.take_over(topic, notified, Some((me, until)));
        }
    }

    pub(super) fn is_on(&self) -> bool {
        !self.about.is_empty()
    }

    pub(super) fn has(&self, topic: &Topic) -> bool {
        has(&self.about, topic)
    }

    fn is_inherited(&self, topic: &Topic) -> bool {
        let about = self.about.get(topic.app()).into_iter().flatten();
        about.into_iter().any(|one| one.inherited && one.pattern.fits(topic))
    }

    /// Clients of a group have joined or left, and with them these users.
    pub(super) fn changed(&mut self, topic: &Topic, members: &[MemberChange]) {
        if !self.has(topic) {
            return;
        }
        let known = self.changed.entry(topic.clone()).or_insert_with(|| Changed::Users(BTreeSet::new()));
        if let Changed::Users(users) = known {
            users.extend(members.iter().map(|member| member.user.clone()));
        }
    }

    pub(super) fn changed_all(&mut self, all: impl Iterator<Item = Topic>) {
        if self.is_on() {
            for topic in all.filter(|topic| has(&self.about, topic)) {
                self.changed.insert(topic, Changed::All);
            }
        }
    }

    /// What there is to report, true where delivery must be confirmed; and what heirs must know before.
    pub(super) fn news<'a>(
        &mut self,
        home: impl Fn(&Topic) -> Option<&'a TopicHome>,
        heir: impl Fn(&Topic) -> Option<Incarnation>,
    ) -> (Vec<LedgerUpdate>, Vec<(Topic, Report, bool)>) {
        let (mut updates, mut all) = (Vec::new(), Vec::new());
        let waits = |topic: &Topic| self.ledgers.get(topic).is_some_and(|ledger| ledger.waits.is_some());
        let changed = mem::take(&mut self.changed);
        let (waiting, changed) = changed.into_iter().partition(|(topic, _)| waits(topic));
        self.changed = waiting;
        for (topic, changed) in changed {
            let inherited = self.is_inherited(&topic);
            let ledger = self.ledgers.entry(topic.clone()).or_default();
            ledger.inherited = inherited;
            let reports = ledger.compare(home(&topic), &changed);
            let awaited = |report: &Report| inherited && !matches!(report, Report::Count(_));
            reports.iter().for_each(|report| ledger.report(report, awaited(report)));
            if reports.iter().any(awaited) {
                if let Some(journal) = &mut self.journal {
                    journal.push((topic.clone(), false, ledger.notified_of(&reports)));
                }
                ledger.sent_to = heir(&topic);
                updates.extend(ledger.sent_to.map(|heir| ledger.step(&reports, heir, &topic)));
            }
            if ledger.is_over() {
                self.ledgers.remove(&topic);
            }
            all.extend(reports.into_iter().map(|report| {
                let awaited = awaited(&report);
                (topic.clone(), report, awaited)
            }));
        }
        (updates, all)
    }

    /// Whether a predecessor is waited for.
    pub(super) fn waits(&self) -> bool {
        // Only a changed group can be delayed.
        self.changed.keys().any(|topic| self.ledgers.get(topic).is_some_and(|it| it.waits.is_some()))
    }

    /// Stops waiting for gateways that are gone or overdue.
    pub(super) fn stop_waiting(&mut self, now: Duration, lives: impl Fn(Incarnation) -> bool) {
        for ledger in self.ledgers.values_mut() {
            ledger.waits = ledger.waits.filter(|(former, until)| now < *until && lives(*former));
        }
    }

    /// A report was delivered or given up: the heir, or the next home, must know.
    pub(super) fn arrived(
        &mut self,
        topic: &Topic,
        report: &Report,
        home: Option<Incarnation>,
        heir: Option<Incarnation>,
    ) -> Option<LedgerUpdate> {
        if let Some(ledger) = self.ledgers.get_mut(topic) {
            if !ledger.arrives(report) {
                return None;
            }
            ledger.sent_to = heir;
            if let Some(journal) = &mut self.journal {
                journal.push((topic.clone(), false, ledger.notified_of([report])));
            }
            let update = heir.map(|heir| ledger.step([report], heir, topic));
            if ledger.is_over() {
                self.ledgers.remove(topic);
            }
            return update;
        }
        let ledger = self.outgoing.get_mut(topic)?;
        if !ledger.arrives(report) {
            return None;
        }
        // A gateway without the whole ledger gets all of it then.
        let update = home.filter(|home| ledger.sent_to == Some(*home))?;
        let update = ledger.step([report], update, topic);
        if ledger.has_arrived() {
            self.outgoing.remove(topic);
        }
        Some(update)
    }

    /// The ring has changed: groups that moved go to their new home. Returns them.
    pub(super) fn lose(
        &mut self,
        home: impl Fn(&Topic) -> Option<Incarnation>,
        me: Incarnation,
    ) -> Vec<Topic> {
        let mut lost: Vec<_> = self.ledgers.keys().filter(|topic| home(topic) != Some(me)).cloned().collect();
        lost.sort_unstable();
        self.changed.retain(|topic, _| home(topic) == Some(me));
        for topic in &lost {
            self.strike(topic.clone());
            // A predecessor that is waited for informs the next home itself.
            if let Some(mut ledger) = self.ledgers.remove(topic)
                && ledger.inherited
                && ledger.waits.is_none_or(|(waits_for, _)| waits_for == me)
            {
                ledger.sent_to = None;
                self.outgoing.insert(topic.clone(), ledger);
            }
        }
        for (topic, ledger) in mem::take(&mut self.outgoing) {
            match home(&topic) {
                Some(to) if to == me => {
                    self.changed.insert(topic.clone(), Changed::All);
                    self.ledgers.insert(topic, ledger);
                }
                Some(_) => drop(self.outgoing.insert(topic, ledger)),
                None => {}
            }
        }
        lost
    }

    /// Takes over the ledgers entrusted by homes for groups whose home this gateway is now. The others stay
    /// as long as their home does.
    pub(super) fn inherit(
        &mut self,
        home: impl Fn(&Topic) -> Option<Incarnation>,
        me: Incarnation,
        gap: bool,
    ) {
        for (topic, bequest) in mem::take(&mut self.bequests) {
            match home(&topic) {
                // A missed update may have changed it; its sender is asked to repeat it.
                _ if gap => {}
                Some(now) if now == me => self.take_over(&topic, bequest.notified, None),
                Some(now) if now == bequest.from => drop(self.bequests.insert(topic, bequest)),
                _ => {}
            }
        }
    }

    fn take_over(&mut self, topic: &Topic, notified: NotifiedState, waits: Option<(Incarnation, Duration)>) {
        let sent_to = self.ledgers.get(topic).and_then(|ledger| ledger.sent_to);
        if let Some(journal) = &mut self.journal {
            journal.push((topic.clone(), true, notified.clone()));
        }
        let ledger = NotificationLedger::inherited(notified, sent_to, waits);
        self.ledgers.insert(topic.clone(), ledger);
        self.changed.insert(topic.clone(), Changed::All);
    }

    /// A ledger update from a home, to its heir or to its next home.
    pub(super) fn received(
        &mut self,
        from: Incarnation,
        session: LinkSession,
        update: LedgerUpdate,
        is_home: bool,
        now: Duration,
    ) {
        if !self.has(&update.topic) {
            return;
        }
        let LedgerUpdate { topic, whole, more, notified, .. } = update;
        if is_home {
            let former = self.ledgers.get_mut(&topic).map(|former| mem::take(&mut former.state));
            let mut known = former.unwrap_or_default();
            known.update(whole, notified);
            return self.take_over(&topic, known, more.then_some((from, now + FORMER_TIME_MAX)));
        }
        let former = self.bequests.remove(&topic).filter(|bequest| bequest.from == from);
        let mut known = former.map(|former| former.notified).unwrap_or_default();
        known.update(whole, notified);
        if known.is_something() {
            self.bequests.insert(topic, Bequest { from, session, notified: known });
        }
    }

    /// A gateway has synced: what it entrusted before and has not repeated is void.
    pub(super) fn synced(&mut self, from: Incarnation, session: LinkSession) {
        self.bequests.retain(|_, bequest| bequest.from != from || bequest.session == session);
    }

    /// The updates that are due if a group has another heir, or another ledger.
    pub(super) fn bequeath(
        &mut self,
        topic: &Topic,
        heir: Option<Incarnation>,
        whole: bool,
    ) -> Vec<LedgerUpdate> {
        let ledger = self.ledgers.get_mut(topic).filter(|it| it.inherited && (whole || it.sent_to != heir));
        let Some(ledger) = ledger else { return Vec::new() };
        let former = std::mem::replace(&mut ledger.sent_to, heir).filter(|former| Some(*former) != heir);
        let forgets = former.map(|former| NotificationLedger::default().whole(former, topic));
        let learns = heir
            .map(|heir| ledger.whole(heir, topic))
            .filter(|update| whole || update.notified.is_something());
        forgets.into_iter().chain(learns).collect()
    }

    /// Groups with a ledger.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<_> = self.ledgers.keys().cloned().collect();
        topics.sort_unstable();
        topics
    }

    /// The updates for an heir whose link has opened.
    pub(super) fn heritage(&self, to: Incarnation) -> Vec<LedgerUpdate> {
        let own = self.ledgers.iter().filter(|(_, ledger)| ledger.inherited && ledger.sent_to == Some(to));
        let updates = own
            .map(|(topic, ledger)| ledger.whole(to, topic))
            .filter(|update| update.notified.is_something());
        sorted(updates.collect())
    }

    /// The updates for the next home of groups: all of them, or those it has not received.
    pub(super) fn hand_on(
        &mut self,
        to: Incarnation,
        home: impl Fn(&Topic) -> Option<Incarnation>,
        whole: bool,
    ) -> Vec<LedgerUpdate> {
        let mut updates = Vec::new();
        self.outgoing.retain(|topic, ledger| {
            if home(topic) != Some(to) || ledger.sent_to == Some(to) && !whole {
                return true;
            }
            ledger.sent_to = Some(to);
            updates.push(ledger.whole(to, topic));
            !ledger.has_arrived()
        });
        sorted(updates)
    }
}

/// A seed replays a cluster: hash-map order must not show.
fn sorted(mut updates: Vec<LedgerUpdate>) -> Vec<LedgerUpdate> {
    updates.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
    updates
}

fn has(about: &HashMap<String, Vec<ReportSubscription>>, topic: &Topic) -> bool {
    about.get(topic.app()).is_some_and(|about| about.iter().any(|one| one.pattern.fits(topic)))
}
