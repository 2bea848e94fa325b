//! Certificates of `up --tls`: made at each start, in a folder that ends with it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use broadgate_tls::{ClusterFiles, ClusterTls, DEFAULT_SERVER_NAME, PairFiles};

use crate::{
    certs::{For, make_ca, make_pair},
    failure::Failure,
};

/// Longer than a demo runs.
const DAYS: u32 = 30;

/// A CA, one pair for every process of the cluster and one for its client ports. The folder is removed on
/// drop.
pub(super) struct DemoCertificates {
    dir: PathBuf,
    ca: PathBuf,
    node: PairFiles,
    web: PairFiles,
}

impl DemoCertificates {
    /// For client ports on this address and on loopback.
    pub(super) fn make(host: Option<IpAddr>) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("broadgate-up-{}", std::process::id()));
        // One of a process that had this number and was killed.
        let _ = std::fs::remove_dir_all(&dir);
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let addresses = loopback.into_iter().chain(host.filter(|host| !host.is_unspecified()));
        let hosts: Vec<String> =
            addresses.map(|address| address.to_string()).chain(["localhost".to_owned()]).collect();
        let ca = make_ca(&dir, DAYS)?.cert;
        let node = make_pair(&dir, "node", DAYS, &For::Cluster(DEFAULT_SERVER_NAME))?;
        let web = make_pair(&dir, "web", DAYS, &For::Clients(&hosts))?;
        let made = Self { dir, ca, node, web };
        let PairFiles { cert, key } = &made.node;
        let toml = format!("[cluster.tls]\nca = {:?}\ncert = {cert:?}\nkey = {key:?}\n", made.ca);
        std::fs::write(made.config(), toml)?;
        Ok(made)
    }

    /// A configuration with which commands reach the cluster.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("tls.toml")
    }

    /// What browsers are to trust.
    pub(super) fn ca(&self) -> &Path {
        &self.ca
    }

    /// For every process of the cluster.
    pub(super) fn flags(&self) -> [String; 3] {
        let files = [("ca", &self.ca), ("cert", &self.node.cert), ("key", &self.node.key)];
        files.map(|(flag, path)| format!("--tls-{flag}={}", path.display()))
    }

    /// For gateways besides.
    pub(super) fn client_flags(&self) -> [String; 2] {
        let files = [("cert", &self.web.cert), ("key", &self.web.key)];
        files.map(|(flag, path)| format!("--client-tls-{flag}={}", path.display()))
    }

    /// What `up` itself shows.
    pub(super) fn open(&self) -> Result<ClusterTls, Failure> {
        let (ca, pair) = (self.ca.clone(), self.node.clone());
        Ok(ClusterTls::open(ClusterFiles { ca, pair, server_name: DEFAULT_SERVER_NAME.to_owned() })?)
    }
}

impl Drop for DemoCertificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
