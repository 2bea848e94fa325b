//! Which names of apps, uids, groups and processes are valid.

use crate::limits::NAME_BYTES_MAX;

/// The app of commands that name none.
pub const DEFAULT_APP: &str = "default";

/// The prefix of command ids that gateways and the SDK generate for callers that chose none: they are stored
/// apart from chosen ids.
pub const MADE_ID_MARK: char = '~';

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("{what} is empty: give it 1 to {NAME_BYTES_MAX} bytes")]
    Empty {
        /// Which field.
        what: &'static str,
    },
    /// It is too long.
    #[error("{what} has {len} bytes: at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// Nobody could see it.
    #[error("{what} \"{}\" has no visible character: give it a name that can be read in a list", name.escape_default())]
    Blank {
        /// Which field.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// It holds a control character.
    #[error("{what} {name:?} holds a control character: use printable text")]
    Control {
        /// Which field.
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// Checks a name; `what` is the field's name, for the error.
///
/// # Errors
/// If it is empty, too long, or holds a control character.
pub fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { what, len: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control { what, name: name.to_owned() });
    }
    Ok(())
}

/// Characters that count as letters or symbols and show nothing.
const BLANKS: [char; 5] = ['\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];

/// Checks a name that operators choose and read in lists, such as a process's: as [`check`], and some of it
/// must be visible.
///
/// # Errors
/// As [`check`], or if there is nothing to see.
pub fn check_visible(what: &'static str, name: &str) -> Result<(), NameError> {
    check(what, name)?;
    let is_visible = |char: char| match char {
        '"' | '\'' | '\\' => true,
        char => !char.is_whitespace() && !BLANKS.contains(&char) && char.escape_debug().len() == 1,
    };
    if name.chars().any(is_visible) { Ok(()) } else { Err(NameError::Blank { what, name: name.to_owned() }) }
}

/// An address that cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is not host:port, such as \"10.0.0.1:7100\": {why}")]
pub struct AddressError {
    address: String,
    why: &'static str,
}

/// Checks `host:port`; a host is a DNS name, an IPv4 address, or an IPv6 address in brackets.
///
/// # Errors
/// If it is something else, such as a URL.
pub fn check_address(address: &str) -> Result<(), AddressError> {
    let wrong = |why| AddressError { address: address.to_owned(), why };
    if address.contains("//") {
        return Err(wrong("write it without a scheme"));
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
    match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(Some(ip)) if ip.parse::<std::net::Ipv6Addr>().is_ok() => {}
        Some(_) => return Err(wrong("the text in brackets is not an IPv6 address")),
        None if host.is_empty() => return Err(wrong("the host is missing")),
        None if host.contains(':') => return Err(wrong("an IPv6 address needs brackets")),
        None if host.chars().any(|c| c.is_control() || c.is_whitespace() || "/?#@[],;%".contains(c)) => {
            return Err(wrong("the host holds a character that no host has"));
        }
        None => {}
    }
    match port.parse::<u16>() {
        Ok(1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(wrong("the port must be 1 to 65535")),
    }
}

/// The app of a request's `app` field.
///
/// # Errors
/// If it is no valid name.
pub fn app(field: &str) -> Result<&str, NameError> {
    if field.is_empty() {
        return Ok(DEFAULT_APP);
    }
    check("app", field)?;
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        for good in ["127.0.0.1:7100", "register:1", "a.example.com:65535", "[::1]:7100", "my_host:80"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for (wrong, why) in [
            ("", "port is missing"),
            ("host", "port is missing"),
            (":7100", "host is missing"),
            ("host:", "1 to 65535"),
            ("host:0", "1 to 65535"),
            ("host:+1", "1 to 65535"),
            ("host:65536", "1 to 65535"),
            ("http://host:1", "scheme"),
            ("tcp://10.0.0.1:7100", "scheme"),
            ("::1:7100", "brackets"),
            ("[::x]:7100", "not an IPv6"),
            ("a b:1", "character"),
            ("user@host:1", "character"),
        ] {
            let error = check_address(wrong).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(wrong), "{wrong}: {error}");
        }
    }

    #[test]
    fn names_have_bounds() {
        assert!(check("group", "room 1 ☕").is_ok());
        assert!(check("group", &"x".repeat(NAME_BYTES_MAX)).is_ok());
        let long = check("uid", &"x".repeat(NAME_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(long.to_string(), "uid has 201 bytes: at most 200 are allowed");
        assert!(matches!(check("group", ""), Err(NameError::Empty { what: "group" })));
        assert!(matches!(check("group", "a\nb"), Err(NameError::Control { .. })));
        assert_eq!(app("").unwrap(), "default");
    }

    #[test]
    fn chosen_names_can_be_seen() {
        for good in ["g1", "gateway 1", "'", "\u{e9}", "e\u{301}", "網關", "👩\u{200d}💻"] {
            assert_eq!(check_visible("name", good), Ok(()), "{good:?}");
        }
        for blank in
            [" ", "\u{a0}\u{3000}", "\u{200b}", "\u{feff} ", "\u{2800}", "\u{3164}", "\u{301}", "\u{202e}"]
        {
            let error = check_visible("name", blank).unwrap_err();
            assert!(matches!(error, NameError::Blank { .. }), "{blank:?}");
            assert!(error.to_string().is_ascii(), "{error}");
        }
        assert!(matches!(check_visible("name", "a\u{7}"), Err(NameError::Control { .. })));
        assert!(matches!(check_visible("name", ""), Err(NameError::Empty { .. })));
    }
}
