//! The turn of each caller whose command has an order: a thin shell around `routes.rs`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broadgate_proto::v1::command::Command;
use tokio::sync::{Notify, oneshot};

use super::{
    link::{CallReply, QueueSlot, Run},
    routes::{CommandRoutes, CommandTicket},
    topic::RingTopic,
};

/// The turns of one cluster's callers. The lock is held for moments only.
pub(super) struct CallerTurns(Mutex<CommandRoutes<Run, Arc<Notify>>>);

impl CallerTurns {
    pub(super) fn new() -> Self {
        Self(Mutex::new(CommandRoutes::new()))
    }

    fn lock(&self) -> MutexGuard<'_, CommandRoutes<Run, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One command's turn; it is given up when this is dropped.
pub(super) struct CallerTurn<'a> {
    turns: &'a CallerTurns,
    topic: &'a RingTopic,
    ticket: Option<CommandTicket>,
    /// Made when it has to wait.
    woken: Option<Arc<Notify>>,
}

fn wake(woken: Option<Arc<Notify>>) {
    if let Some(woken) = woken {
        woken.notify_one();
    }
}

impl<'a> CallerTurn<'a> {
    pub(super) fn new(turns: &'a CallerTurns, topic: &'a RingTopic) -> Self {
        Self { turns, topic, ticket: None, woken: None }
    }

    fn waker(&mut self) -> Arc<Notify> {
        self.woken.get_or_insert_default().clone()
    }

    /// It cannot go at once, but has its place before all that come later.
    pub(super) fn enter(&mut self) {
        if self.ticket.is_none() {
            let waker = self.waker();
            let mut routes = self.turns.lock();
            let ticket = routes.enter(self.topic);
            routes.wait(ticket, waker);
            self.ticket = Some(ticket);
        }
    }

    /// If it is its turn there, the command goes. It takes its place in the queue under the lock, so
    /// that the next one, which is woken by that, comes behind it.
    pub(super) fn call(
        &mut self,
        place: QueueSlot<'_>,
        command: Command,
    ) -> Option<oneshot::Receiver<CallReply>> {
        let mut routes = self.turns.lock();
        let ticket = *self.ticket.get_or_insert_with(|| routes.enter(self.topic));
        let run = place.run();
        if !routes.may_go(ticket, run) {
            routes.wait(ticket, self.waker());
            return None;
        }
        let reply = place.call_in_run(command);
        let next = routes.go(ticket, run);
        drop(routes);
        wake(next);
        Some(reply)
    }

    /// Likewise, but nobody will answer. If it is not its turn, the command is returned.
    pub(super) fn post(&mut self, place: QueueSlot<'_>, command: Command) -> Option<Command> {
        let mut routes = self.turns.lock();
        let ticket = *self.ticket.get_or_insert_with(|| routes.enter(self.topic));
        if !routes.may_go(ticket, place.run()) {
            routes.wait(ticket, self.waker());
            return Some(command);
        }
        place.post_in_run(command);
        self.ticket = None;
        let next = routes.pass(ticket);
        drop(routes);
        wake(next);
        None
    }

    /// It was not its turn: returns when it may be.
    pub(super) async fn come(&mut self) {
        self.waker().notified().await;
    }

    /// It has to be repeated.
    pub(super) fn back(&mut self) {
        if let Some(ticket) = self.ticket {
            let waker = self.waker();
            let next = self.turns.lock().back(ticket, waker);
            wake(next);
        }
    }
}

impl Drop for CallerTurn<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let next = self.turns.lock().leave(ticket);
            wake(next);
        }
    }
}
