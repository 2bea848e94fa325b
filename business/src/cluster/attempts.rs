//! How a command is carried out: given to the best gateway, and repeated under its id until it is
//! answered or its time is over.

use std::sync::Arc;

use broadgate_proto::v1::{answer::Answer, command::Command};
use tokio::time::Instant;

use crate::{
    cluster::{
        error::{CommandError, Refusal},
        handle::Cluster,
        link::{CallReply, CallerLink, QueueSlot},
        marks,
        table::GatewayChoice,
        turns::CallerTurn,
    },
    dial::{self, Backoff},
};

/// What is known of a command that has no final answer yet.
#[derive(Default)]
struct Trace {
    /// Where it was given last.
    at: Option<Arc<CallerLink>>,
    /// And what became of it there has not been heard.
    given: bool,
    /// It waits for what was sent to its topic before.
    behind: bool,
    /// The gateway that may have carried it out.
    maybe: Option<String>,
    /// What the last gateway said that could not.
    refusal: Option<CommandError>,
}

impl Trace {
    /// The time is over.
    fn late(self, command: &Command) -> CommandError {
        let said = match &self.refusal {
            Some(CommandError::Refused { message, .. }) => message.clone(),
            _ => String::new(),
        };
        let unanswered = |gateway: &str| CommandError::Unanswered {
            gateway: gateway.to_owned(),
            command_id: marks::id(command).to_owned(),
            said: said.clone(),
        };
        match (self.maybe, self.refusal, self.at) {
            (Some(gateway), ..) => unanswered(&gateway),
            // On a stream that is open, it may have been written.
            (None, _, Some(link)) if self.given && link.is_up() => unanswered(&link.name),
            (None, Some(refusal), _) => refusal,
            _ if self.behind => {
                crate::cluster::handle::not_reachable("an earlier command to its topic is still unanswered")
            }
            (None, None, Some(link)) => {
                crate::cluster::handle::not_reachable(&format!("gateway {} does not answer", link.name))
            }
            (None, None, None) => crate::cluster::handle::not_reachable("no register named a gateway"),
        }
    }
}

impl Cluster {
    /// Gives a command, by this way if that is possible.
    pub(super) async fn call(
        &self,
        way: impl Into<GatewayChoice>,
        command: Command,
    ) -> Result<Answer, CommandError> {
        let way = way.into();
        let mut trace = Trace::default();
        let deadline = Instant::now() + self.inner.timeout;
        let attempts = self.attempts(&way, &command, &mut trace);
        match tokio::time::timeout_at(deadline, attempts).await {
            Ok(result) => result,
            Err(_) => Err(trace.late(&command)),
        }
    }

    async fn attempts(
        &self,
        way: &GatewayChoice,
        command: &Command,
        trace: &mut Trace,
    ) -> Result<Answer, CommandError> {
        let mut turn = self.turn(way);
        let mut refused = None;
        let mut backoff = Backoff::default();
        loop {
            let link = self.choose_in_turn(way, refused.as_ref(), turn.as_mut()).await;
            let Some(place) = place_in_turn(&link, turn.as_mut()).await else {
                // Retired: the next table is there, or comes.
                tokio::task::yield_now().await;
                continue;
            };
            let reply = match &mut turn {
                None => place.call(command.clone()),
                Some(turn) => match turn.call(place, command.clone()) {
                    Some(reply) => reply,
                    None => {
                        trace.behind = true;
                        turn.come().await;
                        continue;
                    }
                },
            };
            (trace.at, trace.given, trace.behind) = (Some(link.clone()), true, false);
            let reply = reply.await.unwrap_or(CallReply::Unanswered);
            trace.given = false;
            let wait = match reply {
                CallReply::Answered(Answer::Error(error)) => {
                    let refusal = CommandError::refused(error);
                    if refusal.refusal() != Some(Refusal::Unavailable) {
                        return Err(refusal);
                    }
                    trace.refusal = Some(refusal);
                    refused = Some(link.clone());
                    true
                }
                CallReply::Answered(answer) => return Ok(answer),
                CallReply::Refused(error) => return Err(error),
                // Only what breaks one stream after the other has to wait.
                CallReply::Unanswered => trace.maybe.replace(link.name.clone()).is_some(),
                // This gateway will be dialled again, or another one takes it.
                CallReply::NotWritten => false,
            };
            if let Some(turn) = &mut turn {
                turn.back();
            }
            if wait {
                tokio::time::sleep(backoff.next(dial::random())).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Gives a command that is not answered, unless something has to be waited for: then it is returned.
    pub(super) fn give_now(&self, way: &GatewayChoice, command: Command) -> Option<Command> {
        let Some(link) = self.inner.table.borrow().choose(way, None) else { return Some(command) };
        let Some(place) = link.try_place() else { return Some(command) };
        match self.turn(way) {
            None => {
                place.post(command);
                None
            }
            Some(mut turn) => turn.post(place, command),
        }
    }

    /// Gives a command that is not answered: returns when it has its place in the queue to a gateway.
    pub(super) async fn give(&self, way: &GatewayChoice, command: Command) -> Result<(), CommandError> {
        let deadline = Instant::now() + self.inner.timeout;
        let given = tokio::time::timeout_at(deadline, self.post_in_turn(way, command));
        given.await.map_err(|_| crate::cluster::handle::not_reachable("no gateway accepted it in time"))
    }

    async fn post_in_turn(&self, way: &GatewayChoice, mut command: Command) {
        let mut turn = self.turn(way);
        loop {
            let link = self.choose_in_turn(way, None, turn.as_mut()).await;
            let Some(place) = place_in_turn(&link, turn.as_mut()).await else {
                tokio::task::yield_now().await;
                continue;
            };
            let Some(turn) = &mut turn else { return place.post(command) };
            let Some(back) = turn.post(place, command) else { return };
            command = back;
            turn.come().await;
        }
    }

    fn turn<'a>(&'a self, way: &'a GatewayChoice) -> Option<CallerTurn<'a>> {
        match way {
            GatewayChoice::Ordered(topic) => Some(CallerTurn::new(&self.inner.turns, topic)),
            GatewayChoice::Any | GatewayChoice::Gateway(_) => None,
        }
    }

    async fn choose_in_turn(
        &self,
        way: &GatewayChoice,
        refused: Option<&Arc<CallerLink>>,
        turn: Option<&mut CallerTurn<'_>>,
    ) -> Arc<CallerLink> {
        let now = self.inner.table.borrow().choose(way, refused);
        match now {
            Some(link) => link,
            None => {
                enter(turn);
                self.choose(way).await
            }
        }
    }

    /// As soon as there is one.
    pub(super) async fn choose(&self, way: &GatewayChoice) -> Arc<CallerLink> {
        let mut table = self.inner.table.clone();
        loop {
            if let Ok(table) = table.wait_for(|table| !table.is_empty()).await
                && let Some(link) = table.choose(way, None)
            {
                return link;
            }
            // The views have ended, and with them the program.
            std::future::pending::<()>().await;
        }
    }
}

async fn place_in_turn<'a>(link: &'a CallerLink, turn: Option<&mut CallerTurn<'_>>) -> Option<QueueSlot<'a>> {
    let now = link.try_place();
    if now.is_some() {
        return now;
    }
    enter(turn);
    link.place().await
}

/// A caller that has to wait keeps its place before later ones.
fn enter(turn: Option<&mut CallerTurn<'_>>) {
    if let Some(turn) = turn {
        turn.enter();
    }
}
