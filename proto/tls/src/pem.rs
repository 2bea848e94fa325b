//! Certificates and keys in PEM files.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use crate::{
    reads::FileReads,
    validity::{Shown, Validity},
};

/// Why a file with a certificate or a key cannot be used: one sentence that names the file and the way out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum FileError {
    #[error("{what} file {} cannot be read: {error}: name a file that this process may read", path.display())]
    Unreadable { what: &'static str, path: PathBuf, error: std::io::Error },
    #[error("{what} file {} is empty: name a PEM file with a {what}", path.display())]
    Empty { what: &'static str, path: PathBuf },
    #[error(
        "{what} file {} holds no {what}: a PEM file has a block that begins with \"-----BEGIN {label}-----\" \
         (openssl converts DER)",
        path.display()
    )]
    NotPem { what: &'static str, path: PathBuf, label: &'static str },
    #[error("{what} file {} is damaged: {error}: copy it again", path.display())]
    Damaged { what: &'static str, path: PathBuf, error: String },
    #[error(
        "key file {0} is encrypted: write it without a passphrase (openssl pkey -in {0} -out NEW), readable \
         for this process alone (chmod 600)",
        path.display()
    )]
    Encrypted { path: PathBuf },
    #[error(
        "key file {} holds a key of a kind that is not supported ({error}): use ECDSA P-256 or P-384, \
         Ed25519, or RSA of 2048 to 8192 bits",
        path.display()
    )]
    KeyKind { path: PathBuf, error: rustls::Error },
    #[error(
        "key file {} does not belong to certificate file {}: name the key that the certificate was made for",
        key.display(), cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error(
        "the certificate in {} expired at {}, and this host's clock says {}: renew it, or set the clock",
        path.display(), Shown(*until), Shown(*now)
    )]
    Expired { path: PathBuf, until: SystemTime, now: SystemTime },
    #[error(
        "the certificate in {} is valid from {}, and this host's clock says {}: wait, or set the clock",
        path.display(), Shown(*from), Shown(*now)
    )]
    NotYetValid { path: PathBuf, from: SystemTime, now: SystemTime },
    #[error(
        "the certificate in {} is for {}, and not for {wanted:?}: make one for {wanted:?}, or set {setting} \
         to a name of the certificate",
        path.display(), names(presented)
    )]
    Name { path: PathBuf, wanted: String, presented: Vec<String>, setting: &'static str },
    #[error(
        "the certificate in {} is not signed by a CA in {}{}: name the CA that signed it, or a certificate \
         that one of these CAs has signed",
        path.display(), ca.display(), reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    )]
    Untrusted { path: PathBuf, ca: PathBuf, reason: Option<String> },
    #[error(
        "the certificate in {} may not be used by a {role}: its extended key usage must have {usage}",
        path.display()
    )]
    Usage { path: PathBuf, role: &'static str, usage: &'static str },
}

fn names(presented: &[String]) -> String {
    if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") }
}

pub(crate) const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";
/// Of a line that an error shows.
const LINE_BYTES_MAX: usize = 64;

/// The certificates of a file, in order, each with its validity.
pub(crate) fn certificates(
    what: &'static str,
    path: &Path,
    reads: &mut FileReads,
) -> Result<Vec<(CertificateDer<'static>, Validity)>, FileError> {
    let bytes = read(what, path, reads)?;
    let damaged = |error: String| FileError::Damaged { what, path: path.to_owned(), error };
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| damaged(damage(&error)))?;
        let validity = Validity::of(&certificate)
            .map_err(|error| damaged(format!("its certificate {} has an error: {error}", all.len() + 1)))?;
        reads.is_valid(path, validity);
        all.push((certificate, validity));
    }
    if all.is_empty() {
        return Err(FileError::NotPem { what, path: path.to_owned(), label: "CERTIFICATE" });
    }
    Ok(all)
}

/// Reads the first key of a file.
///
/// # Errors
/// If it cannot be read, or is encrypted.
pub fn load_key(path: &Path, reads: &mut FileReads) -> Result<PrivateKeyDer<'static>, FileError> {
    let bytes = read(KEY, path, reads)?;
    match PrivateKeyDer::pem_slice_iter(&bytes).next() {
        // A key of the older form is encrypted by a header in its block.
        None | Some(Err(_)) if is_encrypted(&bytes) => Err(FileError::Encrypted { path: path.to_owned() }),
        Some(Ok(_)) if is_encrypted(&bytes) => Err(FileError::Encrypted { path: path.to_owned() }),
        Some(Ok(key)) => Ok(key),
        Some(Err(error)) => {
            Err(FileError::Damaged { what: KEY, path: path.to_owned(), error: damage(&error) })
        }
        None => Err(FileError::NotPem { what: KEY, path: path.to_owned(), label: "PRIVATE KEY" }),
    }
}

/// What is wrong with a PEM file. The library writes lines of it as lists of numbers.
fn damage(error: &pem::Error) -> String {
    let shown = |line: &[u8]| {
        String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]).trim_end().escape_debug().to_string()
    };
    match error {
        // The library calls the label so.
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("it ends before the line \"-----END {}-----\"", shown(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => format!("its line \"{}\" is incomplete", shown(line)),
        pem::Error::Base64Decode(_) => "one of its blocks is not base64".to_owned(),
        other => other.to_string(),
    }
}

fn is_encrypted(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines().any(|line| {
        line.starts_with("-----BEGIN ENCRYPTED")
            || line.starts_with("Proc-Type:") && line.contains("ENCRYPTED")
    })
}

fn read(what: &'static str, path: &Path, reads: &mut FileReads) -> Result<Vec<u8>, FileError> {
    let bytes = reads.read(path).map_err(|error| {
        let path = path.to_owned();
        FileError::Unreadable { what, path, error }
    })?;
    if bytes.trim_ascii().is_empty() {
        return Err(FileError::Empty { what, path: path.to_owned() });
    }
    Ok(bytes)
}
