//! Where clients connect, and from where.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};

/// Connections from one source address, well below the ports that it has: those of a run before may
/// still linger.
const PER_SOURCE: usize = 2_000;

/// Who is loaded, which the URL's path tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Raw clients, which the publisher joins to groups.
    Raw,
    /// Pusher clients, which subscribe to channels.
    Pusher,
    /// Socket.IO clients, which subscribe to channels.
    SocketIo,
    /// Groups are paths.
    Ceiling,
}

#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    pub(super) host: String,
    /// `wss://`: whatever certificate is shown is taken.
    pub(super) is_tls: bool,
    path: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let tls = url.strip_prefix("wss://");
        let rest = tls.or_else(|| url.strip_prefix("ws://"));
        let rest = rest.ok_or_else(|| format!("--url {url}: begin it with ws:// or wss://"))?;
        let port = if tls.is_some() { 443 } else { 80 };
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
        let mut addresses = with_port.to_socket_addrs().map_err(|error| format!("--url {url}: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("--url {url}: the host has no address"))?;
        let kind = match path {
            _ if path.contains("/socket.io/") => Kind::SocketIo,
            _ if path.contains("/app/") => Kind::Pusher,
            "/g" | "/g/" => Kind::Ceiling,
            _ => Kind::Raw,
        };
        Ok(Self { kind, address, host: host.to_owned(), is_tls: tls.is_some(), path: path.to_owned() })
    }

    /// What a client sends first.
    pub(super) fn request(&self, group: &str) -> String {
        let group = if self.kind == Kind::Ceiling { format!("/g/{group}") } else { String::new() };
        let path = if group.is_empty() { &self.path } else { &group };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            self.host
        )
    }

    /// Where a client's connection comes from: one source address has some 28,000 ports; loopback
    /// has many addresses. None if the system chooses.
    pub(super) fn source(&self, run: u32, index: usize) -> Option<SocketAddr> {
        let IpAddr::V4(ip) = self.address.ip() else { return None };
        if !ip.is_loopback() {
            return None;
        }
        let of_run = u8::try_from(run % 250).unwrap_or(0);
        let of_many = u8::try_from(index / PER_SOURCE % 250).unwrap_or(0);
        Some(SocketAddr::from((Ipv4Addr::new(127, 1, of_run, 1 + of_many), 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_who_is_loaded() {
        let kind = |path: &str| Target::parse(&format!("ws://127.0.0.1:1{path}")).unwrap().kind;
        assert_eq!([kind(""), kind("/ws"), kind("/ws/game")], [Kind::Raw; 3]);
        assert_eq!([kind("/app/KEY"), kind("/g"), kind("/g/")], [Kind::Pusher, Kind::Ceiling, Kind::Ceiling]);
        assert_eq!(kind("/socket.io/?EIO=4&transport=websocket&key=KEY"), Kind::SocketIo);
        let ceiling = Target::parse("ws://127.0.0.1:1/g").unwrap();
        assert!(ceiling.request("a").starts_with("GET /g/a HTTP/1.1\r\n"));
        assert!(Target::parse("http://x/").is_err());
        assert!(!ceiling.is_tls && Target::parse("wss://127.0.0.1/ws").unwrap().is_tls);
    }

    #[test]
    fn sources_rotate_before_their_ports_run_out() {
        let target = Target::parse("ws://127.0.0.1:1/ws").unwrap();
        let source = |run, index| target.source(run, index).unwrap().ip().to_string();
        assert_eq!(
            (source(7, 0), source(7, 1999), source(7, 2000)),
            ("127.1.7.1".into(), "127.1.7.1".into(), "127.1.7.2".into())
        );
        assert_ne!(source(7, 0), source(8, 0));
        assert!(source(7, 499_999).ends_with(".250") && source(7, 500_000).ends_with(".1"));
        assert_eq!(Target::parse("ws://[::1]:1/ws").unwrap().source(7, 0), None);
    }
}
