//! Authorization to subscribe to a channel or to sign in: the client presents what the app's backend has
//! signed.
//!
//! Signatures are HMAC SHA256 in lowercase hexadecimal, computed over the texts exactly as received, and
//! compared in constant time. An app may have several keys while it changes them.

use std::{fmt, sync::Arc};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::shown;

/// An app's key and its secret, of which only the keyed hash is stored. Cheap to clone.
#[derive(Clone)]
pub struct AppKey {
    pub key: Arc<str>,
    mac: Hmac<Sha256>,
}

impl AppKey {
    pub fn new(key: &str, secret: &str) -> Self {
        // RFC 2104: a longer secret is hashed first, a shorter one ends in zeros.
        let mut block = [0; 64];
        let hash = Sha256::digest(secret.as_bytes());
        let bytes = if secret.len() > block.len() { hash.as_slice() } else { secret.as_bytes() };
        block[..bytes.len()].copy_from_slice(bytes);
        Self { key: key.into(), mac: Hmac::new(&block.into()) }
    }

    /// The signature of a text, such as the raw body of a webhook.
    pub fn sign(&self, text: &[u8]) -> String {
        HEXLOWER.encode(&self.mac.clone().chain_update(text).finalize().into_bytes())
    }

    pub fn verify(&self, text: &[u8], signature: &str) -> bool {
        self.sign(text).as_bytes().ct_eq(signature.as_bytes()).into()
    }

    /// Whether this is the key's secret. Compares what both sign, so that the time tells nothing.
    pub fn has_secret(&self, secret: &str) -> bool {
        const TEXT: &[u8] = b"has_secret";
        self.verify(TEXT, &Self::new("", secret).sign(TEXT))
    }
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The app's key of this name.
pub fn find<'a>(keys: &'a [AppKey], key: &str) -> Option<&'a AppKey> {
    keys.iter().find(|candidate| *candidate.key == *key)
}

/// Why a client may not subscribe or sign in, in the words of the hosted service. Never contains the correct
/// signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("Auth info required to {0}")]
    Missing(String),
    #[error("Invalid key in {what} auth data: '{auth}'")]
    Key { what: &'static str, auth: String },
    #[error("Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {got}")]
    Signature { signed: String, got: String },
}

/// Checks that this client may subscribe. `auth` is what it presented, `KEY:SIGNATURE`.
pub fn channel(
    keys: &[AppKey],
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
    auth: Option<&str>,
) -> Result<(), AuthError> {
    let auth = auth
        .filter(|auth| !auth.is_empty())
        .ok_or_else(|| AuthError::Missing(format!("subscribe to {}", shown(channel))))?;
    check(keys, "subscription", auth, channel_text(socket_id, channel, channel_data))
}

/// Checks that this client may sign in as the user that `user_data` describes.
pub fn signin(keys: &[AppKey], socket_id: &str, user_data: &str, auth: &str) -> Result<(), AuthError> {
    if auth.is_empty() {
        return Err(AuthError::Missing("sign in".to_owned()));
    }
    check(keys, "signin", auth, signin_text(socket_id, user_data))
}

/// The part of an [`AuthError`]'s sentence that a log may contain: neither what a client sent to prove
/// itself, nor what it should have signed.
pub fn for_log(sentence: &str) -> &str {
    let end = [": Expected HMAC", " auth data: '"].iter().filter_map(|proof| sentence.find(proof)).min();
    end.map_or(sentence, |end| &sentence[..end])
}

#[cfg(test)]
pub fn sign_channel(key: &AppKey, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    let signature = key.sign(channel_text(socket_id, channel, channel_data).as_bytes());
    format!("{}:{signature}", key.key)
}

/// What an app's backend answers to a client that wants to sign in.
#[cfg(test)]
pub fn sign_signin(key: &AppKey, socket_id: &str, user_data: &str) -> String {
    format!("{}:{}", key.key, key.sign(signin_text(socket_id, user_data).as_bytes()))
}

