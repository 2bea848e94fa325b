//! The memory budget of retained messages, and what is evicted when it is exceeded. Pure.
//!
//! An app above its own limit loses the least recently written of its last values and histories, a history as
//! a whole: its readers see a gap. If all apps together exceed the budget, the app that uses more than an
//! equal share loses.

use std::collections::{BTreeMap, HashMap};

use super::{shares::Shares, topic::Topic};

/// What can be evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Evictable {
    Value(Topic),
    History(Topic),
}

impl Evictable {
    fn app(&self) -> &str {
        match self {
            Self::Value(topic) | Self::History(topic) => topic.app(),
        }
    }
}

/// When an item was last written, and its size.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    written: u64,
    bytes: usize,
}

impl Weight {
    /// The weight of an item that was never written.
    pub(super) const NONE: Self = Self { written: 0, bytes: 0 };
}

/// The sizes of all items.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    app_bytes_max: usize,
    shares: Shares,
    /// Each app's items, by the time of the last write.
    order: HashMap<Box<str>, BTreeMap<u64, Evictable>>,
    writes: u64,
}

impl Budget {
    pub(super) fn new(bytes_max: usize, app_bytes_max: usize) -> Self {
        Self { bytes_max, app_bytes_max, shares: Shares::default(), order: HashMap::new(), writes: 0 }
    }

    /// Records a write and the item's new size.
    pub(super) fn written(&mut self, item: Evictable, weight: &mut Weight, bytes: usize) {
        self.forget(&item, *weight);
        self.writes += 1;
        *weight = Weight { written: self.writes, bytes };
        self.shares.add(item.app(), bytes);
        match self.order.get_mut(item.app()) {
            Some(order) => drop(order.insert(self.writes, item)),
            None => drop(self.order.insert(item.app().into(), BTreeMap::from([(self.writes, item)]))),
        }
    }

    /// Records a smaller size without a write.
    pub(super) fn shrunk(&mut self, app: &str, weight: &mut Weight, bytes: usize) {
        self.shares.sub(app, weight.bytes.saturating_sub(bytes));
        weight.bytes = weight.bytes.min(bytes);
    }

    /// Removes an item.
    pub(super) fn forget(&mut self, item: &Evictable, weight: Weight) {
        self.shares.sub(item.app(), weight.bytes);
        if let Some(order) = self.order.get_mut(item.app()) {
            order.remove(&weight.written);
            if order.is_empty() {
                self.order.remove(item.app());
            }
        }
    }

    /// The next item to evict after a write of `app`, and why.
    pub(super) fn gives(&self, app: &str) -> Option<(Evictable, &'static str)> {
        let (giver, why) = if self.shares.of(app) > self.app_bytes_max {
            (app.into(), "kept_by_app")
        } else if self.shares.total() > self.bytes_max {
            (self.shares.giver(app)?, "kept_by_gateway")
        } else {
            return None;
        };
        self.order.get(&giver)?.first_key_value().map(|(_, item)| (item.clone(), why))
    }

    pub(super) const fn bytes(&self) -> usize {
        self.shares.total()
    }
}
