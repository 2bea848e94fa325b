//! `broadgate`: every role of a cluster, a supervisor that runs a whole one, and the operator's
//! commands. One executable, so that operators copy one file; the roles are separate processes.

use std::process::ExitCode;

fn main() -> ExitCode {
    broadgate::cli::answer_shell();
    let cli: broadgate::cli::Cli = broadgate::cli::parse();
    let threads = cli.threads();
    broadgate::run(threads, broadgate::cli::run(cli))
}
