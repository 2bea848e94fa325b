//! Commands as a gateway executes them: parsed, checked, their payload framed once.
//!
//! | file | what |
//! |---|---|
//! | `parse.rs` | commands that send something or change state |
//! | `query.rs` | queries |
//! | `fields.rs` | names, ids, audiences and pages in a command |
//! | `malformed.rs` | malformed client ids in lists |
//! | `source.rs` | commands as they were given, and events that this gateway issues |
//! | `content.rs` | the content of topics in a running gateway: commands, parsed once |
//! | `top.rs` | questions about what is busy, and their merged answers |
//! | `calls.rs` | names of calls, for metrics |
//! | `hops.rs` | traces of sends: their hops, merged |
//! | `merge.rs` | merging of partial answers |

mod calls;
mod content;
mod fields;
mod hops;
mod malformed;
mod merge;
mod parse;
mod parsed;
mod query;
mod source;
mod top;

pub(crate) use self::parsed::{
    ClientFilter, CloseWith, CommandRefusal, Concerns, EvidenceQuestion, ParsedCommand, PresenceSeat,
    Recipients, SessionCommand, TopQuestion, not_found, refusal,
};

pub(crate) use self::{
    calls::{CALLS, call},
    content::{GatewayContent, TopicCommand},
    fields::{DRY, TRACE, known_caller, understood},
    hops::{add_hops, hop, hops_in_line, name_hops, placed_hop, sign_hops},
    malformed::take_malformed,
    merge::{cut_page, finish, first_names, merge, tidy},
    parse::{Parser, session_object},
    query::{Cursor, observing, patterns, position_text, tapping},
    source::{ChannelEvent, ClientEvent, CommandSource, EventFlags},
    top::{add_worker, cut_top},
};
