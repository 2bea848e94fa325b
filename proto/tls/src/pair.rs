//! A certificate with its key, and certificates of CAs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, Error, InconsistentKeys, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
};
use webpki::{EndEntityCert, KeyUsage};

use crate::{
    pem::{self, CERTIFICATE, FileError},
    provider::provider,
    reads::FileReads,
    validity::Validity,
};

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// A PEM file with the certificate, followed by those of intermediate CAs.
    pub cert: PathBuf,
    /// A PEM file with its key.
    pub key: PathBuf,
}

/// A certificate with its key, ready for handshakes.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Where they were read.
    pub files: PairFiles,
    /// For rustls.
    pub key: Arc<CertifiedKey>,
    /// For which time the whole chain is valid.
    pub validity: Validity,
}

/// Reads a certificate and its key, and checks that they belong together. Whether the certificate is valid
/// now is for the caller to ask: [`Pair::check_time`].
///
/// # Errors
/// If one of them cannot be read or used.
pub fn load_pair(files: &PairFiles, reads: &mut FileReads) -> Result<Pair, FileError> {
    // Both are read even if the first is bad, so that a change of either is noticed.
    let chain = pem::certificates(CERTIFICATE, &files.cert, reads);
    let key = pem::load_key(&files.key, reads);
    let (chain, key) = (chain?, key?);
    let mut validity = chain[0].1;
    for (_, other) in &chain {
        validity = validity.and(*other);
    }
    let chain = chain.into_iter().map(|(certificate, _)| certificate).collect();
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            FileError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
        }
        error => FileError::KeyKind { path: files.key.clone(), error },
    })?;
    Ok(Pair { files: files.clone(), key: Arc::new(key), validity })
}

impl Pair {
    /// The certificate itself, without those of CAs.
    fn leaf(&self) -> Option<EndEntityCert<'_>> {
        // It was parsed when it was read.
        self.key.cert.first().and_then(|leaf| EndEntityCert::try_from(leaf).ok())
    }

    /// Whether the certificate is for this name, or a wildcard of it.
    #[must_use]
    pub fn covers(&self, name: &ServerName<'_>) -> bool {
        self.leaf().is_some_and(|leaf| leaf.verify_is_valid_for_subject_name(name).is_ok())
    }

    /// The names and addresses that the certificate is for.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        // No certificate is for this name; the error lists those that it is for.
        let Ok(none) = ServerName::try_from("no-name.invalid") else { return Vec::new() };
        match self.leaf().map(|leaf| leaf.verify_is_valid_for_subject_name(&none)) {
            Some(Err(webpki::Error::CertNotValidForName(context))) => {
                context.presented.iter().map(|name| bare(name)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Checks that the certificate is for this name, which `setting` names.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_name(&self, name: &ServerName<'_>, setting: &'static str) -> Result<(), FileError> {
        if self.covers(name) {
            return Ok(());
        }
        let wanted = name.to_str().into_owned();
        Err(FileError::Name { path: self.files.cert.clone(), wanted, presented: self.names(), setting })
    }

    /// Checks that the chain is valid now.
    ///
    /// # Errors
    /// If it has expired, or is not valid yet.
    pub fn check_time(&self, now: SystemTime) -> Result<(), FileError> {
        let (path, Validity { from, until }) = (self.files.cert.clone(), self.validity);
        match () {
            () if now > until => Err(FileError::Expired { path, until, now }),
            () if now < from => Err(FileError::NotYetValid { path, from, now }),
            () => Ok(()),
        }
    }

    /// Checks that one of these CAs has signed the certificate, for servers and for clients.
    ///
    /// # Errors
    /// If none has, or not for both.
    pub fn check_issuer(&self, ca: &Path, roots: &RootCertStore) -> Result<(), FileError> {
        let uses = [
            (KeyUsage::server_auth(), "server", "serverAuth"),
            (KeyUsage::client_auth(), "client", "clientAuth"),
        ];
        for (usage, role, name) in uses {
            let path = self.files.cert.clone();
            self.judge(roots, usage).map_err(|error| match error {
                webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => {
                    FileError::Usage { path, role, usage: name }
                }
                webpki::Error::UnknownIssuer => {
                    FileError::Untrusted { path, ca: ca.to_owned(), reason: None }
                }
                error => FileError::Untrusted { path, ca: ca.to_owned(), reason: Some(error.to_string()) },
            })?;
        }
        Ok(())
    }

    fn judge(&self, roots: &RootCertStore, usage: KeyUsage) -> Result<(), webpki::Error> {
        let leaf = self.leaf().ok_or(webpki::Error::BadDer)?;
        let algorithms = provider().signature_verification_algorithms.all;
        let between: &[CertificateDer<'_>] = self.key.cert.get(1..).unwrap_or_default();
        leaf.verify_for_usage(algorithms, &roots.roots, between, UnixTime::now(), usage, None, None).map(drop)
    }
}

/// webpki shows names as `DnsName("x")`.
pub(crate) fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').to_owned()
}

/// Reads the certificates of CAs.
///
/// # Errors
/// If the file cannot be read or used.
pub fn load_roots(path: &Path, reads: &mut FileReads) -> Result<RootCertStore, FileError> {
    const WHAT: &str = "CA certificate";
    let now = SystemTime::now();
    let mut roots = RootCertStore::empty();
    for (certificate, validity) in pem::certificates(WHAT, path, reads)? {
        if now > validity.until {
            // rustls does not judge the time of a trusted CA; others, such as OpenSSL, do.
            tracing::warn!(file = %path.display(), "a CA certificate has expired: replace or remove it");
        }
        roots.add(certificate).map_err(|error| FileError::Damaged {
            what: WHAT,
            path: path.to_owned(),
            error: error.to_string(),
        })?;
    }
    Ok(roots)
}

/// Settings of a client that trusts these CAs and shows this certificate, if any. Each handshake is a full
/// one: a resumed session would outlive the certificates that it was opened with.
///
/// # Errors
/// If the certificate cannot be used.
pub fn client_config(roots: RootCertStore, pair: Option<&Pair>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match pair {
        Some(pair) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&pair.key))))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}
