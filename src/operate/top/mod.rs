//! `broadgate top`: what is busy now.
//!
//! | file | what |
//! |---|---|
//! | `watch.rs`, `terminal.rs` | asks again and again, and draws on a terminal |
//! | `state.rs`, `view.rs` | pure: what is shown, and what keys do |
//! | `rates.rs` | pure: differences between two answers |
//! | `screen.rs`, `table.rs` | pure: lines, text and JSON |

mod rates;
mod screen;
mod state;
mod table;
mod terminal;
mod view;
mod watch;

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum as _};

use crate::{
    failure::Failure,
    operate::{
        target::{ClusterTarget, complete},
        top::{
            state::TopState,
            view::{TopOrder, TopView},
            watch::{ClusterAsker, watch},
        },
    },
    output::{print, print_json, screen as screen_width},
    setting_errors,
};

/// Gateways measure in rounds of a second: a shorter time shows the same twice.
const INTERVAL_LEAST: Duration = Duration::from_millis(500);
/// How often an answer that has not been measured yet is asked for again: a gateway that is under load begins late.
const MEASURED_TRIES: usize = 5;

#[derive(Debug, Args)]
#[command(
    after_help = "Rates are per second; BYTES/S and OUTBOX are in bytes; ANSWER is a worker's mean time to answer, OLDEST how long the oldest of its
unanswered events has waited.
A number that is not known yet is shown as \"?\".
Callers are counted where their commands come in, questions like this one included; their rates are those of the last
10 s, and LAST is the time of their last command, in UTC.

Examples:
  broadgate top
  broadgate top clients --sort waiting
  broadgate top groups --app shop --sort bytes --once
  broadgate top workers --json
  broadgate top callers --app shop --once"
)]
pub(crate) struct TopArgs {
    /// What is listed below the gateways
    #[arg(value_enum, default_value = "groups")]
    view: TopView,
    #[command(flatten)]
    target: ClusterTarget,
    /// What comes first
    #[arg(long, value_enum, default_value = "out")]
    sort: TopOrder,
    /// Only rows that contain this in a name, a uid or an address
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Time between two questions; at least 500ms
    #[arg(long, default_value = "2s", value_parser = setting_errors::duration)]
    interval: Duration,
    /// Print once and end, as where standard output is no terminal; with --json always
    #[arg(long)]
    once: bool,
}

/// The orders that the list has which these words of a line name, for completions.
pub(super) fn orders_of<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut view = None;
    let mut is_value = false;
    for word in words.skip_while(|word| *word != "top").skip(1) {
        if !is_value && view.is_none() {
            view = TopView::from_str(word, false).ok();
        }
        is_value = word.starts_with("--") && !word.contains('=') && !["--once", "--json"].contains(&word);
    }
    view.unwrap_or_default().orders().iter().map(|(order, _)| order.name().to_owned()).collect()
}

pub(crate) async fn top(args: TopArgs) -> Result<(), Failure> {
    let TopArgs { view, mut target, sort, filter, interval, once } = args;
    if interval < INTERVAL_LEAST {
        return Err(Failure::usage("--interval: gateways measure for a second: give 500ms at least"));
    }
    if view.column(sort).is_none() {
        let names: Vec<&str> = view.orders().iter().map(|(order, _)| order.name()).collect();
        return Err(Failure::usage(format!(
            "--sort: {} are sorted by {}, not by {}",
            view.name(),
            names.join(", "),
            sort.name()
        )));
    }
    let json = target.json;
    let chosen = target.at.open()?;
    let reached = target.reach(&chosen).await?;
    let cluster = chosen.name.clone().unwrap_or_else(|| reached.address.clone());
    let link = if target.app.is_some() { reached.of_app()? } else { reached.cluster };
    target.app = target.app.or_else(|| chosen.app.clone());
    let app = target.app.clone();
    let asker = ClusterAsker { target, chosen, cluster: Some(link), started: Instant::now() };
    let state = TopState { cluster, app, interval, view, order: sort, filter, ..TopState::default() };
    if once || json || !std::io::stdout().is_terminal() {
        return print_once(asker, state, json).await;
    }
    let state = watch(asker, state).await?;
    if state.command_shown {
        print(&format!("{}\n", state.command()))?;
    }
    Ok(())
}

/// Two questions, since rates are differences.
async fn print_once(mut asker: ClusterAsker, mut state: TopState, json: bool) -> Result<(), Failure> {
    let view = state.view;
    let first = asker.picture(state.question()).await?;
    state.answered(first, view);
    for _ in 0..MEASURED_TRIES {
        tokio::time::sleep(state.interval).await;
        let next = asker.picture(state.question()).await?;
        state.answered(next, view);
        let top = state.now.as_ref().and_then(|now| now.top.as_ref());
        if top.is_none_or(|top| top.measured_ms > 0) {
            break;
        }
    }
    if json {
        print_json(&screen::json(&state)?)?;
    } else {
        print(&screen::text(&state, asker.started.elapsed(), screen_width()))?;
    }
    let now = state.now.unwrap_or_default();
    complete(now.status.coverage.as_ref())?;
    complete(now.top.as_ref().and_then(|top| top.coverage.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As clap reads the line: what is offered is taken.
    #[test]
    fn orders_that_complete_are_those_of_the_list() {
        let orders = |line: &str| orders_of(line.split(' ')).join(" ");
        assert_eq!(orders("broadgate top callers --sort "), "out bytes drops");
        assert_eq!(orders("broadgate top --sort clients"), "out in bytes drops clients", "of groups");
        assert_eq!(orders("broadgate top --once workers --sort=o"), "out waiting clients");
        assert_eq!(orders("broadgate top --app clients callers --sort"), "out bytes drops");
    }
}
