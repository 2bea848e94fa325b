//! Registers over a real etcd: killed, paused, restored, with users and TLS. `tests/etcd/run` installs etcd and
//! runs it.
//!
//! `cargo test --test etcd -- --rounds 1 [NAME...]`
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

use std::{path::Path, process::ExitCode, time::Instant};

const NAMES: [&str; 6] = ["faults", "quorum", "move", "restore", "access", "waits"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(at) = words.iter().position(|word| word == "--rounds") else {
        println!("this runs on demand: tests/etcd/run");
        return ExitCode::SUCCESS;
    };
    let rounds = words.get(at + 1).and_then(|word| word.parse().ok()).unwrap_or(1);
    let wanted: Vec<&str> = words.iter().map(String::as_str).filter(|word| NAMES.contains(word)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for name in NAMES.into_iter().filter(|name| wanted.is_empty() || wanted.contains(name)) {
        println!("{name}");
        let started = Instant::now();
        let dir = std::env::temp_dir().join(format!("broadgate-etcd-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        runtime.block_on(run(name, &dir, rounds));
        let _ = std::fs::remove_dir_all(&dir);
        println!("ok       {name}, {:.1?}", started.elapsed());
    }
    ExitCode::SUCCESS
}

async fn run(name: &str, dir: &Path, rounds: u64) {
    match name {
        "faults" => faults::everything_is_killed_and_paused(dir, rounds).await,
        "quorum" => runbook::etcd_loses_its_quorum_and_what_the_runbook_says_is_true(dir).await,
        "move" => runbook::registers_move_from_memory_to_etcd(dir).await,
        "restore" => runbook::etcd_is_restored_from_a_backup(dir).await,
        "access" => access::users_and_tls_work_and_wrong_ones_are_named(dir).await,
        _ => access::register_waits_for_etcd(dir).await,
    }
}
