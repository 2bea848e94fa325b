//! What the gateway itself reports of groups whose home it is, each thing once: by comparing what is with
//! what was reported. What has arrived at those who are told is known to the group's *heir*, the gateway
//! that will be its home when this one is gone: it goes on from there, so that whoever was lost with a home
//! is reported to have left, and nothing else is reported again. A home that lives when the group goes to
//! another lets that know too, and is waited for until everything has arrived, for the sake of the order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::id::Incarnation;

use super::{
    home::Home,
    step::{MemberChange, Report, Session},
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

/// What was reported of one group.
#[derive(Debug, Default, Clone)]
struct Account {
    standing: Told,
    clients: u64,
    /// What may not have arrived, in order. Few: it is taken out of the middle.
    pending: Vec<Report>,
    /// Who was told what has arrived: the heir, or the next home.
    said_to: Option<Incarnation>,
    inherited: bool,
    /// Whose reports of it are still on their way, and until when that is waited for.
    waits: Option<(Incarnation, Duration)>,
}

/// What somebody believes of a group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) occupied: bool,
    pub(super) users: BTreeSet<Arc<str>>,
}

/// What a home has let us know, in case that it dies.
#[derive(Debug)]
struct Bequest {
    from: Incarnation,
    session: Session,
    users: BTreeSet<Arc<str>>,
}

/// What may have changed in a group since it was reported.
#[derive(Debug)]
enum Changed {
    All,
    Users(BTreeSet<Arc<str>>),
}

/// To be said to another gateway: the whole of what was told, or one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) to: Incarnation,
    pub(super) topic: Topic,
    pub(super) whole: bool,
    /// To the next home: something of ours is still on its way.
    pub(super) more: bool,
    pub(super) occupied: bool,
    pub(super) members: Vec<MemberChange>,
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
}

/// A home waits for the one before it at most this long; after that, order between the two is luck.
const FORMER_TIME_MAX: Duration = Duration::from_secs(10);

impl Told {
    fn take(&mut self, report: &Report) {
        match report {
            Report::Occupied => self.occupied = true,
            Report::Vacated => *self = Self::default(),
            Report::Came(user) => drop(self.users.insert(user.clone())),
            Report::Left(user) => drop(self.users.remove(user)),
            Report::Count(_) | Report::Moved => {}
        }
    }

    fn take_back(&mut self, report: &Report) {
        match report {
            Report::Occupied => self.occupied = false,
            Report::Vacated => self.occupied = true,
            Report::Came(user) => drop(self.users.remove(user)),
            Report::Left(user) => drop(self.users.insert(user.clone())),
            Report::Count(_) | Report::Moved => {}
        }
    }

    fn word(self, to: Incarnation, topic: &Topic, more: bool) -> Word {
        let members = self.users.into_iter().map(|user| here(user, true)).collect();
        Word { to, topic: topic.clone(), whole: true, more, occupied: self.occupied, members }
    }
}

fn here(user: Arc<str>, is_here: bool) -> MemberChange {
    MemberChange { user, info: is_here.then(|| "".into()) }
}

impl Account {
    /// What is known to have arrived.
    fn arrived(&self) -> Told {
        let mut told = self.standing.clone();
        self.pending.iter().rev().for_each(|report| told.take_back(report));
        told
    }

    fn whole(&self, to: Incarnation, topic: &Topic) -> Word {
        self.arrived().word(to, topic, !self.pending.is_empty())
    }

    /// A report has arrived, or never will.
    fn step(&mut self, report: &Report, to: Option<Incarnation>, topic: &Topic) -> Option<Word> {
        let at = self.pending.iter().position(|pending| pending == report)?;
        self.pending.remove(at);
        let members = match report {
            Report::Came(user) => vec![here(user.clone(), true)],
            Report::Left(user) => vec![here(user.clone(), false)],
            Report::Occupied | Report::Vacated | Report::Count(_) | Report::Moved => Vec::new(),
        };
        let (more, occupied) = (!self.pending.is_empty(), self.occupied_arrived());
        Some(Word { to: to?, topic: topic.clone(), whole: false, more, occupied, members })
    }

    /// Whether it is known to have arrived that there are clients.
    fn occupied_arrived(&self) -> bool {
        self.pending.iter().rev().fold(self.standing.occupied, |occupied, report| match report {
            Report::Occupied => false,
            Report::Vacated => true,
            _ => occupied,
        })
    }

    fn is_over(&self) -> bool {
        !self.standing.occupied && self.pending.is_empty()
    }

