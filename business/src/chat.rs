//! The chat behind `broadgate worker chat`: rooms over JSON, shared by all gateways.
//!
//! # Protocol
//!
//! The page opens the gateway's WebSocket (`/ws`). Both sides send text messages, each a JSON object with
//! a `type`. Unknown fields are ignored; an unknown type is answered with an `error`.
//!
//! A nickname is the client's uid, and a room's name is its group's name. So the operator's commands work
//! on a chat as they do on any application: `broadgate kick --uid Ada`, `broadgate clients --group lobby`,
//! `broadgate roster lobby`. Several windows of one nickname are one person.
//!
//! Client to server, `hello` first:
//!
//! | message | effect |
//! |---|---|
//! | `{"type":"hello","nick":"Ada"}` | sets the nickname (1 to 30 characters) for this connection; answered by `welcome` |
//! | `{"type":"join","room":"lobby"}` | enters a room (1 to 40 characters) and leaves the previous one; answered by `history` and `roster`; the others get `joined` |
//! | `{"type":"say","text":"hi"}` | sends `said` to everybody in the room, the sender included (1 to 2000 characters) |
//! | `{"type":"private","to":"Bob","text":"psst"}` | sends `private` to every window of that nickname, and back to the sender's |
//! | `{"type":"who"}` | answered by `roster` |
//!
//! Server to client:
//!
//! | message | when |
//! |---|---|
//! | `{"type":"welcome","id":"<id>","nick":"Ada","gateway":"gateway-1"}` | after `hello`: the client's id and the gateway that holds it |
//! | `{"type":"history","room":"lobby","messages":["…"]}` | after `join`: the last messages of the room, oldest first, each as it was sent: a `said`, or plain text. Empty where the configuration keeps no history |
//! | `{"type":"roster","room":"lobby","members":[{"nick":"Ada","gateway":"gateway-1"}],"total":1,"complete":true}` | after `join` and `who`: who is in the room; at most 1000 are listed, `total` is their number; `complete` is false if a gateway did not answer |
//! | `{"type":"joined","room":"lobby","member":{"nick":"Ada","gateway":"gateway-1"}}` | a window of somebody else entered the room; ignore a nickname that is already listed |
//! | `{"type":"left","room":"lobby","member":{"nick":"Ada"}}` | the last window of this nickname left the room or disconnected |
//! | `{"type":"said","room":"lobby","from":"Ada","text":"hi","at":"2026-01-31T12:00:00.123Z"}` | somebody in the room said something |
//! | `{"type":"private","from":"Ada","to":"Bob","text":"psst","at":"2026-01-31T12:00:00.123Z"}` | a private message to or from this nickname |
//! | `{"type":"time","at":"2026-01-31T12:00:00.123Z"}` | every ten seconds, to everybody: the server's time in UTC |
//! | `{"type":"error","error":"Say hello first: ..."}` | a request failed; a sentence for people |
//!
//! Any other text, such as that of `broadgate send --group lobby 'hello'`, is a plain message: the page
//! shows it as it is.
//!
//! After a reconnect the window is a new client with a new id: it sends `hello` and `join` again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broadgate_proto::v1::{ClientField, Coverage, PresenceMember, history_message::Payload as Kept};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cluster::{Audience, Cluster, CommandError, Page, Payload, Who},
    worker::{Client, Closed, Handler, Message, Once, Worker, WorkerConfig},
};

/// Characters of a nickname.
const NICK_CHARS_MAX: usize = 30;
/// Characters of a room's name; four bytes each stay below the limit of a group's name.
const ROOM_CHARS_MAX: usize = 40;
/// Characters of one message.
const TEXT_CHARS_MAX: usize = 2000;
/// Members that a roster lists.
const ROSTER_MAX: u32 = 1000;
/// Messages that a newcomer gets.
const HISTORY_MAX: usize = 50;
/// Entries of the group's history that are searched for them: arrivals and departures are among these.
const HISTORY_SEARCHED_MAX: u32 = 200;
/// How often everybody gets the time.
const TIME_PERIOD: Duration = Duration::from_secs(10);

/// The chat.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chat;

/// A worker for [`Chat`]. It also sends everybody the time.
#[must_use]
pub fn worker(config: WorkerConfig) -> Worker {
    Worker::new(config).every(TIME_PERIOD, Once::InCluster, async |cluster: Cluster| {
        let time = json!({"type": "time", "at": now()});
        if let Err(error) = cluster.send(Audience::all(), time.to_string()).await {
            tracing::warn!(%error, "sending the time failed");
        }
    })
}

/// A message of the page.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum PageMessage {
    Hello { nick: String },
    Join { room: String },
    Say { text: String },
    Private { to: String, text: String },
    Who,
}

