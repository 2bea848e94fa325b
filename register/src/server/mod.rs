//! The register: a pure state machine behind a thin gRPC service.
//!
//! | file | what |
//! |---|---|
//! | `core.rs` | pure: members, leases, epochs, take-over |
//! | `step.rs` | what goes into the core and what comes out |
//! | `history.rs` | what the core remembers: the removed, its terms, the view taken over |
//! | `check.rs` | what a Hello must be like |
//! | `core/take_over.rs` | pure: views of other registers, and stepping down for one |
//! | `core/operator.rs` | pure: the commands of operators |
//! | `replica.rs`, `replica/commits.rs` | pure: one of several registers; what waits for the ledger |
//! | `ledger.rs`, `ledger/` | the task that keeps the list in etcd |
//! | `hub.rs` | the one task that owns the core and every stream's outgoing end |
//! | `view_stream.rs` | pure: whether a stream is sent a whole view or what differs |
//! | `refused.rs` | pure: members that were refused lately, for operators |
//! | `grpc.rs` | calls to requests |
//! | `serve.rs` | from the port to the stop: the tasks |
//! | `config.rs` | settings |
//! | `report.rs` | logs and metrics |

mod check;
mod config;
mod core;
mod grpc;
mod history;
mod hub;
mod ledger;
mod refused;
mod replica;
mod report;
mod serve;
#[allow(missing_docs, reason = "the variants say what their fields are; only simulations see them")]
mod step;
mod view_stream;

pub use broadgate_etcd::{EtcdEndpoint, EtcdSettings, EtcdTls, EtcdTlsFiles, EtcdUser};
pub use config::{Config, Etcd, Ledger, PREFIX_DEFAULT};
pub use history::REMOVED_MAX;
pub use ledger::check as check_etcd;
pub use serve::run;

/// The state machine, for simulations of whole clusters.
#[doc(hidden)]
pub mod simulation {
    pub use super::{
        check::PeerOrigin,
        core::Core,
        replica::Replica,
        step::{
            CommitOutcome, ConnectionId, Effect, Elected, FromLedger, Guard, Happened, Input, Now,
            OperatorAnswer, RegisterRefusal, RemovalReason, Write,
        },
    };
}
