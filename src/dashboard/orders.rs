//! What a visitor orders: typed, confirmed, and under an id, so that a repeat through another gateway does nothing
//! twice.

use broadgate_proto::{
    said,
    v1::{Audience, CloseRequest, Receipt, SendRequest, send_request::Payload},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    dashboard::asker::{Asker, GatewayCalls},
    failure::Failure,
    operate, output,
};

/// Of the times in a trace's lines.
const TIME_WIDTH: usize = 8;

/// An order and its confirmation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// What was typed to confirm it: the cluster's name if the cluster is protected, else the word of the order.
    confirm: String,
    /// Chosen by the page.
    id: String,
    /// Why, for the audit.
    #[serde(default)]
    note: String,
    order: Ordered,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Ordered {
    Send {
        app: String,
        to: Whom,
        /// A name of an event; none for a plain text.
        #[serde(default)]
        event: String,
        text: String,
        /// Whether its way through the cluster is shown.
        #[serde(default)]
        trace: bool,
    },
    Close {
        app: String,
        to: Whom,
        code: u32,
        #[serde(default)]
        reason: String,
    },
}

/// Nobody is meant by accident: there is no "all".
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Whom {
    Client(String),
    Uid(String),
    Group(String),
}

impl Whom {
    fn audience(&self, app: &str) -> Audience {
        let app = app.to_owned();
        match self {
            Self::Client(id) => Audience { app, clients: vec![id.clone()], ..Audience::default() },
            Self::Uid(uid) => Audience { app, uids: vec![uid.clone()], ..Audience::default() },
            Self::Group(group) => Audience { app, groups: vec![group.clone()], ..Audience::default() },
        }
    }

    fn is_empty(&self) -> bool {
        let (Self::Client(name) | Self::Uid(name) | Self::Group(name)) = self;
        name.is_empty()
    }
}

impl Order {
    /// Whether it is confirmed.
    ///
    /// # Errors
    /// If it is not, or addresses nobody; nothing was done.
    pub(super) fn check(&self, protected: Option<&str>) -> Result<(), Failure> {
        let (word, to) = match &self.order {
            Ordered::Send { to, .. } => ("send", to),
            Ordered::Close { to, .. } => ("close", to),
        };
        if to.is_empty() {
            return Err(Failure::usage("name a client, a uid or a group"));
        }
        said::check_note(self.note.trim())
            .map_err(|error| Failure::usage(format!("nothing was done: {error}")))?;
        let wanted = protected.unwrap_or(word);
        if self.confirm == wanted {
            return Ok(());
        }
        Err(Failure::usage(format!("nothing was done: type {wanted:?} to confirm")))
    }

    /// Carries it out.
    ///
    /// # Errors
    /// If it was refused, or no gateway answers; then the same order may be given again.
    pub(super) async fn run(&self, asker: &Asker) -> Result<Value, Failure> {
        let (command_id, note) = (self.id.clone(), self.note.trim());
        let receipt = match &self.order {
            Ordered::Send { app, to, event, text, trace } => {
                let required = [(!event.is_empty(), "event"), (*trace, "trace")];
                let request = SendRequest {
                    command_id,
                    to: Some(to.audience(app)),
                    payload: Some(Payload::Text(text.clone())),
                    event: event.clone(),
                    trace: *trace,
                    requires: required
                        .into_iter()
                        .filter(|(is_used, _)| *is_used)
                        .map(|(_, what)| what.into())
                        .collect(),
                    ..SendRequest::default()
                };
                let ask = |mut calls: GatewayCalls| {
                    let request = request.clone();
                    async move { calls.gateway.send(request).await }
                };
                asker.order(note, ask).await?
            }
            Ordered::Close { app, to, code, reason } => {
                let request = CloseRequest {
                    command_id,
                    to: Some(to.audience(app)),
                    code: *code,
                    reason: reason.clone(),
                    ..CloseRequest::default()
                };
                let ask = |mut calls: GatewayCalls| {
                    let request = request.clone();
                    async move { calls.gateway.close(request).await }
                };
                asker.order(note, ask).await?
            }
        };
        said_of(&receipt.reply)
    }
}

