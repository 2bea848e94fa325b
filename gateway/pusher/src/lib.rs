//! The Pusher Channels protocol, pure: parses and checks input, writes output. It knows no socket, no clock
//! and no configuration.
//!
//! | file | what is decided there |
//! |---|---|
//! | `channel` | what a channel's name says about it |
//! | `socket_id` | a client's id as Pusher's SDKs want it |
//! | `auth` | who may subscribe and sign in; what we sign ourselves |
//! | `incoming` | a client's frame |
//! | `member` | who somebody is in a presence channel, and as a signed-in user |
//! | `outgoing` | every frame to a client |
//! | `talk` | what a client's frame means, given who it is and what its app allows |
//! | `close` | close codes |
//! | `api` | the HTTP API's requests and answers, and those of two others that publish to the same channels |
//! | `limits` | the bounds of all this, an app's settings |
//!
//! The hosted service is the model. Where Laravel's own tooling expects Reverb's behaviour, an app selects it
//! with [`Compat::Reverb`].

#![allow(missing_docs, reason = "internal to the gateway: names that say it all need no sentence")]

pub mod api;
pub mod auth;
pub mod channel;
pub mod close;
pub mod incoming;
pub mod json;
pub mod limits;
pub mod member;
pub mod outgoing;
pub mod socket_id;
pub mod talk;

/// Which server's behaviour an app's clients and backends expect where the two differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// The hosted service's.
    #[default]
    Pusher,
    /// Laravel Reverb's.
    Reverb,
}

/// The most bytes that an error quotes of an external text.
const SHOWN_CHARS_MAX: usize = 500;

/// An external text as an error quotes it.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
