//! The chat behind `broadgate worker chat`: rooms over JSON, right across gateways.
//!
//! # Protocol
//!
//! The page opens the gateway's WebSocket (`/ws`). Both sides send text messages, each one JSON
//! object with a `type`. Unknown fields are ignored, unknown types answered with an `error`.
//!
//! What the page sends, `hello` first:
//!
//! | message | what it does |
//! |---|---|
//! | `{"type":"hello","nick":"Ada"}` | gives this window its nickname (1 to 30 characters; may be repeated to change it); answered by `welcome` |
//! | `{"type":"join","room":"lobby"}` | enters a room (1 to 40 characters), leaving the former one; answered by `roster`, the others in the room get `joined` |
//! | `{"type":"say","text":"hi"}` | to everybody in the room, oneself included: `said` (1 to 2000 characters) |
//! | `{"type":"private","to":"<id>","text":"psst"}` | to one window, and back to oneself: `private` |
//! | `{"type":"who"}` | answered by `roster`, asked of the whole cluster |
//!
//! What the page gets:
//!
//! | message | when |
//! |---|---|
//! | `{"type":"welcome","id":"<id>","nick":"Ada","gateway":"gateway-1"}` | after `hello`: one's own id, and the gateway that holds this window |
//! | `{"type":"roster","room":"lobby","members":[{"id":"<id>","nick":"Ada"}],"total":1,"complete":true}` | after `join` and `who`: who is in the room, oneself included; at most 1000 of them are listed, `total` says how many there are; `complete` is false while a gateway did not answer |
//! | `{"type":"joined","room":"lobby","member":{"id":"<id>","nick":"Ada"}}` | somebody else entered the room, or changed the nickname there (an id that is known already: replace its nick) |
//! | `{"type":"left","room":"lobby","member":{"id":"<id>","nick":"Ada"}}` | somebody left the room or the chat |
//! | `{"type":"said","room":"lobby","from":{"id":"<id>","nick":"Ada"},"text":"hi","at":"2026-01-31T12:00:00Z"}` | somebody in the room, perhaps oneself, said something |
//! | `{"type":"private","from":{"id":"<id>","nick":"Ada"},"to":{"id":"<id>","nick":"Bob"},"text":"psst","at":"2026-01-31T12:00:00Z"}` | a private message to or from oneself |
//! | `{"type":"time","at":"2026-01-31T12:00:00Z"}` | every ten seconds, to everybody: the server's time in UTC |
//! | `{"type":"error","error":"Say hello first: ..."}` | what was sent could not be done; a sentence for people |
//!
//! A room's name is its group's name, so `broadgate send --group lobby '{"type":"said",...}'` works.
//! A window that closes is told to its room as `left`. After a reconnect the window is a new
//! client with a new id: say `hello` and `join` again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broadgate_proto::v1::{ClientField, ClientInfo, Coverage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cluster::{Audience, Cluster, CommandError, Page, Payload},
    worker::{Client, Closed, Handler, Message, Once, Worker, WorkerConfig},
};

/// Characters of a nickname.
const NICK_CHARS_MAX: usize = 30;
/// Characters of a room's name; four bytes each stay below what a group's name may have.
const ROOM_CHARS_MAX: usize = 40;
/// Characters of what is said.
const TEXT_CHARS_MAX: usize = 2000;
/// Members that a roster lists.
const ROSTER_MAX: u32 = 1000;
/// How often everybody is told the time.
const TIME_PERIOD: Duration = Duration::from_secs(10);

/// The chat.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chat;

/// The worker that runs [`Chat`]: it also tells everybody the time.
#[must_use]
pub fn worker(config: WorkerConfig) -> Worker {
    Worker::new(config).every(TIME_PERIOD, Once::InCluster, async |cluster: Cluster| {
        let told = json!({"type": "time", "at": now()});
        if let Err(error) = cluster.send(Audience::all(), told.to_string()).await {
            tracing::warn!(%error, "the time was not told");
        }
    })
}

/// What the page sends.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Said {
    Hello { nick: String },
    Join { room: String },
    Say { text: String },
    Private { to: String, text: String },
    Who,
}

