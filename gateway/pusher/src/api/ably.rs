//! Ably's REST call that publishes, as far as Laravel's driver `ably` uses it: `POST /channels/{name}/messages`,
//! in JSON or MessagePack, authorized by Basic with `appId.keyId` and its secret. Nothing else of Ably.

use std::{fmt, io::Cursor, marker::PhantomData};

use broadgate_proto::parse_error::without_value;
use data_encoding::BASE64;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    ApiRefusal,
    params::percent_decode,
    publish::{self, Draft, Publish},
};
use crate::{channel::ChannelKind, json, limits::PusherLimits};

/// How deep a body in MessagePack may be nested. The messages of the driver are flat.
const DEPTH_MAX: usize = 16;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    Json,
    MessagePack,
}

impl BodyFormat {
    /// Of a `Content-Type` or `Accept` header; none if it names neither.
    pub fn named(header: &str) -> Option<Self> {
        let header = header.to_ascii_lowercase();
        match (header.find("application/x-msgpack"), header.find("application/json")) {
            (Some(binary), Some(text)) if text < binary => Some(Self::Json),
            (Some(_), _) => Some(Self::MessagePack),
            (None, Some(_)) => Some(Self::Json),
            (None, None) => None,
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MessagePack => "application/x-msgpack",
        }
    }

    fn write(self, answer: &impl Serialize) -> Vec<u8> {
        // Texts and numbers always have both forms.
        match self {
            Self::Json => serde_json::to_vec(answer).unwrap_or_default(),
            Self::MessagePack => rmp_serde::to_vec_named(answer).unwrap_or_default(),
        }
    }

    /// One object, or an array of objects.
    fn read<T: DeserializeOwned>(self, body: &[u8]) -> Result<Vec<T>, String> {
        match self {
            Self::Json => {
                let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
                if text.trim_start().starts_with('[') {
                    // serde would read an object from an array, too.
                    let all: Vec<&serde_json::value::RawValue> =
                        serde_json::from_str(text).map_err(|error| without_value(&error.to_string()))?;
                    return all.iter().map(|one| json::object(one.get())).collect();
                }
                json::object(text).map(|one| vec![one])
            }
            Self::MessagePack => {
                let mut reader = rmp_serde::Deserializer::new(Cursor::new(body));
                reader.set_max_depth(DEPTH_MAX);
                // The first byte of an array (16, 32), or of one with at most 15 items.
                let read = match body.first() {
                    Some(0x90..=0x9f | 0xdc | 0xdd) => Vec::<OnlyMap<T>>::deserialize(&mut reader),
                    _ => OnlyMap::deserialize(&mut reader).map(|one| vec![one]),
                };
                let all = read.map_err(|error| without_value(&error.to_string()))?;
                if reader.position() != body.len() as u64 {
                    return Err("bytes follow its end".to_owned());
                }
                Ok(all.into_iter().map(|OnlyMap(one)| one).collect())
            }
        }
    }
}

/// What is read from a map. serde would read it from an array as well, by the order of its fields.
struct OnlyMap<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OnlyMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

struct MapVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MapVisitor<T> {
    type Value = OnlyMap<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(OnlyMap)
    }
}

/// The key and the secret of a header `Basic …`.
pub fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded = BASE64.decode(encoded.trim().as_bytes()).ok()?;
    let decoded = String::from_utf8(decoded).ok().filter(|_| scheme.eq_ignore_ascii_case("Basic"))?;
    decoded.split_once(':').map(|(key, secret)| (key.to_owned(), secret.to_owned()))
}

/// The channel's name as Ably has it, from the path's segment, in which PHP encodes a space as `+`.
pub fn decoded_name(segment: &str) -> Result<String, ApiRefusal> {
    String::from_utf8(percent_decode(segment, true))
        .map_err(|_| ApiRefusal::bad("the channel's name is not UTF-8 when decoded"))
}

