//! `broadgate group`: where a group is at home, and what its home knows of it.

use std::time::Duration;

use broadgate_business::{
    Cluster, CommandError,
    v1::{InspectReply, TopBy, TopGroup, TopReply, TopRequest, TopicHistory},
};
use broadgate_proto::limits::TOP_ROWS_MAX;
use clap::Args;

use crate::{
    failure::Failure,
    operate::target::{ClusterTarget, complete},
    output::{age, bytes, json, print, print_json, rate},
    terminal_text::one_line,
};

/// Gateways measure while somebody asks, in rounds of a second; one under load begins late.
const MEASURE_TIME: Duration = Duration::from_secs(1);
const MEASURE_TRIES: usize = 5;

const AFTER_HELP: &str = "\
Examples:
  broadgate group orders.eu --app shop
  broadgate group orders.eu --app shop --rates

It costs the cluster the same for a group of ten and of a million; with --rates the gateways also look at every group
of the app, for a second or two. Who is in it: `broadgate clients --group`, and
who is present: `broadgate roster`. What was sent to it: `broadgate history`.

Exit codes: 0, or 3 if gateways have not told the home yet what clients they have in the group.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// The group
    group: String,
    /// Also measure how much is sent to it: messages, and copies of them for its members, per second
    #[arg(long)]
    rates: bool,
}

pub(crate) async fn group(args: GroupArgs) -> Result<(), Failure> {
    let cluster = args.target.cluster().await?;
    let top = if args.rates { Some(measure(&cluster).await?) } else { None };
    let reply = cluster.inspect_group(&args.group).await?;
    let row = top.as_ref().and_then(|top| top.groups.iter().find(|row| row.group == args.group));
    if args.target.json {
        let mut all = json("InspectReply", &reply)?;
        if let (Some(row), Some(fields)) = (row, all.as_object_mut()) {
            fields.insert("rates".to_owned(), json("TopGroup", row)?);
        }
        print_json(&all)?;
    } else {
        let rates = top.as_ref().map(|top| format!("; {}", rates_text(top, row)));
        print(&as_text(&reply, &rates.unwrap_or_default()))?;
    }
    complete(reply.coverage.as_ref())?;
    complete(top.as_ref().and_then(|top| top.coverage.as_ref()))
}

/// The busiest groups of the app.
async fn measure(cluster: &Cluster) -> Result<TopReply, CommandError> {
    let limit = u32::try_from(TOP_ROWS_MAX).unwrap_or(u32::MAX);
    let by = TopBy::Groups.into();
    let request = TopRequest { by, app: cluster.app().to_owned(), limit, ..TopRequest::default() };
    let mut reply = cluster.top(request.clone()).await?;
    for _ in 0..MEASURE_TRIES {
        if reply.measured_ms > 0 {
            break;
        }
        tokio::time::sleep(MEASURE_TIME).await;
        reply = cluster.top(request.clone()).await?;
    }
    Ok(reply)
}

fn rates_text(top: &TopReply, row: Option<&TopGroup>) -> String {
    match row {
        _ if top.measured_ms == 0 => "not measured: a gateway has not begun".to_owned(),
        Some(row) => {
            let [messages, deliveries] = [row.messages_per_s, row.deliveries_per_s].map(rate);
            format!("{messages} messages/s, {deliveries} deliveries/s")
        }
        None if top.groups.len() < TOP_ROWS_MAX => "0 messages/s".to_owned(),
        None => format!("fewer messages/s than to the {TOP_ROWS_MAX} busiest groups"),
    }
}

fn ago(ms: u64) -> String {
    age(Duration::from_millis(ms))
}

