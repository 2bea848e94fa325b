//! Who is logged in. Pure: it takes the time, and the keys, which are random, from outside.

use std::{collections::HashMap, time::Instant};

use broadgate_proto::limits::{DASHBOARD_IDLE_TIME_MAX, DASHBOARD_SESSION_TIME_MAX, DASHBOARD_SESSIONS_MAX};

/// The sessions of a dashboard, by their keys. In memory only: a restart logs everybody out.
#[derive(Debug)]
pub(super) struct Sessions<V> {
    all: HashMap<String, VisitorSession<V>>,
}

#[derive(Debug)]
struct VisitorSession<V> {
    visitor: V,
    began: Instant,
    used: Instant,
}

impl<V> VisitorSession<V> {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) >= DASHBOARD_IDLE_TIME_MAX
            || now.duration_since(self.began) >= DASHBOARD_SESSION_TIME_MAX
    }
}

impl<V> Default for Sessions<V> {
    fn default() -> Self {
        Self { all: HashMap::new() }
    }
}

impl<V: Clone> Sessions<V> {
    /// Begins a session. If there are too many, the one that was not used for the longest time ends.
    pub(super) fn open(&mut self, key: String, visitor: V, now: Instant) {
        self.all.retain(|_, session| !session.is_over(now));
        if self.all.len() >= DASHBOARD_SESSIONS_MAX {
            let oldest = self.all.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.all.remove(&key));
        }
        self.all.insert(key, VisitorSession { visitor, began: now, used: now });
    }

    /// Whose session this is. It counts as used.
    pub(super) fn used(&mut self, key: &str, now: Instant) -> Option<V> {
        let session = self.all.get_mut(key)?;
        if session.is_over(now) {
            self.all.remove(key);
            return None;
        }
        session.used = now;
        Some(session.visitor.clone())
    }

    /// Whether there is such a session. It does not count as used.
    pub(super) fn has(&self, key: &str, now: Instant) -> bool {
        self.all.get(key).is_some_and(|session| !session.is_over(now))
    }

    pub(super) fn close(&mut self, key: &str) {
        self.all.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn session_ends_when_idle_and_after_its_time() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        sessions.open("a".into(), 1, start);
        let idle = start + DASHBOARD_IDLE_TIME_MAX;
        assert_eq!(sessions.used("a", idle.checked_sub(SECOND).unwrap()), Some(1));
        assert_eq!(sessions.used("a", idle), Some(1), "it was used a second ago");
        assert!(sessions.has("a", idle));
        assert!(!sessions.has("a", idle + DASHBOARD_IDLE_TIME_MAX), "to be asked for is no use");
        assert_eq!(sessions.used("a", idle + DASHBOARD_IDLE_TIME_MAX), None);
        sessions.open("b".into(), 2, start);
        let mut now = start;
        while now < start + DASHBOARD_SESSION_TIME_MAX {
            assert_eq!(sessions.used("b", now), Some(2));
            now += DASHBOARD_IDLE_TIME_MAX / 2;
        }
        assert_eq!(sessions.used("b", now), None, "however much it is used");
    }

    #[test]
    fn newcomer_ends_the_session_that_was_unused_for_longest() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        for number in 0..DASHBOARD_SESSIONS_MAX {
            sessions.open(number.to_string(), number, start + SECOND * u32::try_from(number).unwrap());
        }
        let later = start + SECOND * 100;
        assert_eq!(sessions.used("0", later), Some(0));
        sessions.open("new".into(), 99, later);
        assert_eq!(sessions.all.len(), DASHBOARD_SESSIONS_MAX);
        assert!(sessions.has("0", later) && !sessions.has("1", later) && sessions.has("new", later));
    }

    #[test]
    fn closed_or_unknown_session_is_nobodys() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.open("a".into(), 1, now);
        assert_eq!(sessions.used("b", now), None);
        sessions.close("a");
        assert_eq!(sessions.used("a", now), None);
    }
}
