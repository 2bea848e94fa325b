//! Rate of subscription counts for subscribers. Pure.

use std::{collections::HashMap, time::Duration};

use broadgate_topics::Topic;

/// Channels with more subscribers than this get counts less often, as with the hosted service.
const CROWD: u64 = 100;
/// The least interval.
const INTERVAL: Duration = Duration::from_secs(5);

/// The large channels with a recent count, and their pending counts.
#[derive(Debug, Default)]
pub(super) struct LargeChannels(HashMap<Topic, (Duration, Option<u64>)>);

impl LargeChannels {
    /// Records a channel's number of subscribers. True if it must be sent at once.
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

    /// The channels whose counts are due. Those without a change for an interval are forgotten.
    pub(super) fn due(&mut self, now: Duration) -> Vec<(Topic, u64)> {
        let mut due = Vec::new();
        self.0.retain(|topic, (sent_at, waiting)| {
            if now < *sent_at + INTERVAL {
                return true;
            }
            *sent_at = now;
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
    fn large_channel_gets_the_newest_count_every_five_seconds() {
        let (mut counts, topic) = (LargeChannels::default(), Topic::group("a", "x"));
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
