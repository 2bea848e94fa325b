//! The cluster task: it feeds the topics' core and executes its effects. What is ready in one turn goes out
//! together: one batch for each peer, one message for each shard.
//!
//! | file | what |
//! |---|---|
//! | `links/` | the links to the other gateways |
//! | `alarm.rs` | whether most gateways have vanished at once |
//! | `wire.rs` | what gateways say to each other, as messages of the contract and back |
//! | `parcel.rs` | histories and last values, likewise |
//! | `inspection.rs` | how a topic stands, likewise |
//! | `reports.rs` | reports of groups for the gateway itself |
//! | `turn.rs` | what one turn has gathered, and acting on it |
//! | `watchers.rs` | streams of changes in groups |

mod actor;
mod alarm;
mod coding;
mod gathered;
mod handle;
mod inspection;
pub(crate) mod links;
mod parcel;
mod reports;
mod turn;
mod watchers;
mod wire;

pub(crate) use self::actor::{Actor, ActorDeps};

pub(crate) use self::handle::{ClusterEvent, ClusterHandle, LeaveStep, Routed};

pub(crate) use self::{
    coding::DecodeError,
    inspection::encode_inspection,
    reports::ChannelChange,
    watchers::{GroupWatcher, WATCHER_BATCHES_MAX},
    wire::decode,
};