/// The channel's name as Laravel's application has it, from Ably's: `private:orders` to `private-orders`.
pub fn channel_name(name: &str) -> Result<String, ApiRefusal> {
    let kinds = [("private:", "private-"), ("presence:", "presence-"), ("public:", "")];
    let renamed =
        kinds.iter().find_map(|(theirs, ours)| name.strip_prefix(theirs).map(|rest| format!("{ours}{rest}")));
    let renamed = renamed.unwrap_or_else(|| name.to_owned());
    // By whatever name: clients of such a channel could not decrypt it.
    if ChannelKind::of(&renamed).encrypted {
        return Err(ApiRefusal::bad(
            "this driver sends what is meant for an encrypted channel in clear, and nobody could subscribe to it: \
             use the drivers `reverb` or `pusher` for encrypted channels",
        ));
    }
    Ok(renamed)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AblyMessage {
    id: Option<String>,
    name: Option<String>,
    data: Option<String>,
    encoding: Option<String>,
    connection_key: Option<String>,
}

/// What one request publishes.
#[derive(Debug, PartialEq, Eq)]
pub struct AblyPublish {
    pub events: Vec<Publish>,
    /// The id of the first message, which is the same when the library repeats the request at another host.
    pub id: Option<String>,
}

impl AblyPublish {
    /// Parses the messages for a channel.
    pub fn parse(
        body: &[u8],
        format: BodyFormat,
        channel: &str,
        limits: &PusherLimits,
    ) -> Result<Self, ApiRefusal> {
        let messages: Vec<AblyMessage> =
            format.read(body).map_err(|reason| publish::unparsed(crate::shown(&reason)))?;
        let (count, max) = (messages.len(), limits.batch_events_max);
        if count == 0 {
            return Err(ApiRefusal::bad("the body has no message: send one, or an array of some"));
        }
        if count > max {
            return Err(ApiRefusal::bad(format!("the body has {count} messages: at most {max} are allowed")));
        }
        let id = messages.first().and_then(|message| message.id.clone()).filter(|id| !id.is_empty());
        let events = messages.into_iter().map(|message| message.event(channel, limits));
        Ok(Self { events: events.collect::<Result<_, _>>()?, id })
    }

    /// The key under which a repeat of the publish reaches only those who were missed. Ids may be longer than
    /// keys, and are none of the app's own keys.
    pub fn key(&self) -> Option<String> {
        self.id.as_ref().map(|id| format!("ably-{:032x}", xxh3_128(id.as_bytes())))
    }
}

impl AblyMessage {
    fn event(self, channel: &str, limits: &PusherLimits) -> Result<Publish, ApiRefusal> {
        // The text of each is the data; of others it would have to be decoded, or decrypted by clients.
        let encoding = self.encoding.unwrap_or_default();
        if !matches!(&*encoding, "" | "json" | "utf-8" | "json/utf-8") {
            let shown = crate::shown(&encoding);
            return Err(ApiRefusal::bad(format!(
                "encoding {shown:?} is not supported: send data as text, with encoding \"json\" or none"
            )));
        }
        let draft = Draft {
            name: self.name,
            data: self.data,
            channels: vec![channel.to_owned()],
            socket_id: self.connection_key,
            ..Draft::default()
        };
        draft.checked_freely(limits)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AcceptedAnswer<'a> {
    channel: &'a str,
    message_id: &'a str,
}

/// The body of the answer 201.
pub fn accepted(channel: &str, id: &str, format: BodyFormat) -> Vec<u8> {
    format.write(&AcceptedAnswer { channel, message_id: id })
}

#[derive(Serialize)]
struct ErrorAnswer<'a> {
    error: ErrorInfo<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorInfo<'a> {
    code: u32,
    status_code: u16,
    message: &'a str,
    href: String,
}

/// The body of a refusal.
pub fn error(refusal: &ApiRefusal, format: BodyFormat) -> Vec<u8> {
    let code = error_code(refusal);
    let href = format!("https://help.ably.io/error/{code}");
    let (status_code, message) = (refusal.status.as_u16(), &*refusal.text);
    format.write(&ErrorAnswer { error: ErrorInfo { code, status_code, message, href } })
}

/// Ably's number for a refusal. From 50000 the library tries its next host; 40140 to 40149 would make it fetch
/// a token, and 401 gets none of these.
pub fn error_code(refusal: &ApiRefusal) -> u32 {
    match refusal.status.as_u16() {
        401 => 40101,
        413 => 40009,
        status => u32::from(status) * 100,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    /// What Laravel's driver sends in JSON.
    const JSON: &str = r#"{"id":"cWPIsqJM608AQI9a:0","data":"{\"text\":\"y\",\"socket\":\"123.456\"}","encoding":"json","name":"App\\Events\\News","connectionKey":"123.456"}"#;

    /// The same in MessagePack, as PHP's library packs it: a map of five strings.
    fn packed() -> Vec<u8> {
        let mut bytes = vec![0x85];
        let mut text = |text: &str| {
            match text.len() {
                len @ ..32 => bytes.push(0xa0 | u8::try_from(len).unwrap()),
                len => bytes.extend([0xd9, u8::try_from(len).unwrap()]),
            }
            bytes.extend(text.as_bytes());
        };
        for (name, value) in [
            ("id", "cWPIsqJM608AQI9a:0"),
            ("data", r#"{"text":"y","socket":"123.456"}"#),
            ("encoding", "json"),
            ("name", r"App\Events\News"),
            ("connectionKey", "123.456"),
        ] {
            text(name);
            text(value);
        }
        bytes
    }

    fn parse(body: &[u8], format: BodyFormat) -> Result<AblyPublish, (u16, String)> {
        AblyPublish::parse(body, format, "private-orders.1", &PusherLimits::default())
            .map_err(|refusal| (refusal.status.as_u16(), refusal.text))
    }

    #[test]
    fn messages_as_laravel_sends_them() {
        let by_json = parse(JSON.as_bytes(), BodyFormat::Json).unwrap();
        let event = &by_json.events[0];
        assert_eq!(event.name, r"App\Events\News");
        assert_eq!(event.data, r#"{"text":"y","socket":"123.456"}"#);
        assert_eq!(event.channels, ["private-orders.1"]);
        assert!(event.except.is_some());
        assert_eq!(by_json.id.as_deref(), Some("cWPIsqJM608AQI9a:0"));
        let key = by_json.key().unwrap();
        assert!(key.len() <= broadgate_proto::limits::IDEMPOTENCY_KEY_BYTES_MAX, "{key}");
        assert_eq!(parse(&packed(), BodyFormat::MessagePack).unwrap(), by_json);
    }

    #[test]
    fn several_messages_are_an_array() {
        let (json, binary) = (format!("[{JSON}, {JSON}]"), [vec![0x92], packed(), packed()].concat());
        let both = parse(json.as_bytes(), BodyFormat::Json).unwrap();
        assert_eq!(both.events.len(), 2);
        assert_eq!(parse(&binary, BodyFormat::MessagePack).unwrap(), both);
        let long = [vec![0xdc, 0, 2], packed(), packed()].concat();
        assert_eq!(parse(&long, BodyFormat::MessagePack).unwrap(), both);
        let plain =
            parse(br#"{"name":"e","data":"x","extras":{"a":[1]},"connectionKey":"abc"}"#, BodyFormat::Json);
        let plain = plain.unwrap();
        assert_eq!((plain.key(), plain.events[0].except), (None, None), "a foreign connection is nobody's");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (body, word) in [
            ("", "JSON object"),
            ("[]", "no message"),
            ("[[]]", "JSON object"),
            ("[{}", "EOF"),
            ("{}", "name is missing"),
            (r#"{"name":"e"}"#, "data is missing"),
            (r#"{"name":"e","data":{"a":1}}"#, "expected a string"),
            (r#"{"name":"e","data":"eA==","encoding":"base64"}"#, "encoding \"base64\""),
        ] {
            let (status, text) = parse(body.as_bytes(), BodyFormat::Json).unwrap_err();
            assert!(status == 400 && text.contains(word), "{body}: {text}");
        }
        let many = format!("[{}]", [JSON; 11].join(","));
        assert!(parse(many.as_bytes(), BodyFormat::Json).unwrap_err().1.contains("at most 10"));
        let large = format!(r#"{{"name":"e","data":"{}"}}"#, "x".repeat(10_241));
        assert_eq!(parse(large.as_bytes(), BodyFormat::Json).unwrap_err().0, 413);
        let deep = [vec![0x81, 0xa1, b'x'], vec![0x91; 10_000], vec![0xc0]].concat();
        let whole = packed();
        for body in [
            &[][..],
            &[0xc1],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xdf, 0xff, 0xff, 0xff, 0xff],
            &[0x81, 0xdb, 0xff, 0xff, 0xff, 0xff],
            &whole[..whole.len() - 1],
            &[whole.clone(), vec![0]].concat(),
            &deep,
            // The fields of a message in their order, and not a map.
            &[0x95, 0xa1, b'i', 0xa1, b'n', 0xa1, b'd', 0xc0, 0xc0],
            &[0x91, 0x95, 0xa1, b'i', 0xa1, b'n', 0xa1, b'd', 0xc0, 0xc0],
        ] {
            assert_eq!(parse(body, BodyFormat::MessagePack).unwrap_err().0, 400, "{body:?}");
        }
    }

    #[test]
    fn names_are_mapped_back() {
        let name = |segment| {
            let name = decoded_name(segment).and_then(|name| channel_name(&name));
            name.map_err(|refusal| refusal.status.as_u16())
        };
        assert_eq!(name("private%3Aorders.1"), Ok("private-orders.1".to_owned()));
        assert_eq!(name("presence:room+1"), Ok("presence-room 1".to_owned()));
        assert_eq!(name("public%3Anews%2Bx"), Ok("news+x".to_owned()));
        assert_eq!(name("news"), Ok("news".to_owned()));
        assert_eq!(name("public:private-x"), Ok("private-x".to_owned()));
        assert_eq!((name("private%3Aencrypted-x"), name("%ff")), (Err(400), Err(400)));
        assert_eq!((name("private-encrypted-x"), name("public:private-encrypted-x")), (Err(400), Err(400)));
    }

    #[test]
    fn a_key_comes_by_basic() {
        let header = format!("Basic {}", BASE64.encode(b"appId.keyId:sec:ret"));
        assert_eq!(basic(&header), Some(("appId.keyId".to_owned(), "sec:ret".to_owned())));
        for header in ["", "Basic", "Basic !", "Bearer YTpi", "Basic YQ=="] {
            assert_eq!(basic(header), None, "{header}");
        }
    }

    #[test]
    fn answers_have_the_format_that_was_asked_for() {
        for (header, format) in [
            ("application/x-msgpack", Some(BodyFormat::MessagePack)),
            ("application/JSON; charset=utf-8", Some(BodyFormat::Json)),
            ("application/x-msgpack, application/json", Some(BodyFormat::MessagePack)),
            ("application/json,application/x-msgpack", Some(BodyFormat::Json)),
            ("*/*", None),
        ] {
            assert_eq!(BodyFormat::named(header), format, "{header}");
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(accepted("private:x", "a:0", BodyFormat::Json)),
            r#"{"channel":"private:x","messageId":"a:0"}"#
        );
        let refusal = |status| ApiRefusal::new(status, "No.");
        assert_eq!(
            text(error(&refusal(StatusCode::UNAUTHORIZED), BodyFormat::Json)),
            r#"{"error":{"code":40101,"statusCode":401,"message":"No.","href":"https://help.ably.io/error/40101"}}"#
        );
        assert_eq!(error_code(&refusal(StatusCode::SERVICE_UNAVAILABLE)), 50300);
        let packed = error(&refusal(StatusCode::BAD_REQUEST), BodyFormat::MessagePack);
        let read: serde_json::Value = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!((&read["error"]["code"], &read["error"]["message"]), (&40000.into(), &"No.".into()));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..60)) {
            for format in [BodyFormat::Json, BodyFormat::MessagePack] {
                let _ = parse(&body, format);
            }
        }
    }
}
