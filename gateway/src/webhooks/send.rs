//! Posts over HTTP/1.1, with TLS where the URL says https. Connections are kept for the next post.
//!
//! An https endpoint is trusted if the machine trusts it: root certificates are those of the operating
//! system, so that a company's own authority works without a setting; `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` come before them. Redirects are not followed, and no proxy is used.

use std::{error::Error as _, fmt::Write as _, sync::Arc, time::Duration};

use broadgate_proto::limits::{
    TCP_KEEP_ALIVE, TCP_KEEP_ALIVE_INTERVAL, TCP_KEEP_ALIVE_PROBES, WEBHOOK_ANSWER_BYTES_MAX,
    WEBHOOK_CONNECT_TIME_MAX, WEBHOOK_POST_TIME_MAX, WEBHOOK_POSTS_MAX,
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::{Instant, timeout_at};

use super::bounded::{self, Bounded, TooLong};

/// A connection that served no post for so long is closed, before a receiver would do it.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// Why a post has not arrived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PostFailure {
    #[error("it answered {0}; only 2xx means that a webhook has arrived")]
    Status(StatusCode),
    #[error("it answered {0}, and redirects are not followed: configure the URL that it points to")]
    Redirect(StatusCode),
    #[error("it did not answer within {} s", WEBHOOK_POST_TIME_MAX.as_secs())]
    Timeout,
    #[error("no connection: {0}")]
    Connect(String),
    #[error("{TooLong}: answer with a status and a short body")]
    TooLong,
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the gateway failed to post: {0}")]
    Internal(String),
}

impl PostFailure {
    /// For metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Redirect(_) => "redirect",
            Self::Timeout => "timeout",
            Self::Connect(_) => "connect",
            Self::TooLong => "too_long",
            Self::Broken(_) => "broken",
            Self::Internal(_) => "internal",
        }
    }
}

/// Posts. Cheap to clone.
#[derive(Clone)]
pub(super) struct PostSender {
    client: Client<Bounded<HttpsConnector<HttpConnector>>, Full<Bytes>>,
    /// There is nobody whom this machine trusts.
    trusts_nobody: bool,
    post_time_max: Duration,
}

impl PostSender {
    /// Trusts whom the machine trusts.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        // Some certificates of a machine may be unreadable; others serve.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::trusting(roots)
    }

    /// With less patience, for tests.
    #[cfg(test)]
    pub(super) fn within(mut self, post_time_max: Duration) -> Self {
        self.post_time_max = post_time_max;
        self
    }

    fn trusting(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let trusts_nobody = roots.is_empty();
        // The provider is named, so that no process-wide choice is needed.
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(TCP_KEEP_ALIVE));
        http.set_keepalive_interval(Some(TCP_KEEP_ALIVE_INTERVAL));
        http.set_keepalive_retries(Some(TCP_KEEP_ALIVE_PROBES));
        http.set_connect_timeout(Some(WEBHOOK_CONNECT_TIME_MAX));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(WEBHOOK_POSTS_MAX)
            .build(Bounded(connector));
        Ok(Self { client, trusts_nobody, post_time_max: WEBHOOK_POST_TIME_MAX })
    }

    /// One attempt.
    pub(super) async fn post(&self, request: Request<Full<Bytes>>) -> Result<(), PostFailure> {
        let end = Instant::now() + self.post_time_max;
        let answer = timeout_at(end, self.client.request(request)).await.map_err(|_| PostFailure::Timeout)?;
        let answer = answer.map_err(|error| self.failure(&error))?;
        let status = answer.status();
        // What it says decides; the rest is read for the sake of the connection.
        let _ = timeout_at(end, read(answer.into_body())).await;
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(PostFailure::Redirect(status)),
            status => Err(PostFailure::Status(status)),
        }
    }

    fn failure(&self, error: &Error) -> PostFailure {
        let mut causes = String::new();
        let mut cause = error.source();
        while let Some(next) = cause {
            let separator = if causes.is_empty() { "" } else { ": " };
            let _ = write!(causes, "{separator}{next}");
            cause = next.source();
        }
        if bounded::is_too_long(error) {
            return PostFailure::TooLong;
        }
        if !error.is_connect() {
            return PostFailure::Broken(causes);
        }
        if self.trusts_nobody {
            causes.push_str("; this machine has no root certificates: install them or set SSL_CERT_FILE");
        }
        PostFailure::Connect(causes)
    }
}

/// Reads a body to its end, unless it is long.
async fn read(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > WEBHOOK_ANSWER_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
