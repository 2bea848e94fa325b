//! Why there is no connection to Redis, in one sentence. Pure.

use std::{fmt::Write as _, io};

use broadgate_pusher::shown;
use broadgate_tls::rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::{apps::AppRedis, redis::talk::OtherPrefix};

/// What Redis's error means, and what to do.
pub(super) fn refused(error: &str, settings: &AppRedis, pattern: &str) -> String {
    let user = if settings.user.is_empty() { "default" } else { &settings.user };
    let clean: String = error.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let error = shown(&clean);
    if error.starts_with("NOAUTH") {
        return "it requires a password: set password_file, and user if it has users".to_owned();
    }
    if error.starts_with("NOPERM") {
        return format!(
            "its user {user:?} may not subscribe: `ACL SETUSER {user} +psubscribe +ping &{pattern}` allows it ({error})"
        );
    }
    if error.contains("without any password configured") || error.contains("no password is set") {
        return "it has no password for the default user: leave password_file out".to_owned();
    }
    if error.starts_with("WRONGPASS") || error.contains("invalid password") {
        return format!("it does not accept the password of user {user:?}: correct password_file or user");
    }
    if error.starts_with("DENIED") {
        return "it is in protected mode and serves its own host alone: give it a password, or `bind` and \
                `protected-mode no`"
            .to_owned();
    }
    format!("it answers {error:?}")
}

/// The end of a connection, or of an attempt.
pub(super) fn io(error: &io::Error, is_tls: bool, is_answered: bool) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return by_tls(tls);
    }
    let is_end = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    match (is_end, is_answered, is_tls) {
        (true, true, _) => "it closed the connection".to_owned(),
        (true, false, true) => {
            "it closed the connection within the TLS handshake: without TLS, url begins with redis://".to_owned()
        }
        (true, false, false) => {
            "it closed the connection without an answer: if this port is for TLS, url must begin with rediss://"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

fn by_tls(error: &TlsError) -> String {
    match error {
        TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => {
            "it does not speak TLS at this port: url must begin with redis://".to_owned()
        }
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is of a CA that is not trusted: set tls.ca to that CA's certificate".to_owned()
        }
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate,
        ) => format!(
            "it refuses the TLS handshake ({error}): if it asks for a certificate, set tls.cert and tls.key"
        ),
        _ => format!("the TLS handshake fails: {error}"),
    }
}

/// No answer in time.
pub(super) fn silent(is_tls: bool, seconds: u64) -> String {
    let mut sentence = format!("it did not answer within {seconds} s");
    let _ = match is_tls {
        true => write!(sentence, ": if it does not speak TLS, url must begin with redis://"),
        false => write!(sentence, ": is it a Redis?"),
    };
    sentence
}

/// Laravel publishes under another prefix than the settings name.
pub(super) fn other_prefix(configured: &str, other: &OtherPrefix) -> String {
    let name = shown(&other.name);
    match &other.prefix {
        Some(prefix) => format!(
            "prefix is {configured:?}, but Laravel's channels in this Redis begin with {prefix:?}, such as {name:?}: if \
             they are this app's, set prefix = {prefix:?} (Laravel's database.redis.options.prefix)"
        ),
        None => format!(
            "prefix is {configured:?}, but Laravel publishes to channels in this Redis that do not begin with it, such \
             as {name:?}: set prefix to Laravel's database.redis.options.prefix"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_redis_say_what_to_do() {
        let settings: AppRedis =
            toml::from_str("url = \"redis://a\"\nprefix = \"x-\"\nuser = \"u\"").unwrap();
        for (error, words) in [
            ("NOAUTH Authentication required.", "set password_file"),
            ("NOPERM No permissions to access a channel", "ACL SETUSER u +psubscribe +ping &x-*"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "user \"u\""),
            ("ERR invalid password", "correct password_file"),
            (
                "ERR AUTH <password> called without any password configured for the default user.",
                "leave password_file",
            ),
            ("DENIED Redis is running in protected mode", "protected-mode"),
            ("LOADING Redis is loading\x1b[2J", "it answers \"LOADING Redis is loading [2J\""),
        ] {
            let sentence = refused(error, &settings, "x-*");
            assert!(sentence.contains(words) && !sentence.contains('\x1b'), "{error}: {sentence}");
        }
    }

    #[test]
    fn both_prefixes_are_named() {
        let other = OtherPrefix { prefix: Some("y-".into()), name: "y-private-a".into() };
        let sentence = other_prefix("x-", &other);
        assert!(sentence.contains("\"x-\"") && sentence.contains("set prefix = \"y-\""), "{sentence}");
    }
}
