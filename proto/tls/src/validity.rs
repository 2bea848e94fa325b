//! From when until when a certificate is valid.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

/// The time for which a certificate, or a chain of them, is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: SystemTime,
    /// Not after.
    pub until: SystemTime,
}

impl Validity {
    /// Of a certificate.
    ///
    /// webpki, which judges every handshake, shows no fields of a certificate; but a certificate that is
    /// judged at the beginning of time is not valid yet, one that is judged at its end has expired, and both
    /// errors carry the limit. They come before anything that depends on an issuer.
    ///
    /// # Errors
    /// If it cannot be parsed.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = EndEntityCert::try_from(certificate)?;
        let judged_at = |seconds| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            parsed.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err()
        };
        let from = match judged_at(0) {
            Some(Error::CertNotValidYet { not_before, .. }) => time(not_before),
            _ => UNIX_EPOCH,
        };
        match judged_at(u64::MAX) {
            Some(Error::CertExpired { not_after, .. }) => Ok(Self { from, until: time(not_after) }),
            other => Err(other.unwrap_or(Error::BadDer)),
        }
    }

    /// The time for which both are valid.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// Whether this is so now.
    #[must_use]
    pub fn contains(&self, now: SystemTime) -> bool {
        (self.from..=self.until).contains(&now)
    }
}

fn time(unix: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix.as_secs())
}

/// A time as people and logs write it.
pub(crate) struct Shown(pub SystemTime);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(self.0).fmt(f)
    }
}
