//! `broadgate events`.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_business::{
    Cluster,
    v1::{EventsReply, EventsRequest, OperatorEvent},
};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    failure::Failure,
    operate::{
        stream::{is_final, until_interrupted},
        target::{ClusterTarget, complete},
        why_text::clock,
    },
    output::{json, print},
    setting_errors,
    terminal_text::one_line,
};

/// Between two questions while events are followed.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// So many events one answer has at most.
const EVENTS_PER_ANSWER_MAX: u32 = 1000;

const EXAMPLES: &str = "\
Examples:
  broadgate events --since 1h                   what happened in the last hour
  broadgate events --kind audit --follow        what callers do, as they do it
  broadgate events --json --limit 1000          one JSON object a line";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// Only what happened within this time until now, such as 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = setting_errors::duration)]
    since: Option<Duration>,
    /// Only events of this kind; repeat for several
    #[arg(long, value_name = "KIND")]
    kind: Vec<EventKindArg>,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Events at most, the newest
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EventKindArg {
    /// Gateways and workers that join, drain and go
    Members,
    /// Apps and tokens that are read again
    Settings,
    /// What an operator should look at, and its end
    Alarm,
    /// What callers did
    Audit,
}

impl EventKindArg {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

pub(crate) async fn events(args: EventsArgs) -> Result<(), Failure> {
    let cluster = args.target.any_app().await?;
    let since = args.since.map_or(0, |since| ms(now().saturating_sub(since)));
    let request = EventsRequest {
        since_ms: since,
        kinds: args.kind.iter().map(|kind| kind.name()).collect(),
        limit: args.limit,
        ..EventsRequest::default()
    };
    let reply = cluster.events(request.clone()).await?;
    show(&args, &reply)?;
    if !args.follow {
        if !args.target.json && reply.events.is_empty() {
            say!("nothing of the kind has happened, as far as the gateways remember");
        }
        return complete(reply.coverage.as_ref());
    }
    until_interrupted(follow(&cluster, &args, request, reply)).await
}

/// Asks again and again for what is new. A gateway that does not answer is named once, until it does.
async fn follow(
    cluster: &Cluster,
    args: &EventsArgs,
    request: EventsRequest,
    first: EventsReply,
) -> Result<(), Failure> {
    let mut after: HashMap<String, u64> = first.newest.clone();
    let mut missing = missing_of(&first);
    told_missing(&missing, &[], &first);
    loop {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        let limit = EVENTS_PER_ANSWER_MAX;
        let request = EventsRequest { after: after.clone(), limit, since_ms: 0, ..request.clone() };
        let reply = match cluster.events(request).await {
            Ok(reply) => reply,
            // It is tried again: what happens meanwhile is remembered.
            Err(error) if !is_final(&error) => {
                say!("no answer: {error}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        after.extend(reply.newest.clone());
        let now_missing = missing_of(&reply);
        told_missing(&now_missing, &missing, &reply);
        missing = now_missing;
        if reply.events.len() as u64 == u64::from(EVENTS_PER_ANSWER_MAX) {
            say!("there may have been more events than are shown: more than 1,000 came at once");
        }
        show(args, &reply)?;
    }
}

fn missing_of(reply: &EventsReply) -> Vec<String> {
    reply.coverage.as_ref().map(|coverage| coverage.missing.clone()).unwrap_or_default()
}

fn told_missing(missing: &[String], before: &[String], reply: &EventsReply) {
    for name in missing.iter().filter(|name| !before.contains(name)) {
        say!("{name} does not answer: its events are not shown");
    }
    for name in before.iter().filter(|name| !missing.contains(name)) {
        say!("{name} {}", after_silence(name, reply));
    }
}

/// What has become of a gateway that did not answer, and is not missing in this answer.
fn after_silence(name: &str, reply: &EventsReply) -> &'static str {
    if reply.newest.contains_key(name) { "answers again" } else { "is no member any more" }
}

fn show(args: &EventsArgs, reply: &EventsReply) -> Result<(), Failure> {
    if args.target.json {
        let lines =
            reply.events.iter().map(|event| json("OperatorEvent", event).map(|event| format!("{event}\n")));
        return print(&lines.collect::<Result<String, _>>()?);
    }
    print(&as_text(&reply.events, now()))
}

/// Those of one moment that several gateways saw alike are one line.
fn as_text(events: &[OperatorEvent], now: Duration) -> String {
    let mut lines: Vec<(u64, Vec<&str>, &str, String)> = Vec::new();
    for event in events {
        let line = one_line(&event.text) + &one_line(&by_what(event));
        let same = lines.iter_mut().rev().take_while(|(at, ..)| event.at_ms.saturating_sub(*at) <= 2000);
        let mut same = same.filter(|(_, gateways, kind, text)| {
            *kind == event.kind && *text == line && !gateways.contains(&event.gateway.as_str())
        });
        match same.next().filter(|_| event.kind != "audit") {
            Some((_, gateways, ..)) => gateways.push(&event.gateway),
            None => lines.push((event.at_ms, vec![&event.gateway], &event.kind, line)),
        }
    }
    lines
        .into_iter()
        .map(|(at, gateways, kind, text)| {
            format!("{} {:<8} {}: {text}\n", clock(at, now), kind, gateways.join(", "))
        })
        .collect()
}

/// Of what a caller did: by which program, from where, and the order's id, which the sentence has not.
pub(super) fn by_what(event: &OperatorEvent) -> String {
    let line: Value = serde_json::from_str(&event.audit_json).unwrap_or_default();
    let text = |key: &str| line[key].as_str().filter(|text| !text.is_empty());
    let way = [text("how").map(str::to_owned), text("from").map(|from| format!("from {from}"))];
    let way: Vec<String> = way.into_iter().flatten().collect();
    let way = Some(way.join(" ")).filter(|way| !way.is_empty());
    let command = text("command_id").map(|id| format!("command {id}"));
    let all: Vec<String> = way.into_iter().chain(command).collect();
    if all.is_empty() { String::new() } else { format!(" [{}]", all.join(", ")) }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_was_removed_does_not_answer_again() {
        let reply = EventsReply { newest: HashMap::from([("gw-1".to_owned(), 7)]), ..EventsReply::default() };
        assert_eq!(after_silence("gw-1", &reply), "answers again");
        assert_eq!(after_silence("gw-2", &reply), "is no member any more");
    }

    #[test]
    fn what_several_gateways_saw_is_one_line_and_each_audit_line_is_one() {
        let event = |at_s: u64, gateway: &str, kind: &str, text: &str| OperatorEvent {
            at_ms: at_s * 1000,
            gateway: gateway.to_owned(),
            kind: kind.to_owned(),
            text: text.to_owned(),
            ..OperatorEvent::default()
        };
        let events = [
            event(1, "gw-1", "members", "gateway gw-3 is gone"),
            event(2, "gw-2", "members", "gateway gw-3 is gone"),
            event(2, "gw-1", "audit", "token:ann: close"),
            event(3, "gw-2", "audit", "token:ann: close"),
            OperatorEvent {
                audit_json: r#"{"how":"cli","from":"10.0.0.9","command_id":"c-1\u001b"}"#.to_owned(),
                ..event(3, "gw-2", "audit", "token:bob: close")
            },
            OperatorEvent {
                audit_json: r#"{"how":"grpc","command_id":""}"#.to_owned(),
                ..event(3, "gw-2", "audit", "secret: tap")
            },
            event(60, "gw-1", "alarm", "a\u{1b}[2J"),
        ];
        let text = as_text(&events, Duration::from_secs(90));
        assert_eq!(
            text,
            format!(
                "00:00:01 members  gw-1, gw-2: gateway gw-3 is gone\n00:00:02 audit    gw-1: token:ann: close\n\
             00:00:03 audit    gw-2: token:ann: close\n\
             00:00:03 audit    gw-2: token:bob: close [cli from 10.0.0.9, command c-1\\u{{1b}}]\n\
             00:00:03 audit    gw-2: secret: tap [grpc]\n00:01:00 alarm    gw-1: {}\n",
                one_line("a\u{1b}[2J")
            )
        );
    }
}
