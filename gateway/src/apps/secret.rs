//! The secret that belongs to a key of an app. Never printed.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Error as _};

/// What signs requests, channel authorisations and webhooks of one key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeySecret(String);

impl KeySecret {
    /// A secret; white space around it, such as the end of a file's line, is no part of it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself, to sign with. Do not log it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySecret({})", if self.0.is_empty() { "not given" } else { "given" })
    }
}

impl<'de> Deserialize<'de> for KeySecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The usual error would quote the value.
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom("a secret is a text"))?;
        Ok(Self::new(&text))
    }
}
