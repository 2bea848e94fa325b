//! (17) In a calm life a receipt is incomplete only because a gateway has ended, never because one joins.

use std::{collections::BTreeMap, time::Duration};

use super::{
    checker::Found,
    history::{CmdNo, Fact, Outcome, Record},
};

/// From a gateway's end until it is in no view and nobody waits for it: a lease, and what is parked and repeated
/// meanwhile.
const REMEMBERED: Duration = Duration::from_secs(15);

pub fn check(history: &[Record], found: &mut Found) {
    let mut made: BTreeMap<CmdNo, Duration> = BTreeMap::new();
    let mut ended: Option<Duration> = None;
    for Record { now, fact } in history {
        match fact {
            Fact::Ended { .. } => ended = Some(*now),
            Fact::Made { cmd, .. } => drop(made.entry(*cmd).or_insert(*now)),
            Fact::Answered { cmd, outcome: Outcome::Receipt { complete: false, .. }, .. } => {
                let since = made.get(cmd).copied().unwrap_or_default().saturating_sub(REMEMBERED);
                if ended.is_none_or(|ended| ended < since) {
                    let seconds = now.as_secs_f64();
                    found.add(
                        17,
                        format!("{cmd}, answered at {seconds:.3} s, is incomplete, and nobody has ended"),
                    );
                }
            }
            _ => {}
        }
    }
}
