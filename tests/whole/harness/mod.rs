//! Speaks the domain: a cluster, its clients, callers and workers.

mod client;
mod cluster;
mod process;
mod worker;

use std::time::{Duration, Instant};

use broadgate_proto::v1::{self, Audience, SendRequest, send_request::Payload};

pub use self::{
    client::{Client, Closed},
    cluster::{Caller, Cluster},
    process::Process,
    worker::{TestWorker, said},
};

/// Whatever should happen has happened by then, on the slowest machine.
pub const GENEROUS: Duration = Duration::from_secs(60);

/// Polls until there is a value; prints how long it took.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut poll: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = poll().await {
            let took = started.elapsed();
            if took > Duration::from_secs(1) {
                println!("{what}: after {took:.1?}");
            }
            return value;
        }
        assert!(started.elapsed() < GENEROUS, "{what}: not within {GENEROUS:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a future, generously.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GENEROUS, future).await.unwrap_or_else(|_| panic!("{what}: not within {GENEROUS:?}"))
}

pub fn clients(ids: &[&str]) -> Audience {
    Audience { clients: ids.iter().map(ToString::to_string).collect(), ..Audience::default() }
}

pub fn uids(uids: &[&str]) -> Audience {
    Audience { uids: uids.iter().map(ToString::to_string).collect(), ..Audience::default() }
}

pub fn groups(groups: &[&str]) -> Audience {
    Audience { groups: groups.iter().map(ToString::to_string).collect(), ..Audience::default() }
}

pub fn all() -> Audience {
    Audience { all: true, ..Audience::default() }
}

pub fn text(to: Audience, text: &str) -> SendRequest {
    SendRequest { to: Some(to), payload: Some(Payload::Text(text.to_owned())), ..SendRequest::default() }
}

pub fn join(ids: &[&str], groups: &[&str]) -> v1::JoinGroupsRequest {
    v1::JoinGroupsRequest {
        clients: ids.iter().map(ToString::to_string).collect(),
        groups: groups.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

pub fn bind(id: &str, uid: &str) -> v1::BindRequest {
    v1::BindRequest { client_id: id.to_owned(), uid: uid.to_owned(), ..Default::default() }
}
