//! One round of a survey: what has happened at each place since the round before, and the busiest of them. Pure.

use std::{cmp::Reverse, collections::BinaryHeap};

use broadgate_proto::limits::TOP_ROWS_MAX;

/// By each of several values, the places at which it is highest.
pub(super) struct Ranking<const N: usize>([BinaryHeap<Reverse<Ranked<N>>>; N]);

/// A place with its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ranked<const N: usize> {
    value: u64,
    pub(super) place: u32,
    pub(super) values: [u64; N],
}

impl<const N: usize> Default for Ranking<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| BinaryHeap::new()))
    }
}

impl<const N: usize> Ranking<N> {
    /// Most are not among the first by any value: that costs a comparison each.
    pub(super) fn offer(&mut self, place: u32, values: [u64; N]) {
        for (heap, value) in self.0.iter_mut().zip(values) {
            if value == 0 {
                continue;
            }
            if heap.len() < TOP_ROWS_MAX {
                heap.push(Reverse(Ranked { value, place, values }));
            } else if let Some(mut least) = heap.peek_mut()
                && least.0.value < value
            {
                *least = Reverse(Ranked { value, place, values });
            }
        }
    }

    /// Each place that is among the first by some value, once.
    pub(super) fn into_places(self) -> Vec<(u32, [u64; N])> {
        let all = self.0.into_iter().flatten();
        let mut places: Vec<_> = all.map(|Reverse(ranked)| (ranked.place, ranked.values)).collect();
        places.sort_unstable_by_key(|(place, _)| *place);
        places.dedup_by_key(|(place, _)| *place);
        places
    }
}

/// What was counted at each place in the round before. Freed with the survey.
pub(super) struct Before<T>(Vec<T>);

impl<T> Default for Before<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + Default> Before<T> {
    /// Puts the present count in place of the former one; that of a place that was not there is zero.
    pub(super) fn replace(&mut self, place: u32, now: T) -> T {
        let place = place as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, T::default());
        }
        std::mem::replace(&mut self.0[place], now)
    }

    /// Nothing is at that place now.
    pub(super) fn forget(&mut self, place: u32) {
        if let Some(before) = self.0.get_mut(place as usize) {
            *before = T::default();
        }
    }
}

/// Messages and bytes from a client and to it.
pub(super) type ClientTraffic = [u64; 4];

/// What a client has had since an earlier moment. One that has gone meanwhile may have left its place to another one,
/// whose counts are then the lower ones: all of that is new.
pub(super) fn since(now: ClientTraffic, before: ClientTraffic) -> ClientTraffic {
    let is_another = now.iter().zip(before).any(|(now, before)| *now < before);
    if is_another { now } else { std::array::from_fn(|index| now[index] - before[index]) }
}

/// So many in this time, as a rate.
pub(super) fn per_second(count: u64, measured_us: u64) -> f64 {
    if measured_us == 0 { 0.0 } else { count as f64 * 1e6 / measured_us as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_by_each_value_are_kept() {
        let mut ranking = Ranking::<2>::default();
        let count = 3 * TOP_ROWS_MAX as u32;
        for place in 0..count {
            ranking.offer(place, [u64::from(place), u64::from(count - place) * 10]);
        }
        ranking.offer(count, [0, 0]);
        let places: Vec<u32> = ranking.into_places().into_iter().map(|(place, _)| place).collect();
        let third = TOP_ROWS_MAX as u32;
        let expected: Vec<u32> = (0..third).chain(2 * third..count).collect();
        assert_eq!(places, expected);
    }

    #[test]
    fn a_place_that_is_first_by_several_values_is_named_once() {
        let mut ranking = Ranking::<3>::default();
        ranking.offer(7, [1, 2, 3]);
        ranking.offer(3, [9, 0, 0]);
        assert_eq!(ranking.into_places(), [(3, [9, 0, 0]), (7, [1, 2, 3])]);
    }

    #[test]
    fn rounds_are_compared_place_by_place() {
        let mut before = Before::default();
        assert_eq!(before.replace(2, [5, 5, 5, 5]), [0; 4]);
        assert_eq!(before.replace(2, [6, 5, 5, 9]), [5; 4]);
        before.forget(2);
        before.forget(9);
        assert_eq!(before.replace(2, [1; 4]), [0; 4]);
        assert_eq!(since([6, 5, 5, 9], [5; 4]), [1, 0, 0, 4]);
        assert_eq!(since([1, 0, 7, 0], [5; 4]), [1, 0, 7, 0], "another client");
        assert_eq!((per_second(10, 500_000), per_second(10, 0)), (20.0, 0.0));
    }
}
