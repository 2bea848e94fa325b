//! Completions with live names: `source <(COMPLETE=bash broadgate)` has the shell call this program at each Tab, with
//! the words of the line.
//!
//! The names of clusters come from the operator's file, those of gateways, apps and groups from the cluster that the
//! line means. That takes 300 ms or there are none: nobody waits for a Tab. Nothing is ever asked for, no program
//! is run for a token, and nothing goes to the terminal but names.
//!
//! | file | what |
//! |---|---|
//! | `bash.rs` | bash, which splits words at `:` and `=` |
//! | `typed.rs` | pure: what the line says, and which names may stand on one |
//! | `names.rs` | finds the names |

mod bash;
mod names;
mod typed;

use std::{ffi::OsString, fs::OpenOptions};

use clap::{Arg, Command};
use clap_complete::{
    CompleteEnv,
    engine::ArgValueCompleter,
    env::{Elvish, Fish, Powershell, Shells, Zsh},
};

use self::{bash::SplittingBash, names::CompletedKind};
use crate::tokens::{RIGHTS, ROLES};

/// The variable in which a shell's script says which shell it is.
const SHELL: &str = "COMPLETE";

/// Answers a shell that asks for its script or for completions, and ends the process; returns if none asks.
pub fn answer_shell(cli: fn() -> Command) {
    if std::env::var_os(SHELL).is_none_or(|shell| shell.is_empty() || shell == "0") {
        return;
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    let is_tab = words.iter().position(|word| word == "--").is_some_and(|at| at + 1 < words.len());
    if is_tab && !silence() {
        std::process::exit(0);
    }
    let completed = CompleteEnv::with_factory(|| with_names(cli(), ""))
        .var(SHELL)
        .shells(Shells(&[&SplittingBash, &Elvish, &Fish, &Powershell, &Zsh]))
        .try_complete(words, std::env::current_dir().ok().as_deref());
    match completed {
        Err(error) if !is_tab => {
            say!("broadgate: {SHELL}: {}", error.to_string().trim());
            std::process::exit(2)
        }
        // A shell shows what fails in the middle of the line.
        _ => std::process::exit(0),
    }
}

/// Standard error goes nowhere: what libraries and warnings write there would stand in the middle of the line.
fn silence() -> bool {
    let nowhere = OpenOptions::new().write(true).open("/dev/null");
    nowhere.is_ok_and(|nowhere| rustix::stdio::dup2_stderr(nowhere).is_ok())
}

/// A command, and those below it, whose arguments complete to live names.
fn with_names(command: Command, parent: &str) -> Command {
    let name = command.get_name().to_owned();
    let named = |arg: Arg| match kind_of(parent, &name, arg.get_id().as_str()) {
        Some(kind) => arg.add(ArgValueCompleter::new(move |current: &std::ffi::OsStr| kind.find(current))),
        None => arg,
    };
    command.mut_args(named).mut_subcommands(|below| with_names(below, &name))
}

/// What an argument names, by its id and that of its command.
fn kind_of(parent: &str, command: &str, arg: &str) -> Option<CompletedKind> {
    Some(match (parent, command, arg) {
        (_, _, "cluster" | "yes") | ("cluster", "use" | "remove", "name") => CompletedKind::Clusters,
        (_, "drain", "gateway") => CompletedKind::Gateways,
        (_, _, "app") => CompletedKind::Apps,
        (_, _, "group" | "except_group") | (_, "groups", "prefix") => CompletedKind::Groups,
        (_, "doctor", "only") => CompletedKind::Checks,
        (_, "top", "sort") => CompletedKind::TopOrders,
        (_, "tap", "caller") => CompletedKind::Callers,
        ("token", "new", "role") => CompletedKind::Words(&ROLES),
        ("token", "new", "right") => CompletedKind::Words(&RIGHTS),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// Arguments keep the ids by which they are found here.
    #[test]
    fn arguments_complete_to_names() {
        let all = with_names(Cli::command(), "");
        let completes = |path: &[&str], arg: &str| {
            let command = path.iter().fold(&all, |command, name| command.find_subcommand(name).unwrap());
            let found = command.get_arguments().find(|found| found.get_id() == arg);
            found.unwrap_or_else(|| panic!("{path:?} has no {arg}")).get::<ArgValueCompleter>().is_some()
        };
        for (path, arg) in [
            (&["status"][..], "cluster"),
            (&["whoami"], "cluster"),
            (&["cluster", "use"], "name"),
            (&["cluster", "remove"], "name"),
            (&["kick"], "yes"),
            (&["drain"], "gateway"),
            (&["clients"], "app"),
            (&["clients"], "group"),
            (&["send"], "group"),
            (&["send"], "except_group"),
            (&["roster"], "group"),
            (&["history"], "group"),
            (&["group"], "group"),
            (&["groups"], "prefix"),
            (&["watch"], "group"),
            (&["tap"], "group"),
            (&["doctor"], "only"),
            (&["top"], "sort"),
            (&["tap"], "caller"),
            (&["token", "new"], "role"),
            (&["token", "new"], "right"),
        ] {
            assert!(completes(path, arg), "{path:?} {arg}");
        }
        assert!(!completes(&["cluster", "add"], "name") && !completes(&["kick"], "reason"));
    }
}
