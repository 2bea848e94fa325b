//! The shortest script that still fails in the same way.

use std::time::{Duration, Instant};

use super::{bugs::Bug, run, script::Script};

/// Leaves out steps for as long as the same rule is broken.
pub fn shrink(script: &Script, bug: Option<Bug>, rule: u32, time: Duration) -> Script {
    let until = Instant::now() + time;
    let mut best = script.clone();
    let fails = |script: &Script| run(script, bug).violations.iter().any(|violation| violation.rule == rule);
    let mut chunk = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shorter = false;
        while from < best.steps.len() && Instant::now() < until {
            let mut tried = best.clone();
            tried.steps.drain(from..(from + chunk).min(best.steps.len()));
            if fails(&tried) {
                best = tried;
                shorter = true;
            } else {
                from += chunk;
            }
        }
        if Instant::now() >= until || chunk == 1 && !shorter {
            return best;
        }
        if !shorter || chunk > best.steps.len() {
            chunk = chunk.div_ceil(2).max(1);
        }
    }
}
