//! Registers over a real etcd: killed, paused, restored, with users and TLS. `tests/etcd/run` installs etcd and
//! runs it.
//!
//! `cargo test -p broadgate --test etcd -- --rounds 1 [NAME...]`
//!
//! Without `--rounds` nothing runs: etcd is not everywhere.
//!
//! | file | what |
//! |---|---|
//! | `engine.rs` | an etcd cluster of processes |
//! | `cluster.rs` | registers, gateways, traffic, and what must hold |
//! | `faults.rs` | kills and pauses |
//! | `runbook.rs` | the runbook's procedures |
//! | `access.rs` | users, TLS, and what is wrong with them |

#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod cluster;
mod engine;
mod faults;
// A part of what the whole-cluster tests need.
#[allow(dead_code, unused_imports)]
#[path = "../whole/harness/mod.rs"]
mod harness;
mod runbook;

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

/// The parts. Most of their time is spent in waiting for leases to end, so those of one lane run one after the other,
/// and the lanes at the same time, each in a process of its own.
const LANES: [&[&str]; 2] = [&["faults"], &["quorum", "move", "restore", "access", "waits", "lease"]];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(at) = words.iter().position(|word| word == "--rounds") else {
        println!("this runs on demand: tests/etcd/run");
        return ExitCode::SUCCESS;
    };
    let rounds = words.get(at + 1).and_then(|word| word.parse().ok()).unwrap_or(1);
    let is_wanted = |name: &str| {
        let mut named = words.iter().filter(|word| LANES.concat().contains(&word.as_str())).peekable();
        named.peek().is_none() || named.any(|word| word == name)
    };
    let lanes = LANES.map(|lane| lane.iter().copied().filter(|name| is_wanted(name)).collect::<Vec<_>>());
    let mut lanes: Vec<_> = lanes.into_iter().filter(|lane| !lane.is_empty()).collect();
    if lanes.len() == 1 {
        lanes.remove(0).into_iter().for_each(|name| run_part(name, rounds));
        return ExitCode::SUCCESS;
    }
    let good = std::thread::scope(|scope| {
        let running: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| run_lane(lane, rounds))).collect();
        running.into_iter().all(|lane| lane.join().unwrap())
    });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs parts in another process, and prints what it printed. True if all is well.
fn run_lane(names: &[&str], rounds: u64) -> bool {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--rounds", &rounds.to_string()]).args(names).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    print!("{}{}", text(&output.stdout), text(&output.stderr));
    output.status.success()
}

fn run_part(name: &str, rounds: u64) {
    println!("{name}");
    let started = Instant::now();
    let dir = std::env::temp_dir().join(format!("broadgate-etcd-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(name, &dir, rounds));
    let _ = std::fs::remove_dir_all(&dir);
    println!("ok       {name}, {:.1?}", started.elapsed());
}

async fn run(name: &str, dir: &Path, rounds: u64) {
    match name {
        "faults" => faults::everything_is_killed_and_paused(dir, rounds).await,
        "quorum" => runbook::etcd_loses_its_quorum_and_what_the_runbook_says_is_true(dir).await,
        "move" => runbook::registers_move_from_memory_to_etcd(dir).await,
        "restore" => runbook::etcd_is_restored_from_a_backup(dir).await,
        "lease" => runbook::leader_key_without_a_lease(dir).await,
        "access" => access::users_and_tls_work_and_wrong_ones_are_named(dir).await,
        _ => access::register_waits_for_etcd(dir).await,
    }
}
