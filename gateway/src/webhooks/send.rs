//! Posts webhooks.

use std::time::Duration;

use broadgate_proto::limits::{WEBHOOK_POST_TIME_MAX, WEBHOOK_POSTS_MAX};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;

use crate::backend::{self, BackendClient, NoAnswer, TooLong};

/// Why a post has not arrived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PostFailure {
    #[error("it answered {0}; only 2xx means that a webhook has arrived")]
    Status(StatusCode),
    #[error("it answered {0}, and redirects are not followed: configure the URL that it points to")]
    Redirect(StatusCode),
    #[error("{}", no_answer(.0))]
    NoAnswer(NoAnswer),
    #[error("the gateway failed to post: {0}")]
    Internal(String),
}

impl PostFailure {
    /// For metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Redirect(_) => "redirect",
            Self::NoAnswer(missing) => missing.label(),
            Self::Internal(_) => "internal",
        }
    }
}

impl From<NoAnswer> for PostFailure {
    fn from(missing: NoAnswer) -> Self {
        Self::NoAnswer(missing)
    }
}

fn no_answer(missing: &NoAnswer) -> String {
    match missing {
        NoAnswer::Timeout => format!("it did not answer within {} s", WEBHOOK_POST_TIME_MAX.as_secs()),
        NoAnswer::Connect(why) => format!("no connection: {why}"),
        NoAnswer::TooLong => format!("{TooLong}: answer with a status and a short body"),
        NoAnswer::Broken(why) => format!("the connection broke: {why}"),
    }
}

/// Posts. Cheap to clone.
#[derive(Clone)]
pub(super) struct PostSender {
    client: BackendClient,
    post_time_max: Duration,
}

impl PostSender {
    /// # Errors
    /// If TLS cannot be set up.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        BackendClient::new(WEBHOOK_POSTS_MAX).map(Self::with)
    }

    fn with(client: BackendClient) -> Self {
        Self { client, post_time_max: WEBHOOK_POST_TIME_MAX }
    }

    #[cfg(test)]
    fn trusting(roots: rustls::RootCertStore) -> Result<Self, rustls::Error> {
        BackendClient::trusting(roots, WEBHOOK_POSTS_MAX).map(Self::with)
    }

    /// With less patience, for tests.
    #[cfg(test)]
    pub(super) fn within(mut self, post_time_max: Duration) -> Self {
        self.post_time_max = post_time_max;
        self
    }

    /// One attempt.
    pub(super) async fn post(&self, request: Request<Full<Bytes>>) -> Result<(), PostFailure> {
        let end = Instant::now() + self.post_time_max;
        let answer = self.client.send(request, end).await?;
        let status = answer.status();
        // What it says decides; the rest is read for the sake of the connection.
        let _ = backend::read_body(answer.into_body(), end).await;
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(PostFailure::Redirect(status)),
            status => Err(PostFailure::Status(status)),
        }
    }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
