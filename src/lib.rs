//! What `broadgate` and `broadgate-bench` are made of: every role of a cluster, a supervisor that runs a whole
//! one, the operator's commands, and what the load generator shares with them.

// `say!` in place of `eprintln!`, `operate::print` in place of `print!`: those panic when nobody reads.
#![warn(clippy::print_stderr, clippy::print_stdout)]

/// Writes a line to standard error, as a terminal may show it; a closed standard error is not an error.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let text = $crate::terminal_text::short_lines(&format!($($words)*));
        let _ = writeln!(std::io::stderr(), "{text}");
    }};
}

pub mod apps;
mod certs;
pub mod cli;
pub mod config;
mod dashboard;
pub mod environment;
pub mod failure;
mod help;
mod ledger_settings;
pub mod operate;
pub mod options;
pub mod output;
mod replaced_file;
mod role_tasks;
pub mod roles;
mod secret_files;
mod service_manager;
mod setting_errors;
mod telemetry;
pub mod terminal_text;
mod tokens;
mod unreadable;
mod up;

use std::process::ExitCode;

use self::failure::Failure;

/// Runs a program to its end, and reports how it failed.
///
/// `threads` of the runtime; none for as many as there are cores.
pub fn run(
    threads: Result<Option<usize>, Failure>,
    program: impl Future<Output = Result<(), Failure>>,
) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    match threads {
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
    let ended = runtime.block_on(program);
    // A thread that reads standard input cannot be interrupted, and must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
