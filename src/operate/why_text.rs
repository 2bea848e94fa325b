//! Why a connection ended, in words: what happened, with its figures, and what to do. Pure.

use std::time::{Duration, UNIX_EPOCH};

use broadgate_proto::{
    close,
    v1::{Cause, EndedClient, EndedMemory, EndedReply, RefusedClient},
};

use crate::{
    output::{age, bytes, counted},
    terminal_text::one_line,
};

/// How many others of a network ended alike.
pub(super) struct Also {
    pub(super) client_id: String,
    pub(super) network: String,
    pub(super) others: u64,
}

/// Everything found, the oldest first.
pub(super) fn as_text(reply: &EndedReply, also: &[Also], now: Duration) -> String {
    let mut all: Vec<(u64, String)> = Vec::new();
    for end in &reply.ended {
        let also = also.iter().find(|also| also.client_id == end.client_id);
        all.push((end.ended_at_ms, end_text(end, also, now)));
    }
    for refused in &reply.refused {
        all.push((refused.last_at_ms, refusal_text(refused, now)));
    }
    all.sort_by_key(|(at, _)| *at);
    let mut text = format!("{}\n", remembered(reply, now));
    let shown: u64 = reply.refused.iter().map(|refused| refused.count).sum();
    let left = [
        (reply.ended_total.saturating_sub(reply.ended.len() as u64), "earlier end"),
        (reply.refused_total.saturating_sub(shown), "earlier refusal"),
    ];
    for (count, what) in left.into_iter().filter(|(count, _)| *count > 0) {
        text += &format!("{} not shown: raise --limit\n", counted(count, what));
    }
    for (_, one) in all {
        text += &one;
    }
    text
}

/// How far back the gateways remember; a gateway that remembers less is named.
pub(super) fn remembered(reply: &EndedReply, now: Duration) -> String {
    let since = |memory: &EndedMemory| {
        let [caused, own, refused] = [memory.caused_since_ms, memory.own_since_ms, memory.refused_since_ms];
        if [caused, own, refused].contains(&0) { None } else { Some(caused.max(own).max(refused)) }
    };
    let most = reply.memories.iter().filter_map(since).min();
    let mut odd = Vec::new();
    for memory in &reply.memories {
        match since(memory) {
            None => odd.push(format!("{}: not everything, by its [gateway.recorder]", memory.gateway)),
            Some(since) if most.is_some_and(|most| since > most + 60_000) => {
                odd.push(format!("{}: {}", memory.gateway, clock(since, now)));
            }
            Some(_) => {}
        }
    }
    let since = most.map_or_else(|| "nothing".to_owned(), |most| format!("since {}", clock(most, now)));
    let odd = if odd.is_empty() { String::new() } else { format!(" ({})", odd.join(", ")) };
    let left_out: u64 = reply.memories.iter().map(|memory| memory.refused_left_out).sum();
    let left_out = match left_out {
        0 => String::new(),
        count => format!(", without {} of any address that came too fast", counted(count, "refusal")),
    };
    format!("remembered {since}{odd}{left_out}, times are UTC")
}

/// "12:04:16", with the date if it was not today.
pub(super) fn clock(at_ms: u64, now: Duration) -> String {
    let whole = |ms: u64| {
        let time = UNIX_EPOCH + Duration::from_secs(ms / 1000);
        humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', "")
    };
    let (at, now) = (whole(at_ms), whole(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)));
    match (at.split_once(' '), now.split_once(' ')) {
        (Some((day, time)), Some((today, _))) if day == today => time.to_owned(),
        _ => at,
    }
}

/// "4uaa..9tvg".
pub(super) fn short(id: &str) -> String {
    match (id.get(..4), id.get(id.len().saturating_sub(4)..)) {
        (Some(first), Some(last)) if id.len() > 10 => format!("{first}..{last}"),
        _ => id.to_owned(),
    }
}

fn end_text(end: &EndedClient, also: Option<&Also>, now: Duration) -> String {
    let Explained { title, because, what_to_do } = explain(end);
    let age = age(Duration::from_millis(end.ended_at_ms.saturating_sub(end.opened_at_ms)));
    let uid = if end.uid.is_empty() { String::new() } else { format!(" (uid {})", end.uid) };
    let head = format!(
        "{} {}{uid} of app {} on {}, from {}, connected {age}: {title}",
        clock(end.ended_at_ms, now),
        short(&end.client_id),
        end.app,
        end.gateway,
        end.address,
    );
    let mut text = one_line(&head) + "\n";
    let mut line = |name: &str, value: &str| text += &format!("  {name:<8} {}\n", one_line(value));
    line("because", &because);
    if let Some(Also { network, others, .. }) = also.filter(|also| also.others > 0) {
        line("also", &format!("{} of {network} within the same minute", counted(*others, "other client")));
    }
    if !end.loudest_group.is_empty() {
        let (bytes, seconds) = (bytes(end.loudest_bytes), end.loudest_s);
        line("loudest", &format!("{}, {bytes} in the last {seconds} s", end.loudest_group));
    }
    if end.unsent_messages > 0 && end.cause() != Cause::Slow {
        let (messages, bytes) = (counted(end.unsent_messages, "message"), bytes(end.unsent_bytes));
        line("unsent", &format!("{messages}, {bytes}"));
    }
    if end.events_unanswered > 0 {
        let by = if end.worker.is_empty() { "any worker" } else { &end.worker };
        let events = counted(end.events_unanswered.into(), "event");
        line("events", &format!("{events} not answered by {by}"));
    }
    if !what_to_do.is_empty() {
        line("do", &what_to_do);
    }
    text
}

