//! Limits that several clients share and that have refused somebody lately. Pure.
//!
//! Not those of one connection, such as its rates and groups: to meet these is its own doing.

use std::collections::HashMap;

use broadgate_proto::{limits::LIMITS_MET_MAX, v1};

const MINUTE_MS: u64 = 60_000;

/// Refusals of this minute and the one before, by limit and app.
#[derive(Debug, Default)]
pub(crate) struct LimitsMet {
    minute: u64,
    now: MetRows,
    before: MetRows,
}

/// By limit, then by app.
#[derive(Debug, Default)]
struct MetRows {
    rows: HashMap<&'static str, HashMap<Box<str>, MetRow>>,
    count: usize,
}

#[derive(Debug, Default)]
struct MetRow {
    refused: u64,
    /// Where it was met first in this minute.
    place: Box<str>,
}

/// The limit whose refusals have this reason, if several clients share it.
pub(crate) fn shared_limit(reason: &str) -> Option<&'static str> {
    match reason {
        "connections_max" => Some("connections_max"),
        "clients_per_ip_max" => Some("clients_per_ip_max"),
        _ => None,
    }
}

impl LimitsMet {
    /// Counts a refusal: by the limit of an app, or of all if the app is "". `place` says where: a channel, an address,
    /// or nothing. Cheap, also in a flood: it is asked once a minute.
    pub(crate) fn refused(
        &mut self,
        limit: &'static str,
        app: &str,
        place: impl FnOnce() -> Box<str>,
        now_ms: u64,
    ) {
        self.turn(now_ms);
        let apps = self.now.rows.entry(limit).or_default();
        if let Some(row) = apps.get_mut(app) {
            row.refused += 1;
        } else if self.now.count < LIMITS_MET_MAX {
            apps.insert(app.into(), MetRow { refused: 1, place: place() });
            self.now.count += 1;
        }
    }

    /// All of this minute and the one before, by limit and app.
    pub(crate) fn list(&mut self, now_ms: u64) -> Vec<v1::MetLimit> {
        self.turn(now_ms);
        let mut all: HashMap<(&str, &str), v1::MetLimit> = HashMap::new();
        for (limit, apps) in self.before.rows.iter().chain(&self.now.rows) {
            for (app, row) in apps {
                let met = all.entry((limit, app)).or_default();
                met.refused += row.refused;
                met.place = row.place.to_string();
            }
        }
        let named = |((limit, app), met): ((&str, &str), v1::MetLimit)| v1::MetLimit {
            app: app.to_owned(),
            limit: limit.to_owned(),
            ..met
        };
        let mut all: Vec<v1::MetLimit> = all.into_iter().map(named).collect();
        all.sort_unstable_by(|a, b| (&a.limit, &a.app).cmp(&(&b.limit, &b.app)));
        all
    }

    /// Forgets what is older.
    fn turn(&mut self, now_ms: u64) {
        let minute = now_ms / MINUTE_MS;
        if minute == self.minute {
            return;
        }
        let last = std::mem::take(&mut self.now);
        // Also where the clock was set back.
        self.before = if minute == self.minute + 1 { last } else { MetRows::default() };
        self.minute = minute;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(met: &mut LimitsMet, now_ms: u64) -> Vec<(String, String, u64, String)> {
        let all = met.list(now_ms).into_iter();
        all.map(|met| (met.limit, met.app, met.refused, met.place)).collect()
    }

    fn row(limit: &str, app: &str, refused: u64, place: &str) -> (String, String, u64, String) {
        (limit.to_owned(), app.to_owned(), refused, place.to_owned())
    }

    #[test]
    fn this_minute_and_the_one_before_count() {
        let mut met = LimitsMet::default();
        met.refused("connections_max", "shop", Box::default, 30_000);
        met.refused("connections_max", "shop", Box::default, 59_999);
        met.refused("clients_per_ip_max", "", || "10.0.0.1".into(), 60_000);
        met.refused("clients_per_ip_max", "", || "10.0.0.2".into(), 61_000);
        met.refused("connections_max", "shop", Box::default, 62_000);
        let both = [row("clients_per_ip_max", "", 2, "10.0.0.1"), row("connections_max", "shop", 3, "")];
        assert_eq!(listed(&mut met, 119_999), both);
        let last = [row("clients_per_ip_max", "", 2, "10.0.0.1"), row("connections_max", "shop", 1, "")];
        assert_eq!(listed(&mut met, 120_000), last);
        assert_eq!(listed(&mut met, 180_000), []);
        met.refused("connections_max", "shop", Box::default, 600_000);
        assert_eq!(listed(&mut met, 30_000), [], "a clock that was set back");
    }

    #[test]
    fn rows_are_bounded() {
        let mut met = LimitsMet::default();
        for number in 0..2 * LIMITS_MET_MAX {
            met.refused("connections_max", &number.to_string(), Box::default, 0);
        }
        met.refused("connections_max", "0", Box::default, 0);
        let all = met.list(0);
        assert_eq!((all.len(), all[0].refused), (LIMITS_MET_MAX, 2));
    }

    #[test]
    fn limits_are_reasons_of_refusals() {
        let shared = crate::recorder::REFUSAL_REASONS.into_iter().filter_map(shared_limit);
        assert_eq!(shared.collect::<Vec<_>>(), ["clients_per_ip_max", "connections_max"]);
    }
}