/// What is kept in a client's session.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Seat {
    nick: String,
    room: String,
}

/// What the page is told when it cannot be done.
struct Refused(String);

impl From<CommandError> for Refused {
    fn from(error: CommandError) -> Self {
        if error.is_not_found() {
            return Self("That window is not there any more.".to_owned());
        }
        tracing::warn!(%error, "a chat command failed");
        Self("The chat could not do that just now: please try again.".to_owned())
    }
}

impl Handler for Chat {
    async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
        let done = match message.json::<Said>() {
            Ok(said) => answer(client, said).await,
            Err(error) => Err(Refused(format!("That is no message of this chat: {error}."))),
        };
        if let Err(Refused(error)) = done {
            tell(client, &json!({"type": "error", "error": error})).await?;
        }
        Ok(())
    }

    async fn closed(&self, client: &Client, closed: Closed) -> anyhow::Result<()> {
        let seat = seat_of(closed.session);
        if !seat.room.is_empty() {
            let left = json!({"type": "left", "room": seat.room, "member": member(client.id(), &seat.nick)});
            client.cluster().send(Audience::group(seat.room), left.to_string()).await?;
        }
        Ok(())
    }
}

async fn answer(client: &Client, said: Said) -> Result<(), Refused> {
    let seat = seat_of(client.session());
    if seat.nick.is_empty() && !matches!(said, Said::Hello { .. }) {
        return Err(Refused("Say hello first: {\"type\":\"hello\",\"nick\":\"your name\"}.".to_owned()));
    }
    match said {
        Said::Hello { nick } => hello(client, seat, checked("nickname", nick, NICK_CHARS_MAX)?).await,
        Said::Join { room } => join(client, seat, checked("room's name", room, ROOM_CHARS_MAX)?).await,
        Said::Say { text } => say(client, seat, checked_text(text)?).await,
        Said::Private { to, text } => private(client, seat, to, checked_text(text)?).await,
        Said::Who if seat.room.is_empty() => Err(Refused("Join a room first.".to_owned())),
        Said::Who => roster(client, &seat.room).await,
    }
}

async fn hello(client: &Client, seat: Seat, nick: String) -> Result<(), Refused> {
    client.merge_session(&json!({"nick": nick})).await?;
    let welcome = json!({"type": "welcome", "id": client.id(), "nick": nick, "gateway": client.gateway()});
    tell(client, &welcome).await?;
    if !seat.room.is_empty() {
        let joined = json!({"type": "joined", "room": seat.room, "member": member(client.id(), &nick)});
        to_others(client, seat.room, &joined).await?;
    }
    Ok(())
}

async fn join(client: &Client, seat: Seat, room: String) -> Result<(), Refused> {
    if room != seat.room {
        if !seat.room.is_empty() {
            client.leave(&seat.room).await?;
            let left = json!({"type": "left", "room": seat.room, "member": member(client.id(), &seat.nick)});
            to_others(client, seat.room, &left).await?;
        }
        client.merge_session(&json!({"room": room})).await?;
        client.join(&room).await?;
        let joined = json!({"type": "joined", "room": room, "member": member(client.id(), &seat.nick)});
        to_others(client, room.clone(), &joined).await?;
    }
    roster(client, &room).await
}

async fn say(client: &Client, seat: Seat, text: String) -> Result<(), Refused> {
    if seat.room.is_empty() {
        return Err(Refused("Join a room first.".to_owned()));
    }
    let from = member(client.id(), &seat.nick);
    let said = json!({"type": "said", "room": seat.room, "from": from, "text": text, "at": now()});
    client.cluster().send(Audience::group(seat.room), said.to_string()).await?;
    Ok(())
}

async fn private(client: &Client, seat: Seat, to: String, text: String) -> Result<(), Refused> {
    let found = match client.cluster().client(to).await {
        Err(CommandError::Refused { .. }) => None,
        reply => reply?.client,
    };
    let Some(other) = found else {
        return Err(Refused("That window is not there any more.".to_owned()));
    };
    let (from, to) = (member(client.id(), &seat.nick), listed(&other));
    let said = json!({"type": "private", "from": from, "to": to, "text": text, "at": now()});
    let both = Audience::client(client.id()).and_client(other.client_id);
    client.cluster().send(both, said.to_string()).await?;
    Ok(())
}

