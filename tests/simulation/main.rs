//! Whole clusters in virtual time, from a seed: the pure cores of gateways and register, simulated
//! links, shards, clients and callers, and a checker that reads what happened.
//!
//! `cargo test -p broadgate --test simulation` runs some seeds, the planted bugs and the checker's own tests.
//! `cargo test --release -p broadgate --test simulation -- --seeds 5000 [--from N]` runs more of them,
//! `-- --seed N --trace` one, with all that happens in it; `--bug NAME` plants a bug.
//!
//! | file | what |
//! |---|---|
//! | `script.rs`, `misfortune.rs`, `deeds.rs` | what people, callers and misfortune do |
//! | `world.rs`, `net.rs` | virtual time, connections |
//! | `gateway.rs`, `links.rs`, `shards.rs`, `calls.rs` | what is around the core of a gateway's homes |
//! | `register.rs` | the register, and membership |
//! | `ledger.rs` | the ledger of several registers |
//! | `caller.rs` | callers, as an SDK is |
//! | `history.rs`, `model.rs`, `checker.rs`, `presence.rs`, `convergence.rs`, `reports.rs`, `entering.rs`, `halves.rs`, `chain.rs` | what happened, and what must hold |
//! | `bugs.rs`, `shrink.rs` | planted bugs; the shortest script that fails |
//! | `regressions.rs`, `checked.rs` | scripts that failed once; the checker's own tests |

mod bugs;
mod caller;
mod calls;
mod chain;
mod checked;
mod checker;
mod convergence;
mod deeds;
mod entering;
mod gateway;
mod halves;
mod history;
mod ledger;
mod links;
mod misfortune;
mod model;
mod net;
mod options;
mod presence;
mod register;
mod regressions;
mod reports;
mod rng;
mod script;
mod shards;
mod shrink;
mod world;

