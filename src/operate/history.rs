//! `broadgate history`: what was sent to a group, and what is sent to it.

use std::time::Duration;

use broadgate_business::{
    Cluster, CommandError,
    v1::{HistoryMessage, HistoryPosition, HistoryReply, InspectReply, history_message::Payload},
};
use clap::Args;

use crate::{
    failure::Failure,
    operate::{
        hidden::tell_if_hidden,
        stream::{is_final, until_interrupted},
        target::{ClusterTarget, complete},
    },
    output::{age, bytes, fitted, json, print, print_json, print_json_line, screen},
    terminal_text::one_line,
};

/// How often a followed history is asked for what is new.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Messages of one answer while following.
const FOLLOW_LIMIT: u32 = 1000;
/// Characters of a payload in a row.
const PAYLOAD_CHARS_MAX: usize = 200;

const AFTER_HELP: &str = "\
Examples:
  broadgate history orders.eu --app shop --limit 10
  broadgate history orders.eu --app shop --since 5011 --follow --payload

A group has a history if a rule of [[gateway.groups]] says so (history_messages); it is in the memory of the group's home. With
--follow it is asked once a second for what is new; where messages were dropped before that, it says so, and goes
on. Times are those since a message was placed.

A group that has been silent for longer than history_time has none, either: it says which it is.

Exit codes: 0, also if it is interrupted, and 4 if the group has no history.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// The group
    group: String,
    /// Messages at most: the newest, or with --since the first after it
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only messages after this offset; with the epoch before it, as --json shows it, only of that history
    #[arg(long, value_name = "[EPOCH/]OFFSET", value_parser = since)]
    since: Option<Since>,
    /// Go on with what is sent from now on
    #[arg(long)]
    follow: bool,
    /// Also show what the messages say
    #[arg(long)]
    payload: bool,
}

/// A position as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Since {
    /// "" for the present history's.
    epoch: String,
    offset: u64,
}

fn since(text: &str) -> Result<Since, String> {
    let (epoch, offset) = text.rsplit_once('/').unwrap_or(("", text));
    let offset = offset.parse().map_err(|_| format!("{offset:?} is no offset: give a number"))?;
    Ok(Since { epoch: epoch.to_owned(), offset })
}

pub(crate) async fn history(args: HistoryArgs) -> Result<(), Failure> {
    let cluster = args.target.cluster().await?;
    let reader = HistoryReader { args, cluster };
    let since = reader.since().await?;
    let reply = reader.ask(since.clone(), reader.args.limit).await?;
    if reader.args.follow {
        reader.tell_hidden(&reply).await;
        return until_interrupted(reader.follow(since, reply)).await;
    }
    let is_empty = reply.messages.is_empty() && since.is_none() && !reader.args.target.json;
    let Some(position) = reply.position.clone().filter(|_| !is_empty) else {
        let state = reader.cluster.inspect_group(&reader.args.group).await?;
        let (group, why) = (&reader.args.group, why_none(&state));
        return Err(Failure::NotFound(format!("group {group:?} has no history: {why}")));
    };
    if reader.args.target.json {
        print_json(&json("HistoryReply", &reply)?)?;
    } else {
        reader.print(&reply, true)?;
        if reply.messages.last().is_some_and(|last| last.offset < position.offset) {
            let last = reply.messages.last().map_or(0, |last| last.offset);
            print(&format!("more up to {}: --since {last}\n", position.offset))?;
        }
    }
    reader.tell_hidden(&reply).await;
    complete(reply.coverage.as_ref())
}

struct HistoryReader {
    args: HistoryArgs,
    cluster: Cluster,
}

impl HistoryReader {
    async fn ask(&self, since: Option<HistoryPosition>, limit: u32) -> Result<HistoryReply, CommandError> {
        let group = &self.args.group;
        if self.args.payload {
            return self.cluster.history(group, since, limit).await;
        }
        self.cluster.history_without_payload(group, since, limit).await
    }

