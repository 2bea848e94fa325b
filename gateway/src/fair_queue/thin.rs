//! What a full inbox drops. Pure.
//!
//! 1. Apps share the capacity equally; others may use what one does not need. Only an app that uses more than
//!    its share loses anything.
//! 2. Within an app, signed channels have one half and public ones, which anybody may open, the other,
//!    by the same rule. So a client that has only the app's public key cannot displace facts of signed channels.
//! 3. In a half that is too full, superseded items are dropped first: a channel (or a user in it) that came
//!    and went, and all counts but the newest. That loses nothing.
//! 4. Then the oldest items of the channels that have most. A channel's state is dropped last, and among equals
//!    beginnings before ends: a receiver that misses an end would believe for ever that the channel is occupied.

use std::collections::{HashMap, VecDeque};

use broadgate_pusher::channel::{Access, ChannelKind};

use crate::fair_queue::item::{QueueItem, Says, cost};

/// Channels whose items cost no more than this together count as equal, whatever their names' lengths.
const RANK_BYTES: usize = 1024;

/// How many items were dropped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thinned {
    /// Dropped because the queue was full.
    pub(crate) full: u64,
    /// Superseded by a later item: nothing is lost.
    pub(crate) undone: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ThinVerdict {
    Stays,
    Undone,
    Full,
}

/// Drops items until the rest costs at most `bytes_max`.
pub(super) fn thin<T: QueueItem>(items: &mut VecDeque<T>, bytes_max: usize) -> Thinned {
    let verdicts = judge(items, bytes_max);
    let count = |verdict| verdicts.iter().filter(|one| **one == verdict).count() as u64;
    let thinned = Thinned { full: count(ThinVerdict::Full), undone: count(ThinVerdict::Undone) };
    let mut verdicts = verdicts.into_iter();
    items.retain(|_| verdicts.next() == Some(ThinVerdict::Stays));
    thinned
}

fn judge<T: QueueItem>(items: &VecDeque<T>, bytes_max: usize) -> Vec<ThinVerdict> {
    let mut verdicts = vec![ThinVerdict::Stays; items.len()];
    let mut apps: HashMap<&str, [AppShare<'_, T>; 2]> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        let Some((app, channel)) = item.about() else { continue };
        let signed = usize::from(ChannelKind::of(channel).access != Access::Public);
        let part = &mut apps.entry(app).or_default()[signed];
        part.cost += cost(item);
        part.items.push((place, channel, item));
    }
    let share = level(apps.values().map(|parts| parts[0].cost + parts[1].cost).collect(), bytes_max);
    for parts in apps.into_values() {
        if parts[0].cost + parts[1].cost <= share {
            continue;
        }
        let half = level(parts.iter().map(|part| part.cost).collect(), share);
        for part in parts {
            part.fit(half, &mut verdicts);
        }
    }
    verdicts
}

/// The largest share such that all together fit into `room`: those that need less leave the rest to others.
fn level(mut needs: Vec<usize>, mut room: usize) -> usize {
    needs.sort_unstable();
    let mut left = needs.len();
    for need in needs {
        if need > room / left {
            return room / left;
        }
        room -= need;
        left -= 1;
    }
    usize::MAX
}

/// An app's items of signed, or of public channels: place, channel, item, in order.
struct AppShare<'a, T> {
    cost: usize,
    items: Vec<(usize, &'a str, &'a T)>,
}

impl<T> Default for AppShare<'_, T> {
    fn default() -> Self {
        Self { cost: 0, items: Vec::new() }
    }
}

/// Items that later ones supersede.
#[derive(PartialEq, Eq, Hash)]
enum ItemSubject<'a> {
    There(Option<&'a str>),
    Newest(&'static str),
}

impl<T: QueueItem> AppShare<'_, T> {
    fn fit(mut self, room: usize, verdicts: &mut [ThinVerdict]) {
        if self.cost <= room {
            return;
        }
        for place in self.undone() {
            verdicts[place] = ThinVerdict::Undone;
        }
        self.items.retain(|(place, ..)| verdicts[*place] == ThinVerdict::Stays);
        let mut left = room;
        for (place, cost) in self.ranked() {
            // What is behind one that does not fit may still fit, but then the oldest of a loud channel would
            // stay where newer ones go.
            left = left.saturating_sub(cost);
            if left == 0 {
                verdicts[place] = ThinVerdict::Full;
            }
        }
    }

    /// The state at the end that a receiver must learn, whatever it believed before; none if that equals the
    /// state before.
    fn undone(&self) -> Vec<usize> {
        let mut subjects: HashMap<(&str, ItemSubject<'_>), Vec<(usize, bool)>> = HashMap::new();
        for (place, channel, item) in &self.items {
            let (subject, begins) = match item.says() {
                Says::Begins(user) => (ItemSubject::There(user), true),
                Says::Ends(user) => (ItemSubject::There(user), false),
                Says::Newest(kind) => (ItemSubject::Newest(kind), true),
                Says::Once => continue,
            };
            subjects.entry((channel, subject)).or_default().push((*place, begins));
        }
        let mut undone = Vec::new();
        for said in subjects.into_values() {
            let came_back = said.first().map(|one| one.1) != said.last().map(|one| one.1);
            let stays = usize::from(!came_back);
            undone.extend(said[..said.len() - stays].iter().map(|(place, _)| *place));
        }
        undone
    }

    /// Places and costs, sorted so that what is kept comes first.
    fn ranked(&self) -> Vec<(usize, usize)> {
        let mut behind: HashMap<&str, usize> = HashMap::new();
        let mut ranked: Vec<_> = self
            .items
            .iter()
            .rev()
            .map(|(place, channel, item)| {
                let (says, cost) = (item.says(), cost(*item));
                let is_state = matches!(says, Says::Begins(None) | Says::Ends(None));
                let newer = behind.entry(channel).or_default();
                if !is_state {
                    *newer += cost;
                }
                let rank = if is_state { 0 } else { *newer / RANK_BYTES };
                ((rank, !matches!(says, Says::Ends(_)), *place), (*place, cost))
            })
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, it)| it).collect()
    }
}
