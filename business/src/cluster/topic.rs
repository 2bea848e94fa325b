//! What has a home: a uid, a group, or all clients of an app.

use broadgate_proto::v1;

/// By the key of a topic the ring places it, here as in the gateways: `a` APP NUL, `u` APP NUL UID,
/// or `g` APP NUL GROUP. Names have no control characters, so no two topics have the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RingTopic(Box<str>);

/// "" stands for the app of this name.
const DEFAULT_APP: &str = "default";

fn named(app: &str) -> &str {
    if app.is_empty() { DEFAULT_APP } else { app }
}

impl RingTopic {
    /// Everybody in an app.
    pub(crate) fn all(app: &str) -> Self {
        Self::new("a", app, "")
    }

    /// A uid of an app.
    pub(crate) fn uid(app: &str, uid: &str) -> Self {
        Self::new("u", app, uid)
    }

    /// A group of an app.
    pub(crate) fn group(app: &str, group: &str) -> Self {
        Self::new("g", app, group)
    }

    fn new(kind: &str, app: &str, name: &str) -> Self {
        Self([kind, named(app), "\0", name].concat().into_boxed_str())
    }

    /// The one topic that an audience is, less exceptions; none if it is several, or has clients.
    pub(crate) fn of(audience: &v1::Audience) -> Option<Self> {
        let v1::Audience { app, clients, uids, groups, all, except: _ } = audience;
        match (clients.as_slice(), uids.as_slice(), groups.as_slice(), all) {
            ([], [], [], true) => Some(Self::all(app)),
            ([], [uid], [], false) => Some(Self::uid(app, uid)),
            ([], [], [group], false) => Some(Self::group(app, group)),
            _ => None,
        }
    }

    /// The bytes by which the ring places it.
    pub(crate) fn key(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Audience;

    #[test]
    fn keys_are_those_of_the_gateways() {
        assert_eq!(RingTopic::all("shop").key(), b"ashop\0");
        assert_eq!(RingTopic::uid("shop", "7").key(), b"ushop\x007");
        assert_eq!(RingTopic::group("", "room 1").key(), b"gdefault\0room 1");
    }

    #[test]
    fn an_audience_of_one_name_is_a_topic() {
        let topic = |audience: Audience| RingTopic::of(&audience.0);
        assert_eq!(topic(Audience::all()), Some(RingTopic::all("")));
        assert_eq!(topic(Audience::uid("u").except_client("c")), Some(RingTopic::uid("default", "u")));
        assert_eq!(topic(Audience::group("g").except_group("h")), Some(RingTopic::group("", "g")));
        let several = [
            Audience::default(),
            Audience::client("c"),
            Audience::group("g").and_client("c"),
            Audience::group("g").and_group("h"),
            Audience::group("g").and_uid("u"),
            Audience(v1::Audience { all: true, ..Audience::group("g").0 }),
        ];
        for audience in several {
            assert_eq!(topic(audience.clone()), None, "{audience:?}");
        }
    }
}
