//! The HTTP API by which an app's backend publishes and queries: requests parsed and checked, answers
//! written. The gateway looks up users and channels.
//!
//! A request is routed (`route`), its signature verified (`sign`), its content parsed (`publish`, `query`),
//! and answered (`answer`). Two other APIs publish to the same channels: laravel-echo-server's (`echo_server`)
//! and Ably's, as far as Laravel's driver uses it (`ably`).

pub mod ably;
pub mod answer;
pub mod echo_server;
pub mod params;
pub mod publish;
pub mod query;
pub mod route;
pub mod sign;

use http::StatusCode;

/// How a refusal starts before it shows what should have been signed.
const SIGNED_TEXT: &str = ": you should have sent";

/// How a refusal starts before it shows a key that is no app's.
const UNKNOWN_KEY: &str = "Unknown auth_key ";

/// Why a request is refused: a status and one sentence, which is the body.
/// Laravel logs it as `Pusher error: <body>.`
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ApiRefusal {
    pub status: StatusCode,
    pub text: String,
    /// The `Allow` header of a 405.
    pub allow: Option<&'static str>,
}

impl ApiRefusal {
    pub fn new(status: StatusCode, text: impl ToString) -> Self {
        Self { status, text: text.to_string(), allow: None }
    }

    /// Its sentence as a log may contain it: without a signature or the signed text, and without a key that is no
    /// app's, in whose place may be a secret.
    pub fn for_log(&self) -> &str {
        if self.text.starts_with(UNKNOWN_KEY) {
            return UNKNOWN_KEY.trim_end();
        }
        self.text.split_once(SIGNED_TEXT).map_or(&*self.text, |(before, _)| before)
    }

    fn bad(text: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    fn unauthorized(text: impl ToString) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, text)
    }

    fn too_large(text: impl ToString) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    /// No app has the id that a request's path names.
    pub fn unknown_app(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("No matching application for ID [{}].", super::shown(id)))
    }
}
