//! `broadgate`: every role of a cluster, a supervisor that runs a whole one, and the operator's
//! commands. One executable, so that operators copy one file; the roles are separate processes.

// `say!` in place of `eprintln!`, `operate::print` in place of `print!`: those panic when nobody reads.
#![warn(clippy::print_stderr, clippy::print_stdout)]

/// Writes a line to standard error. That nobody reads it is no reason to end.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod apps;
mod bench;
mod ceiling;
mod cli;
mod config;
mod environment;
mod failure;
mod help;
mod operate;
mod options;
mod roles;
mod telemetry;
mod unreadable;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::parse();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    match cli.threads() {
        Ok(Some(threads)) => _ = builder.worker_threads(threads),
        Ok(None) => {}
        Err(failure) => return failure.report(),
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say!("broadgate: the runtime could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(cli::run(cli));
    // A thread that reads standard input cannot be interrupted, and must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
