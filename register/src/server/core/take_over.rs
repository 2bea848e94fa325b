//! What a register makes of other registers: it takes over their views, and steps down for one of a higher
//! term.

use std::sync::Arc;

use broadgate_proto::{
    id::Incarnation,
    limits::TERM_STEP,
    v1::{Elsewhere, Epoch, Member, Role, View, join_reply::Reply},
};

use super::{Core, MemberEntry};
use crate::{
    member::address,
    server::{
        check::{self, PeerOrigin},
        history::{Base, RecentViews, SteppedDown},
        step::{ConnectionId, Effect, Happened, Now, RegisterRefusal, RemovalReason},
    },
};

/// So many low bits of a term are a register's own.
const SALT_BITS: u32 = TERM_STEP.trailing_zeros();

impl Core {
    /// The term of a register that nobody has reported a view to: below that of every cluster that has
    /// lived for a lease. Who comes before the living members must not be taken for the cluster.
    pub(super) fn first_term(&self) -> u64 {
        self.salt.map_or(1, |salt| u64::from(salt).max(1))
    }

    /// A term of its own above this one.
    pub(super) fn term_above(&self, term: u64) -> u64 {
        match self.salt {
            Some(salt) => ((term >> SALT_BITS) + 1) << SALT_BITS | u64::from(salt),
            None => term + 1,
        }
    }

    /// Can this reported epoch be followed? Otherwise one false report could use up the terms: the next
    /// register could make none above it.
    ///
    /// A register that follows no report yet believes a term beyond [`TERM_FIRST_MAX`] only after its first
    /// lease: by then the members of a living cluster have reported theirs, which counts.
    ///
    /// [`TERM_FIRST_MAX`]: broadgate_proto::limits::TERM_FIRST_MAX
    pub(super) fn believes(&mut self, reported: Epoch, now: Now) -> bool {
        if reported.is_credible(self.epoch.term) {
            return true;
        }
        let waited = now.up >= self.patient_until;
        let uncontested = self.doubted || self.members.is_empty();
        let believed = uncontested && waited && !self.took_one_over && reported.is_possible();
        self.doubted |= !waited && !self.took_one_over;
        believed
    }

    /// Whether a member that knows this view belongs to the register of the higher term.
    pub(super) fn refers(&mut self, knows: Option<Epoch>, now: Now) -> bool {
        let Some(other) = &self.stepped_down else { return false };
        if now.up >= other.until || knows.is_some_and(|knows| knows.term >= other.term) {
            self.stepped_down = None;
        }
        self.stepped_down.is_some()
    }

    /// Names the active register to a member, which may not have its address, and ends the stream.
    pub(super) fn refer(&self, connection: ConnectionId, out: &mut Vec<Effect>) {
        let Some(SteppedDown { term, register, .. }) = &self.stepped_down else { return };
        let at = if register.is_empty() { String::new() } else { format!(", at {register}") };
        if !register.is_empty() {
            let elsewhere = Elsewhere { register: register.clone(), term: *term };
            out.push(Effect::Reply(connection, Reply::Elsewhere(elsewhere)));
        }
        let sentence = format!(
            "this register has stepped down, since another one is active under the higher term {term}{at}: run \
             only one"
        );
        out.push(Effect::Refuse(connection, RegisterRefusal::Unavailable(sentence)));
    }

    /// Another register is active. If it is of a higher term, this one becomes as if it had just been
    /// started: its members go there and report what they know.
    pub(super) fn step_down(&mut self, higher: Epoch, register: String, now: Now, out: &mut Vec<Effect>) {
        if self.members.is_empty() || higher.term <= self.epoch.term || !higher.is_credible(self.epoch.term) {
            return;
        }
        let members = self.members.len();
        out.push(Effect::Happened(Happened::SteppedDown { from: self.epoch, higher, members }));
        let register = if address::is_register(&register) { register } else { String::new() };
        self.stepped_down = Some(SteppedDown { term: higher.term, register, until: now.up + self.lease });
        for connection in std::mem::take(&mut self.connections).into_keys() {
            self.refer(connection, out);
        }
        self.members.clear();
        self.members_bytes = 0;
        self.recent = RecentViews::default();
        self.base = Base::default();
        self.took_over = None;
        self.count_from = self.count_max;
        self.epoch = Epoch::new(0, 0);
        self.fresh = true;
        (self.took_one_over, self.doubted) = (false, false);
        self.patient_until = now.up + self.lease;
        self.view = Arc::new(View { epoch: Some(self.epoch), ..View::default() });
        out.push(Effect::View(self.view.clone()));
    }

