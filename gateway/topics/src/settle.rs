//! Operations that wait until homes have acknowledged this gateway's changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broadgate_proto::id::Incarnation;

use crate::{
    content::Content,
    entrances::Entering,
    step::{ReplyTo, Ticket},
    topic::Topic,
};

/// A waiting operation.
#[derive(Debug)]
pub(super) enum WaitingOperation<C: Content> {
    /// A caller.
    Caller(Ticket),
    /// A client that enters a group.
    Entering(Entering),
    /// The answer to a delivery.
    Placed(ReplyTo, Option<C::Answer>),
}

#[derive(Debug)]
struct Wait<C: Content> {
    what: WaitingOperation<C>,
    topics: Vec<Topic>,
    /// The serial that each home must acknowledge.
    needs: BTreeMap<Incarnation, u64>,
    since: Duration,
}

/// All waiting operations.
#[derive(Debug)]
pub(super) struct Settling<C: Content> {
    waits: BTreeMap<u64, Wait<C>>,
    /// By home: the serial, and the operation that waits for it.
    by_home: BTreeMap<Incarnation, BTreeSet<(u64, u64)>>,
    next: u64,
}

impl<C: Content> Settling<C> {
    pub(super) const fn new() -> Self {
        Self { waits: BTreeMap::new(), by_home: BTreeMap::new(), next: 1 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Waits for these serials; there is at least one.
    pub(super) fn wait(
        &mut self,
        what: WaitingOperation<C>,
        topics: Vec<Topic>,
        needs: BTreeMap<Incarnation, u64>,
        now: Duration,
    ) {
        let id = self.next;
        self.next += 1;
        self.file(id, &needs);
        self.waits.insert(id, Wait { what, topics, needs, since: now });
    }

    fn file(&mut self, id: u64, needs: &BTreeMap<Incarnation, u64>) {
        for (home, serial) in needs {
            self.by_home.entry(*home).or_default().insert((*serial, id));
        }
    }

    /// A home has acknowledged all serials up to this one. Returns the operations that need not wait any
    /// longer.
    pub(super) fn taken(&mut self, home: Incarnation, serial: u64) -> Vec<WaitingOperation<C>> {
        let mut done = Vec::new();
        let Some(waiting) = self.by_home.get_mut(&home) else { return done };
        while let Some(&(needed, id)) = waiting.first().filter(|(needed, _)| *needed <= serial) {
            waiting.remove(&(needed, id));
            if let Some(wait) = self.waits.get_mut(&id) {
                wait.needs.remove(&home);
                if wait.needs.is_empty()
                    && let Some(wait) = self.waits.remove(&id)
                {
                    done.push(wait.what);
                }
            }
        }
        done
    }

    /// The homes have changed: waits for the new ones.
    pub(super) fn again(
        &mut self,
        needs_of: impl Fn(&[Topic]) -> BTreeMap<Incarnation, u64>,
    ) -> Vec<WaitingOperation<C>> {
        self.by_home.clear();
        let mut done = Vec::new();
        for (id, mut wait) in std::mem::take(&mut self.waits) {
            wait.needs = needs_of(&wait.topics);
            if wait.needs.is_empty() {
                done.push(wait.what);
            } else {
                self.file(id, &wait.needs);
                self.waits.insert(id, wait);
            }
        }
        done
    }

    /// The overdue operations, with the homes that have not acknowledged.
    pub(super) fn late(
        &mut self,
        within: Duration,
        now: Duration,
    ) -> Vec<(WaitingOperation<C>, Vec<Incarnation>)> {
        let late = |(id, wait): (&u64, &Wait<C>)| (now >= wait.since + within).then_some(*id);
        let ids: Vec<u64> = self.waits.iter().filter_map(late).collect();
        let mut all = Vec::new();
        for id in ids {
            let Some(wait) = self.waits.remove(&id) else { continue };
            for (home, serial) in &wait.needs {
                if let Some(waiting) = self.by_home.get_mut(home) {
                    waiting.remove(&(*serial, id));
                }
            }
            all.push((wait.what, wait.needs.into_keys().collect()));
        }
        all
    }
}
