//! The mutual TLS of a cluster: every process shows a certificate of the cluster's CA, and takes no other.
//!
//! Members dial addresses that they find in views, so certificates do not carry addresses: all carry one
//! name, which every dialler verifies whatever address it dials.

use std::{convert::Infallible, fmt, io, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::ServerName,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    signal::unix::Signal,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::{
    pair::{Pair, PairFiles, client_config, load_pair, load_roots},
    provider::provider,
    reload::Reloading,
};

/// The name in the certificates of a cluster, unless another is set.
pub const DEFAULT_SERVER_NAME: &str = "broadgate";
const ROLE: &str = "cluster";
/// In the server's order of preference: callers that speak both, such as curl, get what JSON callers have
/// without TLS; gRPC clients offer HTTP/2 only.
const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"h2"];

/// Where a process finds what it shows and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFiles {
    /// A PEM file with the certificates of the cluster's CA; of two while it is being changed.
    pub ca: PathBuf,
    /// This process's certificate and key.
    pub pair: PairFiles,
    /// The name that every certificate of the cluster has.
    pub server_name: String,
}

impl ClusterFiles {
    /// From the paths of `ca`, `cert` and `key`, if they are given; `settings` name them and the name in errors.
    ///
    /// # Errors
    /// If only some of them are given, or only the name.
    pub fn all_or_none<P: Into<PathBuf>>(
        paths: [Option<P>; 3],
        server_name: Option<String>,
        settings: [&str; 4],
    ) -> anyhow::Result<Option<Self>> {
        let given: Vec<_> = paths.iter().map(Option::is_some).zip(settings).collect();
        let lacking: Vec<_> = given.iter().filter(|(is_given, _)| !is_given).map(|(_, name)| *name).collect();
        match paths {
            [Some(ca), Some(cert), Some(key)] => Ok(Some(Self {
                ca: ca.into(),
                pair: PairFiles { cert: cert.into(), key: key.into() },
                server_name: server_name.unwrap_or_else(|| DEFAULT_SERVER_NAME.to_owned()),
            })),
            [None, None, None] if server_name.is_none() => Ok(None),
            _ => anyhow::bail!(
                "TLS inside the cluster needs all of ca, cert and key, or none: set {}",
                lacking.join(" and ")
            ),
        }
    }
}

/// The mutual TLS of this process. Cheap to clone; each handshake takes the certificates of its moment.
#[derive(Clone)]
pub struct ClusterTls {
    name: ServerName<'static>,
    current: Arc<Reloading<Set>>,
}

struct Set {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl ClusterTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// One sentence about a file that cannot be used: also a certificate that another process of the cluster
    /// would refuse.
    pub fn open(files: ClusterFiles) -> anyhow::Result<Self> {
        let wanted = files.server_name.clone();
        let name = ServerName::try_from(wanted).ok().filter(|name| matches!(name, ServerName::DnsName(_)));
        let name = name.with_context(|| {
            format!(
                "cluster.tls.server_name: {:?} is not a DNS name, such as \"broadgate\"",
                files.server_name
            )
        })?;
        let own = name.clone();
        let current = Reloading::open(ROLE, move |reads| {
            // Both are read even if the first is bad, so that a change of either is noticed.
            let roots = load_roots(&files.ca, reads);
            let pair = load_pair(&files.pair, reads);
            let checked = roots.and_then(|roots| {
                let pair = pair?;
                pair.check_time(SystemTime::now())?;
                pair.check_name(&own, "cluster.tls.server_name")?;
                pair.check_issuer(&files.ca, &roots)?;
                Ok((roots, pair))
            });
            let (roots, pair) = checked.context("cluster.tls")?;
            Set::new(roots, &pair)
        })?;
        Ok(Self { name, current: Arc::new(current) })
    }

    /// What accepts the next connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.current().server))
    }

    /// A handshake over a connection that this process has opened. The caller bounds its time.
    ///
    /// # Errors
    /// Why it failed, as [`crate::explain`] explains it.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<client::TlsStream<S>> {
        let connector = TlsConnector::from(Arc::clone(&self.current.current().client));
        connector.connect(self.name.clone(), stream).await
    }

    /// The same for HTTP/1.1.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_http1<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<client::TlsStream<S>> {
        let mut config = ClientConfig::clone(&self.current.current().client);
        config.alpn_protocols = vec![PROTOCOLS[0].to_vec()];
        TlsConnector::from(Arc::new(config)).connect(self.name.clone(), stream).await
    }

    /// Watches the files, as [`Reloading::watch`] does.
    pub async fn watch(self, hangups: Option<Signal>) -> Infallible {
        self.current.watch(hangups).await
    }
}

impl fmt::Debug for ClusterTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Set {
    fn new(roots: RootCertStore, pair: &Pair) -> anyhow::Result<Self> {
        let mut client = client_config(roots.clone(), Some(pair))?;
        client.alpn_protocols = vec![PROTOCOLS[1].to_vec()];
        let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(callers)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&pair.key))));
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        // A resumed session would outlive the certificates that it was opened with.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}
