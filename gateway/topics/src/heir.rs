//! A group's ledger goes to its heir, and to its next home.

use std::collections::{BTreeMap, VecDeque};

use broadgate_proto::{id::Incarnation, limits::WEBHOOK_RETURN_TIME};

use crate::{
    announced::Announced,
    content::Content,
    home::TopicHomes,
    ledger::LedgerUpdate,
    limits::Restored,
    membership::{LinkSession, MemberChange, Report},
    report::{ReportSubscription, Reports},
    shared::Shared,
    step::{Effect, LinkMessage},
    topic::Topic,
};

/// Reports of this home's groups, and what heirs know of them.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    reports: Reports,
    /// At most the reports of one link timeout.
    announced: VecDeque<Announced>,
    /// The journal of an earlier run, until it is known which gateways are alive.
    restored: Option<Restored>,
}

impl Reporting {
    /// Turns on the journal of notifications, starting from that of an earlier run.
    pub(super) fn journaled(&mut self, restored: Restored) {
        self.reports.keep_journal();
        self.restored = Some(restored);
    }

    /// Whether time alone changes anything.
    pub(super) fn waits(&self) -> bool {
        self.reports.waits() || !self.announced.is_empty()
    }

    /// Whether a group is reported.
    pub(super) fn has(&self, topic: &Topic) -> bool {
        self.reports.has(topic)
    }

    /// Replaces the groups to report.
    pub(super) fn about(&mut self, about: Vec<ReportSubscription>, topics: &TopicHomes) {
        self.reports.about(about, topics.topics());
    }

    /// Clients of a group have joined or left, and with them these users.
    pub(super) fn changed(&mut self, topic: &Topic, members: &[MemberChange]) {
        self.reports.changed(topic, members);
    }

    /// A gateway has synced: what it entrusted before and has not repeated is void.
    pub(super) fn synced(&mut self, from: Incarnation, session: LinkSession) {
        self.reports.synced(from, session);
    }

    /// Compares the journal of an earlier run with the clients that are connected, after a pause in which
    /// clients can reconnect. Only where this gateway is the home and no gateway of the former view is alive
    /// to be the heir; and not while its own predecessor still counts as alive.
    pub(super) fn restore_reported<C: Content>(&mut self, shared: &mut Shared<C>) {
        let waits = |restored: &mut Restored| {
            let former = restored.me.filter(|former| *former != shared.me);
            shared.members.has_ready(shared.me)
                && former.is_none_or(|former| !shared.members.gateways.contains_key(&former))
        };
        let Some(Restored { me: former, gateways, notified }) = self.restored.take_if(waits) else { return };
        let lived_on =
            |gateway: &Incarnation| Some(*gateway) != former && shared.members.gateways.contains_key(gateway);
        let has_heirs = gateways.iter().any(lived_on);
        let until = shared.now + WEBHOOK_RETURN_TIME;
        for (topic, notified) in notified {
            if has_heirs || !shared.is_home(&topic) {
                self.reports.strike(topic);
            } else {
                self.reports.restore(&topic, notified, shared.me, until);
            }
        }
    }

    /// Journal entries precede the effects that follow from them.
    fn write_journal<C: Content>(&mut self, shared: &mut Shared<C>) {
        for (topic, whole, notified) in self.reports.take_lines() {
            shared.out.push(Effect::Notified { topic, whole, notified });
        }
    }

    /// Once per step; not before all gateways have synced.
    pub(super) fn report<C: Content>(&mut self, shared: &mut Shared<C>, topics: &TopicHomes) {
        self.report_news(shared, topics);
        self.write_journal(shared);
    }

    fn report_news<C: Content>(&mut self, shared: &mut Shared<C>, topics: &TopicHomes) {
        self.release_reports(shared, false);
        if !self.reports.is_on() || !shared.gate_is_open() {
            return;
        }
        if self.reports.waits() {
            let (now, members) = (shared.now, &shared.members);
            self.reports.stop_waiting(now, |former| members.gateways.contains_key(&former));
        }
        let rings = &shared.rings;
        let (updates, reports) = self.reports.news(|topic| topics.get(topic), |topic| rings.heir(topic));
        if reports.is_empty() {
            return;
        }
        self.write_journal(shared);
        let needs = send_ledger_updates(shared, updates);
        self.announced.push_back(Announced { needs, reports, since: shared.now });
        self.release_reports(shared, false);
    }

