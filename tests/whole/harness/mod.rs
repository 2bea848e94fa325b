//! Speaks the domain: a cluster, its clients, callers and workers.

mod client;
mod cluster;
mod dialler;
mod process;
mod proxy;
mod pty;
mod worker;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use broadgate_proto::v1::{self, Audience, SendRequest, send_request::Payload};

pub use self::{
    client::{Client, Closed},
    cluster::{Caller, Certificates, Cluster, certs},
    process::{Process, signal},
    proxy::{Fault, Proxy, Way},
    pty::{Pty, take_terminal},
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

/// Whether this machine has a program that a test needs and a Rust toolchain does not bring. If not, the test's output
/// says that it is skipped, also where that of tests that pass is not shown.
pub fn has_program(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| folder.join(name).is_file());
    if !found {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let _ = writeln!(std::io::stderr(), "skipped: {test} needs {name}, which is not installed");
    }
    found
}

/// An address for a process that is started later, and perhaps again: below the ports that the system
/// gives to connections, which could otherwise take it meanwhile. Those from 20,000 on are for whole blocks
/// (`up::free_base`): a member that dials its register's former address would reach another test's.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(step % 10_000).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
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
