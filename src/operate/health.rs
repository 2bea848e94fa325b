//! `broadgate health`: a process's own answer at its metrics port, for the health checks of containers, whose
//! images have no curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use broadgate_port::TLS_ONLY;
use broadgate_tls::{ClusterTls, Side, explain};
use clap::Args;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{failure::Failure, options::ConfigFile, setting_errors, terminal_text::one_line};

/// A process that is well answers within milliseconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read: a status line, headers and a sentence.
const ANSWER_BYTES_MAX: u64 = 4096;

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Address of the process's metrics port [default: `metrics.bind`]
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    metrics_bind: Option<SocketAddr>,
    /// Check readiness for traffic (/readyz) instead of liveness (/healthz)
    #[arg(long)]
    ready: bool,
}

/// Fails unless the process answers that it is well.
pub(crate) async fn health(args: HealthArgs) -> Result<(), Failure> {
    let config = args.file.load_for_command()?;
    let tls = if config.metrics.tls { config.metrics_tls(config.tls()?.as_ref())? } else { None };
    let address = args.metrics_bind.or(config.metrics.bind).ok_or_else(|| {
        Failure::usage(
            "no process is given: name the address of its metrics port with --metrics-bind or metrics.bind",
        )
    })?;
    let address = reachable(address);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = match timeout(ANSWER_TIME_MAX, ask(address, path, tls.as_ref())).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => return Err(Failure::Unreachable(format!("{address} {why}"))),
        Err(_) => {
            return Err(Failure::Unreachable(format!(
                "{address} has not answered within {ANSWER_TIME_MAX:?}"
            )));
        }
    };
    judge(address, path, &answer).and_then(|well| crate::output::print(&format!("{well}\n")))
}

/// What an answer means: another server may listen there, and its answer must not reach a terminal as it is.
fn judge(address: SocketAddr, path: &str, answer: &str) -> Result<&'static str, Failure> {
    let well = if path == "/readyz" { "ready" } else { "ok" };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    if head.starts_with("HTTP/1.1 200 ") && body.trim() == well {
        return Ok(well);
    }
    if head.starts_with("HTTP/1.1 503 ") {
        return Err(Failure::Failed(one_line(body.trim())));
    }
    if body.contains(TLS_ONLY) {
        let sentence =
            "requires TLS: give this command the metrics.tls and [cluster.tls] of the process that it asks";
        return Err(Failure::Unreachable(format!("{address} {sentence}")));
    }
    let status = head.lines().next().unwrap_or_default();
    Err(Failure::Unreachable(format!(
        "{address} is not a metrics port, see metrics.bind: it answers {path} with \"{}\"",
        one_line(format!("{status} {body}").trim())
    )))
}

/// Where a process on this machine is reached that listens at this address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The answer, or why there is none, which follows the address in a sentence.
async fn ask(address: SocketAddr, path: &str, tls: Option<&ClusterTls>) -> Result<String, String> {
    let unreachable = |error: std::io::Error| format!("cannot be reached: {error}");
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let Some(tls) = tls else { return exchange(stream, &request).await.map_err(unreachable) };
    let inside = async { exchange(tls.connect_http1(stream).await?, &request).await };
    // A server refuses a certificate only when the client has ended its part.
    inside.await.map_err(|error| explain(&error, Side::Client).sentence)
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_answer_is_refused_with_a_short_escaped_excerpt() {
        let address = "127.0.0.1:9100".parse().unwrap();
        let judge = |path, answer: &str| judge(address, path, answer).map_err(|failure| failure.to_string());
        assert_eq!(judge("/healthz", "HTTP/1.1 200 OK\r\n\r\nok\n"), Ok("ok"));
        assert_eq!(judge("/readyz", "HTTP/1.1 200 OK\r\n\r\nready\n"), Ok("ready"));
        let starts = judge("/readyz", "HTTP/1.1 503 No\r\n\r\nnot in a view as \"ready\"\n");
        assert_eq!(starts, Err("not in a view as \"ready\"".to_owned()));
        let long = format!("\x1b]0;title\x07\u{202e}line one\nline two{}", "x".repeat(5000));
        for status in ["200 OK", "404 Not Found", "503 Busy"] {
            let refused = judge("/healthz", &format!("HTTP/1.1 {status}\r\n\r\n{long}")).unwrap_err();
            assert!(refused.contains(r"\u{1b}]0;title\u{7}\u{202e}line one\nline two"), "{refused}");
            assert!(refused.chars().count() < 1300 && !refused.chars().any(char::is_control), "{refused}");
        }
        let secured =
            judge("/healthz", &format!("HTTP/1.1 400 Bad Request\r\n\r\n{TLS_ONLY}: use HTTPS")).unwrap_err();
        assert!(
            secured.starts_with("127.0.0.1:9100 requires TLS: give this command the metrics.tls"),
            "{secured}"
        );
        let nothing = judge("/healthz", "").unwrap_err();
        assert!(nothing.contains("127.0.0.1:9100 is not a metrics port"), "{nothing}");
    }

    #[test]
    fn wildcard_is_asked_on_loopback() {
        for (bound, asked) in [
            ("0.0.0.0:9100", "127.0.0.1:9100"),
            ("[::]:9100", "[::1]:9100"),
            ("10.0.0.7:9100", "10.0.0.7:9100"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
