//! A group's ledger goes to its heir, and to its next home.

use std::collections::BTreeMap;

use broadgate_proto::{id::Incarnation, limits::WEBHOOK_RETURN_TIME};

use crate::{
    announced::Announced,
    content::Content,
    core::Core,
    ledger::LedgerUpdate,
    limits::Restored,
    membership::{LinkSession, Report},
    step::{Effect, LinkMessage},
    topic::Topic,
};

impl<C: Content> Core<C> {
    /// Compares the journal of an earlier run with the clients that are connected, after a pause in which
    /// clients can reconnect. Only where this gateway is the home and no gateway of the former view is alive
    /// to be the heir; and not while its own predecessor still counts as alive.
    pub(super) fn restore_reported(&mut self) {
        let waits = |restored: &mut Restored| {
            let former = restored.me.filter(|former| *former != self.me);
            self.members.has_ready(self.me)
                && former.is_none_or(|former| !self.members.gateways.contains_key(&former))
        };
        let Some(Restored { me: former, gateways, notified }) = self.restored.take_if(waits) else { return };
        let lived_on =
            |gateway: &Incarnation| Some(*gateway) != former && self.members.gateways.contains_key(gateway);
        let has_heirs = gateways.iter().any(lived_on);
        let until = self.now + WEBHOOK_RETURN_TIME;
        for (topic, notified) in notified {
            if has_heirs || self.rings.home(&topic) != Some(self.me) {
                self.reports.strike(topic);
            } else {
                self.reports.restore(&topic, notified, self.me, until);
            }
        }
    }

    /// Journal entries precede the effects that follow from them.
    fn write_journal(&mut self) {
        for (topic, whole, notified) in self.reports.take_lines() {
            self.out.push(Effect::Notified { topic, whole, notified });
        }
    }

    /// Once per step; not before all gateways have synced.
    pub(super) fn report(&mut self) {
        self.report_news();
        self.write_journal();
    }

    fn report_news(&mut self) {
        self.release_reports(false);
        if !self.reports.is_on() || !self.gate_is_open() {
            return;
        }
        if self.reports.waits() {
            let (now, members) = (self.now, &self.members);
            self.reports.stop_waiting(now, |former| members.gateways.contains_key(&former));
        }
        let (homes, rings) = (&self.homes, &self.rings);
        let (updates, reports) = self.reports.news(|topic| homes.get(topic), |topic| rings.heir(topic));
        if reports.is_empty() {
            return;
        }
        self.write_journal();
        let needs = self.send_ledger_updates(updates);
        self.announced.push_back(Announced { needs, reports, since: self.now });
        self.release_reports(false);
    }

    /// Releases reports in order once the heirs have acknowledged that they are in flight. So if this home
    /// dies, no member stays whom only receivers know. An heir that does not answer is not waited for.
    fn release_reports(&mut self, all: bool) {
        let (peers, now, patience) = (&self.peers, self.now, self.limits.link_timeout);
        let has_taken = |(heir, serial): (&Incarnation, &u64)| {
            peers.get(heir).is_none_or(|peer| !peer.open || peer.taken >= *serial)
        };
        while let Some(next) = self
            .announced
            .pop_front_if(|next| all || now >= next.since + patience || next.needs.iter().all(has_taken))
        {
            for (topic, report, awaited) in next.reports {
                self.out.push(Effect::Report { topic, report, awaited });
            }
        }
    }

    /// A report was delivered or given up.
    pub(super) fn arrived(&mut self, topic: &Topic, report: &Report) {
        let (home, heir) = (self.rings.home(topic), self.rings.heir(topic));
        let update = self.reports.arrived(topic, report, home, heir);
        self.send_ledger_updates(update);
    }

    /// The ring has changed: homes and heirs have moved.
    pub(super) fn move_reports(&mut self, gap: bool) {
        // The heirs have changed.
        self.release_reports(true);
        let (me, rings) = (self.me, &self.rings);
        let home = |topic: &Topic| rings.home(topic);
        let lost = self.reports.lose(home, me);
        self.reports.inherit(home, me, gap);
        self.reports.changed_all(self.homes.topics());
        for topic in lost {
            self.out.push(Effect::Report { topic, report: Report::Moved, awaited: false });
        }
        for peer in self.open_peers().collect::<Vec<_>>() {
            self.hand_on_reported(peer, false);
        }
        for topic in self.reports.topics() {
            self.bequeath(&topic, false);
        }
    }

    fn bequeath(&mut self, topic: &Topic, whole: bool) {
        let heir = self.rings.heir(topic);
        let updates = self.reports.bequeath(topic, heir, whole);
        self.send_ledger_updates(updates);
    }

    /// The peer can receive: sends it the ledgers that it needs.
    pub(super) fn send_ledgers(&mut self, peer: Incarnation) {
        let updates = self.reports.heritage(peer);
        self.send_ledger_updates(updates);
        self.hand_on_reported(peer, true);
    }

    fn hand_on_reported(&mut self, peer: Incarnation, whole: bool) {
        let rings = &self.rings;
        let updates = self.reports.hand_on(peer, |topic| rings.home(topic), whole);
        self.send_ledger_updates(updates);
    }

    /// Returns the serials that must be acknowledged until all of it is known.
    fn send_ledger_updates(
        &mut self,
        updates: impl IntoIterator<Item = LedgerUpdate>,
    ) -> BTreeMap<Incarnation, u64> {
        let mut needs = BTreeMap::new();
        for LedgerUpdate { to, topic, whole, more, notified } in updates {
            if let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.open) {
                peer.serial += 1;
                let serial = peer.serial;
                needs.insert(to, serial);
                self.send(to, LinkMessage::Reported { serial, topic, whole, more, notified });
            }
        }
        needs
    }

    /// A home has sent a ledger update.
    pub(super) fn reported_by(&mut self, peer: Incarnation, session: LinkSession, update: LedgerUpdate) {
        let topic = update.topic.clone();
        let is_home = self.rings.home(&topic) == Some(self.me);
        self.reports.heard(peer, session, update, is_home, self.now);
        if is_home {
            self.bequeath(&topic, true);
        }
    }
}
