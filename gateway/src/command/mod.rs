//! Commands as a gateway carries them out: parsed, checked, and with their payload framed once.
//!
//! | file | what |
//! |---|---|
//! | `parse.rs` | commands that change or send something |
//! | `query.rs` | questions |
//! | `fields.rs` | names, ids, audiences and pages in a command |
//! | `malformed.rs` | client ids in lists that are no ids |
//! | `source.rs` | commands as they were given, and events that this gateway issues |
//! | `content.rs` | what topics carry in a running gateway: commands, parsed once |
//! | `merge.rs` | one answer of many partial ones |

mod content;
mod fields;
mod malformed;
mod merge;
mod order;
mod parse;
mod query;
mod source;

pub(crate) use self::order::{
    ClientFilter, CloseWith, CommandRefusal, Concerns, ParsedCommand, PresenceSeat, Recipients,
    SessionCommand, not_found, refusal,
};

pub(crate) use self::{
    content::{GatewayContent, TopicCommand},
    malformed::take_malformed,
    merge::{finish, first_names, merge, tidy},
    parse::{Parser, session_object},
    query::{Cursor, observing, patterns, position_text},
    source::{ChannelEvent, ClientEvent, CommandSource, EventFlags},
};
