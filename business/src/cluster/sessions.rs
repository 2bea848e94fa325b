//! A client's session: a JSON object that lives in its gateway and travels with its events.

use broadgate_proto::v1::{
    GetSessionRequest, MergeSessionRequest, SessionReply, SetSessionRequest, answer, command::Command,
};
use serde::Serialize;
use serde_json::Value;

use crate::cluster::{audience, error::CommandError, handle::Cluster};

/// A session at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionAt {
    /// The object.
    pub json: Value,
    /// 0 until first set; one higher with every change.
    pub version: u64,
    /// The object as the gateway wrote it.
    pub(crate) text: String,
}

fn text(value: &impl Serialize) -> Result<String, CommandError> {
    serde_json::to_string(value)
        .map_err(|error| CommandError::invalid(format!("the session cannot be written as JSON: {error}")))
}

/// A session's text as a value; "" stands for {}.
pub(crate) fn parse(json: &str) -> Value {
    let empty = || Value::Object(serde_json::Map::new());
    if json.is_empty() { empty() } else { serde_json::from_str(json).unwrap_or_else(|_| empty()) }
}

fn session(answer: answer::Answer) -> Result<SessionAt, CommandError> {
    let answer::Answer::Session(SessionReply { session, .. }) = answer else {
        return Err(CommandError::unexpected());
    };
    let session = session.unwrap_or_default();
    Ok(SessionAt { json: parse(&session.json), version: session.version, text: session.json })
}

impl Cluster {
    /// Replaces a client's session.
    ///
    /// # Errors
    /// If the client is not connected; if it was refused, not answered, or not sent.
    pub async fn set_session(
        &self,
        client: impl Into<String>,
        session: &impl Serialize,
    ) -> Result<SessionAt, CommandError> {
        self.put_session(client.into(), text(session)?, None).await
    }

    /// Replaces a client's session if it is at this version; else the refusal is a *conflict*.
    ///
    /// # Errors
    /// As [`Cluster::set_session`].
    pub async fn compare_and_set_session(
        &self,
        client: impl Into<String>,
        if_version: u64,
        session: &impl Serialize,
    ) -> Result<SessionAt, CommandError> {
        self.put_session(client.into(), text(session)?, Some(if_version)).await
    }

    async fn put_session(
        &self,
        client_id: String,
        json: String,
        if_version: Option<u64>,
    ) -> Result<SessionAt, CommandError> {
        let holder = audience::holder(std::slice::from_ref(&client_id));
        let command = Command::SetSession(SetSessionRequest {
            command_id: self.command_id(),
            app: self.app.to_string(),
            client_id,
            json,
            if_version,
            ..SetSessionRequest::default()
        });
        session(self.call(holder, command).await?)
    }

    /// Merges into a client's session by JSON Merge Patch (RFC 7396): a null deletes its key.
    ///
    /// # Errors
    /// As [`Cluster::set_session`].
    pub async fn merge_session(
        &self,
        client: impl Into<String>,
        patch: &impl Serialize,
    ) -> Result<SessionAt, CommandError> {
        let client_id = client.into();
        let holder = audience::holder(std::slice::from_ref(&client_id));
        let command = Command::MergeSession(MergeSessionRequest {
            command_id: self.command_id(),
            app: self.app.to_string(),
            client_id,
            json: text(patch)?,
            ..MergeSessionRequest::default()
        });
        session(self.call(holder, command).await?)
    }

    /// A client's session now.
    ///
    /// # Errors
    /// As [`Cluster::set_session`].
    pub async fn get_session(&self, client: impl Into<String>) -> Result<SessionAt, CommandError> {
        let client_id = client.into();
        let holder = audience::holder(std::slice::from_ref(&client_id));
        let command = GetSessionRequest { app: self.app.to_string(), client_id };
        session(self.call(holder, Command::GetSession(command)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_always_a_value() {
        assert_eq!(parse(""), serde_json::json!({}));
        assert_eq!(parse("{\"a\":18446744073709551615}")["a"], u64::MAX);
        assert_eq!(parse("not json"), serde_json::json!({}));
        assert!(text(&serde_json::json!({"a": 1})).is_ok());
    }
}
