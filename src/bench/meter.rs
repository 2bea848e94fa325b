//! What processes have used, as the system tells it.

use super::engine::cpu_ns;
use broadgate::failure::Failure;

/// Of the user and system time in `/proc`, on every Linux that we know.
const TICKS_PER_S: f64 = 100.0;

/// CPU time from now on: the server's processes' and our own.
pub(super) struct Meter<'a> {
    pids: &'a [u32],
    server_s: f64,
    /// Processes that are part of the load.
    parts: Vec<u32>,
    parts_s: f64,
    own_ns: u64,
}

/// What was used meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    /// None without a process to look at.
    pub(super) server_cpu_s: Option<f64>,
    pub(super) load_cpu_s: f64,
}

impl<'a> Meter<'a> {
    pub(super) fn start(pids: &'a [u32], parts: Vec<u32>) -> Result<Self, Failure> {
        Ok(Self { pids, server_s: cpu_s(pids)?, parts_s: cpu_s(&parts)?, parts, own_ns: cpu_ns() })
    }

    pub(super) fn read(&self) -> Result<Used, Failure> {
        let server = cpu_s(self.pids)? - self.server_s;
        let own = cpu_ns().saturating_sub(self.own_ns) as f64 / 1e9;
        let load_cpu_s = own + cpu_s(&self.parts)? - self.parts_s;
        Ok(Used { server_cpu_s: (!self.pids.is_empty()).then_some(server), load_cpu_s })
    }
}

fn cpu_s(pids: &[u32]) -> Result<f64, Failure> {
    let one = |pid: &u32| {
        let path = format!("/proc/{pid}/stat");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("--pid {pid}: {error}")))?;
        ticks(&text).ok_or_else(|| Failure::Failed(format!("{path} does not tell its times")))
    };
    let ticks: Result<Vec<u64>, _> = pids.iter().map(one).collect();
    Ok(ticks?.iter().sum::<u64>() as f64 / TICKS_PER_S)
}

/// User and system time in a process's `stat`, behind its name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Anonymous memory of processes in KiB, which is what they allocated.
pub(super) fn memory_kib(pids: &[u32]) -> Result<u64, Failure> {
    let mut sum = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("--pid {pid}: {error}")))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        sum += kib.ok_or_else(|| Failure::Failed(format!("{path} does not tell RssAnon")))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_behind_a_name_that_may_hold_anything() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0 3 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("12 (a) S 1"), None);
    }
}
