//! What a process shows to the others of its cluster.

use std::net::SocketAddr;

use broadgate_proto::secret::{Secret, SecretError, SendSecret};

use crate::cluster::ClusterTls;

/// What a process shows to the others of its cluster, and asks of them. Cheap to clone; never printed.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The shared secret, in every call.
    pub secret: Secret,
    /// The certificates, in every handshake; without them connections are plain.
    pub tls: Option<ClusterTls>,
}

impl From<Secret> for Credentials {
    fn from(secret: Secret) -> Self {
        Self { secret, tls: None }
    }
}

impl Credentials {
    /// Whether an internal port may listen here.
    ///
    /// # Errors
    /// If others could reach it, and neither a secret nor certificates tell who they are.
    pub fn check_bind(&self, bind: SocketAddr) -> Result<(), SecretError> {
        if self.tls.is_some() { Ok(()) } else { self.secret.check_bind(bind) }
    }

    /// What every caller has shown that a port with these lets in, besides the holders of tokens: `secret`,
    /// `certificate`, or, on the same machine, `local`.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        match (self.secret.is_none(), &self.tls) {
            (false, _) => "secret",
            (true, Some(_)) => "certificate",
            (true, None) => "local",
        }
    }

    /// The header that a caller adds to each call.
    #[must_use]
    pub fn sender(&self) -> SendSecret {
        self.secret.sender()
    }
}
