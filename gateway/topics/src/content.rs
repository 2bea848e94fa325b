//! The content of topics, opaque to the core.

use std::fmt::Debug;

use broadgate_proto::id::Incarnation;

/// What the core forwards without looking into it.
pub trait Content: Debug + Clone + 'static {
    /// A command to execute among the clients of a topic.
    type Command: Clone + Debug;
    /// Its outcome at one gateway, or at several.
    type Answer: Clone + Debug;

    /// Its size, for limits.
    fn bytes(command: &Self::Command) -> usize;
    /// Its size in memory, where it is retained.
    fn heap_bytes(command: &Self::Command) -> usize {
        Self::bytes(command)
    }
    /// A gateway that must execute it besides those with clients of the topic: an exclusive bind concerns the
    /// gateway of the client that is bound.
    fn also(command: &Self::Command) -> Option<Incarnation>;
    /// The id under which a group's history and last value retain it; none if they do not.
    fn retained_as(_command: &Self::Command) -> Option<u128> {
        None
    }
    /// Whether it only finds out whom it would reach: it takes no place in the topic's order and is not retained.
    fn is_dry(_command: &Self::Command) -> bool {
        false
    }
    /// Whether its outcome must say which way it took.
    fn is_traced(_command: &Self::Command) -> bool {
        false
    }
    /// Merges another gateway's answer.
    fn merge(all: &mut Option<Self::Answer>, part: Self::Answer);
}
