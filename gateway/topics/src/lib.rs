//! The topics' core: one order for each topic, exact counts, and presence. Pure.
//!
//! Every topic (all clients of an app, a uid, a group) has one home among the gateways of the view, by the
//! view's ring. A gateway announces its *interest* in a topic to its home when its clients in it change; the
//! home orders what is sent to the topic, forwards it to the gateways that have clients in it, and counts.
//! [`Core`] is one gateway's part in that: `apply(input, now) -> effects`, without sockets and clocks, so
//! that a seed replays a whole cluster.
//!
//! | file | contents |
//! |---|---|
//! | `step.rs` | inputs and effects |
//! | `content.rs` | the content of topics, opaque to the core |
//! | `membership.rs` | types of membership and presence |
//! | `limits.rs` | the core's configuration, and its load |
//! | `core.rs`, `links.rs` | one step: they wire the parts |
//! | `shared.rs` | what the parts share: view, peers, retained messages, effects |
//! | `peer.rs` | peers: their links, and whether they have synced |
//! | `own.rs`, `interest.rs`, `settle.rs`, `needs.rs` | the interest of our own clients, and what homes know of it |
//! | `entrances.rs` | clients that enter a group and need its state |
//! | `serve.rs`, `delivery.rs`, `home.rs`, `parking.rs` | the topics whose home we are |
//! | `trace.rs` | what a home notes of traced commands |
//! | `ask.rs`, `routes.rs` | our callers' questions to homes |
//! | `retention.rs`, `budget.rs`, `parcels.rs` | retained messages of groups: histories, last values, their budget, their next homes |
//! | `watch.rs` | changes for watchers of groups |
//! | `report.rs`, `ledger.rs`, `heir.rs`, `announced.rs` | reports of groups, each once, also when homes die |
//! | `members.rs` | the view and its rings |
//! | `topic.rs` | topics |
//! | `remember.rs` | executed commands, by their ids |
//! | `shares.rs` | shares of apps in a common budget |

#![allow(missing_docs, reason = "internal to the gateway: self-explanatory names need no sentence")]

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
mod entrances;
mod heir;
mod home;
mod inspect;
mod inspection;
mod interest;
mod ledger;
mod limits;
#[cfg(test)]
mod link_tests;
mod links;
mod members;
mod membership;
mod needs;
#[cfg(test)]
mod no_content;
mod own;
mod parcels;
mod parking;
mod peer;
pub mod remember;
mod report;
mod retention;
mod routes;
mod serve;
mod settle;
mod shared;
mod shares;
mod step;
mod topic;
mod trace;
#[cfg(test)]
mod trace_tests;
mod watch;

pub use self::{
    content::Content,
    core::Core,
    inspection::{HistoryInspection, TopicInspection},
    interest::InterestCounts,
    ledger::{Delivery, NotifiedState},
    limits::{HomesLoad, Restored, TopicLimits},
    links::VIEWS_MISSED,
    membership::{
        Claim, DecidedClaim, LinkSession, MemberChange, MembershipChange, MembershipCount, PresenceChange,
        PresenceCount, Report, TopicPosition,
    },
    report::ReportSubscription,
    retention::{HandedOver, HistoryPage, Position, Retention, RetentionRule, RetentionRules},
    step::{
        Effect, Entered, HomeOp, HomeOutcome, HomeReply, HomeTrace, Input, LinkMessage, NotPresent, ReplyTo,
        Ticket,
    },
    topic::{Topic, TopicKind},
    watch::Pattern,
};
