//! Probes an address that should be a port of the cluster, before a call or after one failed, so that the
//! error says what listens at a mistyped address.

use std::{io::ErrorKind, time::Duration};

use broadgate_tls::{ClusterTls, Side, explain};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long to wait for an answer.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);
/// How many bytes of an answer are examined.
const ANSWER_BYTES_MAX: usize = 4096;
/// The HTTP/2 client preface, and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A client port's answers to `/up`: of a ready gateway, and of one that is not.
const UP: [&str; 2] = ["{\"health\":", "not in a view as ready"];

/// What listens at an address where gRPC was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundListener {
    /// HTTP/2, the protocol of internal ports and registers, plain or inside TLS as this process expects it.
    Http2,
    /// The same without TLS, and this process has it.
    Plain,
    /// A port with TLS that refuses this process, or that this process refuses: why.
    Refused(String),
    /// A gateway's `web` listener.
    Client,
    /// The metrics port of a role.
    Metrics,
    /// A port that expects TLS.
    Tls,
    /// Some HTTP server.
    Http,
    /// Nothing that speaks HTTP, such as a listener for lines.
    Other,
}

impl FoundListener {
    /// A description that follows the address in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let sentence = match self {
            Self::Refused(sentence) => sentence,
            Self::Plain => {
                "speaks gRPC without TLS, and this process has [cluster.tls]: give every process of the cluster \
                 the same, or none"
            }
            Self::Http2 => "speaks gRPC, or something like it",
            Self::Client => "is a gateway's client port",
            Self::Metrics => "is a metrics port",
            Self::Tls => {
                "requires TLS, and this process has no [cluster.tls]: set it as the processes there do, unless a proxy \
                 for clients listens there"
            }
            Self::Http => "is an HTTP server, but no internal port",
            Self::Other => {
                "takes connections, but does not answer as an internal port: it is a text or frame listener, or its \
                 process hangs"
            }
        };
        sentence.to_owned()
    }

    /// Whether this is a port of a cluster, and only TLS is in the way.
    #[must_use]
    pub const fn is_of_the_cluster(&self) -> bool {
        matches!(self, Self::Http2 | Self::Plain | Self::Refused(_))
    }
}

/// Probes an address, as a process with these certificates, or without TLS.
///
/// # Errors
/// If nothing takes a connection there, why.
pub async fn look(
    address: &str,
    within: Duration,
    tls: Option<&ClusterTls>,
) -> Result<FoundListener, String> {
    let within = within.min(LOOK_TIME_MAX);
    let Some(tls) = tls else { return look_plainly(address, within).await };
    if let Some(found) = look_inside(address, within, tls).await? {
        return Ok(found);
    }
    let found = look_plainly(address, within).await?;
    Ok(if found == FoundListener::Http2 { FoundListener::Plain } else { found })
}

/// What answers inside TLS; none if nothing there speaks it.
async fn look_inside(
    address: &str,
    within: Duration,
    tls: &ClusterTls,
) -> Result<Option<FoundListener>, String> {
    let stream = connect(address, within).await?;
    let (mut answer, mut is_inside) = (Vec::new(), false);
    let asked = timeout(within, async {
        let mut stream = tls.connect(stream).await?;
        is_inside = true;
        exchange(&mut stream, HTTP2, &mut answer).await
    });
    let asked = asked.await;
    if is_http2(&answer) {
        return Ok(Some(FoundListener::Http2));
    }
    Ok(match asked {
        Ok(Ok(())) => Some(look_over_https(address, within, tls).await),
        Ok(Err(error)) => {
            let failed = explain(&error, Side::Client);
            // A server of HTTP/1.1 ends what it cannot read.
            if is_inside && failed.reason == "closed" {
                return Ok(Some(look_over_https(address, within, tls).await));
            }
            (failed.reason != "not_tls").then_some(FoundListener::Refused(failed.sentence))
        }
        // A port for lines waits for the end of one.
        Err(_) => None,
    })
}

/// What answers HTTP/1.1 inside TLS: a metrics port may.
async fn look_over_https(address: &str, within: Duration, tls: &ClusterTls) -> FoundListener {
    let get = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    if let Ok(stream) = connect(address, within).await {
        // Use what has arrived by then.
        let _ = timeout(within, async {
            let mut stream = tls.connect_http1(stream).await?;
            exchange(&mut stream, get.as_bytes(), &mut answer).await
        })
        .await;
    }
    classify(&answer)
}

