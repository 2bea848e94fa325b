//! A leader's key without a lease. It does not go with any register, so none is elected while it is there. Pure.

use broadgate_proto::limits::{LEDGER_LEASE, LEDGER_ORPHAN_SAY};
use tokio::time::Instant;

/// What is known of such a key.
#[derive(Debug, Default)]
pub(super) struct Orphan {
    since: Option<Instant>,
    said: Option<Instant>,
}

/// What to make of such a key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// No register leads.
    pub is_orphan: bool,
    /// It has to be said.
    pub is_news: bool,
}

impl Orphan {
    /// It is there. A leader whose key was overwritten writes it again within a lease; later there is no leader.
    pub fn seen(&mut self, now: Instant) -> Seen {
        let is_orphan = now >= *self.since.get_or_insert(now) + LEDGER_LEASE;
        let is_news = is_orphan && self.said.is_none_or(|said| now >= said + LEDGER_ORPHAN_SAY);
        if is_news {
            self.said = Some(now);
        }
        Seen { is_orphan, is_news }
    }

    /// There is none, or it has a lease.
    pub const fn gone(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn key_without_lease_is_reported_once_a_minute_after_a_lease() {
        let (mut orphan, start) = (Orphan::default(), Instant::now());
        let seen = |is_orphan, is_news| Seen { is_orphan, is_news };
        assert_eq!(orphan.seen(start), seen(false, false), "its leader may write it again");
        let late = start + LEDGER_LEASE;
        assert_eq!(orphan.seen(late), seen(true, true));
        assert_eq!(orphan.seen(late + Duration::from_secs(1)), seen(true, false));
        assert_eq!(orphan.seen(late + LEDGER_ORPHAN_SAY), seen(true, true));
        orphan.gone();
        let again = late + 2 * LEDGER_ORPHAN_SAY;
        assert_eq!(orphan.seen(again), seen(false, false));
        assert_eq!(orphan.seen(again + LEDGER_LEASE), seen(true, true));
    }
}
