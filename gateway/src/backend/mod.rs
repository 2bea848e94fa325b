//! Requests to the backends of apps over HTTP/1.1, with TLS where the URL says https. Connections are kept for
//! the next request.
//!
//! An https backend is trusted if the machine trusts it: root certificates are those of the operating
//! system, so that a company's own authority works without a setting; `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` come before them. Redirects are not followed, and no proxy is used.

mod bounded;

use std::{error::Error as _, fmt::Write as _, sync::Arc, time::Duration};

use broadgate_proto::limits::{
    BACKEND_ANSWER_BYTES_MAX, BACKEND_CONNECT_TIME_MAX, TCP_KEEP_ALIVE, TCP_KEEP_ALIVE_INTERVAL,
    TCP_KEEP_ALIVE_PROBES,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::{Instant, timeout_at};

use self::bounded::Bounded;
pub(crate) use self::bounded::TooLong;

/// A connection that served no request for so long is closed, before a backend would do it.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Timeout,
    /// Why, in words.
    Connect(String),
    TooLong,
    /// Why, in words.
    Broken(String),
}

impl NoAnswer {
    /// For metrics.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect(_) => "connect",
            Self::TooLong => "too_long",
            Self::Broken(_) => "broken",
        }
    }
}

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BackendClient {
    client: Client<Bounded<HttpsConnector<HttpConnector>>, Full<Bytes>>,
    /// There is nobody whom this machine trusts.
    trusts_nobody: bool,
}

impl BackendClient {
    /// Trusts whom the machine trusts, and keeps so many idle connections to one backend.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub(crate) fn new(idle_max: usize) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        // Some certificates of a machine may be unreadable; others serve.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::trusting(roots, idle_max)
    }

    pub(crate) fn trusting(roots: RootCertStore, idle_max: usize) -> Result<Self, rustls::Error> {
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
        http.set_connect_timeout(Some(BACKEND_CONNECT_TIME_MAX));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(idle_max)
            .build(Bounded(connector));
        Ok(Self { client, trusts_nobody })
    }

    /// One attempt, which has this time: the head of the answer.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        end: Instant,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let answer = timeout_at(end, self.client.request(request)).await.map_err(|_| NoAnswer::Timeout)?;
        answer.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &Error) -> NoAnswer {
        let mut causes = String::new();
        let mut cause = error.source();
        while let Some(next) = cause {
            let separator = if causes.is_empty() { "" } else { ": " };
            let _ = write!(causes, "{separator}{next}");
            cause = next.source();
        }
        if bounded::is_too_long(error) {
            return NoAnswer::TooLong;
        }
        if !error.is_connect() {
            return NoAnswer::Broken(causes);
        }
        if self.trusts_nobody {
            causes.push_str("; this machine has no root certificates: install them or set SSL_CERT_FILE");
        }
        NoAnswer::Connect(causes)
    }
}

/// The body of an answer, read to its end within this time.
pub(crate) async fn read_body(mut body: Incoming, end: Instant) -> Result<Vec<u8>, NoAnswer> {
    let mut bytes = Vec::new();
    loop {
        match timeout_at(end, body.frame()).await {
            Err(_) => return Err(NoAnswer::Timeout),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => return Err(NoAnswer::Broken(error.to_string())),
            Ok(Some(Ok(frame))) => bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
        }
        if bytes.len() > BACKEND_ANSWER_BYTES_MAX {
            return Err(NoAnswer::TooLong);
        }
    }
}
