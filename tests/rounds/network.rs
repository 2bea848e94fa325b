//! What the gateways of a round dial each other through: proxies on loopback, or namespaces with a
//! bridge between them, made by `tests/rounds/netns`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    faults::Cut,
    harness::{Fault as Spoilt, Process, Proxy, Way, free_address},
};

/// On the bridge: the gateways have the addresses from .1 on.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// Nobody's: packets that are sent there are lost.
const NOWHERE: &str = "02:00:00:00:00:00";
/// Ports that others could reach want a secret, also where there are no others.
const SECRET: &str = "rounds-in-namespaces-reach-nobody-else";

#[derive(Debug, Clone)]
pub enum Network {
    Loopback,
    /// What the names of the namespaces begin with.
    Namespaces(String),
}

impl Network {
    /// Where a gateway may listen.
    pub fn address(&self, gateway: usize) -> SocketAddr {
        let free = free_address();
        match self {
            Self::Loopback => free,
            Self::Namespaces(_) => (on_bridge(gateway), free.port()).into(),
        }
    }

    pub fn register_address(&self) -> SocketAddr {
        let free = free_address();
        match self {
            Self::Loopback => free,
            Self::Namespaces(_) => (HOST, free.port()).into(),
        }
    }

    /// Where a client comes from: another address for each attempt, by which it is found in lists.
    pub fn source(&self, client: u16, attempt: u8) -> Ipv4Addr {
        let [high, low] = client.to_be_bytes();
        match self {
            Self::Loopback => Ipv4Addr::new(127, attempt.wrapping_add(1), high + 1, low),
            Self::Namespaces(_) => Ipv4Addr::new(10, 128 | attempt, high + 1, low),
        }
    }

    pub fn secret(&self) -> Option<&'static str> {
        matches!(self, Self::Namespaces(_)).then_some(SECRET)
    }

    pub fn start_register(&self, dir: &Path, name: &str, args: &[&str]) -> Process {
        Process::start(dir, name, args, &self.environment())
    }

    pub fn start_gateway(&self, gateway: usize, dir: &Path, name: &str, args: &[&str]) -> Process {
        match self {
            Self::Loopback => Process::start(dir, name, args, &[]),
            Self::Namespaces(prefix) => {
                // It becomes the program that it is given: the process id stays.
                let inside = ["ip", "netns", "exec", &namespace(prefix, gateway)];
                Process::start_through(&inside, dir, name, args, &self.environment())
            }
        }
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.secret().map(|secret| ("BROADGATE_SECRET", secret)).into_iter().collect()
    }

    /// What goes in front of a gateway's internal port.
    pub async fn proxy(&self, internal: SocketAddr) -> Option<Proxy> {
        match self {
            Self::Loopback => Some(Proxy::in_front_of(internal).await),
            Self::Namespaces(_) => None,
        }
    }

    /// Loses the packets of one or both directions between two gateways. A network has no other faults
    /// without kernel modules: what would be closed or delayed is lost as well.
    pub fn lose(&self, from: usize, to: usize, how: Cut, lost: bool) {
        let Self::Namespaces(prefix) = self else { return };
        let pairs: &[(usize, usize)] = match how {
            Cut::OnlyThere => &[(to, from)],
            Cut::OnlyBack => &[(from, to)],
            Cut::Close | Cut::Blackhole | Cut::Delay { .. } => &[(from, to), (to, from)],
        };
        for (from, to) in pairs {
            lose_at(&namespace(prefix, *from), on_bridge(*to), lost);
        }
    }
}

/// Loses what a gateway sends to where the register is, and the clients: all of it.
pub fn lose_host(prefix: &str, gateway: usize, lost: bool) {
    lose_at(&namespace(prefix, gateway), HOST, lost);
}

fn lose_at(inside: &str, to: Ipv4Addr, lost: bool) {
    let to = to.to_string();
    let neighbour: &[&str] = if lost {
        &["replace", &to, "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent"]
    } else {
        &["del", &to, "dev", "eth0"]
    };
    let mut command = Command::new("ip");
    command.args(["-n", inside, "neigh"]).args(neighbour).stdin(Stdio::null()).stderr(Stdio::null());
    // Where both directions are cut twice, the second mending finds nothing left to do.
    let status = command.status().unwrap();
    assert!(status.success() || !lost, "{command:?}");
}

fn namespace(prefix: &str, gateway: usize) -> String {
    format!("{prefix}{}", gateway + 1)
}

fn on_bridge(gateway: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(gateway + 1).unwrap())
}

/// A cut, as a proxy does it.
pub fn spoilt(how: Cut) -> Spoilt {
    match how {
        Cut::Close => Spoilt::Close,
        Cut::Blackhole => Spoilt::Blackhole,
        Cut::OnlyThere => Spoilt::OneWay(Way::There),
        Cut::OnlyBack => Spoilt::OneWay(Way::Back),
        Cut::Delay { ms } => Spoilt::Delay(std::time::Duration::from_millis(ms)),
    }
}