/// The client's session. Its nickname is its uid.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ChatSession {
    room: String,
}

/// Why a request failed, as the page shows it.
struct ChatError(String);

impl From<CommandError> for ChatError {
    fn from(error: CommandError) -> Self {
        tracing::warn!(%error, "a chat command failed");
        Self("The chat could not do that right now: please try again.".to_owned())
    }
}

impl Handler for Chat {
    async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
        let done = match message.json::<PageMessage>() {
            Ok(request) => answer(client, request).await,
            Err(error) => Err(ChatError(format!("Not a message of this chat: {error}."))),
        };
        if let Err(ChatError(error)) = done {
            reply(client, &json!({"type": "error", "error": error})).await?;
        }
        Ok(())
    }

    async fn closed(&self, client: &Client, closed: Closed) -> anyhow::Result<()> {
        let room = session_of(closed.session).room;
        if let (Some(nick), false) = (closed.uid, room.is_empty()) {
            announce_departure(client.cluster(), &nick, &room).await?;
        }
        Ok(())
    }
}

async fn answer(client: &Client, request: PageMessage) -> Result<(), ChatError> {
    let Some(nick) = client.uid() else {
        return match request {
            PageMessage::Hello { nick } => hello(client, checked("nickname", nick, NICK_CHARS_MAX)?).await,
            _ => Err(ChatError("Say hello first: {\"type\":\"hello\",\"nick\":\"your name\"}.".to_owned())),
        };
    };
    let room = session_of(client.session()).room;
    match request {
        // Redelivered, because a worker was lost.
        PageMessage::Hello { nick: same } if same.trim() == nick => welcome(client, &nick).await,
        PageMessage::Hello { .. } => {
            Err(ChatError(format!("This connection is {nick}'s: connect again to change the nickname.")))
        }
        PageMessage::Join { room: next } => {
            join(client, &nick, &room, &checked("room's name", next, ROOM_CHARS_MAX)?).await
        }
        PageMessage::Private { to, text } => private(client, &nick, &to, checked_text(text)?).await,
        _ if room.is_empty() => Err(ChatError("Join a room first.".to_owned())),
        PageMessage::Say { text } => say(client, &nick, &room, checked_text(text)?).await,
        PageMessage::Who => roster(client, &room).await,
    }
}

async fn hello(client: &Client, nick: String) -> Result<(), ChatError> {
    client.bind(&nick).await?;
    welcome(client, &nick).await
}

async fn welcome(client: &Client, nick: &str) -> Result<(), ChatError> {
    let welcome = json!({"type": "welcome", "id": client.id(), "nick": nick, "gateway": client.gateway()});
    reply(client, &welcome).await?;
    Ok(())
}

/// Everything here may happen twice, when a worker is lost and the event redelivered.
async fn join(client: &Client, nick: &str, former: &str, room: &str) -> Result<(), ChatError> {
    let cluster = client.cluster();
    if !former.is_empty() && former != room {
        client.leave(former).await?;
        announce_departure(cluster, nick, former).await?;
    }
    client.merge_session(&json!({"room": room})).await?;
    let member = json!({"nick": nick, "gateway": client.gateway()});
    let info = json!({"gateway": client.gateway()});
    cluster.join_as(Who::client(client.id()), [room], nick, info.to_string()).await?;
    let joined = json!({"type": "joined", "room": room, "member": member});
    cluster.send(Audience::group(room).except_client(client.id()), joined.to_string()).await?;
    history(client, room).await?;
    roster(client, room).await
}

/// Sends `left` unless another client of this nickname is in the room.
async fn announce_departure(cluster: &Cluster, nick: &str, room: &str) -> Result<(), CommandError> {
    let page = Page { limit: ROSTER_MAX, cursor: String::new() };
    let windows = cluster.list_clients(Audience::uid(nick), &[ClientField::Groups], page).await?;
    if windows.clients.iter().any(|window| window.groups.iter().any(|group| group == room)) {
        return Ok(());
    }
    let left = json!({"type": "left", "room": room, "member": {"nick": nick}});
    cluster.send(Audience::group(room), left.to_string()).await.map(drop)
}

async fn say(client: &Client, nick: &str, room: &str, text: String) -> Result<(), ChatError> {
    let said = json!({"type": "said", "room": room, "from": nick, "text": text, "at": now()});
    client.cluster().send(Audience::group(room), said.to_string()).await?;
    Ok(())
}

