//! `broadgate health`: a process's own answer at its metrics port, for the health checks of containers, whose
//! images have no curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::Args;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{failure::Failure, options::ConfigFile, setting_errors};

/// A process that is well answers within milliseconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read: a status line, headers and a sentence.
const ANSWER_BYTES_MAX: u64 = 4096;

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Address of the process's metrics and probes [default: `metrics.bind`]
    #[arg(long, value_name = "ADDRESS", value_parser = setting_errors::address)]
    metrics_bind: Option<SocketAddr>,
    /// Ask whether it may get traffic (/readyz) instead of whether it runs (/healthz)
    #[arg(long)]
    ready: bool,
}

/// Fails unless the process answers that it is well.
pub(crate) async fn health(args: HealthArgs) -> Result<(), Failure> {
    let configured = args.file.load_for_command()?.metrics.bind;
    let address = args.metrics_bind.or(configured).ok_or_else(|| {
        Failure::usage(
            "no process is given: name the address of its metrics port with --metrics-bind or metrics.bind",
        )
    })?;
    let address = reachable(address);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = match timeout(ANSWER_TIME_MAX, ask(address, path)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Err(Failure::Unreachable(format!("{address} cannot be reached: {error}")));
        }
        Err(_) => {
            return Err(Failure::Unreachable(format!(
                "{address} has not answered within {ANSWER_TIME_MAX:?}"
            )));
        }
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200 ") {
        return crate::output::print(&format!("{}\n", body.trim()));
    }
    if head.starts_with("HTTP/1.1 503 ") {
        return Err(Failure::Failed(body.trim().to_owned()));
    }
    Err(Failure::Unreachable(format!("{address} is not a metrics port: see metrics.bind")))
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

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