    /// Says that the messages are shown without what they say, where that was asked for.
    async fn tell_hidden(&self, reply: &HistoryReply) {
        let is_without = reply.messages.iter().all(|message| message.payload.is_none());
        let was_asked = self.args.payload && !reply.messages.is_empty();
        tell_if_hidden(&self.cluster, was_asked && is_without).await;
    }

    /// The position that was typed, in the present history if it names none.
    async fn since(&self) -> Result<Option<HistoryPosition>, Failure> {
        let Some(Since { epoch, offset }) = self.args.since.clone() else { return Ok(None) };
        if !epoch.is_empty() {
            return Ok(Some(HistoryPosition { epoch, offset }));
        }
        let position = self.ask(None, 1).await?.position;
        Ok(position.map(|position| HistoryPosition { offset, ..position }))
    }

    fn print(&self, reply: &HistoryReply, header: bool) -> Result<(), Failure> {
        if !reply.recovered {
            print("messages before these are missing: they were dropped, or the history has begun again\n")?;
        }
        let text = as_text(reply, self.args.payload, screen());
        let rows = text.split_once('\n').map_or("", |(_, rows)| rows);
        print(if header { &text } else { rows })
    }

    /// Prints what has come, and what comes. While no gateway answers, it says so once, and asks again.
    async fn follow(&self, mut since: Option<HistoryPosition>, first: HistoryReply) -> Result<(), Failure> {
        let mut next = Ok(first);
        let (mut is_silent, mut is_first) = (false, true);
        loop {
            match next {
                Ok(reply) => {
                    is_silent = false;
                    self.print_followed(&reply, std::mem::take(&mut is_first))?;
                    since = reached(since, &reply);
                    // There is more already.
                    if reply.messages.len() == FOLLOW_LIMIT as usize {
                        next = self.ask(since.clone(), FOLLOW_LIMIT).await;
                        continue;
                    }
                }
                Err(error) if is_final(&error) => return Err(error.into()),
                Err(error) => {
                    if !std::mem::replace(&mut is_silent, true) {
                        say!("broadgate: {error}; asking again");
                    }
                }
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
            next = self.ask(since.clone(), FOLLOW_LIMIT).await;
        }
    }

    fn print_followed(&self, reply: &HistoryReply, is_first: bool) -> Result<(), Failure> {
        let has_news = is_first || !reply.messages.is_empty() || !reply.recovered;
        if !has_news {
            return Ok(());
        }
        if self.args.target.json {
            return print_json_line(&json("HistoryReply", reply)?);
        }
        self.print(reply, is_first)
    }
}

/// Why a group has no message in its history, as its home says.
fn why_none(state: &InspectReply) -> String {
    let Some(history) = &state.history else {
        return "no rule of [[gateway.groups]] keeps its messages (history_messages)".to_owned();
    };
    let max = age(Duration::from_millis(history.age_max_ms));
    let last = age(Duration::from_millis(state.position_age_ms));
    match (&*state.position, state.position_age_ms >= history.age_max_ms) {
        ("", _) => {
            format!("nothing was sent to it in the last {max}, as long as messages are kept (history_time)")
        }
        (_, true) => {
            format!("its last message was sent {last} ago, and messages are kept for {max} (history_time)")
        }
        (_, false) => format!(
            "its last message, of {last} ago, was sent without being kept, or was dropped to make room \
             (retained_bytes_max)"
        ),
    }
}

/// Where a reader is that has this answer: at its last message, or where the history begins again.
fn reached(before: Option<HistoryPosition>, reply: &HistoryReply) -> Option<HistoryPosition> {
    let Some(position) = &reply.position else { return before };
    let offset = match (reply.messages.last(), &before) {
        (Some(last), _) => last.offset,
        (None, Some(before)) if before.epoch == position.epoch => before.offset,
        (None, _) => position.offset,
    };
    Some(HistoryPosition { epoch: position.epoch.clone(), offset })
}

fn as_text(reply: &HistoryReply, payload: bool, width: Option<usize>) -> String {
    let rows = reply.messages.iter().map(|message| {
        let event = one_line(&message.event);
        let age = age(Duration::from_millis(message.age_ms));
        let size = bytes(message.bytes);
        let said = if payload { said(message) } else { String::new() };
        [message.offset.to_string(), age, size, event, one_line(&message.command_id), said]
    });
    let last = if payload { "PAYLOAD" } else { "" };
    fitted(width, ["OFFSET", "AGE", "BYTES", "EVENT", "COMMAND", last], &["EVENT", "COMMAND"], rows)
}

/// What a message says, cut to a row.
fn said(message: &HistoryMessage) -> String {
    let text = match &message.payload {
        None => return String::new(),
        Some(Payload::Text(text)) => one_line(text),
        Some(Payload::Binary(bytes) | Payload::Framed(bytes)) => data_encoding::HEXLOWER.encode(bytes),
    };
    match text.char_indices().nth(PAYLOAD_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1::TopicHistory;

    use super::*;

    #[test]
    fn positions_are_typed_with_or_without_their_epoch() {
        assert_eq!(since("5011"), Ok(Since { epoch: String::new(), offset: 5011 }));
        assert_eq!(since("7.38.90/5011"), Ok(Since { epoch: "7.38.90".to_owned(), offset: 5011 }));
        assert!(since("yesterday").unwrap_err().contains("no offset"));
    }

    #[test]
    fn one_cause_is_named_where_there_is_no_history() {
        let state = |history_ms: Option<u64>, position: &str, position_age_ms| InspectReply {
            history: history_ms.map(|age_max_ms| TopicHistory { age_max_ms, ..TopicHistory::default() }),
            position: position.to_owned(),
            position_age_ms,
            ..InspectReply::default()
        };
        for (state, words) in [
            (state(None, "7.1/9", 1000), "no rule of [[gateway.groups]]"),
            (state(Some(60_000), "", 0), "nothing was sent to it in the last 1 min"),
            (state(Some(60_000), "7.1/9", 90_000), "sent 1 min ago, and messages are kept for 1 min"),
            (state(Some(60_000), "7.1/9", 1000), "dropped to make room"),
        ] {
            let why = why_none(&state);
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_reader_goes_on_behind_its_last_message_also_in_another_history() {
        let at = |epoch: &str, offset| HistoryPosition { epoch: epoch.to_owned(), offset };
        let reply = |position: Option<HistoryPosition>, offsets: &[u64]| HistoryReply {
            position,
            messages: offsets.iter().map(|&offset| HistoryMessage { offset, ..Default::default() }).collect(),
            recovered: true,
            ..HistoryReply::default()
        };
        assert_eq!(reached(None, &reply(Some(at("a", 9)), &[7, 8])), Some(at("a", 8)));
        assert_eq!(reached(Some(at("a", 8)), &reply(Some(at("a", 8)), &[])), Some(at("a", 8)));
        assert_eq!(reached(Some(at("a", 8)), &reply(Some(at("b", 2)), &[])), Some(at("b", 2)));
        assert_eq!(reached(Some(at("a", 8)), &reply(None, &[])), Some(at("a", 8)));
    }

    #[test]
    fn rows_show_payloads_only_if_asked_and_nothing_a_terminal_acts_on() {
        let message = HistoryMessage {
            offset: 5012,
            age_ms: 1000,
            bytes: 212,
            event: "OrderShipped".to_owned(),
            command_id: "order-991".to_owned(),
            payload: Some(Payload::Text("a\u{1b}[2J".to_owned())),
        };
        let reply = HistoryReply { messages: vec![message], ..HistoryReply::default() };
        let text = as_text(&reply, false, None);
        let expected =
            " OFFSET  AGE  BYTES  EVENT         COMMAND\n 5012    1 s  212 B  OrderShipped  order-991\n";
        assert_eq!(text, expected);
        assert!(as_text(&reply, true, None).contains("a\\u{1b}[2J"));
    }
}