/// The receipt, and the steps of its trace in the words of `broadgate send --trace`.
fn said_of(receipt: &Receipt) -> Result<Value, Failure> {
    let mut value = output::json("Receipt", receipt)?;
    if let Some(trace) = &receipt.trace {
        let steps = operate::trace_lines(trace, receipt, false);
        // A line begins with a time: of the gateway that took the command, or, indented, of the gateway it is about.
        let steps = steps.lines().map(|line| {
            let (at, what) = line.split_at_checked(TIME_WIDTH).unwrap_or(("", line));
            json!({ "at": at.trim(), "is_own_time": at.starts_with(' '), "what": what.trim() })
        });
        value["steps"] = steps.collect();
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{Hop, HopFailed, HopTaken, HopTrouble, SendTrace, hop::Step};

    use super::*;

    fn order(confirm: &str, to: &str) -> Order {
        let close = format!(r#"{{"app": "a", "to": {to}, "code": 4000}}"#);
        let text = format!(r#"{{"confirm": "{confirm}", "id": "x", "order": {{"close": {close}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn order_is_confirmed_by_a_word_or_by_the_clusters_name() {
        let uid = r#"{"uid": "42"}"#;
        order("close", uid).check(None).unwrap();
        order("prod", uid).check(Some("prod")).unwrap();
        for (confirm, protected) in [("", None), ("send", None), ("close", Some("prod")), ("", Some("prod"))]
        {
            let refused = order(confirm, uid).check(protected).unwrap_err().to_string();
            assert!(refused.contains("nothing was done"), "{refused}");
        }
    }

    #[test]
    fn note_that_the_audit_would_not_take_is_refused_before_anything_is_done() {
        let with = |note: &str| Order { note: note.into(), ..order("close", r#"{"uid": "42"}"#) };
        with(" ticket 4711 ").check(None).unwrap();
        for wrong in ["two\nlines".to_owned(), "x".repeat(257)] {
            let refused = with(&wrong).check(None).unwrap_err().to_string();
            assert!(refused.starts_with("nothing was done: the note"), "{refused}");
        }
    }

    #[test]
    fn steps_of_a_trace_have_a_time_and_a_sentence() {
        let failed = HopFailed { trouble: HopTrouble::NoAnswer.into() };
        let taken = HopTaken { caller: "token:ann".into(), bytes: 2 };
        let hops = [("gw-1", Step::Taken(taken)), ("gw-3", Step::Failed(failed))];
        let hops = hops.map(|(gateway, step)| Hop { gateway: gateway.into(), at_us: 0, step: Some(step) });
        let trace = SendTrace { took_us: 2_010_000, hops: hops.into(), ..SendTrace::default() };
        let receipt = Receipt { clients: 1, trace: Some(trace), ..Receipt::default() };
        let steps = said_of(&receipt).unwrap()["steps"].clone();
        assert_eq!(
            steps,
            json!([
                { "at": "0", "is_own_time": false, "what": "gw-1 took it from token:ann, 2 B" },
                { "at": "", "is_own_time": true, "what": "gw-3 NO ANSWER in time" },
                { "at": "2.01 s", "is_own_time": false, "what": "receipt: 1 client" },
            ])
        );
        assert!(said_of(&Receipt::default()).unwrap().get("steps").is_none());
    }

    #[test]
    fn nobody_is_addressed_by_accident() {
        order("close", r#"{"uid": ""}"#).check(None).unwrap_err();
        let all =
            r#"{"confirm": "close", "id": "x", "order": "close", "app": "a", "to": "all", "code": 4000}"#;
        serde_json::from_str::<Order>(all).unwrap_err();
        let audience = Whom::Group("g".into()).audience("a");
        assert!(!audience.all && audience.groups == ["g"] && audience.clients.is_empty());
    }
}
