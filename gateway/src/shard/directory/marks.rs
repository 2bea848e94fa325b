//! Which clients were met. Pure.

use crate::shard::slots::Slot;

/// Marks clients that were already met while one audience is evaluated.
#[derive(Default)]
pub(super) struct Marks {
    of: Vec<u32>,
    now: u32,
}

impl Marks {
    pub(super) fn start(&mut self, slots: usize) {
        if self.of.len() < slots {
            self.of.resize(slots, 0);
        }
        self.now = self.now.wrapping_add(1);
        if self.now == 0 {
            self.of.fill(0);
            self.now = 1;
        }
    }

    /// Is this the first time that this client is met?
    pub(super) fn first(&mut self, slot: Slot) -> bool {
        let Some(mark) = self.of.get_mut(slot as usize) else { return false };
        std::mem::replace(mark, self.now) != self.now
    }

    pub(super) fn all(&mut self, slots: &[Slot]) {
        for &slot in slots {
            self.first(slot);
        }
    }
}
