//! What could not be read, in the words of operators: libraries name Rust's types, and offsets in a text.

use std::{net::SocketAddr, time::Duration};

/// How an address is written.
const ADDRESS: &str = "an IP address and port, such as 0.0.0.0:7200";
/// How a time is written.
const DURATION: &str = "a time with its unit, such as 500ms, 30s or 5m";

/// The message of a library about a value, with what was expected in plain words.
pub(crate) fn message(message: &str) -> String {
    let message = message.trim_end();
    match message {
        "invalid socket address syntax" => return format!("expected {ADDRESS}"),
        "invalid IP address syntax" => {
            return "expected an IP address or a network, such as 10.0.0.7 or 10.0.0.0/8".to_owned();
        }
        "wanted string or table" => return "expected one of its words, in quotes".to_owned(),
        _ => {}
    }
    match message.rsplit_once("expected ") {
        Some((before, wanted)) => format!("{before}expected {}", expected(wanted)),
        None => message.to_owned(),
    }
}

/// What a library names so.
fn expected(wanted: &str) -> String {
    // A message about an element or an enum says more after it.
    let whole = ["u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize"];
    match wanted {
        wanted if whole.contains(&wanted) => "a whole number".to_owned(),
        "a nonzero u16" | "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "a whole number from 1".to_owned()
        }
        "a sequence" => "a list, such as [\"a\", \"b\"]".to_owned(),
        "a map" => "a section with settings".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "a text in quotes".to_owned(),
        "path string" => "a path in quotes".to_owned(),
        "socket address" => format!("{ADDRESS}, in quotes"),
        "a duration" => format!("{DURATION}, in quotes"),
        wanted if wanted.starts_with("struct ") => "a section with settings".to_owned(),
        wanted => wanted.to_owned(),
    }
}

/// The address of a flag.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("expected {ADDRESS}"))
}

/// The time of a flag.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| format!("expected {DURATION}"))?;
    broadgate_proto::time_setting::check(time).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Every kind of value that a setting can have, and a value that it cannot.
    #[test]
    fn no_message_about_a_setting_names_a_type_of_rust() {
        for (text, words) in [
            ("[gateway.limits]\nclients_max = \"many\"", "expected a whole number"),
            ("[gateway.limits]\nclients_max = -1", "expected a whole number"),
            ("[gateway.limits]\nlink_timeout = \"18446744073709551615s\"", "more than 365 days"),
            ("[gateway.stop]\ndrain = \"366d\"", "more than 365 days"),
            ("[register]\nlease = \"9223372036854775807s\"", "more than 365 days"),
            ("[[gateway.listeners]]\nname = \"a\"\nsilence_max = \"400d\"", "more than 365 days"),
            ("[gateway.limits]\nmessages_per_second_max = 1.5", "expected a whole number"),
            ("[gateway]\nshards = 0", "expected a whole number from 1"),
            ("[worker]\nservices = \"chat\"", "expected a list"),
            ("[cluster]\nregister = \"r:1\"", "expected a list"),
            ("[register]\nbind = \"here\"", "such as 0.0.0.0:7200"),
            ("[register]\nbind = 7100", "such as 0.0.0.0:7200"),
            ("[metrics]\nbind = \"9100\"", "such as 0.0.0.0:7200"),
            ("[register]\nlease = \"soon\"", "such as 500ms, 30s or 5m"),
            ("[register]\nlease = 5", "such as 500ms, 30s or 5m"),
            ("[register]\nlease = \"5 lightyears\"", "such as 500ms, 30s or 5m"),
            ("gateway = 1", "a section with settings"),
            ("[gateway]\nname = 1", "a text in quotes"),
            ("apps_file = 1", "a path in quotes"),
            ("[[apps]]\nid = \"a\"\nenabled = 1", "true or false"),
            ("[gateway]\naccept = 5", "in quotes"),
            ("[gateway]\naccept = \"two\"", "`shards`"),
            (
                "[[gateway.listeners]]\nname = \"a\"\nkind = \"web\"\nbind = \"1.1.1.1:1\"\n\
                 trusted_proxies = [\"x\"]",
                "10.0.0.0/8",
            ),
        ] {
            let error = toml::from_str::<Config>(text).unwrap_err();
            let said = message(error.message());
            assert!(said.contains(words), "{text}: {said} ({})", error.message());
            for word in ["usize", "u16", "u32", "u64", "sequence", "syntax", "struct ", "a map", "boolean"] {
                assert!(!said.contains(word), "{text}: {said}");
            }
        }
        assert_eq!(
            message("unknown field `x`, expected `a` or `b`"),
            "unknown field `x`, expected `a` or `b`"
        );
        assert!(duration("5").unwrap_err().contains("30s") && address("7200").unwrap_err().contains(":7200"));
    }
}