async fn look_plainly(address: &str, within: Duration) -> Result<FoundListener, String> {
    let Some(first) = ask(address, HTTP2, within).await? else {
        // What is silent may answer later, when nobody listens: an internal port would count a request without the
        // secret as refused.
        return Ok(FoundListener::Other);
    };
    if is_http2(&first) {
        return Ok(FoundListener::Http2);
    }
    if is_tls(&first) {
        return Ok(FoundListener::Tls);
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    // The one path that a client port never refuses: refusals are logged.
    let up = ask(address, get("/up").as_bytes(), within).await.ok().flatten().unwrap_or_default();
    let found = classify(&up);
    if found != FoundListener::Http {
        return Ok(found);
    }
    let metrics = ask(address, get("/metrics").as_bytes(), within).await.ok().flatten().unwrap_or_default();
    Ok(classify(&metrics))
}

/// Identifies a port by its answers for `/up` or `/metrics`.
fn classify(answer: &[u8]) -> FoundListener {
    if is_tls(answer) {
        return FoundListener::Tls;
    }
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if text.contains("HTTPS") {
        FoundListener::Tls
    } else if body.starts_with("# HELP ") || body.starts_with("# TYPE ") || body.contains("\n# TYPE ") {
        FoundListener::Metrics
    } else if UP.iter().any(|up| body.contains(up)) {
        FoundListener::Client
    } else if text.starts_with("HTTP/1.") {
        FoundListener::Http
    } else {
        FoundListener::Other
    }
}

fn is_http2(answer: &[u8]) -> bool {
    // A server starts with a SETTINGS frame, too.
    answer.len() >= 9 && answer[3] == 4
}

fn is_tls(answer: &[u8]) -> bool {
    // An alert of any version of TLS.
    answer.len() >= 2 && answer[0] == 0x15 && answer[1] == 3
}

async fn connect(address: &str, within: Duration) -> Result<TcpStream, String> {
    match timeout(within, TcpStream::connect(address)).await {
        Err(_) => Err(format!("no answer within {within:?}")),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Err("nothing listens there".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(stream)) => Ok(stream),
    }
}

/// The first bytes of the answer; none if nothing has come, not even the end, within this time.
async fn ask(address: &str, question: &[u8], within: Duration) -> Result<Option<Vec<u8>>, String> {
    let mut stream = connect(address, within).await?;
    let mut answer = Vec::new();
    // Use what has arrived by then.
    let ended = timeout(within, exchange(&mut stream, question, &mut answer)).await;
    Ok((ended.is_ok() || !answer.is_empty()).then_some(answer))
}

async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    question: &[u8],
    answer: &mut Vec<u8>,
) -> std::io::Result<()> {
    stream.write_all(question).await?;
    stream.flush().await?;
    let mut part = [0; ANSWER_BYTES_MAX];
    loop {
        let count = stream.read(&mut part).await?;
        answer.extend_from_slice(&part[..count]);
        // For HTTP/2 the first frame suffices.
        if count == 0 || answer.len() >= ANSWER_BYTES_MAX || (question == HTTP2 && answer.len() >= 9) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinguished() {
        let http = b"HTTP/1.1 404 Not Found\r\n\r\n";
        let ready = b"HTTP/1.1 200 OK\r\n\r\n{\"health\":\"OK\"}";
        let draining =
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":\"not in a view as ready: draining\"}";
        let metrics = b"HTTP/1.1 200 OK\r\n\r\n# HELP broadgate_build_info 1\n";
        let nginx = b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port";
        assert_eq!((classify(ready), classify(draining)), (FoundListener::Client, FoundListener::Client));
        assert_eq!(classify(metrics), FoundListener::Metrics);
        assert_eq!(classify(http), FoundListener::Http);
        assert_eq!(classify(nginx), FoundListener::Tls);
        assert_eq!(classify(&[0x15, 3, 1, 0, 2, 2, 70]), FoundListener::Tls);
        assert_eq!(classify(b""), FoundListener::Other);
        assert!(is_http2(&[0, 0, 18, 4, 0, 0, 0, 0, 0]) && !is_http2(http) && !is_http2(&[]));
    }
}
