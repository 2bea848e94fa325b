//! What the gateway itself reports of groups whose home it is, each thing once: by comparing what is with
//! what was reported. What has arrived at those who are told is known to the group's *heir*, the gateway
//! that will be its home when this one is gone: it goes on from there, so that whoever was lost with a home
//! is reported to have left, and nothing else is reported again. A home that lives when the group goes to
//! another lets that know too, and is waited for until everything has arrived, for the sake of the order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    time::Duration,
};

use broadgate_proto::id::Incarnation;

use crate::{
    account::{Account, Changed, Told, Word},
    home::Home,
    membership::{MemberChange, Report, Session},
    topic::Topic,
    watch::Pattern,
};

/// What the gateway itself wants to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporting {
    /// Of which groups.
    pub pattern: Pattern,
    /// What was reported is known to the next home. Then it must be said of each report when it has
    /// arrived, or never will.
    pub inherited: bool,
}

/// What a home has let us know, in case that it dies.
#[derive(Debug)]
struct Bequest {
    from: Incarnation,
    session: Session,
    told: Told,
}

/// All reports.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// By app.
    about: HashMap<String, Vec<Reporting>>,
    accounts: HashMap<Topic, Account>,
    changed: BTreeMap<Topic, Changed>,
    bequests: HashMap<Topic, Bequest>,
    /// Groups that have another home now, until it knows everything.
    outgoing: HashMap<Topic, Account>,
    /// What this gateway's journal is to note, if it has one.
    journal: Option<Vec<Line>>,
}

/// A line of the journal: what receivers have heard of a group, all of it or one step.
pub(super) type Line = (Topic, bool, Told);

/// A home waits for the one before it at most this long; after that, order between the two is luck.
const FORMER_TIME_MAX: Duration = Duration::from_secs(10);

impl Reports {
    /// Other groups are reported of now.
    pub(super) fn about(&mut self, about: Vec<Reporting>, all: impl Iterator<Item = Topic>) {
        self.about.clear();
        for reporting in about {
            self.about.entry(reporting.pattern.app.clone()).or_default().push(reporting);
        }
        let (about, journal) = (&self.about, &mut self.journal);
        self.accounts.retain(|topic, _| {
            let stays = has(about, topic);
            if let Some(journal) = journal.as_mut().filter(|_| !stays) {
                journal.push((topic.clone(), true, Told::default()));
            }
            stays
        });
        self.outgoing.retain(|topic, _| has(about, topic));
        self.bequests.retain(|topic, _| has(about, topic));
        self.changed.retain(|topic, _| has(about, topic));
        self.changed_all(all);
    }

    /// From now on a journal notes what receivers have heard.
    pub(super) fn keep_journal(&mut self) {
        self.journal = Some(Vec::new());
    }