use std::{
    collections::BTreeMap,
    hash::Hasher as _,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bugs::Bug;
use checker::{Tally, Violation};
use history::History;
use options::Options;
use script::Script;
use world::{Trace, World};

/// What came of a run.
struct Outcome {
    history: History,
    violations: Vec<Violation>,
    tally: Tally,
}

/// Runs a script; a panic is a violation too.
fn run(script: &Script, bug: Option<Bug>) -> Outcome {
    traced(script, bug, Trace::default()).0
}

fn traced(script: &Script, bug: Option<Bug>, trace: Trace) -> (Outcome, u64) {
    let mut world = World::new(script.clone(), bug, trace);
    let panic = catch_unwind(AssertUnwindSafe(|| world.run()));
    let (mut violations, tally) = checker::check(&world.history, script.calm, script.is_rolling());
    if let Err(panic) = panic {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        violations.insert(0, Violation { rule: 0, text: format!("it panicked: {text}") });
    }
    let hash = world.trace.hash.finish();
    (Outcome { history: world.history, violations, tally }, hash)
}

/// What many seeds came to.
#[derive(Default)]
struct Summary {
    seeds: u64,
    tally: Tally,
    failed: BTreeMap<u64, Vec<Violation>>,
}

/// Runs seeds on all processors, until the time is over or enough have failed.
fn run_seeds(
    script: fn(u64) -> Script,
    from: u64,
    count: u64,
    time: Duration,
    bug: Option<Bug>,
    failures_max: usize,
) -> Summary {
    let next = AtomicU64::new(from);
    let summary = Mutex::new(Summary::default());
    let until = Instant::now() + time;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || Instant::now() >= until {
                        return;
                    }
                    let outcome = run(&script(seed), bug);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.seeds += 1;
                    summary.tally.add(&outcome.tally);
                    if !outcome.violations.is_empty() {
                        summary.failed.insert(seed, outcome.violations);
                        if summary.failed.len() >= failures_max {
                            return next.store(u64::MAX / 2, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn main() -> ExitCode {
    let options = match Options::of(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        return ExitCode::SUCCESS;
    }
    let good = match options.seed {
        Some(seed) => one_seed(seed, &options),
        None => many_seeds(&options),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one_seed(seed: u64, options: &Options) -> bool {
    let trace = Trace { on: options.trace, print: options.trace, ..Trace::default() };
    let script = match options {
        Options { calm: true, .. } => Script::calm(seed),
        Options { rolling: true, .. } => Script::rolling(seed),
        Options { two_registers: true, .. } => Script::two_registers(seed),
        Options { ledger: true, .. } => Script::ledger(seed),
        _ => Script::of(seed),
    };
    let (outcome, _) = traced(&script, options.bug, trace);
    println!("seed {seed}: {:?}", outcome.tally);
    report(seed, &script, &outcome.violations, options)
}

fn many_seeds(options: &Options) -> bool {
    let mut good = true;
    if options.bug.is_none() && options.own_tests {
        good &= checked::all() & regressions::all();
    }
    if let Some(bug) = options.bug {
        return good & family(bug.name(), bug.script(), options.seeds, options);
    }
    let all = !options.calm && !options.rolling && !options.two_registers && !options.ledger;
    if all {
        good &= family("", Script::of, options.seeds, options);
    }
    if all || options.calm {
        good &= family(" calm", Script::calm, options.seeds.div_ceil(4), options);
    }
    if all || options.rolling {
        good &= family(" rolling", Script::rolling, options.seeds.div_ceil(8), options);
    }
    if all || options.two_registers {
        good &= family(" two-register", Script::two_registers, options.seeds.div_ceil(4), options);
    }
    if all || options.ledger {
        good &= family(" ledger", Script::ledger, options.seeds.div_ceil(2), options);
    }
    if options.own_tests {
        good &= planted(options);
    }
    good
}

/// Runs seeds of one kind of life.
fn family(name: &str, script: fn(u64) -> Script, seeds: u64, options: &Options) -> bool {
    let started = Instant::now();
    let summary = run_seeds(script, options.from, seeds, options.time, options.bug, 20);
    let Summary { seeds, tally, failed } = &summary;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{seeds}{name} seeds in {seconds:.1} s, {:.0} per second: {} failed",
        *seeds as f64 / seconds,
        failed.len()
    );
    println!("{tally:?}");
    if options.by_rule {
        for (seed, violations) in failed {
            println!("seed {seed}: {:?}", violations[0]);
        }
    }
    match failed.first_key_value() {
        Some((seed, violations)) => report(*seed, &script(*seed), violations, options),
        None => true,
    }
}

/// Each planted bug is found by the seeds that are run, or by its own.
fn planted(options: &Options) -> bool {
    let mut good = true;
    for bug in Bug::ALL {
        // Where fewer seeds are run than it takes to find it, the one that does is looked at.
        let search = options.search && (options.from..options.from + options.seeds).contains(&bug.seed());
        let (from, seeds) = if search { (options.from, options.seeds) } else { (bug.seed(), 1) };
        let summary = run_seeds(bug.script(), from, seeds, options.time, Some(bug), 1);
        match summary.failed.first_key_value() {
            Some((seed, violations)) => {
                println!(
                    "planted {}: found at seed {seed}: ({}) {}",
                    bug.name(),
                    violations[0].rule,
                    violations[0].text
                );
            }
            None => {
                println!("planted {}: NOT FOUND by {} seeds", bug.name(), summary.seeds);
                good = false;
            }
        }
    }
    good
}

/// Prints what is wrong with a seed, and the shortest script in which it is.
fn report(seed: u64, script: &Script, violations: &[Violation], options: &Options) -> bool {
    let Some(first) = violations.first() else { return true };
    println!("seed {seed} FAILED:");
    for violation in violations {
        println!("  ({}) {}", violation.rule, violation.text);
    }
    if !options.shrink {
        return false;
    }
    let shortest = shrink::shrink(script, options.bug, first.rule, options.shrink_time);
    println!("the shortest script found ({} of {} steps):", shortest.steps.len(), script.steps.len());
    println!("{shortest}");
    let trace = Trace { on: options.trace, print: options.trace, ..Trace::default() };
    for violation in traced(&shortest, options.bug, trace).0.violations {
        println!("  ({}) {}", violation.rule, violation.text);
    }
    false
}