async fn private(client: &Client, nick: &str, to: &str, text: String) -> Result<(), ChatError> {
    let cluster = client.cluster();
    let windows = match cluster.online([to]).await {
        // No uid could be called that.
        Err(CommandError::Refused { .. }) => 0,
        reply => reply?.uids.get(to).copied().unwrap_or_default(),
    };
    if windows == 0 {
        return Err(ChatError(format!("Nobody called {to} is connected.")));
    }
    let message = json!({"type": "private", "from": nick, "to": to, "text": text, "at": now()});
    cluster.send(Audience::uid(to).and_uid(nick), message.to_string()).await?;
    Ok(())
}

/// The last messages of a room, where the gateways' configuration keeps them.
async fn history(client: &Client, room: &str) -> Result<(), ChatError> {
    let kept = client.cluster().history(room, None, HISTORY_SEARCHED_MAX).await?;
    let texts = kept.messages.into_iter().filter_map(|message| match message.payload {
        Some(Kept::Text(text)) if is_shown(&text) => Some(text),
        _ => None,
    });
    let texts: Vec<String> = texts.collect();
    let last = &texts[texts.len().saturating_sub(HISTORY_MAX)..];
    reply(client, &json!({"type": "history", "room": room, "messages": last})).await?;
    Ok(())
}

/// Said by somebody, or plain: neither an arrival nor a departure.
fn is_shown(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    serde_json::from_str::<Typed>(text).map_or(true, |message| message.r#type == "said")
}

async fn roster(client: &Client, room: &str) -> Result<(), ChatError> {
    let page = Page { limit: ROSTER_MAX, cursor: String::new() };
    let roster = client.cluster().roster(room, page).await?;
    let complete = |coverage: &Option<Coverage>| coverage.as_ref().is_some_and(|coverage| coverage.complete);
    let answer = json!({
        "type": "roster",
        "room": room,
        "members": roster.members.iter().map(listed).collect::<Vec<Value>>(),
        "total": roster.total,
        "complete": complete(&roster.coverage),
    });
    reply(client, &answer).await?;
    Ok(())
}

/// A member of a roster: its nickname, and the gateway of its newest window.
fn listed(member: &PresenceMember) -> Value {
    let info: Value = serde_json::from_str(&member.info).unwrap_or_default();
    json!({"nick": member.user_id, "gateway": info["gateway"]})
}

fn session_of(session: Value) -> ChatSession {
    serde_json::from_value(session).unwrap_or_default()
}

async fn reply(client: &Client, message: &Value) -> Result<(), CommandError> {
    client.send(Payload::from(message.to_string())).await.map(drop)
}

/// Trims a name and checks its length; control characters are refused.
fn checked(what: &str, name: String, chars_max: usize) -> Result<String, ChatError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > chars_max || name.chars().any(char::is_control) {
        return Err(ChatError(format!("A {what} has 1 to {chars_max} characters.")));
    }
    Ok(name.to_owned())
}

fn checked_text(text: String) -> Result<String, ChatError> {
    if text.trim().is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        return Err(ChatError(format!("A message has 1 to {TEXT_CHARS_MAX} characters.")));
    }
    Ok(text)
}

/// The server's time in UTC as RFC 3339, with milliseconds.
#[must_use]
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since)
}

/// Howard Hinnant's `civil_from_days`: the calendar repeats every 400 years of 146,097 days, and
/// years are counted from March so that the leap day is the last.
fn rfc3339(since: Duration) -> String {
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let at = |seconds| rfc3339(Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(Duration::from_millis(1_767_225_599_042)), "2025-12-31T23:59:59.042Z");
        assert_eq!(at(4_102_444_800), "2100-01-01T00:00:00.000Z");
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
    fn requests_are_typed_and_unknown_fields_ignored() {
        assert!(serde_json::from_str::<PageMessage>(r#"{"type":"hello","nick":"Ada","extra":1}"#).is_ok());
        assert!(serde_json::from_str::<PageMessage>(r#"{"type":"who"}"#).is_ok());
        assert!(serde_json::from_str::<PageMessage>(r#"{"type":"shout","text":"a"}"#).is_err());
        assert_eq!(session_of(json!({"room": "lobby", "other": true})).room, "lobby");
        assert_eq!(session_of(json!("none")).room, "");
    }

    #[test]
    fn arrivals_and_departures_are_not_part_of_the_history() {
        for shown in ["hello, lobby", "{}", "[1]", "{\"event\":\"x\"}", "{\"type\":\"said\",\"text\":\"hi\"}"]
        {
            assert!(is_shown(shown), "{shown}");
        }
        for hidden in ["{\"type\":\"joined\"}", "{\"type\":\"left\",\"room\":\"lobby\"}"] {
            assert!(!is_shown(hidden), "{hidden}");
        }
    }
}
