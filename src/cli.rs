//! What is typed.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf};

use clap::{
    CommandFactory as _, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use clap_complete::Shell;

use crate::{
    apps::{self, Source},
    certs,
    config::Config,
    dashboard, environment,
    failure::Failure,
    operate::{self, ClusterTarget},
    options::{AppsFileOption, Registers, process_name},
    roles, telemetry,
    tokens::{self, TokenArgs},
    up,
};

/// So much of a value that cannot be used is repeated.
const REPEATED_CHARS_MAX: usize = 80;

const AFTER_HELP: &str = "\
Default ports:
  7100  register                 register.bind            --bind
  7200  gateway, internal        gateway.internal.bind    --internal-bind
  8080  gateway, web clients     gateway.listeners        --client-bind
  8282  gateway, text clients    gateway.listeners        --text-bind
  9100  metrics and health       metrics.bind             --metrics-bind
  -     dashboard (off)          dashboard.bind           --dashboard-bind

Exit codes:
  0 done   1 failed   2 usage or configuration   3 incomplete answer
  4 not found   5 cluster not reachable   6 not allowed

The shared secret is read from BROADGATE_SECRET or cluster.secret_file, a token from BROADGATE_TOKEN or
--token-file, never from a flag.";

/// A clustered broadcast gateway: many processes hold WebSocket clients, one command reaches them all
#[derive(Debug, Parser)]
#[command(name = "broadgate", version, after_help = AFTER_HELP, infer_long_args = false)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run a whole cluster on this machine: a register, gateways, workers, and a chat page
    Up(up::UpArgs),
    /// Run a register, which tracks live gateways and workers
    Register(roles::RegisterArgs),
    /// Run a gateway, which holds client connections
    Gateway(roles::GatewayArgs),
    /// Run a built-in worker
    Worker(roles::WorkerArgs),
    /// Show the cluster: register, gateways, workers
    Status(ClusterTarget),
    /// List clients
    Clients(operate::ClientsArgs),
    /// Show one client
    Client(operate::ClientArgs),
    /// List groups
    Groups(operate::GroupsArgs),
    /// Show where a group is at home, its order, its members by gateway, and what it keeps
    Group(operate::GroupArgs),
    /// Show what was sent to a group, and with --follow what is sent
    History(operate::HistoryArgs),
    /// Show live who comes into groups and leaves them
    Watch(operate::WatchArgs),
    /// List the users present in a group
    Roster(operate::RosterArgs),
    /// List uids
    Uids(operate::UidsArgs),
    /// Show who you are to the cluster: name, role, apps and rights of your token
    Whoami(operate::WhoAmIArgs),
    /// Say why connections have ended, why clients were refused, and whether a client got a message
    Why(operate::WhyArgs),
    /// Show live what clients do and what is sent to them
    Tap(operate::TapArgs),
    /// Show what happened: members, settings, alarms, and what callers did
    Events(operate::EventsArgs),
    /// Show what is busy: gateways, and the loudest groups, clients, callers, apps or workers
    Top(operate::TopArgs),
    /// Send a message to clients, uids, groups or everybody
    Send(operate::SendArgs),
    /// Disconnect clients
    Kick(operate::KickArgs),
    /// Name clusters, with their addresses and credentials, for --cluster
    Cluster(operate::ClusterArgs),
    /// Check the cluster: list its problems, and how to fix them
    Doctor(operate::DoctorArgs),
    /// Serve the dashboard on this machine: the cluster in a browser
    Dashboard(dashboard::DashboardArgs),
    /// Drain a gateway: it disconnects its clients gradually, then exits
    Drain(operate::DrainArgs),
    /// Benchmark a running cluster (runs `broadgate-bench` from the same folder)
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of `broadgate-bench`; `--help` lists its benchmarks
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// List and check the configured apps; generate an app, or Laravel's settings for one
    Apps(apps::AppsArgs),
    /// Generate certificates for a cluster and its listeners, if you have no PKI
    Certs(certs::CertsArgs),
    /// Check the health of a process on this machine, for container health checks
    Health(operate::HealthArgs),
    /// Generate a shared secret
    Secret,
    /// Make, list and remove tokens: who may look, who may act, and in which apps
    Token(TokenArgs),
    /// Check a configuration file and the environment
    CheckConfig {
        /// The configuration file (TOML)
        file: PathBuf,
        #[command(flatten)]
        apps: AppsFileOption,
    },
    /// Print shell completions without live names; `source <(COMPLETE=bash broadgate)` has both (bash, zsh, fish)
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Cli {
    /// How many threads the runtime has; none for as many as there are cores, or as many as
    /// TOKIO_WORKER_THREADS says.
    ///
    /// Half the cores for the roles: a gateway's shards have threads of their own beside it, and where few
    /// threads share what comes, fewer have to be woken for each of it.
    pub fn threads(&self) -> Result<Option<usize>, Failure> {
        if let Some(threads) = environment::threads()? {
            return Ok(Some(threads));
        }
        let is_role =
            matches!(self.command, CliCommand::Register(_) | CliCommand::Gateway(_) | CliCommand::Worker(_));
        let half = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Ok(is_role.then_some(half))
    }
}

/// Answers a shell that asks for completions, and ends the process then.
pub fn answer_shell() {
    operate::answer_shell(Cli::command);
}

/// Parses the command line; a wrong one ends the process with exit code 2.
pub fn parse<C: Parser>() -> C {
    C::try_parse().unwrap_or_else(|mut error| {
        if !error.use_stderr() {
            error.exit();
        }
        shorten(&mut error);
        // It repeats what was typed.
        say!("{}", error.render().to_string().trim_end());
        std::process::exit(error.exit_code())
    })
}

/// Of a long value, an error repeats the beginning, and says how long it is.
fn shorten(error: &mut clap::Error) {
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return };
    let Some((end, _)) = value.char_indices().nth(REPEATED_CHARS_MAX) else { return };
    let short = format!("{}… ({} bytes)", &value[..end], value.len());
    error.insert(ContextKind::InvalidValue, ContextValue::String(short));
}

