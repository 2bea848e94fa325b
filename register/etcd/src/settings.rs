//! Endpoints and users, checked.

use std::{fmt, sync::Arc};

use broadgate_proto::name;

use crate::tls::EtcdTls;

/// How etcd is reached.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// Tried in turn; at least one.
    pub endpoints: Vec<EtcdEndpoint>,
    /// Whom etcd authenticates; nobody if it does not.
    pub user: Option<EtcdUser>,
    /// For endpoints with https.
    pub tls: Option<Arc<EtcdTls>>,
}

/// A user of etcd.
#[derive(Clone)]
pub struct EtcdUser {
    /// The user's name.
    pub name: String,
    /// Never shown.
    pub password: String,
}

impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({})", self.name)
    }
}

/// One member of an etcd cluster, by its client URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdEndpoint {
    /// host:port.
    pub authority: String,
    /// By TLS.
    pub tls: bool,
}

impl EtcdEndpoint {
    /// From `http://host:port`, `https://host:port` or `host:port`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => {
                return Err(format!("invalid endpoint {text:?}: {scheme}:// is not http:// or https://"));
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if let Err(error) = name::check_address(authority) {
            return Err(format!(
                "invalid endpoint {text:?}: {error}: expected http://HOST:PORT or https://HOST:PORT"
            ));
        }
        Ok(Self { authority: authority.to_owned(), tls })
    }

    /// The name that a certificate must have.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for EtcdEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_a_url_or_host_and_port() {
        let of = |text: &str| EtcdEndpoint::parse(text).map(|one| one.to_string());
        assert_eq!(of("10.0.0.1:2379").as_deref(), Ok("http://10.0.0.1:2379"));
        assert_eq!(of("https://etcd-0.etcd:2379/").as_deref(), Ok("https://etcd-0.etcd:2379"));
        assert_eq!(EtcdEndpoint::parse("https://[::1]:2379").unwrap().host(), "::1");
        for wrong in
            ["", "etcd", "http://", "http://:2379", "ftp://a:1", "http://a:1/path", "a:x", "http://u@a:1"]
                .into_iter()
                .chain(["http://[::1:2379", "http://::1:2379", "http://[zz]:1", "a:0", "a:+5", "http:a:1"])
                .chain(["a,b:1", "a\nb:1", "http://%41:1"])
        {
            assert!(of(wrong).unwrap_err().contains("invalid endpoint"), "{wrong}");
        }
    }
}
