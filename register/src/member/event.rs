//! What a process and its membership say to each other.

use std::sync::Arc;

use broadgate_proto::v1::{MemberState, OrderGiver, View};

/// What a member has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEvent {
    /// This incarnation is not in the view any more and never will be again: release everything
    /// and [`join`](super::join) again.
    Removed {
        /// Why, in the register's words.
        reason: String,
    },
    /// An operator wants this member to drain.
    Drain {
        /// Who gave the order, as the register knows; its fields are empty at registers of earlier versions.
        by: OrderGiver,
    },
    /// A register refused this member.
    Refused {
        /// What to print.
        sentence: String,
        /// Repeating will not help: the process should exit. Otherwise the member goes on trying,
        /// and says it only once.
        fatal: bool,
    },
    /// A thread of the membership has ended although it should run: the process should exit with this error.
    Failed {
        /// Names the thread.
        sentence: String,
    },
}

/// What the process wants of its membership. The thread reads the newest.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub state: MemberState,
    pub leave: bool,
    pub learned: Option<Arc<View>>,
}
