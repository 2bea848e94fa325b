//! What was reported of a group goes to its heir, and to its next home.

use std::collections::BTreeMap;

use broadgate_proto::{id::Incarnation, limits::WEBHOOK_RETURN_TIME};

use crate::{
    account::Word,
    announced::Announced,
    content::Content,
    core::Core,
    limits::Restored,
    membership::{Report, Session},
    step::{Effect, Frame},
    topic::Topic,
};

impl<C: Content> Core<C> {
    /// What receivers had heard when this gateway died is compared with who is there, once those who come
    /// back have had time. Only if nobody has lived on, who would be heir to it, and where this gateway is
    /// the home; and not while its own predecessor is still taken for alive.
    pub(super) fn restore_reported(&mut self) {
        let waits = |restored: &mut Restored| {
            let former = restored.me.filter(|former| *former != self.me);
            self.members.has_ready(self.me)
                && former.is_none_or(|former| !self.members.gateways.contains_key(&former))
        };
        let Some(Restored { me: former, gateways, told }) = self.restored.take_if(waits) else { return };
        let lived_on =
            |gateway: &Incarnation| Some(*gateway) != former && self.members.gateways.contains_key(gateway);
        let has_heirs = gateways.iter().any(lived_on);
        let until = self.now + WEBHOOK_RETURN_TIME;
        for (topic, told) in told {
            if has_heirs || self.rings.home(&topic) != Some(self.me) {
                self.reports.strike(topic);
            } else {
                self.reports.restore(&topic, told, self.me, until);
            }
        }
    }

    /// What the journal is to note goes before what follows from it.
    fn note_lines(&mut self) {
        for (topic, whole, told) in self.reports.take_lines() {
            self.out.push(Effect::Told { topic, whole, told });
        }
    }

    /// Once a step; not before it is known who holds what.
    pub(super) fn report(&mut self) {
        self.report_news();
        self.note_lines();
    }

    fn report_news(&mut self) {
        self.let_out(false);
        if !self.reports.is_on() || !self.gate_is_open() {
            return;
        }
        if self.reports.waits() {
            let (now, members) = (self.now, &self.members);
            self.reports.wait_no_more(now, |former| members.gateways.contains_key(&former));
        }
        let (homes, rings) = (&self.homes, &self.rings);
        let (words, reports) = self.reports.news(|topic| homes.get(topic), |topic| rings.heir(topic));
        if reports.is_empty() {
            return;
        }
        self.note_lines();
        let needs = self.say_words(words);
        self.announced.push_back(Announced { needs, reports, since: self.now });
        self.let_out(false);
    }

    /// Reports go out, in their order, when the heirs know that they may have been heard: whoever dies then
    /// leaves nobody behind of whom only receivers know. An heir that does not answer is not waited for.
    fn let_out(&mut self, all: bool) {
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

    /// A report has arrived, or never will.
    pub(super) fn arrived(&mut self, topic: &Topic, report: &Report) {
        let (home, heir) = (self.rings.home(topic), self.rings.heir(topic));
        let word = self.reports.arrived(topic, report, home, heir);
        self.say_words(word);
    }

    /// The ring has changed, and with it whose homes and heirs we are, and who our heirs are.
    pub(super) fn move_reports(&mut self, gap: bool) {
        // Heirs are others now.
        self.let_out(true);
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

    fn bequeath(&mut self, topic: &Topic, anew: bool) {
        let heir = self.rings.heir(topic);
        let words = self.reports.bequeath(topic, heir, anew);
        self.say_words(words);
    }

    /// The peer hears us: what it is to know of what was reported.
    pub(super) fn say_reported(&mut self, peer: Incarnation) {
        let words = self.reports.heritage(peer);
        self.say_words(words);
        self.hand_on_reported(peer, true);
    }

    fn hand_on_reported(&mut self, peer: Incarnation, anew: bool) {
        let rings = &self.rings;
        let words = self.reports.hand_on(peer, |topic| rings.home(topic), anew);
        self.say_words(words);
    }

    /// Returns what must be taken until all of it is known.
    fn say_words(&mut self, words: impl IntoIterator<Item = Word>) -> BTreeMap<Incarnation, u64> {
        let mut needs = BTreeMap::new();
        for Word { to, topic, whole, more, told } in words {
            if let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.open) {
                peer.serial += 1;
                let serial = peer.serial;
                needs.insert(to, serial);
                self.say(to, Frame::Reported { serial, topic, whole, more, told });
            }
        }
        needs
    }

    /// A home says what was reported of a group.
    pub(super) fn reported_by(&mut self, peer: Incarnation, session: Session, word: Word) {
        let topic = word.topic.clone();
        let is_home = self.rings.home(&topic) == Some(self.me);
        self.reports.heard(peer, session, word, is_home, self.now);
        if is_home {
            self.bequeath(&topic, true);
        }
    }
}
