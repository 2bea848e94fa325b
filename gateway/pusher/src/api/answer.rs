//! The bodies of answers: JSON, and exactly what the SDKs read.

use crate::{Compat, json::Writer, member::ChannelMember};

/// No attribute was requested.
pub const EMPTY: &str = "{}";
/// The answer of `GET /up`.
pub const HEALTHY: &str = r#"{"health":"OK"}"#;
/// The answer of the legacy publish call, with status 202.
pub const ACCEPTED: &str = "accepted";

/// The attributes of a channel; those not requested or not applicable are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes<'a> {
    pub user_count: Option<u64>,
    pub subscription_count: Option<u64>,
    /// The inner option is none if no event is retained.
    pub cache: Option<Option<Cached<'a>>>,
}

/// The retained event of a cache channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cached<'a> {
    pub data: &'a str,
    pub ttl_seconds: u64,
}

/// `{"channels":{…}}`: for `GET /channels`, and for a publish that asks for info.
pub fn channels<'a>(channels: impl IntoIterator<Item = (&'a str, Attributes<'a>)>) -> String {
    let mut out = Writer::with_capacity(256);
    out.plain(r#"{"channels":{"#).list(channels, |out, (name, attributes)| {
        out.string(name).plain(":{");
        attributes.write(out);
        out.plain("}");
    });
    out.plain("}}").finish()
}

/// `{"batch":[…]}`: for a batch in which at least one event asks for info, one entry per event.
pub fn batch<'a>(events: impl IntoIterator<Item = Attributes<'a>>) -> String {
    let mut out = Writer::with_capacity(256);
    out.plain(r#"{"batch":["#).list(events, |out, attributes| {
        out.plain("{");
        attributes.write(out);
        out.plain("}");
    });
    out.plain("]}").finish()
}

/// For `GET /channels/{channel}`.
pub fn channel(occupied: bool, attributes: Attributes<'_>) -> String {
    let mut out = Writer::with_capacity(128);
    out.plain(if occupied { r#"{"occupied":true"# } else { r#"{"occupied":false"# });
    if attributes != Attributes::default() {
        out.plain(",");
        attributes.write(&mut out);
    }
    out.plain("}").finish()
}

/// For `GET /channels/{channel}/users`. The hosted service writes all ids as strings, Reverb as they were
/// sent.
pub fn users<'a>(members: impl IntoIterator<Item = &'a ChannelMember<'a>>, compat: Compat) -> String {
    let mut out = Writer::with_capacity(256);
    out.plain(r#"{"users":["#).list(members, |out, member| {
        out.plain(r#"{"id":"#);
        match compat {
            Compat::Pusher => {
                out.string(&member.id);
            }
            Compat::Reverb => member.write_id(out),
        }
        out.plain("}");
    });
    out.plain("]}").finish()
}

/// For `GET /connections`.
pub fn connections(count: u64) -> String {
    format!(r#"{{"connections":{count}}}"#)
}

impl Attributes<'_> {
    /// Writes the attributes that are present, without the braces.
    fn write(&self, out: &mut Writer) {
        let counts = [("user_count", self.user_count), ("subscription_count", self.subscription_count)];
        let given = counts.iter().filter_map(|&(name, count)| Some((name, count?)));
        out.list(given, |out, (name, count)| {
            out.string(name).plain(":").number(count);
        });
        let Some(cache) = self.cache else { return };
        if self.user_count.or(self.subscription_count).is_some() {
            out.plain(",");
        }
        match cache {
            Some(Cached { data, ttl_seconds }) => {
                out.plain(r#""cache":{"data":"#).string(data);
                out.plain(r#","ttl":"#).number(ttl_seconds).plain("}");
            }
            None => {
                out.plain(r#""cache":null"#);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PusherLimits;

    fn counts(user_count: Option<u64>, subscription_count: Option<u64>) -> Attributes<'static> {
        Attributes { user_count, subscription_count, cache: None }
    }

    #[test]
    fn channels_are_an_object_also_when_there_are_none() {
        assert_eq!(channels([]), r#"{"channels":{}}"#);
        let two = [
            ("presence-a", counts(Some(42), Some(51))),
            ("b", counts(None, Some(13))),
            ("c", counts(None, None)),
        ];
        assert_eq!(
            channels(two),
            r#"{"channels":{"presence-a":{"user_count":42,"subscription_count":51},"b":{"subscription_count":13},"c":{}}}"#
        );
    }

    #[test]
    fn a_batch_has_one_answer_for_each_event() {
        assert_eq!(
            batch([counts(None, Some(1)), counts(None, None), counts(Some(2), None)]),
            r#"{"batch":[{"subscription_count":1},{},{"user_count":2}]}"#
        );
    }

    #[test]
    fn one_channel() {
        assert_eq!(channel(false, Attributes::default()), r#"{"occupied":false}"#);
        let cached = Cached { data: r#"{"a":1}"#, ttl_seconds: 60 };
        let all = Attributes { cache: Some(Some(cached)), ..counts(Some(42), Some(42)) };
        assert_eq!(
            channel(true, all),
            r#"{"occupied":true,"user_count":42,"subscription_count":42,"cache":{"data":"{\"a\":1}","ttl":60}}"#
        );
        let empty = Attributes { cache: Some(None), ..Attributes::default() };
        assert_eq!(channel(true, empty), r#"{"occupied":true,"cache":null}"#);
        let counted = Attributes { cache: Some(None), ..counts(None, Some(0)) };
        assert_eq!(channel(false, counted), r#"{"occupied":false,"subscription_count":0,"cache":null}"#);
    }

    #[test]
    fn users_and_connections() {
        let member = |data| ChannelMember::parse(data, &PusherLimits::default()).unwrap();
        let members = [member(r#"{"user_id":"1"}"#), member(r#"{"user_id":2}"#)];
        assert_eq!(users(&members, Compat::Pusher), r#"{"users":[{"id":"1"},{"id":"2"}]}"#);
        assert_eq!(users(&members, Compat::Reverb), r#"{"users":[{"id":"1"},{"id":2}]}"#);
        assert_eq!(users(&[], Compat::Pusher), r#"{"users":[]}"#);
        assert_eq!(connections(7), r#"{"connections":7}"#);
    }
}
