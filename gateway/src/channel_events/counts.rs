//! How often subscribers are told how many they are. Pure.

use std::{collections::HashMap, time::Duration};

use broadgate_topics::Topic;

/// Channels with more subscribers than this are told less often, as the hosted service does.
const CROWD: u64 = 100;
/// So often at most.
const INTERVAL: Duration = Duration::from_secs(5);

/// The crowded channels that were told lately, and what they have not been told yet.
#[derive(Debug, Default)]
pub(super) struct Counts(HashMap<Topic, (Duration, Option<u64>)>);

impl Counts {
    /// A channel has so many subscribers now. True if they are to be told at once.
    pub(super) fn note(&mut self, topic: &Topic, count: u64, now: Duration) -> bool {
        if count <= CROWD {
            self.0.remove(topic);
            return true;
        }
        match self.0.get_mut(topic) {
            Some((_, waiting)) => {
                *waiting = Some(count);
                false
            }
            None => {
                self.0.insert(topic.clone(), (now, None));
                true
            }
        }
    }

    /// Channels that are to be told now. Those that have nothing new for an interval are forgotten.
    pub(super) fn due(&mut self, now: Duration) -> Vec<(Topic, u64)> {
        let mut due = Vec::new();
        self.0.retain(|topic, (told, waiting)| {
            if now < *told + INTERVAL {
                return true;
            }
            *told = now;
            let count = waiting.take();
            due.extend(count.map(|count| (topic.clone(), count)));
            count.is_some()
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_told_every_five_seconds_and_the_newest_counts() {
        let (mut counts, topic) = (Counts::default(), Topic::group("a", "x"));
        let at = Duration::from_secs;
        assert!(counts.note(&topic, 100, at(0)) && counts.note(&topic, 99, at(0)));
        assert!(counts.note(&topic, 101, at(0)));
        assert!(!counts.note(&topic, 102, at(1)) && !counts.note(&topic, 103, at(2)));
        assert!(counts.due(at(4)).is_empty());
        assert_eq!(counts.due(at(5)), [(topic.clone(), 103)]);
        assert!(counts.due(at(10)).is_empty() && counts.0.is_empty());
        assert!(counts.note(&topic, 101, at(11)) && counts.note(&topic, 7, at(11)));
        assert!(counts.due(at(20)).is_empty(), "what was said since counts");
    }
}
