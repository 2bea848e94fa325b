//! For tests and benchmarks: a shard with clients on real sockets, and without a loop that would write to them unasked.

#![allow(clippy::unwrap_used, reason = "a test or a benchmark fails by it")]

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

#[cfg(test)]
use broadgate_proto::v1::answer::Answer;
use broadgate_proto::{id::Incarnation, v1};
use broadgate_tls::Credentials;
#[cfg(test)]
use tokio::io::AsyncReadExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

#[cfg(test)]
use crate::{
    config::GatewayLimits,
    shard::outcome::{PartialAnswer, ShardOutcome},
};

use crate::{
    apps::Apps,
    codec::encode::Encoder,
    command::{ClientFilter, ParsedCommand},
    config::{Config, GatewaySettings, Listener},
    shard::{
        open::{Candidate, Newcomer},
        state::{Shard, ShardHandle},
    },
};

const ENCODER: Encoder = Encoder { websocket: true, text: false, frame: false, pusher: false };

#[cfg(test)]
pub(super) fn limits() -> GatewayLimits {
    GatewayLimits::default()
}

/// A shard with a raw WebSocket client for each listed group, and the other ends of their sockets.
#[cfg(test)]
pub(super) async fn shard(groups: &[&str], limits: GatewayLimits) -> (ShardHandle, Vec<TcpStream>) {
    shard_with(groups, GatewaySettings { limits, ..GatewaySettings::default() }).await
}

/// The same with other settings.
pub(super) async fn shard_with(groups: &[&str], settings: GatewaySettings) -> (ShardHandle, Vec<TcpStream>) {
    let config = Config {
        registers: Vec::new(),
        credentials: Credentials::default(),
        settings,
        apps: Apps::new(Vec::new()).unwrap(),
        tokens: crate::callers::Tokens::default(),
        events: crate::events::EventLog::default(),
        other_connections: 0,
        pages: &[],
    };
    let shard = Shard::new(0, Incarnation::from_bits(1), "g", Arc::new(config));
    let shard = Rc::new(RefCell::new(shard));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut others = Vec::new();
    // The clients' own tasks are never polled.
    let tasks = LocalSet::new();
    let _inside = tasks.enter();
    for group in groups {
        others.push(TcpStream::connect(address).await.unwrap());
        let (stream, from) = listener.accept().await.unwrap();
        let candidate = Candidate::new(&shard, &mut newcomer(from)).unwrap();
        let accept = v1::Accept { groups: vec![(*group).to_owned()], ..v1::Accept::default() };
        candidate.open(stream, &[], None, v1::Handshake::default(), Some(accept));
    }
    (shard, others)
}

pub(super) fn newcomer(address: SocketAddr) -> Newcomer {
    Newcomer {
        listener: Arc::new(Listener::web(address)),
        app: "default".into(),
        service: "".into(),
        address,
        handshake: v1::Handshake::default(),
        pusher: None,
        socketio: None,
    }
}

/// A text to a group, under an id.
pub(super) fn to_group(group: &str, id: &str, text: &str) -> Arc<ParsedCommand> {
    let to = ClientFilter { app: "default".into(), groups: vec![group.into()], ..ClientFilter::default() };
    let frames = ENCODER.text(text.as_bytes());
    let order = ParsedCommand::Send { to, frames, by_group: Vec::new(), dry: false, traced: false };
    Arc::new(ParsedCommand::Once {
        app: "default".into(),
        id: id.into(),
        by: "local".into(),
        order: Box::new(order),
        traceparent: "".into(),
        placed_at: std::sync::OnceLock::new(),
    })
}

/// The same as a dry run, which has no id.
#[cfg(test)]
pub(super) fn dry_to_group(group: &str, text: &str) -> Arc<ParsedCommand> {
    let to = ClientFilter { app: "default".into(), groups: vec![group.into()], ..ClientFilter::default() };
    let frames = ENCODER.text(text.as_bytes());
    Arc::new(ParsedCommand::Send { to, frames, by_group: Vec::new(), dry: true, traced: false })
}

/// How many clients each receipt counts, and whether it is that of a repeat.
#[cfg(test)]
pub(super) fn receipts(done: &[ShardOutcome]) -> Vec<(u64, bool)> {
    let one = |done: &ShardOutcome| match &done.part {
        PartialAnswer::Answer(Answer::Receipt(receipt)) => (receipt.clients, receipt.repeated),
        other => panic!("no receipt: {other:?}"),
    };
    done.iter().map(one).collect()
}

/// A frame for each character.
#[cfg(test)]
pub(super) fn frames(texts: &str) -> Vec<u8> {
    texts.bytes().flat_map(|text| [0x81, 1, text]).collect()
}

/// Reads just this.
#[cfg(test)]
pub(super) async fn read(other: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    other.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected);
}
