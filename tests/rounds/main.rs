//! Rounds: a real cluster under traffic and faults, and a table of what was broken.
//!
//! `cargo test --release -p broadgate --test rounds -- --rounds 1 --seconds 60 [--seed N] [--keep]`
//!
//! Without `--rounds` nothing runs, so that a plain `cargo test` stays short. `--keep` leaves the logs.
//! `tests/rounds/netns` runs the same in network namespaces.

#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod clients;
mod cluster;
mod driver;
mod faults;
mod ground;
// The rounds use a part of what the whole-cluster tests need.
#[allow(dead_code, unused_imports)]
#[path = "../whole/harness/mod.rs"]
mod harness;
mod joiner;
mod live;
mod network;
mod presence;
mod publishers;
mod record;
mod round;
mod seed;
mod wires;

use std::process::ExitCode;

use self::network::Network;

const USAGE: &str =
    "cargo test --release -p broadgate --test rounds -- --rounds 1 --seconds 60 [--seed N] [--keep]";
const SECONDS_DEFAULT: u64 = 60;
/// Shorter rounds have no time for any fault.
const SECONDS_MIN: u64 = 20;

struct Arguments {
    rounds: u64,
    seconds: u64,
    seed: u64,
    keep: bool,
    network: Network,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("rounds run on demand: {USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}: {USAGE}");
            return ExitCode::from(2);
        }
    };
    // One thread: the load generator must leave the machine to the gateways.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut tallies = Vec::new();
    for round in 0..arguments.rounds {
        let seed = arguments.seed + round;
        println!(
            "round {} of {}: --rounds 1 --seconds {} --seed {seed}",
            round + 1,
            arguments.rounds,
            arguments.seconds
        );
        let dir = std::env::temp_dir().join(format!("broadgate-rounds-{}-{seed}", std::process::id()));
        let record =
            runtime.block_on(round::run(seed, arguments.seconds, arguments.network.clone(), dir.clone()));
        let tally = check::tally(&record);
        for (cell, example) in &tally.examples {
            println!("{cell}: {example}");
        }
        if arguments.keep {
            println!("logs: {}", dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&dir);
        }
        println!("{}\n", check::render(std::slice::from_ref(&tally)));
        tallies.push(tally);
    }
    if tallies.len() > 1 {
        println!("{}", check::render(&tallies));
    }
    if tallies.iter().all(check::Tally::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// None without `--rounds`: whatever else `cargo test` passes to its tests is not for us.
fn arguments(words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let words: Vec<String> = words.collect();
    if !words.iter().any(|word| word == "--rounds") {
        return Ok(None);
    }
    // Another seed each day, printed so that it can be repeated.
    let day = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() / 86_400;
    let mut arguments = Arguments {
        rounds: 1,
        seconds: SECONDS_DEFAULT,
        seed: day * 1000,
        keep: false,
        network: Network::Loopback,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            value.parse::<u64>().map_err(|error| format!("{word} {value:?}: {error}"))
        };
        match word.as_str() {
            "--rounds" => arguments.rounds = number()?,
            "--seconds" => arguments.seconds = number()?.max(SECONDS_MIN),
            "--seed" => arguments.seed = number()?,
            "--namespaces" => arguments.network = Network::Namespaces(words.next().unwrap_or_default()),
            "--keep" => arguments.keep = true,
            other => return Err(format!("{other:?} is not known")),
        }
    }
    Ok(Some(arguments))
}