fn channel_text(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    match channel_data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

fn signin_text(socket_id: &str, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

fn check(keys: &[AppKey], what: &'static str, auth: &str, signed: String) -> Result<(), AuthError> {
    let found = auth.split_once(':').and_then(|(name, signature)| Some((find(keys, name)?, signature)));
    let (key, signature) = found.ok_or_else(|| AuthError::Key { what, auth: shown(auth) })?;
    if key.verify(signed.as_bytes(), signature) {
        return Ok(());
    }
    Err(AuthError::Signature { signed: shown(&signed), got: shown(signature) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "278d425bdf160c739803";
    const CHANNEL: &str = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
    const MR_PUSHER: &str = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
    const MR_CHANNELS: &str = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;

    fn keys() -> Vec<AppKey> {
        vec![AppKey::new("new", "other secret"), AppKey::new(KEY, "7ad3773142a6692b25b8")]
    }

    fn auth(signature: &str) -> String {
        format!("{KEY}:{signature}")
    }

    #[test]
    fn the_documented_signatures_are_right() {
        let vectors = [
            ("private-foobar", None, CHANNEL),
            (
                "presence-foobar",
                Some(MR_PUSHER),
                "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
            ),
            // The documentation prints the former signature beside this text; this is the right one.
            (
                "presence-foobar",
                Some(MR_CHANNELS),
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
        ];
        for (name, data, signature) in vectors {
            let auth = auth(signature);
            assert_eq!(channel(&keys(), "1234.1234", name, data, Some(&auth)), Ok(()), "{name} {data:?}");
            assert_eq!(sign_channel(&keys()[1], "1234.1234", name, data), auth);
        }
        let user = r#"{"id":"12345"}"#;
        let auth = auth("4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
        assert_eq!(signin(&keys(), "1234.1234", user, &auth), Ok(()));
        assert_eq!(sign_signin(&keys()[1], "1234.1234", user), auth);
    }

    #[test]
    fn every_key_of_the_app_signs() {
        for key in keys() {
            let auth = sign_channel(&key, "1.2", "private-x", None);
            assert_eq!(channel(&keys(), "1.2", "private-x", None, Some(&auth)), Ok(()));
        }
        let stranger = sign_channel(&AppKey::new("old", "x"), "1.2", "private-x", None);
        assert!(channel(&keys(), "1.2", "private-x", None, Some(&stranger)).is_err());
    }

    #[test]
    fn one_signature_serves_one_text() {
        let auth = auth(CHANNEL);
        let ok = |socket, name, data| channel(&keys(), socket, name, data, Some(&auth)).is_ok();
        assert!(ok("1234.1234", "private-foobar", None));
        assert!(!ok("1234.1235", "private-foobar", None));
        assert!(!ok("1234.1234", "private-foobaz", None));
        assert!(!ok("1234.1234", "private-foobar", Some("")));
        assert!(!ok("1234.1234", "private", Some("foobar")));
        let upper = format!("{KEY}:{}", CHANNEL.to_uppercase());
        assert!(channel(&keys(), "1234.1234", "private-foobar", None, Some(&upper)).is_err());
    }

    #[test]
    fn refusals_speak_as_the_hosted_service_does_and_do_not_give_the_signature_away() {
        let say = |auth: Option<&str>| {
            channel(&keys(), "1234.1234", "private-foobar", None, auth).unwrap_err().to_string()
        };
        assert_eq!(say(None), "Auth info required to subscribe to private-foobar");
        assert_eq!(say(Some("")), "Auth info required to subscribe to private-foobar");
        assert_eq!(say(Some("{\"auth\"")), "Invalid key in subscription auth data: '{\"auth\"'");
        assert_eq!(say(Some("nobody:1")), "Invalid key in subscription auth data: 'nobody:1'");
        let wrong = say(Some(&auth("f00d")));
        assert_eq!(
            wrong,
            "Invalid signature: Expected HMAC SHA256 hex digest of 1234.1234:private-foobar, but got f00d"
        );
        let wrong = channel(&keys(), "1.2", "presence-x", Some(MR_PUSHER), Some(&auth("f00d"))).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            format!(
                "Invalid signature: Expected HMAC SHA256 hex digest of 1.2:presence-x:{MR_PUSHER}, but got f00d"
            )
        );
        let signin = signin(&keys(), "1.2", "{}", &auth("f00d")).unwrap_err().to_string();
        assert_eq!(
            signin,
            "Invalid signature: Expected HMAC SHA256 hex digest of 1.2::user::{}, but got f00d"
        );
        assert!(say(Some(&auth(&"é".repeat(10_000)))).len() < 2_000);
    }

    #[test]
    fn a_key_is_printed_without_its_secret() {
        let text = format!("{:?}", AppKey::new("name", "topsecret"));
        assert_eq!(text, "Key { key: \"name\", .. }");
    }

    #[test]
    fn a_secret_is_recognized() {
        let key = AppKey::new("name", "topsecret");
        assert!(key.has_secret("topsecret"));
        for other in ["", "name", "topsecre", "topsecrets", "TOPSECRET"] {
            assert!(!key.has_secret(other), "{other}");
        }
    }

    #[test]
    fn a_secret_may_be_longer_than_a_block() {
        let long = AppKey::new("k", &"s".repeat(1000));
        assert_eq!(long.sign(b"body"), "718fa57d6bcddb6f38aa4654a0f932578856b9f6d8c80218c1319c53dcdcfb8b");
    }

    #[test]
    fn no_signature_is_logged() {
        let key = AuthError::Key { what: "channel", auth: "k:f00d".into() }.to_string();
        let signature =
            AuthError::Signature { signed: "1.2:private-x".into(), got: "f00d".into() }.to_string();
        assert_eq!((for_log(&key), for_log(&signature)), ("Invalid key in channel", "Invalid signature"));
        assert_eq!(for_log("Auth info required to x"), "Auth info required to x");
    }
}
