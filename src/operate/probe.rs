//! What answers at an address: why a command cannot be given there, before it is tried.

use std::{io::ErrorKind, time::Duration};

use broadgate_business::Secret;
use broadgate_proto::v1::{GetAppRequest, gateway_client::GatewayClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::failure::Failure;

/// An answer to a probe is waited for no longer than this.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);
/// Of an answer, so much is looked at.
const ANSWER_BYTES_MAX: usize = 4096;
/// With what every HTTP/2 client begins, and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Whose port is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Gateway,
    Register,
}

impl Wanted {
    /// Which port that is, and how it is named.
    fn hint(self) -> &'static str {
        match self {
            Self::Gateway => {
                "commands go to the internal port of a gateway (gateway.internal.bind, 7200 by default): \
                 name it with --addr"
            }
            Self::Register => {
                "name the register's port (register.bind, 7100 by default) with --register, or any \
                 gateway's internal port with --addr"
            }
        }
    }
}

/// What was found at an address that is not what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A gateway's `web` listener.
    Client,
    /// The metrics port of a role.
    Metrics,
    /// A port that wants TLS.
    Tls,
    /// Some HTTP server.
    Http,
    /// Nothing that speaks HTTP, such as a listener for lines.
    Other,
}

impl Found {
    fn sentence(self) -> &'static str {
        match self {
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

/// Refuses an address at which nothing speaks HTTP/2 without TLS.
pub(super) async fn check(address: &str, wanted: Wanted, within: Duration) -> Result<(), Failure> {
    let within = within.min(PROBE_TIME_MAX);
    let first = ask(address, HTTP2, within).await.map_err(|why| {
        Failure::Unreachable(format!("{address} cannot be reached: {why}; {}", wanted.hint()))
    })?;
    if is_http2(&first) {
        return Ok(());
    }
    let found = if is_tls(&first) { Found::Tls } else { look(address, within).await };
    Err(is_other(address, found, wanted))
}

fn is_other(address: &str, found: Found, wanted: Wanted) -> Failure {
    Failure::Unreachable(format!("{address} {}; {}", found.sentence(), wanted.hint()))
}

/// A gateway's answer about an app, which shows that commands can be given there.
pub(super) async fn gateway(
    address: &str,
    secret: &Secret,
    app: &str,
    within: Duration,
) -> Result<(), Failure> {
    let channel = channel(address, Wanted::Gateway, within).await?;
    let mut client = GatewayClient::with_interceptor(channel, secret.sender());
    let asked = client.get_app(GetAppRequest { app: app.to_owned() }).await;
    let Err(status) = asked else { return Ok(()) };
    // A metrics port speaks HTTP/2, too.
    if status.code() == Code::Unimplemented && look(address, within).await == Found::Metrics {
        return Err(is_other(address, Found::Metrics, Wanted::Gateway));
    }
    Err(refused(address, Wanted::Gateway, &status))
}

/// A connection for commands.
pub(super) async fn channel(address: &str, wanted: Wanted, within: Duration) -> Result<Channel, Failure> {
    check(address, wanted, within).await?;
    let wrong = |error: tonic::transport::Error| Failure::Unreachable(format!("{address}: {error}"));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(wrong)?;
    endpoint.connect_timeout(within).timeout(within).connect().await.map_err(wrong)
}

/// Why a call was not carried out there.
pub(super) fn refused(address: &str, wanted: Wanted, status: &Status) -> Failure {
    let message = status.message();
    match (status.code(), wanted) {
        (Code::NotFound, _) => Failure::NotFound(message.to_owned()),
        (Code::InvalidArgument, _) => Failure::usage(message),
        (Code::Unauthenticated, _) => Failure::usage(format!("{address}: {message}")),
        (Code::Unimplemented, Wanted::Gateway) => {
            Failure::Unreachable(format!("{address} is the register's port; {}", wanted.hint()))
        }
        (Code::Unimplemented, Wanted::Register) => {
            Failure::Unreachable(format!("{address} is a gateway's internal port; {}", wanted.hint()))
        }
        (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled, _) => {
            Failure::Unreachable(format!("{address} does not answer: {message}"))
        }
        _ => Failure::Failed(format!("{address}: {message}")),
    }
}

/// What a port is that does not speak HTTP/2.
async fn look(address: &str, within: Duration) -> Found {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let metrics = ask(address, get("/metrics").as_bytes(), within).await.unwrap_or_default();
    let client = ask(address, get("/ws").as_bytes(), within).await.unwrap_or_default();
    classify(&metrics, &client)
}

/// By what a port answers for `/metrics` and for `/ws`.
fn classify(metrics: &[u8], client: &[u8]) -> Found {
    let (metrics, client) = (String::from_utf8_lossy(metrics), String::from_utf8_lossy(client));
    if is_tls(metrics.as_bytes()) || metrics.contains("HTTPS") {
        Found::Tls
    } else if metrics.contains("# HELP ") || metrics.contains("# TYPE ") {
        Found::Metrics
    } else if client.starts_with("HTTP/1.") && client.to_ascii_lowercase().contains("websocket") {
        Found::Client
    } else if metrics.starts_with("HTTP/1.") {
        Found::Http
    } else {
        Found::Other
    }
}

fn is_http2(answer: &[u8]) -> bool {
    // A server begins with a SETTINGS frame, too.
    answer.len() >= 9 && answer[3] == 4
}

fn is_tls(answer: &[u8]) -> bool {
    // An alert of any version of TLS.
    answer.len() >= 2 && answer[0] == 0x15 && answer[1] == 3
}

/// What comes back first, as far as something does.
async fn ask(address: &str, question: &[u8], within: Duration) -> Result<Vec<u8>, String> {
    let connected = timeout(within, TcpStream::connect(address)).await;
    let mut stream = match connected {
        Err(_) => return Err(format!("no answer within {}", humantime::format_duration(within))),
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
            // Of HTTP/2, the first frame says enough.
            if count == 0 || filled == ANSWER_BYTES_MAX || (question == HTTP2 && filled >= 9) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    // What has come until then is what there is.
    let _ = timeout(within, reading).await;
    answer.truncate(filled);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_apart() {
        let http = b"HTTP/1.1 404 Not Found\r\n\r\n";
        let ws = b"HTTP/1.1 400 Bad Request\r\n\r\n{\"error\":\"a WebSocket upgrade is needed\"}";
        let metrics = b"HTTP/1.1 200 OK\r\n\r\n# HELP broadgate_build_info 1\n";
        let nginx = b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port";
        assert_eq!(classify(http, ws), Found::Client);
        assert_eq!(classify(metrics, http), Found::Metrics);
        assert_eq!(classify(http, http), Found::Http);
        assert_eq!(classify(nginx, nginx), Found::Tls);
        assert_eq!(classify(&[0x15, 3, 1, 0, 2, 2, 70], b""), Found::Tls);
        assert_eq!(classify(b"", b""), Found::Other);
        assert!(is_http2(&[0, 0, 18, 4, 0, 0, 0, 0, 0]) && !is_http2(http) && !is_http2(&[]));
    }
}
