//! Clients in other processes, where one may not have as many open files as there are clients.
//!
//! A part is this executable again, with the same flags. It connects its share of the clients, and
//! tells on its standard output, line by line: `live` and who its clients are, `done` and the number
//! of each message that all clients of one of its threads have, and at last `tally` and its counts.
//! It ends when its standard input does, so with the process that started it.

use std::{
    io::{BufRead as _, BufReader, Lines},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use broadgate::failure::Failure;
use serde::{Deserialize, Serialize};

use crate::engine::{plan::Plan, tally::Tally};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(120);
const END_TIME_MAX: Duration = Duration::from_secs(30);

/// Who the clients of a part are.
#[derive(Serialize, Deserialize)]
pub(super) struct Live {
    /// Threads with clients in each group, and how many.
    pub(super) receivers: Vec<(u32, u64)>,
    pub(super) locals: Vec<(SocketAddr, u32)>,
}

/// A process with some of the clients.
pub(super) struct Part {
    child: Child,
    pub(super) live: Live,
    tally: mpsc::Receiver<Tally>,
}

impl Drop for Part {
    fn drop(&mut self) {
        // It has ended, or shall not go on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts all parts, and waits until all of their clients are connected.
pub(super) fn start(plan: &Arc<Plan>, count: usize) -> Result<Vec<Part>, Failure> {
    let mut started = Vec::new();
    for index in 0..count {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args().skip(1))
            .arg(format!("--part={index}/{count}/{}", std::process::id()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let Some(out) = child.stdout.take() else {
            return Err(Failure::Failed("a part has no output".to_owned()));
        };
        let (told, live) = mpsc::channel();
        let (counted, tally) = mpsc::channel();
        let plan = Arc::clone(plan);
        std::thread::spawn(move || listen(BufReader::new(out).lines(), &plan, &told, &counted));
        started.push((child, live, tally));
    }
    let mut parts = Vec::new();
    for (child, live, tally) in started {
        let live = live.recv_timeout(CONNECT_TIME_MAX);
        let live = live.map_err(|_| Failure::Failed("a part could not connect: see above".to_owned()))?;
        parts.push(Part { child, live, tally });
    }
    Ok(parts)
}

/// Until the part has ended.
fn listen(
    lines: Lines<BufReader<ChildStdout>>,
    plan: &Plan,
    live: &mpsc::Sender<Live>,
    tally: &mpsc::Sender<Tally>,
) {
    for line in lines.map_while(Result::ok) {
        let (what, rest) = line.split_once(' ').unwrap_or((&line, ""));
        // The receiver has given up if it is gone.
        match what {
            "done" => done_elsewhere(plan, rest),
            "live" => drop(serde_json::from_str(rest).map(|told| live.send(told).is_ok())),
            "tally" => drop(serde_json::from_str(rest).map(|counted| tally.send(counted).is_ok())),
            _ => {}
        }
    }
}

fn done_elsewhere(plan: &Plan, number: &str) {
    if number.parse().is_ok_and(|number| plan.window.received(number)) {
        plan.window.wake();
    }
}

impl Part {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end; its counts.
    pub(super) fn end(&mut self) -> Result<Tally, Failure> {
        drop(self.child.stdin.take());
        let tally = self.tally.recv_timeout(END_TIME_MAX);
        tally.map_err(|_| Failure::Failed("a part has not told its counts".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::share::Share;

    #[test]
    fn a_share_is_told_in_three_numbers() {
        assert_eq!("1/4/77".parse(), Ok(Share { index: 1, count: 4, run: 77 }));
        assert!(["4/4/1", "1/2", "a/b/c"].iter().all(|text| text.parse::<Share>().is_err()));
    }

    #[test]
    fn counts_are_the_same_in_another_process() {
        let mut tally = Tally::new().unwrap();
        (tally.delivered, tally.lost) = (7, 3);
        [1_000, 1_000, 2_000_000].into_iter().for_each(|nanos| tally.latency.saturating_record(nanos));
        let text = serde_json::to_string(&tally).unwrap();
        let other: Tally = serde_json::from_str(&text).unwrap();
        assert_eq!((other.delivered, other.lost, other.latency.len()), (7, 3, 3));
        assert_eq!(other.latency.value_at_quantile(0.5), tally.latency.value_at_quantile(0.5));
    }
}
