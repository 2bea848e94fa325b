//! How a process belongs to a cluster.
//!
//! [`join`] starts a thread of its own that beats, follows the register's views and redials; the
//! rest of the process may be as busy as it likes without a beat being late. While no register can
//! be reached, everything goes on with the last view. [`watch()`] is the same for programs that are
//! no members.
//!
//! | file | what |
//! |---|---|
//! | `handle.rs` | what the process holds: joins, watches |
//! | `config.rs`, `event.rs`, `status.rs` | settings; what a process and its thread say to each other |
//! | `life.rs` | pure: what a register's replies and its silence mean |
//! | `redial.rs` | pure: which register next, and after how long |
//! | `link.rs`, `link/stream.rs` | the thread: acts on what the two decide |
//! | `rivals.rs` | whether another register is active by mistake |
//! | `watching.rs` | the same for programs that are no members |
//! | `thread.rs` | threads, watched |
//! | `refusal.rs` | what the statuses of a register mean |
//! | `dial.rs` | from `host:port` to a gRPC channel |
//! | `leader.rs` | what a process reads out of a view |

pub(crate) mod address;
mod config;
mod dial;
mod event;
mod handle;
pub mod leader;
mod life;
mod link;
mod random;
mod redial;
mod refusal;
mod rivals;
mod status;
mod thread;
mod watching;

pub use config::{Advertise, Config};
pub use event::MemberEvent;
pub use handle::{ClusterMember, ViewWatch, join, watch};
pub use status::RegisterStatus;

/// What a member decides, for simulations of whole clusters.
#[doc(hidden)]
pub mod simulation {
    pub use super::{
        life::{FollowStep, Following},
        redial::Redial,
        rivals::{Looks, Rival, RivalAction},
    };
}