    pub(super) fn take_lines(&mut self) -> Vec<Line> {
        self.journal.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Receivers have heard nothing of a group any more that would be this gateway's business.
    pub(super) fn strike(&mut self, topic: Topic) {
        if let Some(journal) = &mut self.journal {
            journal.push((topic, true, Told::default()));
        }
    }

    /// What receivers had heard when this gateway, or all, died. Who comes back until then was never away.
    pub(super) fn restore(&mut self, topic: &Topic, told: Told, me: Incarnation, until: Duration) {
        if !self.accounts.contains_key(topic) {
            self.take_over(topic, told, Some((me, until)));
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

    /// Clients of a group have come or gone, and with them these users.
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

    /// What there is to report, true where it must be said when that has arrived; and what heirs are to know
    /// before.
    pub(super) fn news<'a>(
        &mut self,
        home: impl Fn(&Topic) -> Option<&'a Home>,
        heir: impl Fn(&Topic) -> Option<Incarnation>,
    ) -> (Vec<Word>, Vec<(Topic, Report, bool)>) {
        let (mut words, mut all) = (Vec::new(), Vec::new());
        let waits = |topic: &Topic| self.accounts.get(topic).is_some_and(|account| account.waits.is_some());
        let changed = mem::take(&mut self.changed);
        let (waiting, changed) = changed.into_iter().partition(|(topic, _)| waits(topic));
        self.changed = waiting;
        for (topic, changed) in changed {
            let inherited = self.is_inherited(&topic);
            let account = self.accounts.entry(topic.clone()).or_default();
            account.inherited = inherited;
            let reports = account.compare(home(&topic), &changed);
            let awaited = |report: &Report| inherited && !matches!(report, Report::Count(_));
            reports.iter().for_each(|report| account.report(report, awaited(report)));
            if reports.iter().any(awaited) {
                if let Some(journal) = &mut self.journal {
                    journal.push((topic.clone(), false, account.told_of(&reports)));
                }
                account.said_to = heir(&topic);
                words.extend(account.said_to.map(|heir| account.step(&reports, heir, &topic)));
            }
            if account.is_over() {
                self.accounts.remove(&topic);
            }
            all.extend(reports.into_iter().map(|report| {
                let awaited = awaited(&report);
                (topic.clone(), report, awaited)
            }));
        }
        (words, all)
    }

    /// Is anybody waited for?
    pub(super) fn waits(&self) -> bool {
        // Only what has changed can be held up.
        self.changed.keys().any(|topic| self.accounts.get(topic).is_some_and(|it| it.waits.is_some()))
    }

    /// Those who are gone, or have taken too long, are not waited for any more.
    pub(super) fn wait_no_more(&mut self, now: Duration, lives: impl Fn(Incarnation) -> bool) {
        for account in self.accounts.values_mut() {
            account.waits = account.waits.filter(|(former, until)| now < *until && lives(*former));
        }
    }

    /// A report has arrived, or never will: the heir, or the next home, is to know.
    pub(super) fn arrived(
        &mut self,
        topic: &Topic,
        report: &Report,
        home: Option<Incarnation>,
        heir: Option<Incarnation>,
    ) -> Option<Word> {
        if let Some(account) = self.accounts.get_mut(topic) {
            if !account.arrives(report) {
                return None;
            }
            account.said_to = heir;
            if let Some(journal) = &mut self.journal {
                journal.push((topic.clone(), false, account.told_of([report])));
            }
            let word = heir.map(|heir| account.step([report], heir, topic));
            if account.is_over() {
                self.accounts.remove(topic);
            }
            return word;
        }
        let account = self.outgoing.get_mut(topic)?;
        if !account.arrives(report) {
            return None;
        }
        // Who has not heard the whole of it hears everything then.
        let word = home.filter(|home| account.said_to == Some(*home))?;
        let word = account.step([report], word, topic);
        if account.has_arrived() {
            self.outgoing.remove(topic);
        }
        Some(word)
    }

    /// The ring has changed: groups that have another home now go there. Returns them.
    pub(super) fn lose(
        &mut self,
        home: impl Fn(&Topic) -> Option<Incarnation>,
        me: Incarnation,
    ) -> Vec<Topic> {
        let mut lost: Vec<_> =
            self.accounts.keys().filter(|topic| home(topic) != Some(me)).cloned().collect();
        lost.sort_unstable();
        self.changed.retain(|topic, _| home(topic) == Some(me));
        for topic in &lost {
            self.strike(topic.clone());
            // Who is waited for tells the next home itself.
            if let Some(mut account) = self.accounts.remove(topic)
                && account.inherited
                && account.waits.is_none_or(|(waits_for, _)| waits_for == me)
            {
                account.said_to = None;
                self.outgoing.insert(topic.clone(), account);
            }
        }
        for (topic, account) in mem::take(&mut self.outgoing) {
            match home(&topic) {
                Some(to) if to == me => {
                    self.changed.insert(topic.clone(), Changed::All);
                    self.accounts.insert(topic, account);
                }
                Some(_) => drop(self.outgoing.insert(topic, account)),
                None => {}
            }
        }
        lost
    }

    /// What homes have let us know of groups whose home we are now. The others stay as long as their home
    /// does.
    pub(super) fn inherit(
        &mut self,
        home: impl Fn(&Topic) -> Option<Incarnation>,
        me: Incarnation,
        gap: bool,
    ) {
        for (topic, bequest) in mem::take(&mut self.bequests) {
            match home(&topic) {
                // What was missed may have changed it; who said it is asked to say it anew.
                _ if gap => {}
                Some(now) if now == me => self.take_over(&topic, bequest.told, None),
                Some(now) if now == bequest.from => drop(self.bequests.insert(topic, bequest)),
                _ => {}
            }
        }
    }

    fn take_over(&mut self, topic: &Topic, told: Told, waits: Option<(Incarnation, Duration)>) {
        let said_to = self.accounts.get(topic).and_then(|account| account.said_to);
        if let Some(journal) = &mut self.journal {
            journal.push((topic.clone(), true, told.clone()));
        }
        let account = Account::inherited(told, said_to, waits);
        self.accounts.insert(topic.clone(), account);
        self.changed.insert(topic.clone(), Changed::All);
    }

    /// What a home has to say of a group, to its heir or to its next home.
    pub(super) fn heard(
        &mut self,
        from: Incarnation,
        session: Session,
        word: Word,
        is_home: bool,
        now: Duration,
    ) {
        if !self.has(&word.topic) {
            return;
        }
        let Word { topic, whole, more, told, .. } = word;
        if is_home {
            let former = self.accounts.get_mut(&topic).map(|former| mem::take(&mut former.standing));
            let mut known = former.unwrap_or_default();
            known.hear(whole, told);
            return self.take_over(&topic, known, more.then_some((from, now + FORMER_TIME_MAX)));
        }
        let former = self.bequests.remove(&topic).filter(|bequest| bequest.from == from);
        let mut known = former.map(|former| former.told).unwrap_or_default();
        known.hear(whole, told);
        if known.is_something() {
            self.bequests.insert(topic, Bequest { from, session, told: known });
        }
    }

    /// A gateway has said everything: what it said before and not again is no more.
    pub(super) fn synced(&mut self, from: Incarnation, session: Session) {
        self.bequests.retain(|_, bequest| bequest.from != from || bequest.session == session);
    }

    /// What is to be said of a group if it has another heir now, or another account.
    pub(super) fn bequeath(&mut self, topic: &Topic, heir: Option<Incarnation>, anew: bool) -> Vec<Word> {
        let account = self.accounts.get_mut(topic).filter(|it| it.inherited && (anew || it.said_to != heir));
        let Some(account) = account else { return Vec::new() };
        let former = std::mem::replace(&mut account.said_to, heir).filter(|former| Some(*former) != heir);
        let forgets = former.map(|former| Account::default().whole(former, topic));
        let learns =
            heir.map(|heir| account.whole(heir, topic)).filter(|word| anew || word.told.is_something());
        forgets.into_iter().chain(learns).collect()
    }

    /// Groups of which something was reported.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<_> = self.accounts.keys().cloned().collect();
        topics.sort_unstable();
        topics
    }

    /// What an heir must hear now that it can.
    pub(super) fn heritage(&self, to: Incarnation) -> Vec<Word> {
        let own =
            self.accounts.iter().filter(|(_, account)| account.inherited && account.said_to == Some(to));
        let words =
            own.map(|(topic, account)| account.whole(to, topic)).filter(|word| word.told.is_something());
        sorted(words.collect())
    }

    /// What the next home of groups must hear: all of it, or what it has not heard.
    pub(super) fn hand_on(
        &mut self,
        to: Incarnation,
        home: impl Fn(&Topic) -> Option<Incarnation>,
        anew: bool,
    ) -> Vec<Word> {
        let mut words = Vec::new();
        self.outgoing.retain(|topic, account| {
            if home(topic) != Some(to) || account.said_to == Some(to) && !anew {
                return true;
            }
            account.said_to = Some(to);
            words.push(account.whole(to, topic));
            !account.has_arrived()
        });
        sorted(words)
    }
}

/// A seed replays a cluster: no order of a hash map may show.
fn sorted(mut words: Vec<Word>) -> Vec<Word> {
    words.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
    words
}

fn has(about: &HashMap<String, Vec<Reporting>>, topic: &Topic) -> bool {
    about.get(topic.app()).is_some_and(|about| about.iter().any(|one| one.pattern.fits(topic)))
}
