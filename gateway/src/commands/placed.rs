//! Commands that are on their way: awaiting, adding up, and saying who did not answer.

use std::{collections::HashMap, sync::Arc};

use broadgate_proto::{
    close,
    id::Incarnation,
    v1::{self, Epoch, answer::Answer, command::Command},
};
use metrics::counter;
use tonic::Code;

use super::{
    Dispatcher, Placing,
    local::Executing,
    merge::{finish, merge, tidy},
};
use crate::{
    orders::{Cursor, Order, not_found, refusal},
    peers::Asked,
};

/// A batch whose commands are in every queue that they concern.
pub(crate) struct Placed {
    dispatcher: Arc<Dispatcher>,
    epoch: Epoch,
    placings: Vec<Placing>,
    local: Executing,
    remote: Vec<(String, Asked)>,
}

/// What has come back for one command.
#[derive(Default)]
struct Gathered {
    answer: Option<Answer>,
    missing: Vec<String>,
}

impl Placed {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        epoch: Epoch,
        placings: Vec<Placing>,
        local: Executing,
        remote: Vec<(String, Asked)>,
    ) -> Self {
        Self { dispatcher, epoch, placings, local, remote }
    }

    /// Waits for everybody, at most for the link timeout, and answers each command.
    pub(crate) async fn answers(self) -> Vec<v1::Answer> {
        let dispatcher = self.dispatcher;
        let mut gathered: Vec<Gathered> = self.placings.iter().map(|_| Gathered::default()).collect();
        for (index, answer) in self.local.answers(|stats| dispatcher.own_status(stats)).await {
            merge(&mut gathered[index].answer, answer);
        }
        for (name, asked) in self.remote {
            for (index, answer) in asked.answers(dispatcher.link_timeout).await {
                let Some((gathered, placing)) = gathered.get_mut(index).zip(self.placings.get(index)) else {
                    continue;
                };
                match answer {
                    // One gateway of several that refuses has not done its part.
                    Some(Answer::Error(_)) | None if placing.asked > 1 => gathered.missing.push(name.clone()),
                    Some(answer) => merge(&mut gathered.answer, answer),
                    None => gathered.missing.push(name.clone()),
                }
            }
        }
        let mut answers = Vec::with_capacity(self.placings.len());
        for (placing, gathered) in self.placings.into_iter().zip(gathered) {
            let id = placing.id;
            let answer = dispatcher.conclude(self.epoch, placing, gathered).await;
            answers.push(v1::Answer { id, answer: Some(answer) });
        }
        answers
    }
}

impl Dispatcher {
    async fn conclude(self: &Arc<Self>, epoch: Epoch, placing: Placing, gathered: Gathered) -> Answer {
        let order = match &placing.order {
            Ok(order) => Arc::clone(order),
            Err(refused) => return Answer::Error(refused.clone()),
        };
        if let Order::ListClients { .. } = *order {
            return self.walk(epoch, &order, &placing.command).await;
        }
        let Gathered { mut answer, missing } = gathered;
        if !missing.is_empty() {
            counter!("gateway_answers_incomplete_total").increment(1);
        }
        if let Some(client) = order.one_client() {
            match (&answer, missing.first()) {
                (None, Some(name)) => {
                    let message = format!("gateway {name}, which holds the client, did not answer in time");
                    return Answer::Error(refusal(Code::Unavailable, message));
                }
                (None, None) => return Answer::Error(not_found(client)),
                _ => {}
            }
        }
        add_unknown(&mut answer, &order, &placing);
        let mut answer = answer.unwrap_or_else(|| nothing(&order));
        tidy(&order, &mut answer);
        if let (Answer::Receipt(receipt), Command::Bind(bind)) = (&answer, &placing.command)
            && bind.exclusive
            && receipt.clients > 0
        {
            return self.close_others(bind, answer).await;
        }
        if let Answer::Receipt(receipt) = &mut answer {
            receipt.command_id = super::command_id(&mut placing.command.clone()).cloned().unwrap_or_default();
        }
        if let Answer::Status(status) = &mut answer {
            self.add_membership(status);
        }
        let coverage = v1::Coverage { epoch: Some(epoch), complete: missing.is_empty(), missing };
        finish(&order, &mut answer, coverage);
        answer
    }

    /// The other half of an exclusive bind: every other client of the uid is closed.
    async fn close_others(self: &Arc<Self>, bind: &v1::BindRequest, bound: Answer) -> Answer {
        let except = v1::Except { clients: vec![bind.client_id.clone()], ..v1::Except::default() };
        let to = v1::Audience {
            app: bind.app.clone(),
            uids: vec![bind.uid.clone()],
            except: Some(except),
            ..v1::Audience::default()
        };
        let close = v1::CloseRequest {
            to: Some(to),
            code: close::REPLACED.code.into(),
            reason: close::REPLACED.reason.to_owned(),
            ..v1::CloseRequest::default()
        };
        let closed = Box::pin(self.run(Command::Close(close))).await;
        match (bound, closed) {
            (Answer::Receipt(mut bound), Answer::Receipt(closed)) => {
                // The receipt is of the bind; how far the closing reached is its coverage.
                bound.coverage = closed.coverage;
                bound.gateways = closed.gateways;
                bound.command_id.clone_from(&bind.command_id);
                Answer::Receipt(bound)
            }
            (_, other) => other,
        }
    }