/// What is said of an end, as JSON: what it is called, why it was, what to do.
pub(crate) fn in_words(end: &EndedClient) -> serde_json::Value {
    let Explained { title, because, what_to_do } = explain(end);
    serde_json::json!({ "title": title, "because": because, "do": what_to_do })
}

/// An end in words.
struct Explained {
    title: String,
    because: String,
    what_to_do: String,
}

fn explain(end: &EndedClient) -> Explained {
    let (word, because, what_to_do) = match end.cause() {
        Cause::Client => ("by the client", "the client closed the connection".to_owned(), ""),
        Cause::Lost => (
            "lost",
            "the connection broke without a close: the client's process, its network or a proxy ended it"
                .to_owned(),
            "many at once, or always after the same time? Look at the proxies on the way",
        ),
        Cause::Silent => (
            "silent",
            format!("nothing came from it for {} s{}", end.silent_s, named(&end.limit)),
            "is a proxy's idle timeout shorter than ping_interval? RUNBOOK \"clients are closed with 4201\"",
        ),
        Cause::Command => commanded(end),
        Cause::Slow => (
            "slow",
            slow(end),
            "is the group too loud, or that network slow? RUNBOOK \"clients are closed with 4100\"",
        ),
        Cause::Protocol => broken(end),
        Cause::NoWorker => (
            "no worker",
            format!("no worker took its events in time{}", named(&end.limit)),
            "RUNBOOK \"clients are closed with 1013\"",
        ),
        Cause::Drain if end.limit == "lease" => (
            "gateway removed",
            "its gateway did not beat for a lease: it hung or was cut off from the register, which removed it, and it \
             joined again without its clients"
                .to_owned(),
            "look at that gateway's host and log: was it paused, or without memory, CPU or network?",
        ),
        Cause::Drain if end.limit == "removed" => (
            "gateway removed",
            "its gateway was removed from the cluster, and joined again without its clients: it hung, was cut off, or an \
             operator removed it"
                .to_owned(),
            "`broadgate events` and the gateway's log say why it was removed",
        ),
        Cause::Drain => (
            "service restart",
            "its gateway was stopped or drained".to_owned(),
            "nothing: clients come back by themselves",
        ),
        Cause::Event => (
            "worker killer",
            "workers died of one of its messages, one after the other".to_owned(),
            "RUNBOOK \"clients are closed with 4011\"",
        ),
        Cause::Unspecified | Cause::GatewayLost => ("unknown", end.reason.clone(), ""),
    };
    let verb = match end.cause() {
        Cause::Client => "LEFT",
        Cause::Lost => "LOST",
        _ => "CLOSED",
    };
    let title = if end.cause() == Cause::Lost {
        format!("{verb} {}", end.code)
    } else {
        format!("{verb} {}, {word}", end.code)
    };
    Explained { title, because, what_to_do: what_to_do.to_owned() }
}

/// " (outbox_time_max)".
fn named(limit: &str) -> String {
    if limit.is_empty() { String::new() } else { format!(" ({limit})") }
}

fn slow(end: &EndedClient) -> String {
    let unsent = format!("{} unsent, {}", counted(end.unsent_messages, "message"), bytes(end.unsent_bytes));
    let limit = named(&end.limit);
    match &*end.limit {
        "outbox_time_max" => format!("more than 64 KiB waited for {} s{limit}; {unsent}", end.backlog_s),
        "outbox_messages_max" => format!("as many messages waited as may{limit}; {unsent}"),
        "outboxes_bytes_max" => {
            format!("all outboxes of its shard had too much, and its was among the fullest{limit}; {unsent}")
        }
        _ => format!("as many bytes waited as may{limit}; {unsent}"),
    }
}

