//! `broadgate`: every role of a cluster, a supervisor that runs a whole one, and the operator's
//! commands. One executable, so that operators copy one file; the roles are separate processes.

mod apps;
mod bench;
mod ceiling;
mod cli;
mod config;
mod failure;
mod help;
mod operate;
mod roles;
mod telemetry;
mod unreadable;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::parse();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = cli.threads() {
        builder.worker_threads(threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("broadgate: the runtime could not start: {error}");
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
