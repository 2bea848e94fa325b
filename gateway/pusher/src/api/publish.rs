//! Publishes of an app's backend.

use broadgate_proto::{id::ClientId, parse_error::without_value};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    ApiRefusal,
    params::Params,
    query::{Info, check_any_name, check_name},
};
use crate::{Compat, json, limits::PusherLimits, socket_id};

/// An event for some channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub name: String,
    /// As the publisher gave it.
    pub data: String,
    /// At least one, each once, in the publisher's order.
    pub channels: Vec<String>,
    /// The client to exclude. None also if the publisher named a client that cannot be one of this cluster's.
    pub except: Option<ClientId>,
    /// The attributes to return for each channel, as far as they apply.
    pub info: Info,
}

/// A fingerprint that distinguishes publishes under the same idempotency key, however their bodies are
/// written.
pub fn print(events: &[Publish]) -> u128 {
    let mut text = Vec::new();
    let mut add = |part: &[u8]| {
        text.extend_from_slice(&part.len().to_le_bytes());
        text.extend_from_slice(part);
    };
    for event in events {
        add(event.name.as_bytes());
        add(event.data.as_bytes());
        add(event.except.map(|client| client.to_string()).unwrap_or_default().as_bytes());
        add(&event.channels.len().to_le_bytes());
        event.channels.iter().for_each(|channel| add(channel.as_bytes()));
    }
    xxh3_128(&text)
}

#[derive(Deserialize)]
struct PublishedEvent<'a> {
    name: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    channels: Option<Vec<String>>,
    channel: Option<String>,
    socket_id: Option<String>,
    info: Option<String>,
}

#[derive(Deserialize)]
struct EventBatch<'a> {
    #[serde(borrow)]
    batch: Vec<PublishedEvent<'a>>,
}

/// Null is data, too.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A body with more bytes than this is too large in any case (413), so it need not be read to its end. In
/// JSON a byte takes at most six; the rest is for white space and unknown fields.
pub fn body_bytes_max(limits: &PusherLimits) -> usize {
    const JSON_BYTES_MAX: usize = 6;
    const FIELDS_BYTES_MAX: usize = 1024;
    let texts = limits.event_data_bytes_max.saturating_add(limits.event_name_bytes_max);
    let event = texts.saturating_mul(JSON_BYTES_MAX).saturating_add(FIELDS_BYTES_MAX);
    let channel = limits.channel_name_bytes_max.saturating_mul(JSON_BYTES_MAX).saturating_add(3);
    let one = event.saturating_add(channel.saturating_mul(limits.channels_per_event_max));
    let batch = event.saturating_add(channel).saturating_mul(limits.batch_events_max);
    one.max(batch)
}

/// `POST /events`. Fields that the body lacks may be in the query.
pub fn event(
    body: &[u8],
    params: &Params,
    limits: &PusherLimits,
    compat: Compat,
) -> Result<Publish, ApiRefusal> {
    let text = if body.is_empty() { "{}" } else { utf8(body)? };
    let event: PublishedEvent<'_> = json::object(text).map_err(unparsed)?;
    let param = |name| params.get(name).map(str::to_owned);
    let mut channels = event.channels.or_else(|| event.channel.map(|channel| vec![channel]));
    if channels.is_none() {
        let listed = [params.list("channels"), params.list("channel")].concat();
        channels = Some(listed.into_iter().map(str::to_owned).collect());
    }
    let info = event.info.unwrap_or_else(|| params.list("info").join(","));
    Draft {
        name: event.name.or_else(|| param("name")),
        data: event.data.map(data).transpose()?.or_else(|| param("data")),
        channels: channels.unwrap_or_default(),
        socket_id: event.socket_id.or_else(|| param("socket_id")),
        info,
    }
    .checked(limits, compat)
}

/// `POST /batch_events`: each has one channel.
pub fn batch(body: &[u8], limits: &PusherLimits, compat: Compat) -> Result<Vec<Publish>, ApiRefusal> {
    let EventBatch { batch } = json::object(utf8(body)?).map_err(unparsed)?;
    let max = limits.batch_events_max;
    if batch.len() > max {
        let len = batch.len();
        // The hosted service's words, which the server SDKs' tests look for.
        return Err(ApiRefusal::bad(format!("Batch too large (> {max}): it has {len} events")));
    }
    let one = |event: PublishedEvent<'_>| {
        Draft {
            name: event.name,
            data: event.data.map(data).transpose()?,
            channels: event.channel.into_iter().collect(),
            socket_id: event.socket_id,
            info: event.info.unwrap_or_default(),
        }
        .checked(limits, compat)
    };
    let named = |(at, event)| {
        one(event).map_err(|refusal| ApiRefusal { text: format!("batch[{at}]: {}", refusal.text), ..refusal })
    };
    batch.into_iter().enumerate().map(named).collect()
}

