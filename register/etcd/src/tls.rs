//! TLS to etcd, from files that are read again when they change.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use broadgate_tls::{
    PairFiles, Reloading, client_config, load_pair, load_roots,
    rustls::{ClientConfig, pki_types::ServerName},
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use tokio::net::TcpStream;

/// PEM files.
#[derive(Debug, Clone)]
pub struct EtcdTlsFiles {
    /// Certificates of the CAs that sign etcd's.
    pub ca: PathBuf,
    /// A certificate and its key, shown if etcd asks for one.
    pub pair: Option<(PathBuf, PathBuf)>,
}

/// What connections to etcd are opened with.
#[derive(Debug)]
pub struct EtcdTls {
    current: Arc<Reloading<ClientConfig>>,
}

impl EtcdTls {
    /// Reads the files.
    ///
    /// # Errors
    /// If one of them cannot be read or used.
    pub fn open(files: EtcdTlsFiles) -> anyhow::Result<Self> {
        let load = move |reads: &mut broadgate_tls::FileReads| {
            let roots = load_roots(&files.ca, reads)?;
            let pair = match files.pair.clone() {
                Some((cert, key)) => Some(load_pair(&PairFiles { cert, key }, reads)?),
                None => None,
            };
            if let Some(pair) = &pair {
                pair.check_time(std::time::SystemTime::now())?;
            }
            let mut config = client_config(roots, pair.as_ref())?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            Ok(config)
        };
        Ok(Self { current: Arc::new(Reloading::open("etcd", load)?) })
    }

    /// Reads the files again when they change, for as long as it is polled.
    pub async fn watch(&self) -> Infallible {
        Arc::clone(&self.current).watch(None).await
    }

    /// A sentence if it fails.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host:?}: {error}"))?;
        let connector = TlsConnector::from(self.current.current().clone());
        connector.connect(name, stream).await.map_err(|error| {
            format!(
                "the TLS handshake failed: {error}; compare register.etcd.tls with etcd's certificates, which must \
                 have the names of register.etcd.endpoints"
            )
        })
    }
}
