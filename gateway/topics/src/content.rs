//! What topics carry: nothing that the core looks into.

use std::fmt::Debug;

use broadgate_proto::id::Incarnation;

/// What the core passes on without looking into it.
pub trait Content: Debug + Clone + 'static {
    /// Something to carry out among the clients of a topic.
    type Command: Clone + Debug;
    /// What became of it at one gateway, or at several.
    type Answer: Clone + Debug;

    /// Its size, for limits.
    fn bytes(command: &Self::Command) -> usize;
    /// What it takes in memory, where it is kept.
    fn heap_bytes(command: &Self::Command) -> usize {
        Self::bytes(command)
    }
    /// A gateway that must carry it out besides those with clients of the topic: an exclusive bind
    /// concerns the gateway of the client that is bound.
    fn also(command: &Self::Command) -> Option<Incarnation>;
    /// The id under which a group's history and last value keep it; none if they do not.
    fn kept_as(_command: &Self::Command) -> Option<u128> {
        None
    }
    /// Adds what another gateway answered.
    fn merge(all: &mut Option<Self::Answer>, part: Self::Answer);
}
