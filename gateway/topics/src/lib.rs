//! Homes: one order for each topic, counts that are right, and who is present. Pure.
//!
//! Every topic (all clients of an app, a uid, a group) has one home among the gateways of the view,
//! by the view's ring. A gateway tells a topic's home when its clients in it change (a *hold*); the
//! home orders what is sent to the topic, passes it to the gateways that hold clients of it, and
//! counts. [`Core`] is one gateway's part in that: `apply(input, now) -> effects`, without sockets and
//! clocks, so that a seed replays a whole cluster.
//!
//! | file | what |
//! |---|---|
//! | `step.rs` | what goes in and what comes out |
//! | `content.rs` | what topics carry |
//! | `membership.rs` | who is in a topic, and what is told of that |
//! | `limits.rs` | what the core is started with, and its load |
//! | `core.rs` | the state, and one step |
//! | `links.rs`, `peer.rs` | peers: their links break and mend, they catch up and sync |
//! | `hold.rs`, `interest.rs`, `settle.rs` | what our clients are in, and what homes know of it |
//! | `serve.rs`, `delivery.rs`, `home.rs`, `parking.rs` | the topics whose home we are |
//! | `ask.rs`, `routes.rs` | what our callers ask of homes |
//! | `keep.rs`, `budget.rs` | what groups keep: their history, their last value, and how much of it |
//! | `watch.rs` | what those who watch groups are told |
//! | `report.rs`, `account.rs`, `heir.rs` | what the gateway itself reports of groups, once, over the deaths of homes |
//! | `members.rs` | the view and its rings |
//! | `topic.rs` | what a topic is |
//! | `remember.rs` | commands that were carried out, by their ids |
//! | `shares.rs` | what apps use of something that they share |

#![allow(missing_docs, reason = "internal to the gateway: names that say it all need no sentence")]

mod account;
mod announced;
mod ask;
#[cfg(test)]
mod bound_tests;
mod budget;
#[cfg(test)]
mod claim_tests;
mod content;
mod core;
mod delivery;
mod enter;
mod entrances;
mod heir;
mod hold;
mod home;
mod interest;
mod keep;
mod limits;
mod links;
mod members;
mod membership;
mod parking;
mod peer;
pub mod remember;
mod report;
mod routes;
mod serve;
mod settle;
mod shares;
mod step;
mod topic;
mod watch;

pub use self::{
    account::{Heard, Told},
    content::Content,
    core::Core,
    interest::HeldCounts,
    keep::{HandedOver, Keep, Keeping, Page, Position, Rule},
    limits::{Limits, Load, Restored},
    membership::{
        At, Claim, ComeOrGone, Decided, GroupChange, MemberChange, Report, Session, Standing, StandingMember,
    },
    report::Reporting,
    step::{Back, Done, Effect, Entered, Frame, Input, NotPresent, Op, Reply, Ticket},
    topic::{Kind, Topic},
    watch::Pattern,
};