fn as_text(reply: &InspectReply, rates: &str) -> String {
    let synced = match &reply.coverage {
        Some(coverage) if !coverage.complete => format!("{} not synced", coverage.missing.join(", ")),
        _ => "all have synced".to_owned(),
    };
    let since = reply.since.map(|since| format!(" since {since} ({})", ago(reply.since_ms)));
    let next = match &*reply.next_home {
        "" => "no next one".to_owned(),
        next => format!("next {next}"),
    };
    let home = format!("{}{}; {next}; {synced}", reply.home, since.unwrap_or_default());
    let order = if reply.position.is_empty() {
        "nothing was sent since".to_owned()
    } else {
        format!("{}, {} ago", reply.position, ago(reply.position_age_ms))
    };
    let count: u64 = reply.clients.iter().map(|one| one.clients).sum();
    let mut clients: Vec<_> = reply.clients.iter().collect();
    clients.sort_by(|a, b| (b.clients, &a.gateway).cmp(&(a.clients, &b.gateway)));
    let by_gateway: Vec<String> =
        clients.iter().map(|one| format!("{} {}", one.gateway, one.clients)).collect();
    let where_they_are =
        if by_gateway.is_empty() { String::new() } else { format!(": {}", by_gateway.join(", ")) };
    let present = match reply.present {
        0 => "nobody present".to_owned(),
        1 => "1 user present".to_owned(),
        many => format!("{many} users present"),
    };
    let last = reply.last.map_or("no last value".to_owned(), |last| {
        format!("last value {} old, {}", ago(last.age_ms), bytes(last.bytes))
    });
    let history = reply.history.as_ref().map_or("none".to_owned(), history_text);
    shown_lines([
        ("home", home),
        ("order", order + rates),
        ("members", format!("{count}{where_they_are}; {present}")),
        ("history", format!("{history}; {last}")),
    ])
}

fn history_text(history: &TopicHistory) -> String {
    let TopicHistory { messages, messages_max, oldest, newest, oldest_age_ms, age_max_ms, .. } = *history;
    if messages == 0 {
        return format!("0 of {messages_max}, nothing in {}", ago(age_max_ms));
    }
    format!(
        "{messages} of {messages_max}, {oldest} to {newest}, {} of {}, {}",
        ago(oldest_age_ms),
        ago(age_max_ms),
        bytes(history.bytes)
    )
}

fn shown_lines<const N: usize>(lines: [(&str, String); N]) -> String {
    lines.iter().map(|(head, text)| format!("{head:8} {}\n", one_line(text))).collect()
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1::{Coverage, Epoch, TopicClients, TopicValue};

    use super::*;

    #[test]
    fn a_home_is_described_in_four_lines() {
        let clients = |gateway: &str, clients| TopicClients { gateway: gateway.to_owned(), clients };
        let reply = InspectReply {
            coverage: Some(Coverage { complete: true, ..Coverage::default() }),
            home: "gw-2".to_owned(),
            next_home: "gw-1".to_owned(),
            since: Some(Epoch::new(7, 38)),
            since_ms: 660_000,
            position: "7.38/90214".to_owned(),
            position_age_ms: 1000,
            clients: vec![clients("gw-1", 8790), clients("gw-2", 391)],
            present: 0,
            history: Some(TopicHistory {
                messages: 100,
                messages_max: 100,
                oldest: 4913,
                newest: 5012,
                oldest_age_ms: 299_000,
                age_max_ms: 300_000,
                bytes: 21_504,
            }),
            last: Some(TopicValue { age_ms: 1000, bytes: 212 }),
        };
        let expected = "\
home     gw-2 since 7.38 (11 min); next gw-1; all have synced
order    7.38/90214, 1 s ago
members  9181: gw-1 8790, gw-2 391; nobody present
history  100 of 100, 4913 to 5012, 4 min of 5 min, 21.0 KiB; last value 1 s old, 212 B
";
        assert_eq!(as_text(&reply, ""), expected);
        let none = TopicHistory { messages_max: 5, age_max_ms: 300_000, ..TopicHistory::default() };
        assert_eq!(history_text(&none), "0 of 5, nothing in 5 min");
        let empty = InspectReply { home: "gw-2".to_owned(), present: 1, ..InspectReply::default() };
        let expected = "\
home     gw-2; no next one; all have synced
order    nothing was sent since
members  0; 1 user present
history  none; no last value
";
        assert_eq!(as_text(&empty, ""), expected);
    }

    #[test]
    fn rates_are_those_of_the_group_or_their_absence_is_explained() {
        let row = TopGroup { messages_per_s: 18.0, deliveries_per_s: 167_580.0, ..TopGroup::default() };
        let top = |measured_ms, rows| TopReply {
            measured_ms,
            groups: vec![TopGroup::default(); rows],
            ..TopReply::default()
        };
        for (top, row, text) in [
            (top(1000, 1), Some(&row), "18 messages/s, 168k deliveries/s"),
            (top(1000, 9), None, "0 messages/s"),
            (top(1000, TOP_ROWS_MAX), None, "fewer messages/s than to the 256 busiest groups"),
            (top(0, 1), Some(&row), "not measured: a gateway has not begun"),
        ] {
            assert_eq!(rates_text(&top, row), text);
        }
    }
}
