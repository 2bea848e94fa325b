//! The certificates of the client listeners: which one a client is shown, and reading them again.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use anyhow::Context as _;
use broadgate_tls::{
    ByName, FileReads, PairFiles, Reloading, load_pair, provider,
    rustls::{
        ServerConfig,
        crypto::ring::Ticketer,
        server::{NoServerSessionStorage, ProducesTickets},
        version::{TLS12, TLS13},
    },
};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Listener, ListenerKind};

/// In metrics and the log.
const ROLE: &str = "clients";
/// What `web` clients must speak, if they say what they speak.
const HTTP: &[u8] = b"http/1.1";
/// Tickets with which a client of TLS 1.3 resumes its session. They hold it sealed: the gateway keeps nothing.
const TICKETS: usize = 1;

/// What clients are shown, by the index of their listener; none where they come without TLS.
type Configs = Vec<Option<Arc<ServerConfig>>>;

/// The certificates of a gateway's client listeners, replaced as a whole when their files change. Each
/// handshake takes those of its moment; connections live on.
#[derive(Clone)]
pub(crate) struct Certificates(Arc<Reloading<Configs>>);

impl Certificates {
    /// Reads the certificates of all listeners; none if no listener has any.
    ///
    /// # Errors
    /// One sentence about the first that cannot be used.
    pub(crate) fn open(listeners: &[Listener]) -> anyhow::Result<Option<Self>> {
        if listeners.iter().all(|listener| listener.tls.is_empty()) {
            return Ok(None);
        }
        // Its keys outlive a reload: clients that come back resume their sessions.
        let ticketer = Ticketer::new().context("no random number for the keys of TLS tickets")?;
        let listeners = listeners.to_vec();
        let set = Reloading::open(ROLE, move |reads| load(&listeners, &ticketer, reads))?;
        Ok(Some(Self(Arc::new(set))))
    }

    /// What clients of a listener are shown now.
    pub(crate) fn of(&self, listener: usize) -> Option<Arc<ServerConfig>> {
        self.0.current().get(listener)?.clone()
    }

    /// Follows the files, also at SIGHUP.
    pub(crate) async fn watch(self) -> Infallible {
        // Without the signal the files are looked at all the same.
        self.0.watch(signal(SignalKind::hangup()).ok()).await
    }
}

fn load(
    listeners: &[Listener],
    ticketer: &Arc<dyn ProducesTickets>,
    reads: &mut FileReads,
) -> anyhow::Result<Configs> {
    let configs = listeners.iter().enumerate().map(|(index, listener)| {
        if listener.tls.is_empty() {
            return Ok(None);
        }
        let config = of_listener(listener, ticketer, reads);
        let config = config.with_context(|| format!("gateway.listeners[{index}] ({})", listener.name));
        config.map(|config| Some(Arc::new(config)))
    });
    // All are read even if one is bad, so that a change of any is noticed.
    configs.collect::<Vec<_>>().into_iter().collect()
}

fn of_listener(
    listener: &Listener,
    ticketer: &Arc<dyn ProducesTickets>,
    reads: &mut FileReads,
) -> anyhow::Result<ServerConfig> {
    let files = listener.tls.iter().map(|own| PairFiles { cert: own.cert.clone(), key: own.key.clone() });
    let pairs: Vec<_> = files.map(|files| load_pair(&files, reads)).collect();
    let mut usable = Vec::new();
    for (index, pair) in pairs.into_iter().enumerate() {
        let checked = pair.and_then(|pair| pair.check_time(SystemTime::now()).map(|()| pair));
        usable.push(checked.with_context(|| format!("tls[{index}]"))?);
    }
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(usable)));
    if listener.kind == ListenerKind::Web {
        config.alpn_protocols = vec![HTTP.to_vec()];
    }
    config.ticketer = Arc::clone(ticketer);
    config.send_tls13_tickets = TICKETS;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}
