//! The document.

use std::{fmt::Write as _, fs::read_to_string, time::SystemTime};

use super::{
    result::{Figures, Outcome, Verdict, figure, median},
    rows::{Goal, Row},
};

/// Machine, kernel, versions, date and command.
pub(super) fn head(runs: u8) -> String {
    let file = |path: &str| read_to_string(path).unwrap_or_default();
    let line = |path: &str, name: &str| {
        let text = file(path);
        let found = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        found.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let command: Vec<_> = std::env::args().skip(1).collect();
    format!(
        "# Benchmarks\n\n\
         Written by `broadgate bench {}`; {}, Broadgate {}, {cores} cores of {}, {} of memory, Linux {}, {} open files.\n\n\
         Everything runs on this one machine: the cluster (register, gateways, an echo worker), or the *ceiling*, and \
         the load, a single thread of which holds all clients. The ceiling is plain epoll with merged writes and no \
         protocol (`src/bench/ceiling`), on as many threads as there are cores. Messages have 128 bytes. Figures are \
         medians of {runs} alternating runs, in parentheses the least and the most. CPU is the server's processes' user \
         and system time per delivery, echo or connect. Absolute figures move from run to run on a shared machine; \
         ratios and CPU hold. [gateway/benches/FINDINGS.md](gateway/benches/FINDINGS.md) says where the time goes.\n\n",
        command.join(" "),
        humantime::format_rfc3339_seconds(SystemTime::now()),
        broadgate_proto::VERSION,
        line("/proc/cpuinfo", "model name"),
        line("/proc/meminfo", "MemTotal"),
        file("/proc/sys/kernel/osrelease").trim(),
        rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(0, |(_, hard)| hard),
    )
}

pub(super) fn table(rows: &[Row], outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| row | what | ceiling | Broadgate | ratio | target | | ceiling CPU µs | CPU µs | load CPU µs | ceiling p50 / p99 ms | p50 / p99 ms |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (row, outcome) in rows.iter().zip(outcomes) {
        let cpu = |runs: &[Figures]| optional(median(runs.iter().filter_map(|run| run.cpu_us)), 2);
        let load = median(outcome.broadgate.iter().filter_map(|run| run.load_us));
        // A string takes whatever is written to it.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.about,
            spread(row, &outcome.ceiling),
            spread(row, &outcome.broadgate),
            optional(outcome.ratio(), 2),
            goal(row),
            verdict(&outcome.verdict(row)),
            cpu(&outcome.ceiling),
            cpu(&outcome.broadgate),
            optional(load, 2),
            latency(&outcome.ceiling),
            latency(&outcome.broadgate),
        );
    }
    text
}

/// A row in short, for those who wait.
pub(super) fn line(row: &Row, outcome: &Outcome) -> String {
    format!(
        "ceiling {}, Broadgate {}, ratio {}, target {}: {}",
        spread(row, &outcome.ceiling),
        spread(row, &outcome.broadgate),
        optional(outcome.ratio(), 2),
        goal(row),
        verdict(&outcome.verdict(row))
    )
}

fn spread(row: &Row, runs: &[Figures]) -> String {
    let Some(middle) = figure(runs) else { return "–".to_owned() };
    let least = runs.iter().map(|run| run.figure).fold(f64::INFINITY, f64::min);
    let most = runs.iter().map(|run| run.figure).fold(0.0, f64::max);
    if runs.len() == 1 {
        return format!("{} {}", short(middle), row.unit);
    }
    format!("{} {} ({}–{})", short(middle), row.unit, short(least), short(most))
}

fn short(value: f64) -> String {
    match value {
        value if value >= 100_000.0 => format!("{:.0} k", value / 1000.0),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn goal(row: &Row) -> String {
    match row.goal {
        Goal::RatioMin(min) => format!("≥ {min}"),
        Goal::RatioMax(max) => format!("≤ {max}"),
        Goal::Max(max) => format!("≤ {max} {}", row.unit),
        Goal::Whole => "nothing missed".to_owned(),
        Goal::Told => "–".to_owned(),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Met => "met".to_owned(),
        Verdict::Missed => "**missed**".to_owned(),
        Verdict::Told => "–".to_owned(),
        Verdict::Void(why) => format!("void: {why}"),
        Verdict::Failed(why) => format!("**failed**: {}", why.replace(['\n', '|'], " ")),
    }
}

fn latency(runs: &[Figures]) -> String {
    let p50 = median(runs.iter().filter_map(|run| run.p50_ms));
    let p99 = median(runs.iter().filter_map(|run| run.p99_ms));
    match p50.zip(p99) {
        Some((p50, p99)) => format!("{p50:.2} / {p99:.2}"),
        None => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rows, *};

    #[test]
    fn a_table_has_a_line_for_each_row_and_as_many_cells_in_each() {
        let rows = rows::all();
        let outcomes: Vec<_> = rows.iter().map(|_| Outcome::default()).collect();
        let text = table(&rows, &outcomes);
        assert_eq!(text.lines().count(), rows.len() + 2);
        assert!(text.lines().all(|line| line.matches('|').count() == 13), "{text}");
        assert_eq!([short(1_234_567.0), short(12.345), short(0.001)], ["1235 k", "12.35", "0.0010"]);
    }
}