    /// Reports what differs from what is.
    fn compare(&mut self, home: Option<&Home>, changed: &Changed) -> Vec<Report> {
        let mut news = Vec::new();
        let Some(home) = home.filter(|home| home.clients() > 0) else {
            news.extend(self.standing.users.iter().cloned().map(Report::Left));
            news.extend(self.standing.occupied.then_some(Report::Vacated));
            self.clients = 0;
            return news;
        };
        news.extend((!self.standing.occupied).then_some(Report::Occupied));
        let is_present = |user: &str| home.roster.as_ref().is_some_and(|roster| roster.has(user));
        match changed {
            Changed::Users(users) if self.standing.occupied => {
                let gone =
                    users.iter().filter(|user| !is_present(user) && self.standing.users.contains(*user));
                news.extend(gone.cloned().map(Report::Left));
                let come =
                    users.iter().filter(|user| is_present(user) && !self.standing.users.contains(*user));
                news.extend(come.cloned().map(Report::Came));
            }
            _ => {
                let gone = self.standing.users.iter().filter(|user| !is_present(user));
                news.extend(gone.cloned().map(Report::Left));
                let all = home.roster.iter().flat_map(|roster| roster.page(usize::MAX, ""));
                let come = all.map(|(user, _)| user).filter(|user| !self.standing.users.contains(user));
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

impl Reports {
    /// Other groups are reported of now.
    pub(super) fn about(&mut self, about: Vec<Reporting>, all: impl Iterator<Item = Topic>) {
        self.about.clear();
        for reporting in about {
            self.about.entry(reporting.pattern.app.clone()).or_default().push(reporting);
        }
        let about = &self.about;
        self.accounts.retain(|topic, _| has(about, topic));
        self.outgoing.retain(|topic, _| has(about, topic));
        self.bequests.retain(|topic, _| has(about, topic));
        self.changed.retain(|topic, _| has(about, topic));
        self.changed_all(all);
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

    /// What there is to report; true where it must be said when that has arrived.
    pub(super) fn news<'a>(
        &mut self,
        home: impl Fn(&Topic) -> Option<&'a Home>,
    ) -> Vec<(Topic, Report, bool)> {
        let mut all = Vec::new();
        let waits = |topic: &Topic| self.accounts.get(topic).is_some_and(|account| account.waits.is_some());
        let changed = std::mem::take(&mut self.changed);
        let (waiting, changed) = changed.into_iter().partition(|(topic, _)| waits(topic));
        self.changed = waiting;
        for (topic, changed) in changed {
            let inherited = self.is_inherited(&topic);
            let account = self.accounts.entry(topic.clone()).or_default();
            account.inherited = inherited;
            for report in account.compare(home(&topic), &changed) {
                account.standing.take(&report);
                let waits = inherited && !matches!(report, Report::Count(_));
                if waits {
                    account.pending.push(report.clone());
                }
                all.push((topic.clone(), report, waits));
            }
            if account.is_over() {
                self.accounts.remove(&topic);
            }
        }
        all
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
            let word = account.step(report, heir, topic);
            account.said_to = heir;
            if account.is_over() {
                self.accounts.remove(topic);
            }
            return word;
        }
        let account = self.outgoing.get_mut(topic)?;
        let word = account.step(report, home.filter(|home| account.said_to == Some(*home)), topic);
        if account.pending.is_empty() && word.is_some() {
            self.outgoing.remove(topic);
        }
        word
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
            // Who is waited for tells the next home itself.
            if let Some(mut account) = self.accounts.remove(topic)
                && account.inherited
                && account.waits.is_none()
            {
                account.said_to = None;
                self.outgoing.insert(topic.clone(), account);
            }
        }
        for (topic, account) in std::mem::take(&mut self.outgoing) {
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
        for (topic, bequest) in std::mem::take(&mut self.bequests) {
            match home(&topic) {
                // What was missed may have changed it; who said it is asked to say it anew.
                _ if gap => {}
                Some(now) if now == me => {
                    self.take_over(&topic, Told { occupied: true, users: bequest.users }, None)
                }
                Some(now) if now == bequest.from => drop(self.bequests.insert(topic, bequest)),
                _ => {}
            }
        }
    }

    fn take_over(&mut self, topic: &Topic, told: Told, waits: Option<(Incarnation, Duration)>) {
        let account = self.accounts.entry(topic.clone()).or_default();
        let said_to = account.said_to;
        *account = Account { standing: told, said_to, inherited: true, waits, ..Account::default() };
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
        if is_home {
            let former = self.accounts.get(&word.topic).map(|account| account.standing.clone());
            let told = heard(former.unwrap_or_default(), &word);
            let waits = word.more.then_some((from, now + FORMER_TIME_MAX));
            return self.take_over(&word.topic, told, waits);
        }
        let former = self.bequests.remove(&word.topic).filter(|bequest| bequest.from == from);
        let former = former.map(|bequest| Told { occupied: true, users: bequest.users });
        let Told { occupied, users } = heard(former.unwrap_or_default(), &word);
        if occupied {
            self.bequests.insert(word.topic, Bequest { from, session, users });
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
        let forgets = former.map(|former| Told::default().word(former, topic, false));
        let learns = heir.map(|heir| account.whole(heir, topic)).filter(|word| anew || word.occupied);
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
        let words = own.map(|(topic, account)| account.whole(to, topic)).filter(|word| word.occupied);
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
            !account.pending.is_empty()
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

fn heard(mut former: Told, word: &Word) -> Told {
    if word.whole || !word.occupied {
        former.users.clear();
    }
    former.occupied = word.occupied;
    for MemberChange { user, info } in &word.members {
        former.take(&match info {
            Some(_) => Report::Came(user.clone()),
            None => Report::Left(user.clone()),
        });
    }
    former
}
