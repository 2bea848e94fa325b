//! A tap that a tab watches: what a client, a uid, a group or an app does, some batches a second.

use std::time::Duration;

use broadgate_proto::v1::{TapEvents, TapRequest, tap_request::Of};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

use crate::{
    dashboard::asker::{Asker, GatewayCalls},
    output,
};

/// From one batch to the next: ten a second can still be read.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Events of one batch; the gateways count what they cannot send meanwhile.
const BATCH_EVENTS_MAX: usize = 1_000;

/// What a tab wants to watch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tapped {
    /// The batches carry it.
    number: u64,
    app: String,
    whom: TappedWhom,
    /// With what messages say, for those who may see it.
    #[serde(default)]
    payload: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TappedWhom {
    Client(String),
    Uid(String),
    Group(String),
    WholeApp,
}

impl Tapped {
    fn request(&self) -> TapRequest {
        TapRequest {
            app: self.app.clone(),
            of: Some(match self.whom.clone() {
                TappedWhom::Client(id) => Of::ClientId(id),
                TappedWhom::Uid(uid) => Of::Uid(uid),
                TappedWhom::Group(group) => Of::Group(group),
                TappedWhom::WholeApp => Of::WholeApp(true),
            }),
            payload: self.payload,
            ..TapRequest::default()
        }
    }

    /// Opens it.
    pub(super) async fn open(self, asker: &Asker) -> OpenTap {
        let request = self.request();
        let ask = |mut calls: GatewayCalls| {
            let request = request.clone();
            async move { calls.observe.tap(request).await }
        };
        let (stream, end) = match asker.ask(ask).await {
            Ok(answered) => (Some(answered.reply), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        OpenTap { number: self.number, stream, end, parts: Vec::new(), events: 0, due: Instant::now() }
    }
}

/// An open tap, and what it has given since the last batch.
pub(super) struct OpenTap {
    number: u64,
    stream: Option<Streaming<TapEvents>>,
    /// Why it has ended.
    end: Option<String>,
    parts: Vec<Value>,
    events: usize,
    due: Instant,
}

impl OpenTap {
    /// The next batch. May be dropped and called again: what has come stays here.
    pub(super) async fn next(&mut self) -> Value {
        loop {
            let may_read = self.events < BATCH_EVENTS_MAX;
            let has_some = !self.parts.is_empty() || self.end.is_some();
            tokio::select! {
                () = sleep_until(self.due), if has_some => return self.batch(),
                came = read(&mut self.stream), if may_read && self.end.is_none() => match came {
                    Ok(part) => self.take(&part),
                    Err(why) => self.end = Some(why),
                },
            }
        }
    }

    fn take(&mut self, part: &TapEvents) {
        self.events += part.events.len();
        match output::json("TapEvents", part) {
            Ok(value) => self.parts.push(value),
            Err(failure) => self.end = Some(failure.to_string()),
        }
    }

    fn batch(&mut self) -> Value {
        self.due = Instant::now() + BATCH_INTERVAL;
        self.events = 0;
        json!({ "tap": self.number, "parts": std::mem::take(&mut self.parts), "end": self.end })
    }

    /// Nothing follows.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() && self.parts.is_empty()
    }
}

/// The next part, or why there is none.
async fn read(stream: &mut Option<Streaming<TapEvents>>) -> Result<TapEvents, String> {
    let Some(stream) = stream else { return Err(String::new()) };
    match stream.message().await {
        Ok(Some(part)) => Ok(part),
        Ok(None) => Err("the tap has ended: it lasts ten minutes".to_owned()),
        Err(status) => Err(status.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_tapped_and_nothing_is_shown_unless_asked_for() {
        let parse = |text: &str| serde_json::from_str::<Tapped>(text);
        let tapped = parse(r#"{"number": 1, "app": "shop", "whom": {"uid": "42"}}"#).unwrap();
        let request = tapped.request();
        assert!(request.of == Some(Of::Uid("42".into())) && !request.payload && request.app == "shop");
        let app = parse(r#"{"number": 1, "app": "shop", "whom": "whole_app", "payload": true}"#).unwrap();
        assert!(app.request().of == Some(Of::WholeApp(true)) && app.request().payload);
        parse(r#"{"number": 1, "app": "shop"}"#).unwrap_err();
        parse(r#"{"number": 1, "app": "shop", "whom": "everybody"}"#).unwrap_err();
    }

    #[tokio::test]
    async fn refused_tap_says_why_and_is_over() {
        let mut tap = OpenTap {
            number: 3,
            stream: None,
            end: Some("no".into()),
            parts: vec![json!({ "missed": 2 })],
            events: 0,
            due: Instant::now(),
        };
        assert!(!tap.is_over());
        let batch = tap.next().await;
        assert_eq!(batch, json!({ "tap": 3, "parts": [{ "missed": 2 }], "end": "no" }));
        assert!(tap.is_over());
    }
}
