//! `broadgate why --command` of an order that sends nothing, such as a close: what it was, and what it did.

use std::time::Duration;

use broadgate_business::{
    Cluster,
    cluster::Refusal,
    v1::{EventsRequest, OperatorEvent},
};
use broadgate_proto::v1::{Cause, EndedClient, EndedRequest};
use serde_json::{Value, json};

use crate::{
    failure::Failure,
    operate::{
        events::by_what,
        why_text::{clock, short},
    },
    output::{self, counted},
    terminal_text::one_line,
};

/// As many events and ends as one answer has.
const ROWS: u32 = 1000;
/// Clients that are named.
const CLIENTS_SHOWN: usize = 8;

/// What is remembered of an order.
#[derive(Debug, Default)]
pub(super) struct FoundOrder {
    /// Its event of the audit, and the line of the audit itself.
    audit: Option<(OperatorEvent, Value)>,
    /// Clients that it closed.
    ended: Vec<EndedClient>,
    /// The events were not to be read.
    is_hidden: bool,
}

impl FoundOrder {
    /// Asks for the order of this id, in one app or in all.
    pub(super) async fn ask(
        cluster: &Cluster,
        command: &str,
        app: Option<&str>,
        since_ms: u64,
    ) -> Result<Self, Failure> {
        let mut found = Self::default();
        let (limit, cause) = (ROWS, Cause::Command.into());
        let app = app.unwrap_or_default();
        let request = EndedRequest { app: app.to_owned(), since_ms, limit, cause, ..EndedRequest::default() };
        found.ended = cluster.ended(request).await?.ended;
        found.ended.retain(|end| end.command_id == command);
        let kinds = vec!["audit".to_owned()];
        match cluster.events(EventsRequest { since_ms, kinds, limit, ..EventsRequest::default() }).await {
            Ok(reply) => {
                found.audit = reply.events.into_iter().find_map(|event| line_of(event, command, app))
            }
            // They are the cluster's, and a token may be for one app.
            Err(error) if error.refusal() == Some(Refusal::Denied) => found.is_hidden = true,
            Err(error) => return Err(error.into()),
        }
        Ok(found)
    }

    pub(super) fn is_known(&self) -> bool {
        self.audit.is_some() || !self.ended.is_empty()
    }

    /// What is not remembered of commands, for one of which nothing is known.
    pub(super) fn limits(&self) -> &'static str {
        if self.is_hidden {
            "and this token may not read the audit, which has orders such as a close"
        } else {
            "nor of a close or another order of the audit, which `broadgate events --kind audit` lists; joins, leaves, \
             binds and changes of sessions are in it only with a note"
        }
    }

    pub(super) fn as_json(&self) -> Result<Value, Failure> {
        let ended = self.ended.iter().map(|end| output::json("EndedClient", end));
        let audit = self.audit.as_ref().map(|(_, line)| line);
        Ok(json!({ "audit": audit, "ended": ended.collect::<Result<Vec<_>, _>>()? }))
    }

    pub(super) fn as_text(&self, command: &str, now: Duration) -> String {
        let mut text = format!("{} sent nothing: it is an order\n", one_line(command));
        if let Some((event, _)) = &self.audit {
            let OperatorEvent { at_ms, gateway, text: said, .. } = event;
            let (gateway, said) = (one_line(gateway), one_line(said));
            text += &format!("  {} at {gateway}, {said}{}\n", clock(*at_ms, now), one_line(&by_what(event)));
        } else if let Some(end) = self.ended.first() {
            let by = if end.by.is_empty() { "a caller that is not known" } else { &end.by };
            text +=
                &(one_line(&format!("  a close by {by}; its line of the audit is not remembered")) + "\n");
        }
        if !self.ended.is_empty() {
            let clients = counted(self.ended.len() as u64, "client");
            text += &format!("  it closed {clients}, as far as their ends are remembered:\n");
        }
        for end in self.ended.iter().take(CLIENTS_SHOWN) {
            let uid = if end.uid.is_empty() { String::new() } else { format!(" (uid {})", end.uid) };
            let (id, at) = (short(&end.client_id), clock(end.ended_at_ms, now));
            let line = format!("  {at} {id}{uid} of app {} on {}", end.app, end.gateway);
            text += &(one_line(&line) + "\n");
        }
        if self.ended.len() > CLIENTS_SHOWN {
            text += &format!("  and {} more\n", self.ended.len() - CLIENTS_SHOWN);
        }
        text
    }
}

/// The event with its line, if that is of this command.
fn line_of(event: OperatorEvent, command: &str, app: &str) -> Option<(OperatorEvent, Value)> {
    let line: Value = serde_json::from_str(&event.audit_json).ok()?;
    let is_app = app.is_empty() || line["on"]["app"].as_str().is_none_or(|on| on == app);
    (line["command_id"] == command && is_app).then_some((event, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(90);

    fn closing() -> OperatorEvent {
        OperatorEvent {
            at_ms: 61_000,
            gateway: "gw-1".into(),
            text: "token:ann: close {\"app\":\"shop\",\"uids\":[\"42\"]}, 1 client".into(),
            audit_json: r#"{"command_id":"c-1","how":"cli","from":"10.0.0.9","on":{"app":"shop"}}"#.into(),
            ..OperatorEvent::default()
        }
    }

    #[test]
    fn a_close_says_what_it_was_and_whom_it_closed() {
        let end = EndedClient {
            client_id: "4uaa0123456789012345678901kk9t".into(),
            app: "shop".into(),
            uid: "4\u{1b}2".into(),
            gateway: "gw-3".into(),
            ended_at_ms: 62_000,
            by: "token:ann".into(),
            ..EndedClient::default()
        };
        let ended = vec![end.clone(); 10];
        let known = FoundOrder { audit: line_of(closing(), "c-1", "shop"), ended, is_hidden: false };
        let text = known.as_text("c-1", NOW);
        let expected = "c-1 sent nothing: it is an order\n  \
            00:01:01 at gw-1, token:ann: close {\"app\":\"shop\",\"uids\":[\"42\"]}, 1 client [cli from 10.0.0.9, command c-1]\n  \
            it closed 10 clients, as far as their ends are remembered:\n  \
            00:01:02 4uaa..kk9t (uid 4\\u{1b}2) of app shop on gw-3\n";
        assert!(text.starts_with(expected) && text.ends_with("\n  and 2 more\n"), "{text}");
        let json = known.as_json().unwrap();
        assert_eq!((&json["audit"]["how"], &json["ended"][9]["app"]), (&"cli".into(), &"shop".into()));
        let only_ends = FoundOrder { ended: vec![end], ..FoundOrder::default() };
        assert!(only_ends.as_text("c-1", NOW).contains("  a close by token:ann; its line"));
    }

    #[test]
    fn only_the_line_of_the_command_counts() {
        assert!(line_of(closing(), "c-1", "").is_some() && line_of(closing(), "c-1", "blog").is_none());
        assert!(line_of(closing(), "c-2", "").is_none());
        assert!(line_of(OperatorEvent::default(), "", "").is_none());
        assert!(!FoundOrder::default().is_known());
    }
}
