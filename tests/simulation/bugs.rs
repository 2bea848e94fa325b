//! Planted bugs: each must be found by the seeds that CI runs.

use super::script::Script;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A home believes after a view change that everybody has synced.
    NoParking,
    /// Whatever any gateway says is placed.
    NoFencing,
    /// After a view change the new homes get no interest, and nothing is compared.
    NoReannouncement,
    /// A gateway answers before its shards have placed.
    EarlyAcknowledgement,
    /// After a view change the new homes are not told who is present.
    NoRoster,
    /// Nobody but the home knows what was reported. Found in calm lives.
    NoHeir,
    /// Members do not look at other registers. Found in lives with two of them, as the next.
    NoLooking,
    /// What another register knows does not make answers incomplete.
    CompleteInHalves,
    /// The ledger takes every write. Found in lives with a ledger, as the next.
    CommitWithoutGuard,
    /// A view is shown when its write begins.
    ShownBeforeCommit,
    /// A gateway that has closed its clients goes at once. Found in rolling lives.
    NoLeaving,
}

impl Bug {
    pub const ALL: [Self; 11] = [
        Self::NoParking,
        Self::NoFencing,
        Self::NoReannouncement,
        Self::EarlyAcknowledgement,
        Self::NoRoster,
        Self::NoHeir,
        Self::NoLooking,
        Self::CompleteInHalves,
        Self::CommitWithoutGuard,
        Self::ShownBeforeCommit,
        Self::NoLeaving,
    ];

    /// The lives in which it is found.
    pub fn script(self) -> fn(u64) -> Script {
        match self {
            Self::NoHeir => Script::calm,
            Self::NoLeaving => Script::rolling,
            Self::NoLooking | Self::CompleteInHalves => Script::two_registers,
            Self::CommitWithoutGuard | Self::ShownBeforeCommit => Script::ledger,
            _ => Script::of,
        }
    }

    /// A seed that finds it, for those who have no time to search.
    pub const fn seed(self) -> u64 {
        match self {
            Self::NoParking => 23,
            Self::NoFencing => 528,
            Self::EarlyAcknowledgement => 1,
            Self::NoHeir | Self::NoLooking => 1,
            Self::CompleteInHalves => 55,
            Self::NoLeaving => 52,
            Self::CommitWithoutGuard | Self::ShownBeforeCommit => 1,
            Self::NoReannouncement | Self::NoRoster => 3,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::NoParking => "no-parking",
            Self::NoFencing => "no-fencing",
            Self::NoReannouncement => "no-reannouncement",
            Self::EarlyAcknowledgement => "early-acknowledgement",
            Self::NoRoster => "no-roster",
            Self::NoHeir => "no-heir",
            Self::NoLooking => "no-looking",
            Self::CompleteInHalves => "complete-in-halves",
            Self::CommitWithoutGuard => "commit-without-guard",
            Self::ShownBeforeCommit => "shown-before-commit",
            Self::NoLeaving => "no-leaving",
        }
    }
}