fn commanded(end: &EndedClient) -> (&'static str, String, &'static str) {
    let reason =
        if end.reason.is_empty() { String::new() } else { format!(", with the reason {:?}", end.reason) };
    if end.command_id.is_empty() {
        return (
            "app",
            format!("its app was disabled or removed{reason}"),
            "`broadgate apps` lists the apps as a file has them",
        );
    }
    let by = if u32::from(close::REPLACED.code) == end.code && end.reason == close::REPLACED.reason {
        "an exclusive bind gave its uid to another client: command"
    } else if end.code == 1006 {
        "it was cut by command"
    } else {
        "it was closed by command"
    };
    let who = if end.by.is_empty() { String::new() } else { format!(" of {}", end.by) };
    let unknown =
        "a gateway of an earlier version took the command: with BROADGATE_LOG=debug it logs its caller";
    let what_to_do =
        if end.by.is_empty() { unknown } else { "`broadgate events --kind audit` has the command" };
    ("by a command", format!("{by} {}{who}{reason}", end.command_id), what_to_do)
}

fn broken(end: &EndedClient) -> (&'static str, String, &'static str) {
    let limit = named(&end.limit);
    let code = u16::try_from(end.code).unwrap_or_default();
    match code {
        _ if code == close::TOO_MANY_MESSAGES.code => (
            "too many messages",
            format!("it sent more in a second than it may{limit}"),
            "RUNBOOK \"clients are closed with 1008\"",
        ),
        _ if code == close::TOO_LARGE.code => (
            "too large",
            format!("it sent a message that is larger than allowed{limit}"),
            "send less at once, or raise the limit",
        ),
        _ if code == close::INVALID_UTF8.code => (
            "protocol",
            "it sent a text message that is not UTF-8".to_owned(),
            "look at the client's program",
        ),
        4009 => (
            "unauthorized",
            format!("it neither signed in nor subscribed in time, as its app demands{limit}"),
            "look at the app's authorization endpoint",
        ),
        _ => (
            "protocol",
            format!(
                "it broke its protocol: {}",
                if end.reason.is_empty() { "no reason" } else { &end.reason }
            ),
            "look at the client's program",
        ),
    }
}

fn refusal_text(refused: &RefusedClient, now: Duration) -> String {
    let RefusedClient { gateway, reason, why, address, app, key, path, last_at_ms, count, origin, .. } =
        refused;
    let times = if *count == 1 { String::new() } else { format!(", {count} times") };
    let who = if address.is_empty() { "somebody" } else { address };
    let head = format!("{} {who} on {gateway}: REFUSED {reason}{times}", clock(*last_at_ms, now));
    let mut text = one_line(&head) + "\n";
    let mut line = |name: &str, value: &str| text += &format!("  {name:<8} {}\n", one_line(value));
    line("because", why);
    let of = [("app", app), ("key", key), ("path", path), ("origin", origin)];
    let of: Vec<String> = of
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if !of.is_empty() {
        line("for", &of.join(", "));
    }
    let what_to_do = refusal_what_to_do(reason);
    if !what_to_do.is_empty() {
        line("do", what_to_do);
    }
    text
}

