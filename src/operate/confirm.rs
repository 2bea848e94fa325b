//! Asking before an order.

use std::io::{IsTerminal as _, Write as _};

use broadgate_business::Credentials;
use broadgate_proto::said;
use clap::Args;

use crate::{failure::Failure, operate::target::ChosenCluster};

/// Why an order is given, for the audit.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct OrderNote {
    /// Why you give the order, such as a ticket's number: it stands in the audit and in `broadgate events`. At most 256
    /// bytes
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
}

fn note(text: &str) -> Result<String, String> {
    said::check_note(text).map_err(|error| error.to_string())?;
    let text = text.trim();
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

impl OrderNote {
    /// The cluster, to which the order goes with the note.
    pub(super) fn on(&self, chosen: ChosenCluster) -> ChosenCluster {
        let Some(note) = &self.note else { return chosen };
        let Credentials { secret, tls } = chosen.credentials;
        ChosenCluster { credentials: Credentials { secret: secret.with_note(note), tls }, ..chosen }
    }
}

/// The answer to what an order asks, ahead of it.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Confirmation {
    /// Do not ask; a protected cluster has to be named: --yes=prod
    #[arg(long, value_name = "CLUSTER", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    yes: Option<String>,
}

impl Confirmation {
    /// Succeeds if the order may be carried out: a protected cluster asks for its name, others ask the `question`,
    /// if there is one.
    ///
    /// # Errors
    /// If it may not; nothing was done.
    pub(super) fn ask(&self, chosen: &ChosenCluster, question: Option<&str>) -> Result<(), Failure> {
        let name = chosen.name.as_deref();
        match (self.yes.as_deref(), name) {
            (Some(meant), name) if !meant.is_empty() => {
                return if name == Some(meant) { Ok(()) } else { Err(other(meant, chosen)) };
            }
            (Some(_), Some(name)) if chosen.protected => return Err(protected(name)),
            (Some(_), _) => return Ok(()),
            (None, _) => {}
        }
        let is_asked = std::io::stdin().is_terminal();
        match (name.filter(|_| chosen.protected), question) {
            (Some(name), _) if !is_asked => Err(protected(name)),
            (Some(name), question) => {
                let question = question.map(|question| format!("{question} ")).unwrap_or_default();
                let typed = answer(&format!("{question}Type the cluster's name, {name}, to go on: "))?;
                if typed == name { Ok(()) } else { Err(nothing()) }
            }
            (None, None) => Ok(()),
            (None, Some(_)) if !is_asked => {
                Err(Failure::usage("this order asks first, and nobody is there to answer: add --yes"))
            }
            (None, Some(question)) => {
                let typed = answer(&format!("{question} [y/N] "))?;
                if ["y", "Y", "yes"].contains(&typed.as_str()) { Ok(()) } else { Err(nothing()) }
            }
        }
    }
}

fn protected(name: &str) -> Failure {
    Failure::usage(format!("cluster {name:?} is protected, and an order has to name it: add --yes={name}"))
}

fn other(meant: &str, chosen: &ChosenCluster) -> Failure {
    let here = match &chosen.name {
        Some(name) => format!("cluster {name:?}"),
        None => chosen.addresses.join(", "),
    };
    Failure::usage(format!(
        "--yes={meant} means another cluster than the one that would be commanded, {here}"
    ))
}

fn nothing() -> Failure {
    Failure::Failed("nothing was done".to_owned())
}

fn answer(question: &str) -> Result<String, Failure> {
    let mut asked = std::io::stderr();
    write!(asked, "{question}")?;
    asked.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}
