//! `broadgate doctor`: named checks of a cluster, from the evidence of its gateways.
//!
//! | file | what |
//! |---|---|
//! | `seen.rs` | asks for the evidence |
//! | `checks.rs` | pure: the checks, and what is wrong with a gateway by itself |
//! | `membership.rs`, `workers.rs`, `same.rs`, `secrets.rs`, `drops.rs`, `limits.rs` | pure: what is wrong with the rest |
//! | `findings.rs` | pure: what was found, and how it is printed |

mod checks;
#[cfg(test)]
mod checks_tests;
mod drops;
mod findings;
mod limits;
mod membership;
mod same;
mod secrets;
mod seen;
mod workers;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

pub(super) use self::{
    checks::{CHECKS, check},
    findings::{Checked, Severity, as_json, as_text, confirmed, count, sum},
    membership::{refused_in_words, refused_what_to_do},
    seen::{DoctorQuestion, SeenCluster, SeenGateway},
};
use crate::{
    failure::Failure,
    operate::{
        doctor::same::differing_apps,
        target::{At, ChosenCluster},
    },
    output::{print, print_json, table},
    setting_errors,
};

/// Before the second look, which shows what has passed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(
    after_help = "A check fails where clients are refused, held up or lost, messages are lost or answers are \
                  incomplete; it warns where that may come, or has passed.\n\
                  Exit codes: 0 no check fails, 1 one fails (with --strict also: warns), 2 usage, 5 no gateway answers.\n\
                  Examples: broadgate doctor --only links,views    broadgate doctor --strict --json --timeout 10s"
)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    at: At,
    /// Only this check; repeat for several
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    only: Vec<String>,
    /// Exit with 1 also where a check only warns
    #[arg(long)]
    strict: bool,
    /// List the checks
    #[arg(long)]
    list: bool,
    /// How long an answer may take
    #[arg(long, default_value = "5s", value_parser = setting_errors::duration)]
    timeout: Duration,
    /// For scripts
    #[arg(long)]
    json: bool,
}

pub(crate) async fn doctor(args: DoctorArgs) -> Result<(), Failure> {
    if args.list && args.json {
        let all = CHECKS.iter().map(|(name, asks, _)| json!({ "check": name, "asks": asks }));
        return print_json(&json!({ "checks": all.collect::<Vec<_>>() }));
    }
    if args.list {
        let rows = CHECKS.iter().map(|(name, asks, _)| [(*name).to_owned(), (*asks).to_owned()]);
        return print(&table(["CHECK", ""], rows));
    }
    if let Some(unknown) = args.only.iter().find(|only| !CHECKS.iter().any(|(name, ..)| name == *only)) {
        let names: Vec<&str> = CHECKS.iter().map(|(name, ..)| *name).collect();
        return Err(Failure::usage(format!("--only: no check {unknown:?}: there are {}", names.join(", "))));
    }
    let chosen = args.at.open()?;
    let question = DoctorQuestion::new(&chosen, args.timeout)?;
    let (seen, all) = examine(question, |seen| check(seen, &args.only)).await?;
    let (failed, warned) = count(&all);
    if args.json {
        print_json(&json!({
            "cluster": chosen.name, "asked": seen.address, "epoch": seen.epoch.to_string(),
            "checks": as_json(&all), "failed": failed, "warned": warned,
        }))?;
    } else {
        print(&as_text(&all))?;
    }
    if failed > 0 || (args.strict && warned > 0) {
        return Err(Failure::Failed(sum(&all)));
    }
    Ok(())
}

/// What all checks find, as JSON, for the dashboard.
///
/// # Errors
/// If no gateway answers.
pub(crate) async fn findings_of(chosen: &ChosenCluster, within: Duration) -> Result<Value, Failure> {
    let question = DoctorQuestion::new(chosen, within)?;
    let (seen, all) = examine(question, |seen| check(seen, &[])).await?;
    let mut checks = as_json(&all);
    for (row, checked) in checks.as_array_mut().into_iter().flatten().zip(&all) {
        row["well"] = checked.well.as_str().into();
    }
    let (failed, warned) = count(&all);
    Ok(json!({ "asked": seen.address, "checks": checks, "failed": failed, "warned": warned }))
}

/// Looks once, and again if something is not well: what passes within a second is no finding.
pub(super) async fn examine(
    mut question: DoctorQuestion<'_>,
    decide: impl Fn(&SeenCluster) -> Vec<Checked>,
) -> Result<(SeenCluster, Vec<Checked>), Failure> {
    let mut seen = SeenCluster::look(&question).await?;
    question.chosen.announce(&seen.address);
    let first = decide(&seen);
    if first.iter().all(|checked| checked.level() == Severity::Ok) {
        return Ok((seen, first));
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    question.apps = differing_apps(&seen);
    let before = std::mem::replace(&mut seen, SeenCluster::look(&question).await?);
    seen.add_lost(&before);
    let all = confirmed(&first, decide(&seen));
    Ok((seen, all))
}
