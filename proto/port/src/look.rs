//! Probes an address that should be a port of the cluster, before a call or after one failed, so that the
//! error says what listens at a mistyped address.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// HTTP/2 without TLS, the protocol of internal ports and registers.
    Http2,
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

impl Found {
    /// A description that follows the address in a sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Http2 => "speaks gRPC, or something like it",
            Self::Client => "is a gateway's client port",
            Self::Metrics => "is a metrics port",
            Self::Tls => "wants TLS, which internal ports do not speak: is it a proxy for clients?",
            Self::Http => "is an HTTP server, but no internal port",
            Self::Other => {
                "takes connections, but does not answer as an internal port: is it a text or frame listener, \
                 or does its process hang?"
            }
        }
    }
}

/// Probes an address.
///
/// # Errors
/// If nothing takes a connection there, why.
pub async fn look(address: &str, within: Duration) -> Result<Found, String> {
    let within = within.min(LOOK_TIME_MAX);
    let first = ask(address, HTTP2, within).await?;
    if is_http2(&first) {
        return Ok(Found::Http2);
    }
    if is_tls(&first) {
        return Ok(Found::Tls);
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    // The one path that a client port never refuses: refusals are logged.
    let up = ask(address, get("/up").as_bytes(), within).await.unwrap_or_default();
    let found = classify(&up);
    if found != Found::Http {
        return Ok(found);
    }
    let metrics = ask(address, get("/metrics").as_bytes(), within).await.unwrap_or_default();
    Ok(classify(&metrics))
}

/// Identifies a port by its answers for `/up` or `/metrics`.
fn classify(answer: &[u8]) -> Found {
    if is_tls(answer) {
        return Found::Tls;
    }
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if text.contains("HTTPS") {
        Found::Tls
    } else if body.starts_with("# HELP ") || body.starts_with("# TYPE ") || body.contains("\n# TYPE ") {
        Found::Metrics
    } else if UP.iter().any(|up| body.contains(up)) {
        Found::Client
    } else if text.starts_with("HTTP/1.") {
        Found::Http
    } else {
        Found::Other
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

/// The first bytes of the answer, if any.
async fn ask(address: &str, question: &[u8], within: Duration) -> Result<Vec<u8>, String> {
    let connected = timeout(within, TcpStream::connect(address)).await;
    let mut stream = match connected {
        Err(_) => return Err(format!("no answer within {within:?}")),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err("nothing listens there".to_owned());
        }
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(stream)) => stream,
    };
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let mut filled = 0;
    let reading = async {
        stream.write_all(question).await?;
        loop {
            let count = stream.read(&mut answer[filled..]).await?;
            filled += count;
            // For HTTP/2 the first frame suffices.
            if count == 0 || filled == ANSWER_BYTES_MAX || (question == HTTP2 && filled >= 9) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    // Use what has arrived by then.
    let _ = timeout(within, reading).await;
    answer.truncate(filled);
    Ok(answer)
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
        assert_eq!((classify(ready), classify(draining)), (Found::Client, Found::Client));
        assert_eq!(classify(metrics), Found::Metrics);
        assert_eq!(classify(http), Found::Http);
        assert_eq!(classify(nginx), Found::Tls);
        assert_eq!(classify(&[0x15, 3, 1, 0, 2, 2, 70]), Found::Tls);
        assert_eq!(classify(b""), Found::Other);
        assert!(is_http2(&[0, 0, 18, 4, 0, 0, 0, 0, 0]) && !is_http2(http) && !is_http2(&[]));
    }
}
