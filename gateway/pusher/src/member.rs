//! Identities: members of presence channels, and signed-in users.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    json::{self, Writer},
    limits::PusherLimits,
};

/// A user in a presence channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelMember<'a> {
    /// The user's identity: a number's digits, or the string.
    pub id: Cow<'a, str>,
    /// Whether the id was sent as a number: it is returned as one.
    pub numeric: bool,
    /// `user_info`: JSON, as sent.
    pub info: Option<Cow<'a, str>>,
}

/// A signed-in user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedInUser {
    pub id: String,
    /// `user_info`: JSON, as sent.
    pub info: Option<String>,
    /// The users whose presence it watches, each once.
    pub watchlist: Vec<String>,
    /// Whether it named more than it may watch; the others are left out.
    pub watchlist_cut: bool,
}

/// Why `channel_data` or `user_data` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("{what} does not parse: {reason}")]
    Parse { what: &'static str, reason: String },
    #[error("{what} is not an id: give {wanted}")]
    Id { what: &'static str, wanted: &'static str },
    #[error("{what} holds a control character: use printable text")]
    Control { what: &'static str },
    #[error("{what} has {len} bytes: at most {bytes_max} are allowed")]
    TooLong { what: &'static str, len: usize, bytes_max: usize },
}

#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UserData<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
    #[serde(borrow)]
    watchlist: Option<Vec<&'a RawValue>>,
}

const STRING: &str = "a string that is not empty";
const STRING_OR_NUMBER: &str = "a string that is not empty, or a number";

impl<'a> ChannelMember<'a> {
    /// The member that a client's `channel_data` describes.
    pub fn parse(channel_data: &'a str, limits: &PusherLimits) -> Result<Self, MemberError> {
        let parsed = json::object(channel_data);
        let data: ChannelData<'_> =
            parsed.map_err(|reason| MemberError::Parse { what: "channel_data", reason })?;
        let what = "channel_data.user_id";
        let (id, numeric) =
            data.user_id.and_then(id).ok_or(MemberError::Id { what, wanted: STRING_OR_NUMBER })?;
        check_id(what, &id, limits)?;
        let info = data.user_info.map(RawValue::get);
        short("channel_data.user_info", info.unwrap_or_default(), limits.user_info_bytes_max)?;
        Ok(Self { id, numeric, info: info.map(Cow::Borrowed) })
    }

    /// The member info for its seat, beside its id: `channel_data`, rebuilt from the known fields. It is also
    /// the data of `member_added`.
    pub fn seat_info(&self) -> String {
        let len = self.id.len() + self.info.as_ref().map_or(0, |info| info.len());
        let mut out = Writer::with_capacity(len + 40);
        out.plain(r#"{"user_id":"#);
        self.write_id(&mut out);
        if let Some(info) = &self.info {
            out.plain(r#","user_info":"#).raw(info);
        }
        out.plain("}").finish()
    }

    /// The member in a seat. Workers seat clients, too, with an info of their own: JSON becomes `user_info`,
    /// other text a string.
    pub fn of_seat(user: &'a str, seat_info: &'a str) -> Self {
        if let Ok(ChannelData { user_id: Some(raw), user_info }) = json::object(seat_info)
            && let Some((id, numeric)) = id(raw)
            && id == user
        {
            let info = user_info.map(|info| Cow::Borrowed(info.get()));
            return Self { id: user.into(), numeric, info };
        }
        let info = if seat_info.is_empty() {
            None
        } else if let Ok(json) = serde_json::from_str::<&RawValue>(seat_info) {
            Some(json.get().into())
        } else {
            Some(Writer::with_capacity(seat_info.len() + 2).string(seat_info).finish().into())
        };
        Self { id: user.into(), numeric: false, info }
    }

    /// The id as JSON, as it was sent.
    pub fn id_json(&self) -> String {
        let mut out = Writer::with_capacity(self.id.len() + 2);
        self.write_id(&mut out);
        out.finish()
    }

    pub(super) fn write_id(&self, out: &mut Writer) {
        if self.numeric {
            out.plain(&self.id)
        } else {
            out.string(&self.id)
        };
    }
}

impl SignedInUser {
    /// The user that a client's `user_data` describes.
    pub fn parse(user_data: &str, limits: &PusherLimits) -> Result<Self, MemberError> {
        let parsed = json::object(user_data);
        let data: UserData<'_> = parsed.map_err(|reason| MemberError::Parse { what: "user_data", reason })?;
        let what = "user_data.id";
        let Some((id, false)) = data.id.and_then(id) else {
            return Err(MemberError::Id { what, wanted: STRING });
        };
        check_id(what, &id, limits)?;
        let watched = data.watchlist.unwrap_or_default();
        let mut watchlist: Vec<String> = Vec::new();
        for raw in watched.iter().take(limits.watchlist_max) {
            let what = "user_data.watchlist";
            let (id, _) = self::id(raw).ok_or(MemberError::Id { what, wanted: STRING_OR_NUMBER })?;
            check_id(what, &id, limits)?;
            watchlist.push(id.into_owned());
        }
        let mut seen = std::collections::HashSet::new();
        watchlist.retain(|id| seen.insert(id.clone()));
        Ok(Self {
            id: id.into_owned(),
            info: data.user_info.map(|info| info.get().to_owned()),
            watchlist,
            watchlist_cut: watched.len() > limits.watchlist_max,
        })
    }

    /// The user as member of a presence channel that it joins without `channel_data`.
    pub fn member(&self, limits: &PusherLimits) -> Result<ChannelMember<'_>, MemberError> {
        let info = self.info.as_deref();
        short("user_data.user_info", info.unwrap_or_default(), limits.user_info_bytes_max)?;
        Ok(ChannelMember { id: (&*self.id).into(), numeric: false, info: info.map(Cow::Borrowed) })
    }
}

/// An id, and whether it is a number. A number's text is kept as sent, so huge ones keep all their digits.
fn id(raw: &RawValue) -> Option<(Cow<'_, str>, bool)> {
    match raw.get().as_bytes().first()? {
        b'"' => {
            let id: String = serde_json::from_str(raw.get()).ok()?;
            (!id.is_empty()).then_some((id.into(), false))
        }
        b'-' | b'0'..=b'9' => Some((raw.get().into(), true)),
        _ => None,
    }
}

/// One rule for user ids wherever they appear: the id is part of the names of the user's groups, by which its
/// connections are found and terminated.
fn check_id(what: &'static str, id: &str, limits: &PusherLimits) -> Result<(), MemberError> {
    short(what, id, limits.user_id_bytes_max)?;
    if id.chars().any(char::is_control) {
        return Err(MemberError::Control { what });
    }
    Ok(())
}

fn short(what: &'static str, text: &str, bytes_max: usize) -> Result<(), MemberError> {
    if text.len() > bytes_max {
        return Err(MemberError::TooLong { what, len: text.len(), bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::{ONLINE, SIGNED_IN, USER_ID_BYTES_HIGHEST};

    fn member(channel_data: &str) -> Result<ChannelMember<'_>, String> {
        ChannelMember::parse(channel_data, &PusherLimits::default()).map_err(|error| error.to_string())
    }

    fn user(user_data: &str) -> Result<SignedInUser, String> {
        SignedInUser::parse(user_data, &PusherLimits::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_id_is_compared_as_text_and_answered_as_sent() {
        let text = member(r#"{"user_id":"1","user_info":{"b":1,"a":[ 2 ]}}"#).unwrap();
        let number = member(r#"{"user_info":{},"user_id":1}"#).unwrap();
        assert_eq!((&*text.id, text.id_json().as_str()), ("1", "\"1\""));
        assert_eq!((&*number.id, number.id_json().as_str()), ("1", "1"));
        assert_eq!(text.info.as_deref(), Some(r#"{"b":1,"a":[ 2 ]}"#));
        let huge = member(r#"{"user_id":123456789012345678901234567890}"#).unwrap();
        assert_eq!((huge.id_json().as_str(), huge.info), ("123456789012345678901234567890", None));
        assert_eq!(member(r#"{"user_id":"a\"\u00e9"}"#).unwrap().id, "a\"é");
        assert_eq!(member(r#"{"user_id":"1","user_info":null,"more":1}"#).unwrap().info, None);
    }

    #[test]
    fn channel_data_without_an_id_or_too_large_is_refused() {
        let no_id =
            Err("channel_data.user_id is not an id: give a string that is not empty, or a number".to_owned());
        for data in
            ["{}", r#"{"user_id":null}"#, r#"{"user_id":""}"#, r#"{"user_id":true}"#, r#"{"user_id":{}}"#]
        {
            assert_eq!(member(data), no_id, "{data}");
        }
        assert_eq!(member("[1]"), Err("channel_data does not parse: it is not a JSON object".to_owned()));
        assert!(member(r#"{"user_id":1,"user_id":2}"#).is_err());
        let quoted = user(&format!(r#"{{"id":"1","watchlist":"{}"}}"#, "x".repeat(5000))).unwrap_err();
        assert!(quoted.len() < 600, "{quoted}");
        let long = format!(r#"{{"user_id":"{}"}}"#, "x".repeat(129));
        assert_eq!(
            member(&long),
            Err("channel_data.user_id has 129 bytes: at most 128 are allowed".to_owned())
        );
        let long = format!(r#"{{"user_id":"1","user_info":"{}"}}"#, "x".repeat(1023));
        assert_eq!(
            member(&long),
            Err("channel_data.user_info has 1025 bytes: at most 1024 are allowed".to_owned())
        );
    }

    #[test]
    fn a_seat_gives_its_member_back() {
        for data in [
            r#"{"user_id":"1","user_info":{"a":"\"}"}}"#,
            r#"{"user_id":1}"#,
            r#"{"user_id":"é","user_info":[]}"#,
        ] {
            let member = member(data).unwrap();
            let info = member.seat_info();
            assert_eq!(info, data);
            assert_eq!(ChannelMember::of_seat(&member.id, &info), member);
        }
        let spoofed = member(
            r#"{"admin":true,"user_info":{"n":
            1},"user_id":7}"#,
        );
        assert_eq!(spoofed.unwrap().seat_info(), r#"{"user_id":7,"user_info":{"n":             1}}"#);
    }

    #[test]
    fn a_seat_that_a_worker_gave_has_a_member_too() {
        let info = |info| ChannelMember::of_seat("ann", info).info.map(Cow::into_owned);
        assert_eq!(info(""), None);
        assert_eq!(info(r#"{"nick":"Ann"}"#).as_deref(), Some(r#"{"nick":"Ann"}"#));
        assert_eq!(info("Ann \"A\"").as_deref(), Some(r#""Ann \"A\"""#));
        let other = r#"{"user_id":"bob","user_info":{}}"#;
        assert_eq!(info(other).as_deref(), Some(other));
        assert_eq!(ChannelMember::of_seat("ann", other).id, "ann");
    }

    #[test]
    fn a_user_has_a_string_for_an_id() {
        let full = user(r#"{"id":"12","user_info":{"name":"Ann"},"watchlist":["1",2,"1"]}"#).unwrap();
        assert_eq!((&*full.id, full.info.as_deref()), ("12", Some(r#"{"name":"Ann"}"#)));
        assert_eq!(
            (full.watchlist.as_slice(), full.watchlist_cut),
            (&["1".to_owned(), "2".to_owned()][..], false)
        );
        let member = full.member(&PusherLimits::default()).unwrap();
        assert_eq!(member.seat_info(), r#"{"user_id":"12","user_info":{"name":"Ann"}}"#);
        let bare = user(r#"{"id":"12","watchlist":null}"#).unwrap();
        assert_eq!((bare.info, bare.watchlist), (None, Vec::new()));
        let no_id = Err("user_data.id is not an id: give a string that is not empty".to_owned());
        for data in ["{}", r#"{"id":12}"#, r#"{"id":""}"#, r#"{"id":null}"#] {
            assert_eq!(user(data), no_id, "{data}");
        }
        assert!(user(r#"{"id":"1","watchlist":"2"}"#).is_err());
        assert!(user(r#"{"id":"1","watchlist":[null]}"#).is_err());
        let large = user(&format!(r#"{{"id":"1","user_info":"{}"}}"#, "x".repeat(2000))).unwrap();
        assert!(large.member(&PusherLimits::default()).is_err());
    }

    /// A user that signs in can be terminated: the names of its groups are valid.
    #[test]
    fn every_id_that_is_taken_is_part_of_a_groups_name() {
        let limits = PusherLimits { user_id_bytes_max: USER_ID_BYTES_HIGHEST, ..PusherLimits::default() };
        let longest = "x".repeat(USER_ID_BYTES_HIGHEST);
        for id in ["7", "a b", "é☕", "a/b%2F", "#", "..", &longest] {
            let quoted = serde_json::to_string(id).unwrap();
            let taken = SignedInUser::parse(&format!(r#"{{"id":{quoted},"watchlist":[{quoted}]}}"#), &limits)
                .unwrap();
            let present = format!(r#"{{"user_id":{quoted}}}"#);
            assert_eq!(ChannelMember::parse(&present, &limits).unwrap().id, taken.id);
            for prefix in [SIGNED_IN, ONLINE, "#server-to-user-"] {
                let group = format!("{prefix}{}", taken.id);
                assert_eq!(broadgate_proto::name::check("group", &group), Ok(()));
            }
        }
        let control = |what: &str| format!("{what} holds a control character: use printable text");
        for id in ["a\nb", "\0", "a\u{85}", "\u{7f}"] {
            let quoted = serde_json::to_string(id).unwrap();
            let sign_in = user(&format!(r#"{{"id":{quoted}}}"#));
            let watching = user(&format!(r#"{{"id":"1","watchlist":["2",{quoted}]}}"#));
            let present = format!(r#"{{"user_id":{quoted}}}"#);
            assert_eq!(sign_in, Err(control("user_data.id")));
            assert_eq!(watching, Err(control("user_data.watchlist")));
            assert_eq!(member(&present), Err(control("channel_data.user_id")));
        }
    }

    #[test]
    fn a_long_watchlist_keeps_its_begin() {
        let ids: Vec<String> = (0..150).map(|id| format!("{id:?}")).collect();
        let cut = user(&format!(r#"{{"id":"x","watchlist":[{}]}}"#, ids.join(","))).unwrap();
        assert_eq!((cut.watchlist.len(), cut.watchlist[99].as_str(), cut.watchlist_cut), (100, "99", true));
        let full = user(&format!(r#"{{"id":"x","watchlist":[{}]}}"#, ids[..100].join(","))).unwrap();
        assert_eq!((full.watchlist.len(), full.watchlist_cut), (100, false));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_seat_has_a_member(user_id in "\\PC{1,10}", text in "\\PC{0,40}|[{}\":,a0-9\n]{0,20}") {
            let _ = member(&text);
            let _ = user(&text);
            let seated = ChannelMember::of_seat(&user_id, &text);
            prop_assert_eq!(&*seated.id, &*user_id);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&seated.seat_info()).is_ok());
        }
    }
}
