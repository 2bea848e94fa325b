//! What a visitor orders: typed, confirmed, and under an id, so that a repeat through another gateway does nothing
//! twice.

use broadgate_proto::v1::{Audience, CloseRequest, Receipt, SendRequest, send_request::Payload};
use serde::Deserialize;

use crate::{
    dashboard::asker::{Asker, GatewayCalls},
    failure::Failure,
};

/// An order and its confirmation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// What was typed to confirm it: the cluster's name if the cluster is protected, else the word of the order.
    confirm: String,
    /// Chosen by the page.
    id: String,
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
    pub(super) async fn run(&self, asker: &Asker) -> Result<Receipt, Failure> {
        let command_id = self.id.clone();
        let receipt = match &self.order {
            Ordered::Send { app, to, event, text } => {
                let request = SendRequest {
                    command_id,
                    to: Some(to.audience(app)),
                    payload: Some(Payload::Text(text.clone())),
                    event: event.clone(),
                    requires: if event.is_empty() { Vec::new() } else { vec!["event".to_owned()] },
                    ..SendRequest::default()
                };
                let ask = |mut calls: GatewayCalls| {
                    let request = request.clone();
                    async move { calls.gateway.send(request).await }
                };
                asker.ask(ask).await?
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
                asker.ask(ask).await?
            }
        };
        Ok(receipt.reply)
    }
}

#[cfg(test)]
mod tests {
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
    fn nobody_is_addressed_by_accident() {
        order("close", r#"{"uid": ""}"#).check(None).unwrap_err();
        let all =
            r#"{"confirm": "close", "id": "x", "order": "close", "app": "a", "to": "all", "code": 4000}"#;
        serde_json::from_str::<Order>(all).unwrap_err();
        let audience = Whom::Group("g".into()).audience("a");
        assert!(!audience.all && audience.groups == ["g"] && audience.clients.is_empty());
    }
}
