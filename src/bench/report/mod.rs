//! `broadgate bench report`: the whole table, ceiling and Broadgate in turn, as one document.
//!
//! | file | what |
//! |---|---|
//! | `rows.rs` | what is measured, and what it must reach |
//! | `servers.rs` | the cluster and the ceiling, started and ended |
//! | `measure.rs` | one row: alternating runs, each a process of its own |
//! | `result.rs` | medians, ratios, verdicts |
//! | `document.rs` | the document |

mod document;
mod measure;
mod result;
mod rows;
mod servers;

use std::path::PathBuf;

use clap::Args;

use broadgate::{failure::Failure, output, say};

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// File of the report, rewritten after each row
    #[arg(long, default_value = "BENCHMARKS.md", value_name = "FILE")]
    out: PathBuf,
    /// Alternating runs of each row; the report has their medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=99))]
    runs: u8,
    /// Threads of the ceiling program [default: one per core, like a gateway's shards]
    #[arg(long)]
    ceiling_threads: Option<u16>,
    /// Only rows whose name has this prefix; repeat for several
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

pub(super) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| name.starts_with(only));
    let rows: Vec<_> = rows::all().into_iter().filter(|row| wanted(row.name)).collect();
    if rows.is_empty() {
        let names: Vec<_> = rows::all().iter().map(|row| row.name).collect();
        return Err(Failure::usage(format!("--only: the rows are {}", names.join(", "))));
    }
    let head = document::head(args.runs);
    let mut results = Vec::new();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        say!("{} of {}: {}", index + 1, rows.len(), row.name);
        let result = measure::row(row, usize::from(args.runs), args.ceiling_threads);
        say!("    {}", document::line(row, &result));
        results.push(result);
        text = format!("{head}{}", document::table(&rows, &results));
        // What was measured stands, whatever becomes of the rest.
        std::fs::write(&args.out, &text)
            .map_err(|error| Failure::usage(format!("--out {}: {error}", args.out.display())))?;
    }
    output::print(&text)
}