/// `POST /channels/{channel}/events`, the legacy call: the body is the data, everything else is in the query.
pub fn channel_event(
    channel: String,
    body: &[u8],
    params: &Params,
    limits: &PusherLimits,
) -> Result<Publish, ApiRefusal> {
    Draft {
        name: params.get("name").map(str::to_owned),
        data: Some(utf8(body)?.to_owned()),
        channels: vec![channel],
        socket_id: params.get("socket_id").map(str::to_owned),
        info: String::new(),
    }
    .checked(limits, Compat::default())
}

/// A publisher's unchecked input.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) data: Option<String>,
    pub(super) channels: Vec<String>,
    pub(super) socket_id: Option<String>,
    pub(super) info: String,
}

/// Whose rules hold for the channels' names and the socket id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameRules {
    Pusher,
    /// Every printable name, and every text for a socket id: one that is no client's excludes nobody.
    Any,
}

impl Draft {
    fn checked(self, limits: &PusherLimits, compat: Compat) -> Result<Publish, ApiRefusal> {
        self.checked_by(NameRules::Pusher, limits, compat)
    }

    /// From a publisher that is not bound to Pusher's names and socket ids.
    pub(super) fn checked_freely(self, limits: &PusherLimits) -> Result<Publish, ApiRefusal> {
        self.checked_by(NameRules::Any, limits, Compat::default())
    }

    fn checked_by(
        self,
        rules: NameRules,
        limits: &PusherLimits,
        compat: Compat,
    ) -> Result<Publish, ApiRefusal> {
        let name = self.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| missing("name", "say what has happened"))?;
        if name.len() > limits.event_name_bytes_max {
            let (len, max) = (name.len(), limits.event_name_bytes_max);
            return Err(ApiRefusal::bad(format!("name has {len} bytes: at most {max} are allowed")));
        }
        let data = self.data.ok_or_else(|| missing("data", "give a string"))?;
        if data.len() > limits.event_data_bytes_max {
            return Err(ApiRefusal::too_large(format!(
                "The data content of this event exceeds the allowed maximum ({} bytes): it has {}",
                limits.event_data_bytes_max,
                data.len()
            )));
        }
        let channels = some_channels(self.channels, rules, limits)?;
        let except = match self.socket_id.as_deref() {
            None | Some("") => None,
            Some(id) if rules == NameRules::Any => socket_id::parse(id).ok().flatten(),
            Some(id) => socket_id::parse(id).map_err(ApiRefusal::bad)?,
        };
        let info = Info { cache: false, ..Info::parse(&self.info, compat)? };
        Ok(Publish { name, data, channels, except, info })
    }
}

fn some_channels(
    channels: Vec<String>,
    rules: NameRules,
    limits: &PusherLimits,
) -> Result<Vec<String>, ApiRefusal> {
    let max = limits.channels_per_event_max;
    if channels.is_empty() {
        return Err(missing("channel", "give one as `channel`, or several as `channels`"));
    }
    if channels.len() > max {
        let len = channels.len();
        return Err(ApiRefusal::bad(format!("channels has {len} names: at most {max} are allowed")));
    }
    let check = if rules == NameRules::Any { check_any_name } else { check_name };
    channels.iter().try_for_each(|channel| check(channel, limits))?;
    let mut seen = std::collections::HashSet::new();
    Ok(channels.iter().filter(|channel| seen.insert(channel.as_str())).cloned().collect())
}

/// Data other than a string becomes compact JSON: older backends send objects.
pub(super) fn data(raw: &RawValue) -> Result<String, ApiRefusal> {
    if !raw.get().starts_with('"') {
        return Ok(json::compact(raw.get()));
    }
    serde_json::from_str(raw.get()).map_err(|error| {
        ApiRefusal::bad(format!("data does not parse: {}", without_value(&error.to_string())))
    })
}

pub(super) fn utf8(body: &[u8]) -> Result<&str, ApiRefusal> {
    std::str::from_utf8(body).map_err(|error| ApiRefusal::bad(format!("the body is not UTF-8: {error}")))
}

pub(super) fn unparsed(reason: String) -> ApiRefusal {
    ApiRefusal::bad(format!("the body does not parse: {reason}"))
}

fn missing(field: &'static str, advice: &'static str) -> ApiRefusal {
    ApiRefusal::bad(format!("{field} is missing: {advice}"))
}

