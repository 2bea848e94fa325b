//! The handshake of TLS on an accepted connection. What is no TLS is answered in its own protocol, so that
//! the caller can read why it is refused.

use std::{io, sync::Arc};

use broadgate_tls::{
    ClusterTls, Failed, PagesTls, Side, explain,
    tokio_rustls::{TlsAcceptor, server::TlsStream},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{answers, io::linger, watch::ConnectionWatch};

/// The first byte of every handshake.
pub(crate) const RECORD: u8 = 0x16;
/// A fatal alert in a record of its own: this protocol version is not supported.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];
/// What begins a connection of HTTP/2 without TLS.
const HTTP2: &[u8] = b"PRI ";
/// Methods of HTTP/1.1 begin with such a letter; so does HTTP/2.
const LETTERS: std::ops::RangeInclusive<u8> = b'A'..=b'Z';

/// A handshake on a port without TLS.
pub(crate) const NOT_HERE: (&str, &str) = (
    "tls_not_here",
    "it speaks TLS, and this process has no [cluster.tls]: give every process of the cluster the same, or none",
);
const PLAIN: &str = "it speaks without TLS, and this port speaks TLS: give it [cluster.tls] with a certificate of \
                     the cluster's CA";
/// The beginning of the answer to a caller over HTTP/1.1 without TLS.
pub const TLS_ONLY: &str = "this port speaks TLS only";
/// The whole answer.
const PLAIN_ANSWER: &str = "this port speaks TLS only: use HTTPS, with a certificate of the cluster's CA (curl \
                            --cacert CA --cert CERT --key KEY --connect-to ::HOST:PORT https://broadgate)";

const PLAIN_TO_PAGES: &str =
    "it speaks without TLS, and this port speaks TLS: write https:// in place of http://";
const PLAIN_ANSWER_OF_PAGES: &str = "this port speaks TLS only: write https:// in place of http://";

/// The TLS of a port.
#[derive(Debug, Clone)]
pub enum PortTls {
    /// Between processes: both sides show certificates of the cluster's CA.
    Cluster(ClusterTls),
    /// For browsers, which show none.
    Pages(PagesTls),
}

impl From<ClusterTls> for PortTls {
    fn from(tls: ClusterTls) -> Self {
        Self::Cluster(tls)
    }
}

impl PortTls {
    fn acceptor(&self) -> TlsAcceptor {
        match self {
            Self::Cluster(tls) => tls.acceptor(),
            Self::Pages(tls) => tls.acceptor(),
        }
    }

    /// What is answered to somebody without TLS, and what the log says of it.
    const fn to_plain(&self) -> (&'static str, &'static str) {
        match self {
            Self::Cluster(_) => (PLAIN_ANSWER, PLAIN),
            Self::Pages(_) => (PLAIN_ANSWER_OF_PAGES, PLAIN_TO_PAGES),
        }
    }
}

/// The handshake. `watch` sees its first byte; the caller bounds its time.
///
/// # Errors
/// Why it failed; nothing if the peer has only connected.
pub(crate) async fn accept(
    stream: TcpStream,
    tls: &PortTls,
    watch: &Arc<ConnectionWatch>,
) -> Result<TlsStream<TcpStream>, Option<Failed>> {
    let mut begin = [0; HTTP2.len()];
    let count = match stream.peek(&mut begin).await {
        // It only looked whether something listens.
        Ok(0) | Err(_) => return Err(None),
        Ok(count) => count,
    };
    watch.has_read();
    if begin[0] != RECORD {
        let (answer, sentence) = tls.to_plain();
        answer_plainly(stream, &begin[..count], answer).await;
        return Err(Some(Failed { reason: "tls_plain", sentence: sentence.to_owned() }));
    }
    tls.acceptor().accept(stream).await.map_err(|error| Some(failed(&error)))
}

fn failed(error: &io::Error) -> Failed {
    let Failed { reason, sentence } = explain(error, Side::Server);
    let reason = match reason {
        "no_certificate" => "tls_no_certificate",
        "unknown_ca" => "tls_unknown_ca",
        "expired" => "tls_expired",
        "wrong_usage" | "bad_certificate" => "tls_bad_certificate",
        "refused_by_peer" => "tls_refused_by_peer",
        "closed" => "tls_closed",
        _ => "tls_protocol",
    };
    Failed { reason, sentence: format!("it {sentence}") }
}

/// HTTP/1.1 is answered in HTTP/1.1; everything else by an alert, which our own processes and gRPC clients
/// recognise.
async fn answer_plainly(mut stream: TcpStream, begin: &[u8], answer: &str) {
    let is_http1 = begin.iter().all(|byte| LETTERS.contains(byte) || *byte == b' ') && begin != HTTP2;
    let written = if is_http1 {
        stream.write_all(answers::bad_request(answer).as_bytes()).await
    } else {
        stream.write_all(&ALERT).await
    };
    if written.is_ok() {
        linger(stream).await;
    }
}
