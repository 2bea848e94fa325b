//! Which ports a cluster on one machine takes. Pure, but for the question whether one is free.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) struct WantedPorts {
    pub(super) gateways: u16,
    pub(super) workers: u16,
    /// Given by the user: then nothing moves.
    pub(super) base: Option<u16>,
    pub(super) host: Option<IpAddr>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) register: u16,
    pub(super) internal: Vec<u16>,
    pub(super) clients: Vec<SocketAddr>,
    /// Of the register, the gateways, then the workers.
    pub(super) metrics: Vec<u16>,
    /// Of the first gateway's dashboard; none if nobody could log in there.
    pub(super) dashboard: Option<u16>,
    /// What moved, for the user.
    pub(super) notes: Vec<String>,
}

/// Takes the default ports, moving those that are taken to the next free one; or exactly those that
/// follow from the base port.
pub(super) fn choose(wanted: &WantedPorts, is_free: impl Fn(SocketAddr) -> bool) -> Result<Ports, String> {
    let [register, internal, clients, metrics, dashboard] = match wanted.base {
        Some(base) => from_base(base, wanted)?,
        None => [7100, 7200, 8080, 9100, 7300],
    };
    let host = wanted.host.unwrap_or(LOOPBACK);
    let mut taken = BTreeSet::new();
    let mut notes = Vec::new();
    let mut take = |what: String, ip: IpAddr, port: u16| {
        let mut candidates = (port..=u16::MAX).filter(|candidate| !taken.contains(candidate));
        let found = candidates.find(|&candidate| is_free(SocketAddr::new(ip, candidate)));
        let moved = found.filter(|&found| found != port && !taken.contains(&port));
        match (found, wanted.base) {
            (Some(found), None) => {
                if moved.is_some() {
                    notes.push(format!("{what}: port {port} is taken, using {found}"));
                }
                taken.insert(found);
                Ok(found)
            }
            (Some(found), Some(_)) if found == port => {
                taken.insert(found);
                Ok(found)
            }
            (_, Some(base)) => Err(format!(
                "{what}: port {port}, which follows from --base-port {base}, is taken by another process: \
                 stop it or give another base port"
            )),
            (None, None) => Err(format!("{what}: no port from {port} on is free")),
        }
    };
    let register = take("register".to_owned(), LOOPBACK, register)?;
    let mut ports = Ports { register, ..Ports::default() };
    for index in 0..wanted.gateways {
        let name = format!("gateway-{}", index + 1);
        ports.internal.push(take(format!("{name}, internal"), LOOPBACK, internal + index)?);
        let client = take(format!("{name}, clients"), host, clients + index)?;
        ports.clients.push(SocketAddr::new(host, client));
    }
    for index in 0..1 + wanted.gateways + wanted.workers {
        ports.metrics.push(take(format!("metrics {}", index + 1), LOOPBACK, metrics + index)?);
    }
    ports.dashboard = Some(take("dashboard".to_owned(), LOOPBACK, dashboard)?);
    ports.notes = notes;
    Ok(ports)
}

/// The first ports of the register, the internal ports, the clients, the metrics and the dashboard.
fn from_base(base: u16, wanted: &WantedPorts) -> Result<[u16; 5], String> {
    // The last metrics port is the highest of all: there is one for each process.
    let span = 30 + wanted.gateways + wanted.workers;
    if base.checked_add(span).is_none() {
        return Err(format!(
            "--base-port {base}: the ports from it go up to {}, beyond 65535; give at most {}",
            u32::from(base) + u32::from(span),
            u16::MAX - span
        ));
    }
    Ok([base, base + 10, base + 20, base + 30, base + 5])
}

/// Could this be listened on now?
pub(super) fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(base: Option<u16>) -> WantedPorts {
        WantedPorts { gateways: 2, workers: 1, base, host: None }
    }

    #[test]
    fn defaults_move_and_say_so() {
        let ports = choose(&wanted(None), |address| ![7100, 8080].contains(&address.port())).unwrap();
        assert_eq!((ports.register, &ports.internal[..]), (7101, &[7200, 7201][..]));
        assert_eq!(ports.clients.iter().map(SocketAddr::port).collect::<Vec<_>>(), [8081, 8082]);
        assert_eq!(ports.metrics, [9100, 9101, 9102, 9103]);
        assert_eq!(ports.notes.len(), 2, "{:?}", ports.notes);
        assert!(ports.notes[0].contains("7100 is taken, using 7101"));
    }

    #[test]
    fn given_ports_never_move() {
        let ports = choose(&wanted(Some(20_000)), |_| true).unwrap();
        assert_eq!((ports.register, ports.internal[1], ports.metrics[0]), (20_000, 20_011, 20_030));
        assert_eq!(ports.dashboard, Some(20_005));
        let error = choose(&wanted(Some(20_000)), |address| address.port() != 20_021).unwrap_err();
        assert!(
            error.contains("gateway-2, clients: port 20021") && error.contains("--base-port 20000"),
            "{error}"
        );
    }

    #[test]
    fn a_base_whose_ports_do_not_exist_is_refused() {
        let highest = u16::MAX - 33;
        assert_eq!(choose(&wanted(Some(highest)), |_| true).unwrap().metrics.last(), Some(&u16::MAX));
        let error = choose(&wanted(Some(highest + 1)), |_| true).unwrap_err();
        assert!(error.contains("up to 65536") && error.contains("at most 65502"), "{error}");
        assert!(choose(&wanted(Some(u16::MAX)), |_| true).is_err());
    }
}
