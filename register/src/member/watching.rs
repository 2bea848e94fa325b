//! The thread of a program that is no member: follows the register's views.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broadgate_proto::{
    secret::Secret,
    v1::{View, WatchRequest},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    dial,
    life::{Verdict, Watching},
    link::{Told, is_refusal, random},
    redial::Redial,
    view::epoch,
};

/// From dialing to the first view.
const OPEN_TIME_MAX: Duration = Duration::from_secs(2);

/// Follows until `stop`'s other end is gone.
pub(super) async fn run(registers: Vec<String>, secret: Secret, told: Told, mut stop: watch::Receiver<()>) {
    let watching = Watching::new(registers.len());
    let redial = Redial::new(registers);
    let mut watcher =
        Watcher { secret, told, watching, redial, started: Instant::now(), refusal_told: false };
    tokio::select! {
        () = watcher.follow() => {}
        // Nothing is ever sent: this ends when the handle is dropped.
        _ = stop.changed() => {}
    }
}

struct Watcher {
    secret: Secret,
    told: Told,
    watching: Watching,
    redial: Redial,
    started: Instant,
    refusal_told: bool,
}

impl Watcher {
    async fn follow(&mut self) {
        loop {
            sleep(self.redial.wait(random().unwrap_or_default())).await;
            let register = self.redial.target().to_owned();
            self.told.heard(&register, false);
            let heard = match dial::resolve(&register).await {
                Ok(addresses) => self.round(&register, addresses).await,
                Err(error) => {
                    tracing::debug!(register, error = format!("{error:#}"), "trying the next register");
                    false
                }
            };
            self.told.heard(&register, false);
            if !heard {
                self.redial.next();
            }
        }
    }

    /// True if one of the addresses was believed, so that the register is tried again first.
    async fn round(&mut self, register: &str, addresses: Vec<SocketAddr>) -> bool {
        for address in addresses {
            match self.attempt(register, address).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(register, error = format!("{error:#}"), "trying the next address");
                }
            }
        }
        false
    }

    async fn attempt(&mut self, register: &str, address: SocketAddr) -> anyhow::Result<bool> {
        let mut client = dial::connect(address, &self.secret).await?.client;
        let opened = timeout(OPEN_TIME_MAX, client.watch(WatchRequest {})).await?;
        let mut views = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => {
                if is_refusal(&status).is_some() && !std::mem::replace(&mut self.refusal_told, true) {
                    tracing::error!(
                        register,
                        refusal = status.message(),
                        "the register refused this process"
                    );
                }
                return Err(status.into());
            }
        };
        let mut next = timeout(OPEN_TIME_MAX, views.message()).await?;
        let mut heard = false;
        while let Ok(Some(view)) = next {
            match self.take(view) {
                Verdict::Next => return Ok(false),
                Verdict::Install | Verdict::Keep => heard = true,
            }
            self.redial.heard();
            self.told.heard(register, true);
            next = views.message().await;
        }
        Ok(heard)
    }

    fn take(&mut self, view: View) -> Verdict {
        let verdict = self.watching.view(epoch(&view), self.started.elapsed());
        if verdict == Verdict::Install {
            self.told.views.send_replace(Arc::new(view));
        }
        verdict
    }
}