/// Where the sentence does not say it already.
fn refusal_what_to_do(reason: &str) -> &'static str {
    match reason {
        "clients_max" | "clients_per_ip_max" => {
            "RUNBOOK \"grows with `clients_max` or `clients_per_ip_max`\""
        }
        "no_worker" => "RUNBOOK \"`503` with `Retry-After` at the handshake\"",
        "tls" => "RUNBOOK \"Why does TLS fail for clients?\"",
        "tls_only" => "RUNBOOK \"Pusher clients are closed with 4000\"",
        "api_bodies_bytes_max" => "RUNBOOK \"with `api_bodies_bytes_max`\"",
        "origin" => "is that a page of yours? Then add its origin to the app's `origins`",
        "connections_max" => "the app has as many connections as it may: raise its connections_max",
        "key" => "`broadgate apps` lists the keys that there are",
        "secret" => "RUNBOOK \"the shared secret is missing or differs\"",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::Coverage;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn at(before: u64) -> u64 {
        (NOW.as_secs() - before) * 1000
    }

    fn slow_client() -> EndedClient {
        EndedClient {
            client_id: "4uaa0123456789012345678901kk9t".into(),
            app: "shop".into(),
            uid: "42".into(),
            gateway: "gw-3".into(),
            address: "10.1.7.9:50123".into(),
            opened_at_ms: at(7_920),
            ended_at_ms: at(60),
            cause: Cause::Slow.into(),
            code: 4100,
            limit: "outbox_time_max".into(),
            backlog_s: 10,
            unsent_messages: 214,
            unsent_bytes: 71_680,
            loudest_group: "orders.eu".into(),
            loudest_bytes: 20_761_804,
            loudest_s: 18,
            ..EndedClient::default()
        }
    }

    #[test]
    fn strangers_texts_stay_on_their_line() {
        let refused = RefusedClient {
            gateway: "gw-1".into(),
            reason: "path".into(),
            path: "/\u{1b}]0;x\u{7}\n12:00:00 forged \u{202e}\u{9b}".into(),
            origin: "https://\u{1b}[2Jevil.example".into(),
            app: "it's \"ä\"".into(),
            last_at_ms: at(10),
            count: 1,
            ..RefusedClient::default()
        };
        let reply = EndedReply { refused: vec![refused], ..EndedReply::default() };
        let text = as_text(&reply, &[], NOW);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}']), "{text:?}");
        assert!(text.contains("origin https://\\u{1b}[2Jevil.example"), "{text}");
        assert!(text.contains("it's \"ä\"") && text.contains("\\n12:00:00 forged"), "{text}");
    }

    #[test]
    fn left_out_refusals_are_said() {
        let mut memory = memory("gw-1", at(600));
        memory.refused_left_out = 3;
        let reply = EndedReply { memories: vec![memory], ..EndedReply::default() };
        assert!(remembered(&reply, NOW).contains("without 3 refusals"), "{}", remembered(&reply, NOW));
    }

    fn memory(gateway: &str, since: u64) -> EndedMemory {
        EndedMemory {
            gateway: gateway.into(),
            caused_since_ms: since,
            own_since_ms: since,
            refused_since_ms: since,
            refused_left_out: 0,
        }
    }

    #[test]
    fn end_is_explained_with_its_figures() {
        let refused = RefusedClient {
            gateway: "gw-3".into(),
            reason: "no_worker".into(),
            why: "no worker decided in time".into(),
            address: "10.1.7.9".into(),
            app: "shop".into(),
            last_at_ms: at(58),
            count: 3,
            ..RefusedClient::default()
        };
        let reply = EndedReply {
            coverage: Some(Coverage::default()),
            ended: vec![slow_client()],
            refused: vec![refused],
            ended_total: 1,
            refused_total: 3,
            memories: vec![memory("gw-1", at(1800)), memory("gw-3", at(720))],
        };
        let also =
            Also { client_id: reply.ended[0].client_id.clone(), network: "10.1.7.0/24".into(), others: 31 };
        let text = as_text(&reply, &[also], NOW);
        assert_eq!(
            text,
            "remembered since 07:30:00 (gw-3: 07:48:00), times are UTC\n\
             07:59:00 4uaa..kk9t (uid 42) of app shop on gw-3, from 10.1.7.9:50123, connected 2h 11m: CLOSED 4100, slow\n  \
             because  more than 64 KiB waited for 10 s (outbox_time_max); 214 messages unsent, 70.0 KiB\n  \
             also     31 other clients of 10.1.7.0/24 within the same minute\n  \
             loudest  orders.eu, 19.8 MiB in the last 18 s\n  \
             do       is the group too loud, or that network slow? RUNBOOK \"clients are closed with 4100\"\n\
             07:59:02 10.1.7.9 on gw-3: REFUSED no_worker, 3 times\n  \
             because  no worker decided in time\n  \
             for      app shop\n  \
             do       RUNBOOK \"`503` with `Retry-After` at the handshake\"\n"
        );
    }

    #[test]
    fn memory_that_is_off_or_shorter_is_named() {
        let reply = EndedReply { memories: vec![memory("gw-1", 0)], ..EndedReply::default() };
        assert_eq!(
            remembered(&reply, NOW),
            "remembered nothing (gw-1: not everything, by its [gateway.recorder]), times are UTC"
        );
        let day = EndedReply { memories: vec![memory("gw-1", at(86_400))], ..EndedReply::default() };
        assert_eq!(remembered(&day, NOW), "remembered since 2027-01-14 08:00:00, times are UTC");
    }

    /// Every entry of the runbook to which somebody is sent is there.
    #[test]
    fn entries_of_the_runbook_exist() {
        let runbook = include_str!("../../deploy/RUNBOOK.md");
        let causes = (0..=20).filter_map(|number| Cause::try_from(number).ok());
        let ends = causes.flat_map(|cause| {
            [1000, 1002, 1006, 1007, 1008, 1009, 4009].map(|code| {
                explain(&EndedClient { cause: cause.into(), code, ..EndedClient::default() }).what_to_do
            })
        });
        let reasons = ["clients_max", "no_worker", "tls", "tls_only", "api_bodies_bytes_max", "secret"];
        let mut sent = 0;
        for text in ends.chain(reasons.map(|reason| refusal_what_to_do(reason).to_owned())) {
            let Some((_, entry)) = text.split_once("RUNBOOK \"") else { continue };
            sent += 1;
            assert!(runbook.contains(entry.trim_end_matches('"')), "{entry}");
        }
        assert!(sent > 6);
    }
}
