//! How a publisher's sends go to gateways: as unary calls, or pipelined on one stream per gateway.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use broadgate_proto::v1::{self, Answer, CommandBatch, answer, command};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::{
    ground::Ground,
    harness::{self, Caller},
    record::{Epoch, Outcome, Receipt},
};

/// Commands that wait for one stream; more than a publisher has in flight.
const QUEUE_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Unary,
    Pipelined,
}

pub struct Wires {
    kind: Kind,
    ground: Arc<Ground>,
    open: Mutex<HashMap<usize, Wire>>,
}

/// To one gateway process.
struct Wire {
    address: SocketAddr,
    caller: Caller,
    pipe: Option<Pipe>,
}

/// One pipelined stream.
struct Pipe {
    number: u64,
    commands: u64,
    queue: mpsc::Sender<CommandBatch>,
    unanswered: Unanswered,
}

/// Dropping a sender says that no answer will come.
type Unanswered = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// The place in a stream, what epoch was carried, and what will become of it.
type Sent = (Option<(u64, u64)>, Epoch, BoxFuture<'static, Outcome>);

impl Wires {
    pub fn new(kind: Kind, ground: Arc<Ground>) -> Self {
        Self { kind, ground, open: Mutex::default() }
    }

    /// Never waits: what goes on a stream takes its place there now.
    pub fn send(&self, gateway: usize, command_id: &str, group: u16, payload: String) -> Sent {
        let address = self.ground.place(gateway).unwrap().internal;
        let mut open = self.open.lock().unwrap();
        if open.get(&gateway).is_some_and(|wire| wire.address != address) {
            open.remove(&gateway);
        }
        let wire = open.entry(gateway).or_insert_with(|| Wire::to(address));
        let request = v1::SendRequest {
            command_id: command_id.to_owned(),
            ..harness::text(harness::groups(&[&group_name(group)]), &payload)
        };
        match self.kind {
            Kind::Unary => unary(&self.ground, wire.caller.clone(), request),
            Kind::Pipelined => {
                if wire.pipe.as_ref().is_none_or(|pipe| pipe.queue.is_closed()) {
                    wire.pipe = Some(Pipe::open(&self.ground, wire.caller.clone()));
                }
                let pipe = wire.pipe.as_mut().unwrap();
                pipe.send(Arc::clone(&self.ground), request)
            }
        }
    }

    /// The next send opens a new stream; what is unanswered on the former may still be answered.
    pub fn hang_up(&self, gateway: usize) {
        if let Some(wire) = self.open.lock().unwrap().get_mut(&gateway) {
            wire.pipe = None;
        }
    }
}

pub fn group_name(group: u16) -> String {
    format!("group-{group}")
}

impl Wire {
    fn to(address: SocketAddr) -> Self {
        let channel: Channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self { address, caller: Caller::new(channel), pipe: None }
    }
}

fn unary(ground: &Arc<Ground>, mut caller: Caller, request: v1::SendRequest) -> Sent {
    let carried = ground.seen();
    let request = ground.request(request);
    let ground = Arc::clone(ground);
    let outcome = async move {
        match caller.send(request).await {
            Ok(receipt) => Outcome::Receipt(noted(&ground, receipt.into_inner())),
            Err(status) => refused(status.code()),
        }
    };
    (None, carried, Box::pin(outcome))
}

impl Pipe {
    fn open(ground: &Ground, caller: Caller) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        let unanswered = Unanswered::default();
        let request = ground.request(ReceiverStream::new(commands));
        tokio::spawn(answers(caller, request, Arc::clone(&unanswered)));
        Self { number: NUMBER.fetch_add(1, Ordering::Relaxed), commands: 0, queue, unanswered }
    }

    fn send(&mut self, ground: Arc<Ground>, request: v1::SendRequest) -> Sent {
        self.commands += 1;
        let id = self.commands;
        let (answer, answered) = oneshot::channel();
        self.unanswered.lock().unwrap().insert(id, answer);
        let carried = ground.seen();
        let after = Some(v1::Epoch { term: carried.0, count: carried.1 });
        let command = v1::Command { id, command: Some(command::Command::Send(request)), after };
        if self.queue.try_send(CommandBatch { commands: vec![command] }).is_err() {
            self.unanswered.lock().unwrap().remove(&id);
        }
        let outcome = async move {
            match answered.await.ok().and_then(|answer| answer.answer) {
                Some(answer::Answer::Receipt(receipt)) => Outcome::Receipt(noted(&ground, receipt)),
                Some(answer::Answer::Error(error)) => refused(Code::from_i32(error.code)),
                _ => Outcome::Unanswered,
            }
        };
        (Some((self.number, id)), carried, Box::pin(outcome))
    }
}

/// Hands answers out until the stream ends.
async fn answers(
    mut caller: Caller,
    request: tonic::Request<ReceiverStream<CommandBatch>>,
    unanswered: Unanswered,
) {
    if let Ok(stream) = caller.commands(request).await {
        let mut stream = stream.into_inner();
        while let Ok(Some(batch)) = stream.message().await {
            for answer in batch.answers {
                if let Some(waiting) = unanswered.lock().unwrap().remove(&answer.id) {
                    // The caller may have given up.
                    let _ = waiting.send(answer);
                }
            }
        }
    }
    unanswered.lock().unwrap().clear();
}

fn noted(ground: &Ground, receipt: v1::Receipt) -> Receipt {
    let epoch = ground.see(receipt.coverage.as_ref());
    Receipt {
        complete: receipt.coverage.is_some_and(|coverage| coverage.complete),
        epoch,
        clients: receipt.clients,
        ordered: receipt.ordered,
        repeated: receipt.repeated,
    }
}

/// What may be repeated counts as no answer: the transport tells its own failures in the same way.
fn refused(code: Code) -> Outcome {
    match code {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded | Code::Internal => {
            Outcome::Unanswered
        }
        code => Outcome::Refused(code as i32),
    }
}
