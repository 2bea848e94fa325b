//! Which of several certificates a client is shown.

use std::sync::Arc;

use rustls::{
    pki_types::ServerName,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::pair::Pair;

/// The certificates of one port. The first is for clients that ask for a name that none has, or for none.
#[derive(Debug)]
pub struct ByName(pub Vec<Pair>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let default = self.0.first()?;
        if self.0.len() == 1 {
            return Some(Arc::clone(&default.key));
        }
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named: Vec<&Pair> =
            self.0.iter().filter(|pair| name.as_ref().is_some_and(|name| pair.covers(name))).collect();
        // A name may have a certificate for each kind of key.
        let usable =
            named.iter().find(|pair| pair.key.key.choose_scheme(hello.signature_schemes()).is_some());
        let chosen = usable.or(named.first()).copied().unwrap_or(default);
        Some(Arc::clone(&chosen.key))
    }
}
