//! Content for tests in which only topics matter.

use broadgate_proto::id::Incarnation;

use crate::Content;

/// Commands and answers that say nothing. Groups retain all of them as the same one.
#[derive(Debug, Clone)]
pub(crate) enum NoContent {}

impl Content for NoContent {
    type Command = ();
    type Answer = ();

    fn bytes((): &()) -> usize {
        0
    }

    fn also((): &()) -> Option<Incarnation> {
        None
    }

    fn merge(_: &mut Option<()>, (): ()) {}

    fn retained_as((): &()) -> Option<u128> {
        Some(1)
    }
}
