//! Traces of commands at their home.

use std::time::Duration;

use broadgate_proto::id::Incarnation;

use crate::{content::Content, membership::TopicPosition, shared::Shared, step::HomeTrace};

/// The trace of a command before its outcome.
#[derive(Debug)]
pub(super) struct PendingTrace {
    /// When the question came.
    asked: Duration,
    /// As far as it is known.
    trace: HomeTrace,
}

impl PendingTrace {
    /// Of a command that is placed now, if it asks for one.
    pub(super) fn of<C: Content>(
        shared: &Shared<C>,
        asked: Duration,
        at: TopicPosition,
        command: &C::Command,
    ) -> Option<Box<Self>> {
        if !C::is_traced(command) {
            return None;
        }
        let trace = HomeTrace {
            home: shared.me,
            parked: shared.now.saturating_sub(asked),
            at: (!C::is_dry(command)).then_some(at),
            took: Duration::ZERO,
            unsynced: shared.peers.unsynced(),
            unreachable: Vec::new(),
        };
        Some(Box::new(Self { asked, trace }))
    }

    /// The command cannot be sent to this gateway.
    pub(super) fn unreachable(&mut self, gateway: Incarnation) {
        self.trace.unreachable.push(gateway);
    }

    /// Every gateway has answered, or is not waited for any longer.
    pub(super) fn ended(self, now: Duration) -> HomeTrace {
        HomeTrace { took: now.saturating_sub(self.asked), ..self.trace }
    }
}
