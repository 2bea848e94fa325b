//! Opens listeners, with an error that says what occupies the port.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{AcceptMode, Config};

/// Backlog of connections to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// A port that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: cannot listen on {address}: {error}{hint}")]
pub(crate) struct InTheWay {
    setting: String,
    address: SocketAddr,
    error: std::io::Error,
    hint: &'static str,
}

/// The client listeners: for each configured one, one socket per shard, or a single one.
pub(crate) struct ClientListeners {
    pub(crate) addresses: Vec<SocketAddr>,
    /// By listener, then by shard.
    pub(crate) sockets: Vec<Vec<TcpListener>>,
}

/// Opens one plain listener.
pub(crate) fn open(setting: &str, address: SocketAddr) -> Result<TcpListener, InTheWay> {
    socket(address, false).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                " (another process listens there: stop it or choose another port)"
            }
            std::io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege)",
            std::io::ErrorKind::AddrNotAvailable => " (no interface of this host has the address)",
            _ => "",
        };
        InTheWay { setting: setting.to_owned(), address, error, hint }
    })
}

/// Opens the client listeners. `SO_REUSEPORT` lets a second process share a port without any error,
/// so each port is first opened without it.
pub(crate) fn open_clients(config: &Config, shards: usize) -> Result<ClientListeners, InTheWay> {
    let mut addresses = Vec::new();
    let mut sockets = Vec::new();
    for (index, listener) in config.settings.listeners.iter().enumerate() {
        let setting = format!("gateway.listeners[{index}].bind ({})", listener.name);
        let fail = |error| InTheWay { setting: setting.clone(), address: listener.bind, error, hint: "" };
        let first = open(&setting, listener.bind)?;
        let address = first.local_addr().map_err(fail)?;
        addresses.push(address);
        if config.settings.accept == AcceptMode::One {
            sockets.push(vec![first]);
            continue;
        }
        drop(first);
        let shared = (0..shards).map(|_| socket(address, true)).collect::<Result<_, _>>().map_err(fail)?;
        sockets.push(shared);
    }
    Ok(ClientListeners { addresses, sockets })
}

fn socket(address: SocketAddr, shared: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Lingering connections of an earlier run do not block the port.
    socket.set_reuse_address(true)?;
    #[cfg(all(unix, not(target_os = "solaris")))]
    if shared {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(all(unix, not(target_os = "solaris"))))]
    let _ = shared;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // [::] takes IPv4 clients as well.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
