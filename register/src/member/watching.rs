//! The thread of a program that is no member: follows the register's views.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use broadgate_proto::{
    v1::{View, WatchRequest},
    view::epoch,
};
use broadgate_tls::Credentials;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::member::{
    dial,
    life::{BelievedViews, ViewVerdict},
    random::random,
    redial::Redial,
    refusal::{is_refusal, leader},
    status::StatusPublisher,
};

/// From dialing to the first view.
const OPEN_TIME_MAX: Duration = Duration::from_secs(2);

/// Follows until `stop`'s other end is gone.
pub(super) async fn run(
    registers: Vec<String>,
    credentials: Credentials,
    publisher: StatusPublisher,
    mut stop: watch::Receiver<()>,
) {
    let watching = BelievedViews::new(registers.len());
    let redial = Redial::new(registers);
    let mut watcher = ViewWatcher {
        credentials,
        publisher,
        watching,
        redial,
        started: Instant::now(),
        refusal_logged: false,
        leader: None,
    };
    tokio::select! {
        () = watcher.follow() => {}
        // Nothing is ever sent: this ends when the handle is dropped.
        _ = stop.changed() => {}
    }
}

struct ViewWatcher {
    credentials: Credentials,
    publisher: StatusPublisher,
    watching: BelievedViews,
    redial: Redial,
    started: Instant,
    refusal_logged: bool,
    /// Named by a register that stands by.
    leader: Option<String>,
}

impl ViewWatcher {
    async fn follow(&mut self) {
        loop {
            sleep(self.redial.wait(random().unwrap_or_default())).await;
            let register = self.redial.target().to_owned();
            let trouble = self.round(&register).await;
            // One that names itself, or is next anyway, needs no reference.
            if let Some(leader) = self.leader.take()
                && leader != register
                && leader != self.redial.target()
            {
                self.redial.refer(&leader);
            }
            tracing::debug!(register, trouble, "lost the register, or it was not found");
            self.publisher.away(&register, trouble);
        }
    }

    /// Tries all addresses of one register; returns what went wrong in the end. If one was
    /// believed, the same register is tried again first.
    async fn round(&mut self, register: &str) -> String {
        let mut trouble = String::new();
        match dial::resolve(register).await {
            Ok(addresses) => {
                for address in addresses {
                    match self.attempt(register, address).await {
                        Ok(true) => return "the register ended the stream".to_owned(),
                        Ok(false) => trouble = "another register is ahead of this one".to_owned(),
                        Err(error) => {
                            let tls = self.credentials.tls.as_ref();
                            trouble = dial::explained(address, format!("{error:#}"), tls).await;
                        }
                    }
                }
            }
            Err(error) => trouble = format!("{error:#}"),
        }
        self.redial.next();
        trouble
    }

    async fn attempt(&mut self, register: &str, address: SocketAddr) -> anyhow::Result<bool> {
        let late = || format!("register {address} has not answered within {OPEN_TIME_MAX:?}");
        let mut client = dial::connect(address, &self.credentials).await?.client;
        let opened =
            timeout(OPEN_TIME_MAX, client.watch(WatchRequest::default())).await.with_context(late)?;
        let mut views = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => {
                self.leader = leader(&status, address);
                if is_refusal(&status).is_some() && !std::mem::replace(&mut self.refusal_logged, true) {
                    tracing::error!(
                        register,
                        refusal = status.message(),
                        "the register refused this process"
                    );
                }
                anyhow::bail!("{}", status.message());
            }
        };
        let mut next = timeout(OPEN_TIME_MAX, views.message()).await.with_context(late)?;
        let mut heard = false;
        while let Ok(Some(view)) = next {
            match self.take(view) {
                ViewVerdict::Next => return Ok(false),
                ViewVerdict::Install | ViewVerdict::Keep => heard = true,
            }
            self.redial.heard();
            self.publisher.heard(register);
            next = views.message().await;
        }
        Ok(heard)
    }

    fn take(&mut self, view: View) -> ViewVerdict {
        let verdict = self.watching.view(epoch(&view), self.started.elapsed());
        if verdict == ViewVerdict::Install {
            self.publisher.view(Arc::new(view));
        }
        verdict
    }
}
