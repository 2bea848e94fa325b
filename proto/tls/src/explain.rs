//! Why a handshake failed, in one sentence.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{AlertDescription, CertificateError, Error, pki_types::UnixTime};

use crate::{pair::bare, validity::Shown};

/// Whose view of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Of the process that accepted the connection.
    Server,
    /// Of the process that opened it.
    Client,
}

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// For metrics: of a closed set.
    pub reason: &'static str,
    /// For people; it follows the other side's address.
    pub sentence: String,
}

/// Explains the failure of a handshake inside a cluster, or of a read right after it: a server refuses the
/// certificate of a client when that has finished its own part.
#[must_use]
pub fn explain(error: &io::Error, side: Side) -> Failed {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        let sentence = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "closed the connection within the TLS handshake".to_owned()
            }
            _ => format!("broke off the TLS handshake: {error}"),
        };
        return Failed { reason: "closed", sentence };
    };
    let (reason, sentence) = match tls {
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => (
            "no_certificate",
            "shows no certificate: give it cluster.tls.cert and cluster.tls.key of this cluster's CA"
                .to_owned(),
        ),
        Error::AlertReceived(alert) => refused(*alert, side),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => (
            "not_tls",
            "does not speak TLS: give every process of the cluster the same [cluster.tls]".to_owned(),
        ),
        Error::NoApplicationProtocol => {
            ("protocol", "offers neither HTTP/2 nor HTTP/1.1 within TLS".to_owned())
        }
        Error::PeerIncompatible(_) => (
            "protocol",
            format!("has no TLS settings in common with this process ({tls}): TLS 1.3 is needed"),
        ),
        _ => ("protocol", format!("breaks the TLS handshake: {tls}")),
    };
    Failed { reason, sentence }
}

/// What this side has against the other's certificate.
fn certificate(error: &CertificateError) -> (&'static str, String) {
    match error {
        CertificateError::UnknownIssuer => (
            "unknown_ca",
            "shows a certificate of a CA that is not in this process's cluster.tls.ca: every process needs the \
             same CA, or both while it is being changed"
                .to_owned(),
        ),
        CertificateError::ExpiredContext { time, not_after } => (
            "expired",
            format!(
                "shows a certificate that expired at {}, and this host's clock says {}: renew it, or set the \
                 clock",
                shown(*not_after), shown(*time)
            ),
        ),
        CertificateError::NotValidYetContext { time, not_before } => (
            "expired",
            format!(
                "shows a certificate that is valid from {}, and this host's clock says {}: set the clock",
                shown(*not_before), shown(*time)
            ),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => (
            "wrong_name",
            format!(
                "shows a certificate for {}, and not for {:?} (cluster.tls.server_name): make one for that name",
                presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", "), expected.to_str()
            ),
        ),
        // Of two CAs with one name, webpki takes the other for the issuer.
        CertificateError::BadSignature => (
            "unknown_ca",
            "shows a certificate that a CA of the same name has signed, but not the one in this process's \
             cluster.tls.ca: every process needs the same CA, or both while it is being changed"
                .to_owned(),
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "wrong_usage",
            "shows a certificate whose extended key usage does not allow this: it must have serverAuth and \
             clientAuth"
                .to_owned(),
        ),
        error => ("bad_certificate", format!("shows a certificate that cannot be used: {error}")),
    }
}

/// What the other side has against this one.
fn refused(alert: AlertDescription, side: Side) -> (&'static str, String) {
    let sentence = match (alert, side) {
        (AlertDescription::CertificateRequired, _) => {
            "wants a certificate of this process, which showed none".to_owned()
        }
        (AlertDescription::UnknownCA, _) => {
            "refuses this process's certificate: its CA is not in the other's cluster.tls.ca".to_owned()
        }
        (AlertDescription::DecryptError, _) => {
            "refuses this process's certificate: the other's cluster.tls.ca has another CA of the same name"
                .to_owned()
        }
        (AlertDescription::CertificateExpired, _) => {
            "refuses this process's certificate as expired, or not valid yet by the other's clock".to_owned()
        }
        (AlertDescription::BadCertificate, Side::Server) => {
            "refuses this process's certificate: it lacks the name that the other expects \
             (cluster.tls.server_name)"
                .to_owned()
        }
        (AlertDescription::ProtocolVersion | AlertDescription::DecodeError, Side::Client) => {
            "refuses this TLS: both sides need TLS 1.3".to_owned()
        }
        (alert, _) => format!("refuses the TLS handshake: {alert:?}"),
    };
    ("refused_by_peer", sentence)
}

fn shown(time: UnixTime) -> Shown {
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(time.as_secs());
    Shown(time)
}