    /// Takes over what another register had made. True if the term has changed, and so the view.
    pub(super) fn take_over(&mut self, view: &View, now: Now, out: &mut Vec<Effect>) -> bool {
        let reported = Base::of(view);
        let ours = self.terms.issued(reported.epoch)
            && reported
                .incarnations()
                .all(|one| self.members.contains_key(one) || self.removed.contains(*one));
        // With a ledger any view that it should have and has not is news, also a lower one: several registers may
        // have led since it lost that.
        let known = match self.one_history {
            true => {
                self.recent.has_had(reported.epoch) || self.took_one_over && reported.epoch <= self.base.epoch
            }
            false => reported.epoch <= self.base.epoch,
        };
        if ours || !reported.epoch.is_possible() || known {
            return false;
        }
        for incarnation in self.removed_elsewhere(view, &reported) {
            if self.members.contains_key(&incarnation) {
                self.remove(incarnation, RemovalReason::Earlier, out);
            }
        }
        for member in &view.members {
            self.take_in(member, now);
        }
        self.epoch = Epoch::new(self.term_above(self.epoch.term.max(reported.epoch.term)), self.count_from);
        let members = self.members.len();
        let took = Happened::TookOver { from: reported.epoch, term: self.epoch.term, members };
        out.push(Effect::Happened(took));
        self.took_over = Some(reported.epoch);
        self.fresh = false;
        self.took_one_over = true;
        self.base = reported;
        true
    }

    /// Who was removed before this reported view was made. What a ledger has lost says that of nobody who may live:
    /// only of gateways whose address another one has, and that have not come here.
    fn removed_elsewhere(&self, view: &View, reported: &Base) -> Vec<Incarnation> {
        if !self.one_history {
            return self.base.removed_in(reported);
        }
        let replaced = |(incarnation, entry): &(&Incarnation, &MemberEntry)| {
            let is_dead = |other: &Member| {
                other.incarnation.parse().is_ok_and(|other: Incarnation| self.removed.contains(other))
            };
            let has_its_address = |other: &Member| other.address == entry.member.address && !is_dead(other);
            entry.connection.is_none()
                && entry.member.role() == Role::Gateway
                && !reported.names(**incarnation)
                && broadgate_proto::view::gateways(view).any(has_its_address)
        };
        self.members.iter().filter(replaced).map(|(incarnation, _)| *incarnation).collect()
    }

    /// Goes on with what the ledger has: the same members under the next term, made from the newest stored view,
    /// so that it is no gap for anybody. Their leases begin now. Stored views are in order.
    pub fn resume(&mut self, views: &[Arc<View>], removed: &[Incarnation], now: Now) -> Vec<Effect> {
        let Some(newest) = views.last() else { return Vec::new() };
        for incarnation in removed {
            self.removed.add(*incarnation);
        }
        for view in views {
            self.recent.push(view.clone(), view.members.iter().map(check::bytes_in_view).sum());
        }
        for member in &newest.members {
            let Ok((incarnation, member)) = check::hello(PeerOrigin::default(), Some(member.clone())) else {
                continue;
            };
            self.insert(incarnation, MemberEntry::heard(member, now, None));
        }
        self.base = Base::of(newest);
        self.epoch = Epoch::new(self.term_above(self.base.epoch.term), 0);
        self.took_over = Some(self.base.epoch);
        self.fresh = false;
        self.one_history = true;
        let mut out = Vec::new();
        self.publish(now, &mut out);
        out
    }

    /// Keeps a member that is known only by report; its lease begins now.
    pub(super) fn take_in(&mut self, member: &Member, now: Now) {
        let Ok((incarnation, member)) = check::hello(PeerOrigin::default(), Some(member.clone())) else {
            return;
        };
        let full = self.members.len() >= self.members_max || !self.has_room(&member, None);
        if full || self.removed.contains(incarnation) || self.members.contains_key(&incarnation) {
            return;
        }
        let taken = |entry: &MemberEntry| {
            member.role() == Role::Gateway
                && entry.member.role() == Role::Gateway
                && entry.member.address == member.address
        };
        // The member here under that address came to this register: it is the newer one.
        if self.members.values().any(taken) {
            self.removed.add(incarnation);
            return;
        }
        self.insert(incarnation, MemberEntry::heard(member, now, None));
    }

    /// Nobody has reported another view within a lease: this is the cluster now, and its term rises
    /// above the first one of every register to come.
    pub(super) fn grow_up(&mut self) -> bool {
        let grows = self.fresh && self.epoch.term > 0;
        if grows {
            self.fresh = false;
            self.epoch = Epoch::new(self.term_above(self.epoch.term), self.count_from);
        }
        grows
    }
}