#[cfg(test)]
mod tests {
    use broadgate_proto::id::Incarnation;
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &str, query: &str) -> Result<Publish, (u16, String)> {
        event(body.as_bytes(), &Params::parse(query), &PusherLimits::default(), Compat::Pusher).map_err(said)
    }

    fn said(refusal: ApiRefusal) -> (u16, String) {
        (refusal.status.as_u16(), refusal.text)
    }

    fn publish(name: &str, data: &str, channels: &[&str]) -> Publish {
        let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
        Publish {
            name: name.to_owned(),
            data: data.to_owned(),
            channels,
            except: None,
            info: Info::default(),
        }
    }

    #[test]
    fn events_as_laravel_sends_them() {
        let body = r#"{"name":"App\\Events\\OrderShipped","data":"{\"id\":1,\"n\":\"\\u00e9\\\/\"}","channel":"private-orders.1","socket_id":"123.456"}"#;
        let event = parse(body, "").unwrap();
        let client = ClientId { incarnation: Incarnation::from_bits(123), shard: 0, slot: 0, key: 456 };
        let expected =
            publish(r"App\Events\OrderShipped", r#"{"id":1,"n":"\u00e9\/"}"#, &["private-orders.1"]);
        assert_eq!(event, Publish { except: Some(client), ..expected });
        let body = r#"{"channels":["a","b","a"],"name":"e","data":"[]","socket_id":null,"info":"user_count,subscription_count"}"#;
        let info = Info { user_count: true, subscription_count: true, cache: false };
        assert_eq!(parse(body, ""), Ok(Publish { info, ..publish("e", "[]", &["a", "b"]) }));
    }

    #[test]
    fn data_that_is_no_string_becomes_compact_json() {
        for (sent, data) in [
            (r#"{ "b" : 1.00, "a" : [ "x y" ] }"#, r#"{"b":1.00,"a":["x y"]}"#),
            ("null", "null"),
            ("12", "12"),
            (r#""""#, ""),
        ] {
            let body = format!(r#"{{"name":"e","data":{sent},"channel":"c"}}"#);
            assert_eq!(parse(&body, ""), Ok(publish("e", data, &["c"])));
        }
    }

    #[test]
    fn what_the_body_does_not_say_stands_in_the_query() {
        let query = "name=e&data=a%20b&channels[]=x&channels[]=y&auth_key=k";
        assert_eq!(parse("", query), Ok(publish("e", "a b", &["x", "y"])));
        assert_eq!(parse(r#"{"name":"f","channel":"z"}"#, query), Ok(publish("f", "a b", &["z"])));
        assert_eq!(parse(r#"{"name":"f","data":""}"#, "channel=c"), Ok(publish("f", "", &["c"])));
        assert!(parse("", &format!("{query}&info=user_count")).unwrap().info.user_count);
    }

    #[test]
    fn a_print_tells_publishes_apart() {
        let one = publish("e", "ab", &["c"]);
        let print = |event: &Publish| super::print(std::slice::from_ref(event));
        assert_eq!(print(&one), print(&publish("e", "ab", &["c"])));
        for other in [publish("ea", "b", &["c"]), publish("e", "ab", &["c", "d"]), publish("e", "ab", &["d"])]
        {
            assert_ne!(print(&one), print(&other));
        }
        assert_ne!(super::print(&[one.clone(), one.clone()]), print(&one));
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let bad = |body: &str| {
            let (status, text) = parse(body, "").unwrap_err();
            assert_eq!(status, 400, "{text}");
            text
        };
        assert_eq!(bad("x"), "the body does not parse: it is not a JSON object");
        assert_eq!(bad("{}"), "name is missing: say what has happened");
        assert_eq!(bad(r#"{"name":""}"#), "name is missing: say what has happened");
        assert_eq!(bad(r#"{"name":"e"}"#), "data is missing: give a string");
        let none = "channel is missing: give one as `channel`, or several as `channels`";
        assert_eq!(bad(r#"{"name":"e","data":""}"#), none);
        assert_eq!(bad(r#"{"name":"e","data":"","channels":[]}"#), none);
        assert!(
            bad(r#"{"name":"e","data":"","channel":"a b"}"#).starts_with("the channel's name \"a b\" holds")
        );
        assert!(bad(r##"{"name":"e","data":"","channel":"#x"}"##).contains("reserved"));
        assert_eq!(
            bad(r#"{"name":"e","data":"","channel":"c","socket_id":"1"}"#),
            "Invalid socket id \"1\": it is two decimal numbers and a dot"
        );
        assert!(bad(r#"{"name":"e","data":"","channel":"c","info":"x"}"#).starts_with("info \"x\""));
        assert!(
            bad(r#"{"name":7,"data":"","channel":"c"}"#).starts_with("the body does not parse: invalid type")
        );
        assert!(bad(r#"{"name":"e","name":"f"}"#).contains("duplicate field `name`"));
        assert_eq!(
            said(event(&[0xff], &Params::default(), &PusherLimits::default(), Compat::Pusher).unwrap_err()).0,
            400
        );
    }

    #[test]
    fn limits() {
        let body = |name: usize, data: usize, channels: usize| {
            let channels: Vec<_> = (0..channels).map(|at| format!("\"c{at}\"")).collect();
            let (name, data) = ("n".repeat(name), "d".repeat(data));
            format!(r#"{{"name":"{name}","data":"{data}","channels":[{}]}}"#, channels.join(","))
        };
        assert_eq!(parse(&body(200, 10_240, 100), "").unwrap().channels.len(), 100);
        let refused = |name, data, channels| parse(&body(name, data, channels), "").unwrap_err();
        assert_eq!(refused(201, 1, 1), (400, "name has 201 bytes: at most 200 are allowed".to_owned()));
        assert_eq!(refused(1, 1, 101), (400, "channels has 101 names: at most 100 are allowed".to_owned()));
        let text = "The data content of this event exceeds the allowed maximum (10240 bytes): it has 10241";
        assert_eq!(refused(1, 10_241, 1), (413, text.to_owned()));
    }

    #[test]
    fn a_body_within_the_limits_is_within_its_own() {
        let limits = PusherLimits { event_data_bytes_max: 100, ..PusherLimits::default() };
        let name = "\\u0001".repeat(200);
        let data = "\\u0001".repeat(100);
        let channels: Vec<_> = (0..100).map(|at| format!("\"{at:0>200}\"")).collect();
        let many = format!(r#"{{"name":"{name}","data":"{data}","channels":[{}]}}"#, channels.join(","));
        assert!(event(many.as_bytes(), &Params::default(), &limits, Compat::Pusher).is_ok());
        assert!(many.len() <= body_bytes_max(&limits), "{}", many.len());
        let one =
            format!(r#"{{"name":"{name}","data":"{data}","channel":{},"info":"user_count"}}"#, channels[0]);
        let whole = format!(r#"{{"batch":[{}]}}"#, vec![one; 10].join(","));
        assert!(batch(whole.as_bytes(), &limits, Compat::Pusher).is_ok());
        assert!(whole.len() <= body_bytes_max(&limits), "{}", whole.len());
    }

    #[test]
    fn batches() {
        let parse =
            |body: &str| batch(body.as_bytes(), &PusherLimits::default(), Compat::Pusher).map_err(said);
        let body = r#"{"batch":[{"name":"e","data":"1","channel":"a"},{"name":"f","data":{},"channel":"b","info":"subscription_count"}]}"#;
        let info = Info { subscription_count: true, ..Info::default() };
        let second = Publish { info, ..publish("f", "{}", &["b"]) };
        assert_eq!(parse(body), Ok(vec![publish("e", "1", &["a"]), second]));
        assert_eq!(parse(r#"{"batch":[]}"#), Ok(Vec::new()));
        let bad = parse(r#"{"batch":[{"name":"e","data":"1","channel":"a"},{"name":"e","data":"1"}]}"#)
            .unwrap_err();
        assert_eq!((bad.0, bad.1.starts_with("batch[1]: channel is missing")), (400, true), "{}", bad.1);
        let one = format!(r#"{{"name":"e","data":"{}","channel":"a"}}"#, "x".repeat(10_241));
        assert_eq!(parse(&format!(r#"{{"batch":[{one}]}}"#)).unwrap_err().0, 413);
        let eleven = [r#"{"name":"e","data":"1","channel":"a"}"#; 11].join(",");
        assert_eq!(
            parse(&format!(r#"{{"batch":[{eleven}]}}"#)),
            Err((400, "Batch too large (> 10): it has 11 events".to_owned()))
        );
        for body in ["", "[]", "{}", r#"{"batch":{}}"#, r#"{"batch":[7]}"#] {
            assert_eq!(parse(body).unwrap_err().0, 400, "{body}");
        }
    }

    #[test]
    fn the_old_way() {
        let old = |query: &str| {
            channel_event("c".to_owned(), b"{\"a\": 1}", &Params::parse(query), &PusherLimits::default())
                .map_err(said)
        };
        assert_eq!(old("name=e"), Ok(publish("e", "{\"a\": 1}", &["c"])));
        assert!(old("name=e&socket_id=1.2").unwrap().except.is_some());
        assert_eq!(old(""), Err((400, "name is missing: say what has happened".to_owned())));
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[{}\\[\\]\":,a0-9]{0,30}") {
            let (params, limits) = (Params::default(), PusherLimits::default());
            let _ = event(&bytes, &params, &limits, Compat::Reverb);
            let _ = batch(&bytes, &limits, Compat::Pusher);
            let data = format!("{{\"name\":\"e\",\"channel\":\"c\",\"data\":{text}}}");
            if let Ok(event) = event(data.as_bytes(), &params, &limits, Compat::Pusher) {
                prop_assert!(event.data.len() <= text.len());
            }
        }
    }
}