    /// A page of clients: gateway after gateway in the order of their incarnations, until it is full.
    async fn walk(self: &Arc<Self>, epoch: Epoch, order: &Arc<Order>, command: &Command) -> Answer {
        let Order::ListClients { limit, .. } = **order else { return nothing(order) };
        let Command::ListClients(request) = command else { return nothing(order) };
        let after = Cursor::parse(&request.cursor).ok().flatten();
        let me = self.me.load().incarnation;
        let mut gateways: Vec<Incarnation> = self.peers.all();
        gateways.push(me);
        gateways.sort_unstable();
        let mut all = Some(Answer::Clients(v1::ListClientsReply::default()));
        let mut missing = Vec::new();
        for gateway in
            gateways.into_iter().filter(|gateway| after.is_none_or(|after| *gateway >= after.incarnation))
        {
            let mut request = request.clone();
            if after.is_some_and(|after| after.incarnation != gateway) {
                request.cursor.clear();
            }
            let command = Command::ListClients(request);
            match self.ask_one(gateway, command).await {
                Some(answer @ Answer::Clients(_)) => merge(&mut all, answer),
                Some(refused @ Answer::Error(_)) if gateway == me => return refused,
                _ => missing.push(self.peers.name(gateway)),
            }
            if matches!(&all, Some(Answer::Clients(reply)) if reply.clients.len() > limit) {
                break;
            }
        }
        let mut answer = all.unwrap_or_else(|| nothing(order));
        let coverage = v1::Coverage { epoch: Some(epoch), complete: missing.is_empty(), missing };
        finish(order, &mut answer, coverage);
        answer
    }

    async fn ask_one(self: &Arc<Self>, gateway: Incarnation, command: Command) -> Option<Answer> {
        if gateway == self.me.load().incarnation {
            let order = match self.parser.parse(&command) {
                Ok(order) => order,
                Err(refused) => return Some(Answer::Error(refused)),
            };
            let executing = self.local.execute(vec![(0, order)]).await;
            return executing.answers(|stats| self.own_status(stats)).await.pop().map(|(_, answer)| answer);
        }
        let asked =
            self.peers.send(gateway, vec![v1::Command { id: 0, command: Some(command), after: None }]);
        asked.answers(self.link_timeout).await.pop().and_then(|(_, answer)| answer)
    }

    /// What a peer asks of this gateway: its own clients only.
    pub(crate) async fn place_for_peer(&self, commands: Vec<v1::Command>) -> PeerPlaced {
        let mut orders = Vec::new();
        let mut refused = HashMap::new();
        let mut ids = Vec::with_capacity(commands.len());
        for (index, v1::Command { id, command, .. }) in commands.into_iter().enumerate() {
            ids.push(id);
            let parsed = command.as_ref().map(|command| self.parser.parse(command));
            match parsed {
                Some(Ok(order)) => orders.push((index, order)),
                Some(Err(error)) => {
                    refused.insert(index, error);
                }
                None => {
                    refused.insert(
                        index,
                        refusal(Code::Unimplemented, "this gateway does not know the command"),
                    );
                }
            }
        }
        PeerPlaced { ids, refused, local: self.local.execute(orders).await }
    }

    pub(crate) async fn answer_peer(&self, placed: PeerPlaced) -> Vec<v1::Answer> {
        let mut answers: Vec<Option<Answer>> = (0..placed.ids.len())
            .map(|index| placed.refused.get(&index).cloned().map(Answer::Error))
            .collect();
        for (index, answer) in placed.local.answers(|stats| self.own_status(stats)).await {
            answers[index] = Some(answer);
        }
        placed.ids.into_iter().zip(answers).map(|(id, answer)| v1::Answer { id, answer }).collect()
    }
}

/// A peer's commands in this gateway's mailboxes.
pub(crate) struct PeerPlaced {
    ids: Vec<u64>,
    refused: HashMap<usize, v1::Error>,
    local: Executing,
}

/// Clients whose gateway is in no view are gone.
fn add_unknown(answer: &mut Option<Answer>, order: &Order, placing: &Placing) {
    for (_, clients) in &placing.unknown {
        let part = if matches!(order, Order::Online { .. }) {
            let clients = clients.iter().map(|client| (client.to_string(), false)).collect();
            Answer::Online(v1::OnlineReply { clients, ..v1::OnlineReply::default() })
        } else {
            Answer::Receipt(v1::Receipt {
                drops: HashMap::from([("unknown_client".to_owned(), clients.len() as u64)]),
                unknown_clients: clients.iter().map(ToString::to_string).collect(),
                ..v1::Receipt::default()
            })
        };
        merge(answer, part);
    }
}

/// The answer if nobody had to be asked, or nobody answered.
fn nothing(order: &Order) -> Answer {
    match order {
        Order::Online { .. } => Answer::Online(v1::OnlineReply::default()),
        Order::Count { .. } => Answer::Count(v1::CountReply::default()),
        Order::ListClients { .. } => Answer::Clients(v1::ListClientsReply::default()),
        Order::ListUids { .. } | Order::ListGroups { .. } => Answer::Names(v1::ListNamesReply::default()),
        Order::Status => Answer::Status(v1::StatusReply::default()),
        _ => Answer::Receipt(v1::Receipt::default()),
    }
}
