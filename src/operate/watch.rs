//! `broadgate watch`: who comes into groups and leaves them, as it happens.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_business::{
    Cluster, CommandError,
    cluster::{ChangeKind, GroupChange, GroupWatch, Page, Refusal},
    v1::{Coverage, View},
};
use clap::Args;
use serde_json::json;
use tokio::sync::watch as cell;

use crate::{
    failure::Failure,
    operate::{
        stream::{is_final, time_of_day, until_interrupted},
        target::ClusterTarget,
    },
    output::{print, print_json_line},
    terminal_text::one_line,
};

/// How often the list of gateways is asked for: a new one is watched then.
const VIEW_INTERVAL: Duration = Duration::from_secs(1);

const AFTER_HELP: &str = "\
Examples:
  broadgate watch --group 'orders.*' --app shop
  broadgate watch --group lobby --json

What happens to the cluster itself, as it happens: `broadgate events --follow`.

First it shows how things are, as changes; then each change: a group is occupied, a user joins or leaves, it is
vacated. A token of the app suffices. Users are those of presence channels, and those that workers have joined clients as. Where the stream to a
gateway breaks it is opened again, and a line says so: what changed and was undone meanwhile is not shown. Times are
UTC, by this machine's clock.

It ends by Ctrl-C, with exit code 0, or when the token does not allow it any more: exit code 6.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// Groups of this name, or if it ends with *, whose names begin so; repeat for several
    #[arg(long, required = true, value_name = "PATTERN")]
    group: Vec<String>,
}

pub(crate) async fn watch(args: WatchArgs) -> Result<(), Failure> {
    let chosen = args.target.at.open()?;
    let cluster = args.target.reach(&chosen).await?.of_app()?;
    let view = gateways(&cluster).await?;
    let (sender, views) = cell::channel(Arc::new(view));
    let watched = Cluster::with_views(views, chosen.credentials.clone(), cluster.app(), args.target.timeout);
    let changes = watched.watch_groups(args.group.clone())?;
    for pattern in &args.group {
        tell_if_nobody(&cluster, pattern).await;
    }
    until_interrupted(async {
        tokio::select! {
            shown = show(&args, changes) => shown,
            refused = follow(&watched, &sender) => Err(refused.into()),
        }
    })
    .await
}

/// Says that a pattern fits no group now: one that is mistyped is waited for in vain. What cannot be found out is not
/// said.
async fn tell_if_nobody(cluster: &Cluster, pattern: &str) {
    let is_nobody = match pattern.strip_suffix('*') {
        Some(prefix) => {
            let page = Page { limit: 1, cursor: String::new() };
            let first = cluster.list_groups(prefix, page).await;
            first.is_ok_and(|reply| is_whole(reply.coverage.as_ref()) && reply.names.is_empty())
        }
        None => {
            let home = cluster.inspect_group(pattern).await;
            home.is_ok_and(|reply| is_whole(reply.coverage.as_ref()) && reply.clients.is_empty())
        }
    };
    if is_nobody {
        let app = cluster.app();
        say!("no group of app {app:?} fits {} now: the watch waits for one", one_line(pattern));
    }
}

fn is_whole(coverage: Option<&Coverage>) -> bool {
    coverage.is_some_and(|coverage| coverage.complete)
}

/// The gateways, in the newest view. One of an earlier version says it in its status, to those who may see that.
async fn gateways(cluster: &Cluster) -> Result<View, CommandError> {
    match cluster.gateways().await {
        Err(error) if error.refusal() == Some(Refusal::Unknown) => {
            Ok(cluster.status().await?.view.unwrap_or_default())
        }
        view => view,
    }
}

/// Keeps the list of gateways as new as any of them knows it, until that is refused: the token was removed, or has
/// expired.
async fn follow(cluster: &Cluster, views: &cell::Sender<Arc<View>>) -> CommandError {
    let mut is_silent = false;
    loop {
        tokio::time::sleep(VIEW_INTERVAL).await;
        match gateways(cluster).await {
            Ok(view) => {
                is_silent = false;
                views.send_if_modified(|known| {
                    let is_new = **known != view;
                    if is_new {
                        *known = Arc::new(view);
                    }
                    is_new
                });
            }
            Err(error) if is_final(&error) => return error,
            Err(error) => {
                if !std::mem::replace(&mut is_silent, true) {
                    say!("broadgate: {error}; asking again");
                }
            }
        }
    }
}

async fn show(args: &WatchArgs, mut changes: GroupWatch) -> Result<(), Failure> {
    let mut told = 0;
    let mut look = tokio::time::interval(VIEW_INTERVAL);
    loop {
        let change = tokio::select! {
            change = changes.next() => Some(change?),
            _ = look.tick() => None,
        };
        let at_ms = now_ms();
        let broken = changes.interruptions();
        if broken > told {
            told = broken;
            let line = "the stream to a gateway broke: what changed and was undone meanwhile is missed";
            if args.target.json {
                print_json_line(&json!({ "at_ms": at_ms, "missed": line }))?;
            } else {
                print(&format!("{} {line}\n", &time_of_day(at_ms)[..8]))?;
            }
        }
        let Some(change) = change else { continue };
        if args.target.json {
            print_json_line(&as_json(&change, at_ms))?;
        } else {
            print(&line(&change, at_ms))?;
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The event, and the user whom it concerns.
fn parts(kind: &ChangeKind) -> (&'static str, &str) {
    match kind {
        ChangeKind::Occupied => ("occupied", ""),
        ChangeKind::Joined { user_id, .. } => ("joined", user_id),
        ChangeKind::Left { user_id } => ("left", user_id),
        ChangeKind::Vacated => ("vacated", ""),
    }
}

fn line(change: &GroupChange, at_ms: u64) -> String {
    let (event, user) = parts(&change.kind);
    let text = format!("{} {} {event} {}", &time_of_day(at_ms)[..8], one_line(&change.group), one_line(user));
    text.trim_end().to_owned() + "\n"
}

fn as_json(change: &GroupChange, at_ms: u64) -> serde_json::Value {
    let (event, user) = parts(&change.kind);
    json!({ "at_ms": at_ms, "group": change.group, "event": event, "user_id": user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_its_line() {
        let at = 43_804_000;
        let change = |kind| GroupChange { group: "orders.eu".to_owned(), kind };
        let joined = change(ChangeKind::Joined { user_id: "a\u{1b}nn".to_owned(), info: String::new() });
        assert_eq!(line(&joined, at), "12:10:04 orders.eu joined a\\u{1b}nn\n");
        assert_eq!(line(&change(ChangeKind::Vacated), at), "12:10:04 orders.eu vacated\n");
        let left = as_json(&change(ChangeKind::Left { user_id: "ann".to_owned() }), at);
        assert_eq!((&left["event"], &left["user_id"]), (&"left".into(), &"ann".into()));
    }
}