async fn roster(client: &Client, room: &str) -> Result<(), Refused> {
    let cluster = client.cluster();
    let page = Page { limit: ROSTER_MAX, cursor: String::new() };
    let list = cluster.list_clients(Audience::group(room), &[ClientField::Session], page).await?;
    let members: Vec<Value> = list.clients.iter().map(listed).collect();
    let complete = |coverage: &Option<Coverage>| coverage.as_ref().is_some_and(|coverage| coverage.complete);
    let mut all = complete(&list.coverage);
    let mut total = members.len() as u64;
    if !list.next_cursor.is_empty() {
        let count = cluster.count([room], false).await?;
        all &= complete(&count.coverage);
        total = count.groups.get(room).map_or(total, |counts| counts.clients);
    }
    let roster = json!({"type": "roster", "room": room, "members": members, "total": total, "complete": all});
    Ok(tell(client, &roster).await?)
}

fn seat_of(session: Value) -> Seat {
    serde_json::from_value(session).unwrap_or_default()
}

fn member(id: &str, nick: &str) -> Value {
    json!({"id": id, "nick": nick})
}

fn listed(info: &ClientInfo) -> Value {
    let session = info.session.as_ref().map(|session| session.json.as_str()).unwrap_or_default();
    member(&info.client_id, &seat_of(crate::cluster::parse_session(session)).nick)
}

async fn tell(client: &Client, what: &Value) -> Result<(), CommandError> {
    client.send(what.to_string()).await.map(drop)
}

async fn to_others(client: &Client, room: String, what: &Value) -> Result<(), CommandError> {
    let others = Audience::group(room).except_client(client.id());
    client.cluster().send(others, Payload::from(what.to_string())).await.map(drop)
}

/// A name: trimmed, of some length, without control characters.
fn checked(what: &str, name: String, chars_max: usize) -> Result<String, Refused> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > chars_max || name.chars().any(char::is_control) {
        return Err(Refused(format!("A {what} has 1 to {chars_max} characters.")));
    }
    Ok(name.to_owned())
}

fn checked_text(text: String) -> Result<String, Refused> {
    if text.trim().is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        return Err(Refused(format!("What is said has 1 to {TEXT_CHARS_MAX} characters.")));
    }
    Ok(text)
}

/// The server's time in UTC, as RFC 3339 writes it.
#[must_use]
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs())
}

/// Howard Hinnant's `civil_from_days`: the calendar repeats every 400 years of 146,097 days, and
/// years are counted from March so that the leap day is the last.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(rfc3339(4_102_444_800), "2100-01-01T00:00:00Z");
    }

    #[test]
    fn names_and_texts_have_bounds() {
        assert_eq!(checked("nickname", " Ada ".into(), NICK_CHARS_MAX).ok().unwrap(), "Ada");
        assert!(checked("nickname", "  ".into(), NICK_CHARS_MAX).is_err());
        assert!(checked("nickname", "x".repeat(31), NICK_CHARS_MAX).is_err());
        assert!(checked("room's name", "a\u{7}".into(), ROOM_CHARS_MAX).is_err());
        assert!(checked_text("x".repeat(2001)).is_err() && checked_text("hi\nthere".into()).is_ok());
        assert!("𝄞".repeat(ROOM_CHARS_MAX).len() <= broadgate_proto::limits::NAME_BYTES_MAX);
    }

    #[test]
    fn what_the_page_sends_is_read_leniently_but_typed() {
        assert!(serde_json::from_str::<Said>(r#"{"type":"hello","nick":"Ada","extra":1}"#).is_ok());
        assert!(serde_json::from_str::<Said>(r#"{"type":"who"}"#).is_ok());
        assert!(serde_json::from_str::<Said>(r#"{"type":"shout","text":"a"}"#).is_err());
        assert_eq!(seat_of(json!({"nick": "Ada", "other": true})).nick, "Ada");
        assert_eq!(seat_of(json!("none")).nick, "");
    }
}
