//! The TLS of a port that serves web pages to people: their browsers show no certificate.

use std::{convert::Infallible, fmt, sync::Arc, time::SystemTime};

use anyhow::Context as _;
use rustls::{
    ServerConfig,
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};
use tokio::signal::unix::Signal;
use tokio_rustls::TlsAcceptor;

use crate::{
    by_name::ByName,
    pair::{Pair, PairFiles, load_pair},
    provider::provider,
    reload::Reloading,
};

/// In metrics and the log.
const ROLE: &str = "dashboard";
/// Streams of pages are upgraded from HTTP/1.1.
const HTTP: &[u8] = b"http/1.1";

/// The certificates of a port with pages. Cheap to clone; each handshake takes those of its moment.
#[derive(Clone)]
pub struct PagesTls(Arc<Reloading<PagesSet>>);

struct PagesSet {
    server: Arc<ServerConfig>,
    names: Vec<String>,
}

impl PagesTls {
    /// Reads and checks the files; `setting` names them in errors.
    ///
    /// # Errors
    /// One sentence about a file that cannot be used.
    pub fn open(files: Vec<PairFiles>, setting: &'static str) -> anyhow::Result<Self> {
        let set = Reloading::open(ROLE, move |reads| {
            // All are read even if one is bad, so that a change of any is noticed.
            let pairs: Vec<_> = files.iter().map(|files| load_pair(files, reads)).collect();
            let mut usable = Vec::with_capacity(pairs.len());
            for pair in pairs {
                let checked = pair.and_then(|pair| pair.check_time(SystemTime::now()).map(|()| pair));
                usable.push(checked.context(setting)?);
            }
            let names = usable.iter().flat_map(Pair::names).collect();
            let mut server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&TLS13, &TLS12])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(ByName(usable)));
            server.alpn_protocols = vec![HTTP.to_vec()];
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
            Ok(PagesSet { server: Arc::new(server), names })
        })?;
        Ok(Self(Arc::new(set)))
    }

    /// What accepts the next connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.current().server))
    }

    /// The names and addresses that the certificates are for; some may begin with `*.`.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.current().names.clone()
    }

    /// Watches the files, as [`Reloading::watch`] does.
    pub async fn watch(self, hangups: Option<Signal>) -> Infallible {
        self.0.watch(hangups).await
    }
}

impl fmt::Debug for PagesTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagesTls").field("names", &self.names()).finish_non_exhaustive()
    }
}
