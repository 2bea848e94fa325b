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
