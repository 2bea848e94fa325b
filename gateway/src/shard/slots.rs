//! The clients of one shard by their place. A place may be taken before its client is connected, so
//! that a handshake already has a client id; a freed place is used again under another key.

pub(crate) struct Slots<T> {
    entries: Vec<Option<Box<T>>>,
    free: Vec<Slot>,
    len: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slots<T> {
    /// None if all `max` places are taken.
    pub(crate) fn insert(&mut self, entry: T, max: u32) -> Option<Slot> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.entries.len()).ok().filter(|&slot| slot < max)?;
                self.entries.push(None);
                slot
            }
        };
        self.entries[slot as usize] = Some(Box::new(entry));
        self.len += 1;
        Some(slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<T>> {
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.len -= 1;
        Some(entry)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&T> {
        self.entries.get(slot as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.entries.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Every taken place is below this one.
    pub(crate) fn places(&self) -> Slot {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Every taken place, in order.
    pub(crate) fn taken(&self) -> Vec<Slot> {
        self.iter().map(|(slot, _)| slot).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        (0u32..).zip(&self.entries).filter_map(|(slot, entry)| Some((slot, entry.as_deref()?)))
    }
}

/// A client's place in its shard.
pub(crate) type Slot = u32;