/// Runs what was typed.
///
/// # Errors
/// With the exit code of what failed.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        CliCommand::Up(args) => up::run(args).await,
        CliCommand::Register(args) => roles::register(args).await,
        CliCommand::Gateway(args) => roles::gateway(args).await,
        CliCommand::Worker(args) => roles::worker(args).await,
        CliCommand::Status(target) => operate::status(target).await,
        CliCommand::Clients(args) => operate::clients(args).await,
        CliCommand::Client(args) => operate::client(args).await,
        CliCommand::Groups(args) => operate::groups(args).await,
        CliCommand::Group(args) => operate::group(args).await,
        CliCommand::History(args) => operate::history(args).await,
        CliCommand::Watch(args) => operate::watch(args).await,
        CliCommand::Roster(args) => operate::roster(args).await,
        CliCommand::Uids(args) => operate::uids(args).await,
        CliCommand::Whoami(args) => operate::whoami(args).await,
        CliCommand::Why(args) => operate::why(args).await,
        CliCommand::Tap(args) => operate::tap(args).await,
        CliCommand::Events(args) => operate::events(args).await,
        CliCommand::Top(args) => operate::top(args).await,
        CliCommand::Send(args) => operate::send(args).await,
        CliCommand::Kick(args) => operate::kick(args).await,
        CliCommand::Cluster(args) => operate::cluster(args),
        CliCommand::Doctor(args) => operate::doctor(args).await,
        CliCommand::Dashboard(args) => dashboard::dashboard(args).await,
        CliCommand::Drain(args) => operate::drain(args).await,
        CliCommand::Health(args) => operate::health(args).await,
        CliCommand::Bench { args } => bench(&args),
        CliCommand::Secret => operate::secret(),
        CliCommand::Token(args) => tokens::token(args),
        CliCommand::Apps(args) => apps::run(&args),
        CliCommand::Certs(args) => certs::run(args),
        CliCommand::CheckConfig { file, apps } => check_config(file, apps.path()),
        CliCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "broadgate", &mut script);
            crate::output::print_as_it_is(&String::from_utf8_lossy(&script))
        }
        CliCommand::Version { json } => {
            let version = broadgate_proto::VERSION;
            let text = if json {
                format!("{{\"version\":\"{version}\"}}\n")
            } else {
                format!("broadgate {version}\n")
            };
            crate::output::print(&text)
        }
    }
}

/// Becomes `broadgate-bench`: the executable that runs in production does not carry the load generator.
fn bench(args: &[OsString]) -> Result<(), Failure> {
    let program = std::env::current_exe()?.with_file_name("broadgate-bench");
    let error = std::process::Command::new(&program).args(args).exec();
    Err(Failure::Usage(match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!(
                "{} is missing: copy it from the folder in which `cargo build --release` puts both executables",
                program.display()
            )
        }
        _ => format!("{} does not start: {error}", program.display()),
    }))
}

fn check_config(file: PathBuf, apps: Option<PathBuf>) -> Result<(), Failure> {
    let mut config = Config::load_for_command(Some(&file))?;
    Registers::default().lay_over(&mut config)?;
    process_name(None)?;
    let source = Source { config: Some(file.clone()), apps, raw: Vec::new() };
    let reading = source.read(&mut Vec::new()).map_err(Failure::Usage)?;
    let apps = reading.open().map_err(Failure::Usage)?;
    for warning in reading.warnings().into_iter().chain(config.secret_warnings()) {
        say!("broadgate: warning: {warning}");
    }
    // All that a start refuses, by what a start asks.
    let checked = telemetry::filter(&config)
        .map(drop)
        .and_then(|()| roles::register_config(&config).map(drop))
        .and_then(|()| roles::gateway_config(&config, apps, &[]).map(drop))
        .and_then(|()| roles::worker_config(&config, None).map(drop));
    if let Err(failure) = checked {
        return Err(Failure::usage(format!("config file {}: {failure}", file.display())));
    }
    crate::output::print(&format!("{} is good\n", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_does_not_repeat_a_long_value() {
        let said = |note: &str| {
            let typed = ["broadgate", "kick", "--uid", "42", "--note", note];
            let mut error = Cli::try_parse_from(typed).unwrap_err();
            shorten(&mut error);
            error.render().to_string()
        };
        let long = said(&"ü".repeat(200));
        assert!(long.contains("'--note <TEXT>': the note has 400 bytes: at most 256"), "{long}");
        assert!(long.contains("ü… (400 bytes)'") && long.len() < 400, "{long}");
        let short = said("a\tb");
        assert!(short.contains("'a\tb'") && short.contains("control character"), "{short}");
    }

    #[test]
    fn wrong_flag_is_explained() {
        let error = Cli::try_parse_from(["broadgate", "gateway", "--client-bind", "here"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--client-bind"));
    }
}
