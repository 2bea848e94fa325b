//! Topics: all clients of an app, a uid, or a group.

use std::{fmt, sync::Arc};

/// A topic, as its key: `a` APP NUL, `u` APP NUL UID, or `g` APP NUL GROUP. Names have no control characters,
/// so no two topics have the same key, and the ring hashes it unchanged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// The group of an app's connections, where they are limited over the cluster. No client can name it: channel
/// names that begin with `#` belong to the server.
const CONNECTIONS: &str = "#connections";

/// What kind of topic a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicKind {
    /// All clients of the app.
    All,
    /// The clients of a uid.
    Uid,
    /// The members of a group.
    Group,
}

impl Topic {
    /// All clients of an app.
    #[must_use]
    pub fn all(app: &str) -> Self {
        Self(format!("a{app}\0").into())
    }

    /// A uid of an app.
    #[must_use]
    pub fn uid(app: &str, uid: &str) -> Self {
        Self(format!("u{app}\0{uid}").into())
    }

    /// A group of an app.
    #[must_use]
    pub fn group(app: &str, group: &str) -> Self {
        Self(format!("g{app}\0{group}").into())
    }

    /// The connections of an app.
    #[must_use]
    pub fn connections(app: &str) -> Self {
        Self::group(app, CONNECTIONS)
    }

    /// Whether its roster is sent to no client: then only the home knows it.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.kind() == TopicKind::Group && self.name() == CONNECTIONS
    }

    /// Decodes a key from a peer.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let (kind, rest) = text.split_at_checked(1)?;
        let (_, name) = rest.split_once('\0')?;
        let fits = match kind {
            "a" => name.is_empty(),
            "u" | "g" => !name.is_empty(),
            _ => false,
        };
        fits.then(|| Self(text.into()))
    }

    /// The bytes that the ring hashes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> TopicKind {
        match self.key().first() {
            Some(b'a') => TopicKind::All,
            Some(b'u') => TopicKind::Uid,
            _ => TopicKind::Group,
        }
    }

    /// Its app.
    #[must_use]
    pub fn app(&self) -> &str {
        self.0[1..].split_once('\0').map_or("", |(app, _)| app)
    }

    /// The uid or group; "" for all.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('\0').map_or("", |(_, name)| name)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}/{}", self.kind(), self.app(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_everything() {
        for topic in [Topic::all("shop"), Topic::uid("shop", "7"), Topic::group("shop", "a")] {
            let again = Topic::from_key(topic.key()).unwrap();
            assert_eq!((again.kind(), again.app()), (topic.kind(), "shop"));
            assert_eq!(again, topic);
        }
        assert_eq!(Topic::group("a", "b c").name(), "b c");
        assert!(Topic::connections("a").is_silent() && !Topic::group("a", "b").is_silent());
        assert_eq!(Topic::all("a").name(), "");
        for bad in [&b""[..], b"x", b"gapp", b"gapp\0", b"aapp\0x", b"\xff\0x", b"zapp\0x"] {
            assert!(Topic::from_key(bad).is_none(), "{bad:?}");
        }
    }
}