    /// Releases reports in order once the heirs have acknowledged that they are in flight. So if this home
    /// dies, no member stays whom only receivers know. An heir that does not answer is not waited for.
    fn release_reports<C: Content>(&mut self, shared: &mut Shared<C>, all: bool) {
        let (peers, now, patience) = (&shared.peers, shared.now, shared.limits.link_timeout);
        let has_taken = |(heir, serial): (&Incarnation, &u64)| {
            peers.get(*heir).is_none_or(|peer| !peer.open || peer.taken >= *serial)
        };
        while let Some(next) = self
            .announced
            .pop_front_if(|next| all || now >= next.since + patience || next.needs.iter().all(has_taken))
        {
            for (topic, report, awaited) in next.reports {
                shared.out.push(Effect::Report { topic, report, awaited });
            }
        }
    }

    /// A report was delivered or given up.
    pub(super) fn arrived<C: Content>(&mut self, shared: &mut Shared<C>, topic: &Topic, report: &Report) {
        let (home, heir) = (shared.rings.home(topic), shared.rings.heir(topic));
        let update = self.reports.arrived(topic, report, home, heir);
        send_ledger_updates(shared, update);
    }

    /// The ring has changed: homes and heirs have moved.
    pub(super) fn move_reports<C: Content>(
        &mut self,
        shared: &mut Shared<C>,
        topics: &TopicHomes,
        gap: bool,
    ) {
        // The heirs have changed.
        self.release_reports(shared, true);
        let (me, rings) = (shared.me, &shared.rings);
        let home = |topic: &Topic| rings.home(topic);
        let lost = self.reports.lose(home, me);
        self.reports.inherit(home, me, gap);
        self.reports.changed_all(topics.topics());
        for topic in lost {
            shared.out.push(Effect::Report { topic, report: Report::Moved, awaited: false });
        }
        for peer in shared.peers.open() {
            self.hand_on_reported(shared, peer, false);
        }
        for topic in self.reports.topics() {
            self.bequeath(shared, &topic, false);
        }
    }

    fn bequeath<C: Content>(&mut self, shared: &mut Shared<C>, topic: &Topic, whole: bool) {
        let heir = shared.rings.heir(topic);
        let updates = self.reports.bequeath(topic, heir, whole);
        send_ledger_updates(shared, updates);
    }

    /// The peer can receive: sends it the ledgers that it needs.
    pub(super) fn send_ledgers<C: Content>(&mut self, shared: &mut Shared<C>, peer: Incarnation) {
        let updates = self.reports.heritage(peer);
        send_ledger_updates(shared, updates);
        self.hand_on_reported(shared, peer, true);
    }

    fn hand_on_reported<C: Content>(&mut self, shared: &mut Shared<C>, peer: Incarnation, whole: bool) {
        let rings = &shared.rings;
        let updates = self.reports.hand_on(peer, |topic| rings.home(topic), whole);
        send_ledger_updates(shared, updates);
    }

    /// A home has sent a ledger update.
    pub(super) fn reported_by<C: Content>(
        &mut self,
        shared: &mut Shared<C>,
        peer: Incarnation,
        session: LinkSession,
        update: LedgerUpdate,
    ) {
        let topic = update.topic.clone();
        let is_home = shared.is_home(&topic);
        self.reports.received(peer, session, update, is_home, shared.now);
        if is_home {
            self.bequeath(shared, &topic, true);
        }
    }
}

/// Returns the serials that must be acknowledged until all of it is known.
fn send_ledger_updates<C: Content>(
    shared: &mut Shared<C>,
    updates: impl IntoIterator<Item = LedgerUpdate>,
) -> BTreeMap<Incarnation, u64> {
    let mut needs = BTreeMap::new();
    for LedgerUpdate { to, topic, whole, more, notified } in updates {
        if shared.peers.is_open(to)
            && let Some(serial) = shared.peers.next_serial(to)
        {
            needs.insert(to, serial);
            shared.send(to, LinkMessage::Reported { serial, topic, whole, more, notified });
        }
    }
    needs
}
