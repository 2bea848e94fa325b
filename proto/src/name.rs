//! Which names of apps, uids and groups are valid.

use crate::limits::NAME_BYTES_MAX;

/// The app that is meant when none is named.
pub const DEFAULT_APP: &str = "default";

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

/// The app that a request's `app` field means.
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
    fn names_have_bounds() {
        assert!(check("group", "room 1 ☕").is_ok());
        assert!(check("group", &"x".repeat(NAME_BYTES_MAX)).is_ok());
        let long = check("uid", &"x".repeat(NAME_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(long.to_string(), "uid has 201 bytes: at most 200 are allowed");
        assert!(matches!(check("group", ""), Err(NameError::Empty { what: "group" })));
        assert!(matches!(check("group", "a\nb"), Err(NameError::Control { .. })));
        assert_eq!(app("").unwrap(), "default");
    }
}
