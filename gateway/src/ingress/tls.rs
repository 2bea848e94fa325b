//! The TLS handshake of a connection, under the deadlines that it has without TLS.
//!
//! Computing a handshake takes a shard some 250 µs. So at most [`TLS_HANDSHAKES_PER_TURN`] are computed
//! between two looks at the sockets, in the order in which they can go on: a storm of new connections does not
//! starve the clients that are there.
//!
//! [`TLS_HANDSHAKES_PER_TURN`]: broadgate_proto::limits::TLS_HANDSHAKES_PER_TURN

use std::{future::poll_fn, io, sync::Arc};

use broadgate_port::{ConnectionPhase, ConnectionWatch, linger};
use broadgate_proto::limits::FAREWELL_TIME_MAX;
use broadgate_tls::rustls::{AlertDescription, Error, PeerIncompatible, ServerConfig};
use metrics::counter;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    config::ListenerKind,
    ingress::port::Connection,
    shard::{StepError, TlsShared, TlsStream},
};

/// The first byte of a TLS connection: the content type of a handshake record (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// For HTTP clients that come without TLS.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\
    Content-Length: 65\r\n\r\n{\"error\":\"this port speaks TLS: connect with https:// or wss://\"}";

/// Why a handshake failed.
enum HandshakeFailure {
    /// What came first is no TLS.
    Plain(TcpStream),
    Step(StepError),
}

impl<E: Into<StepError>> From<E> for HandshakeFailure {
    fn from(error: E) -> Self {
        Self::Step(error.into())
    }
}

/// Makes the handshake; none if it fails, which is counted and logged.
pub(super) async fn accept(
    connection: &Connection,
    stream: TcpStream,
    config: Arc<ServerConfig>,
    watch: &Arc<ConnectionWatch>,
) -> Option<Box<TlsStream>> {
    let stopping = &connection.port.stopping.closing;
    let handshake = handshake(stream, config, &connection.port.tls, watch);
    let mut handshake = std::pin::pin!(handshake);
    let mut overdue = watch.overdue();
    let mut open = true;
    let failed = loop {
        tokio::select! {
            biased;
            done = handshake.as_mut() => match done {
                Ok(stream) => {
                    let version = match stream.version() {
                        Some(broadgate_tls::rustls::ProtocolVersion::TLSv1_2) => "1.2",
                        _ => "1.3",
                    };
                    counter!("broadgate_gateway_tls_handshakes_total", "version" => version).increment(1);
                    return Some(stream);
                }
                Err(failed) => break failed,
            },
            () = &mut overdue => {
                let reason = if watch.phase() == ConnectionPhase::First { watch.reason() } else { "handshake_time_max" };
                failed_because("timeout");
                connection.refused(reason, "the TLS handshake took too long");
                return None;
            }
            () = stopping.cancelled(), if open => {
                open = false;
                let drain = connection.port.config.settings.stop.drain;
                watch.end_within(FAREWELL_TIME_MAX.min(drain / 2));
            }
        }
    };
    match failed {
        HandshakeFailure::Plain(stream) => plain(connection, stream).await,
        HandshakeFailure::Step(error) => {
            let (reason, why) = explain(&error);
            failed_because(reason);
            connection.refused("tls", &why);
        }
    }
    None
}

fn failed_because(reason: &'static str) {
    counter!("broadgate_gateway_tls_failures_total", "reason" => reason).increment(1);
}

async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    shared: &Arc<TlsShared>,
    watch: &ConnectionWatch,
) -> Result<Box<TlsStream>, HandshakeFailure> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(StepError::Ended.into());
    }
    watch.has_read();
    if first[0] != HANDSHAKE_RECORD {
        return Err(HandshakeFailure::Plain(stream));
    }
    let mut tls = Box::new(TlsStream::new(stream, config, Arc::clone(shared)).map_err(StepError::from)?);
    while tls.is_handshaking() {
        tls.ready().await?;
        // Held until others have had their turn, and never while the client is waited for.
        let place = shared.place().await;
        tls.send_rest();
        if tls.step()? {
            tokio::task::yield_now().await;
        }
        drop(place);
    }
    // The last flight may be larger than what the socket takes.
    poll_fn(|cx| tls.poll_rest(cx)).await?;
    Ok(tls)
}

/// A client that speaks no TLS. It gets an answer if it can read one.
async fn plain(connection: &Connection, mut stream: TcpStream) {
    failed_because("plain");
    connection.refused("tls", "the client does not speak TLS: it must use wss:// or https://");
    if connection.listener.kind != ListenerKind::Web {
        return;
    }
    if let Ok(Ok(())) = tokio::time::timeout(FAREWELL_TIME_MAX, stream.write_all(NO_TLS)).await {
        linger(stream).await;
    }
}

/// Why a handshake failed: of a closed set, and for people.
fn explain(error: &StepError) -> (&'static str, String) {
    let tls = match error {
        StepError::Tls(error) => error,
        StepError::Io(error) if error.kind() != io::ErrorKind::ConnectionReset => {
            return ("io", format!("the TLS handshake broke off: {error}"));
        }
        _ => return ("ended", "the client closed the connection within the TLS handshake".to_owned()),
    };
    match tls {
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::UnrecognisedName
            | AlertDescription::BadCertificateStatusResponse
            // The signature does not fit: the client knows another CA, or another key, of the same name.
            | AlertDescription::DecryptError,
        ) => ("certificate_refused", format!("the client refuses the listener's certificate: {tls}")),
        Error::AlertReceived(_) => ("alert", format!("the client broke off the TLS handshake: {tls}")),
        Error::NoApplicationProtocol => (
            "protocol",
            "the client offers no supported protocol (ALPN): only http/1.1 is supported".to_owned(),
        ),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            // TLS 1.0 and 1.1 have no such extension: this is what rustls first misses of them.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => ("version", format!("the client speaks neither TLS 1.2 nor 1.3: {tls}")),
        Error::PeerIncompatible(_) => {
            ("incompatible", format!("the client has no TLS settings in common with the listener: {tls}"))
        }
        _ => ("malformed", format!("the client breaks the TLS handshake: {tls}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All by which clients say that they do not take a certificate; others have other causes.
    #[test]
    fn refused_certificates_have_a_reason_of_their_own() {
        let reason = |alert| explain(&StepError::Tls(Error::AlertReceived(alert))).0;
        for alert in [
            AlertDescription::UnknownCA,
            AlertDescription::BadCertificate,
            AlertDescription::CertificateExpired,
            AlertDescription::DecryptError,
            AlertDescription::BadCertificateStatusResponse,
        ] {
            assert_eq!(reason(alert), "certificate_refused", "{alert:?}");
        }
        for alert in [AlertDescription::UserCanceled, AlertDescription::InternalError] {
            assert_eq!(reason(alert), "alert", "{alert:?}");
        }
    }
}
