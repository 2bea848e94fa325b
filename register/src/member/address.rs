//! What an advertised address says about its reach.

use std::net::{IpAddr, SocketAddr};

use broadgate_proto::name;

/// As long as a DNS name with its port may be.
const REGISTER_BYTES_MAX: usize = 256;

/// Is this an address at which members may look for another register?
pub(crate) fn is_register(address: &str) -> bool {
    address.len() <= REGISTER_BYTES_MAX && name::check_address(address).is_ok()
}

/// Does `host:port` name this host only?
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Why a member with this connection to the register may not advertise this address.
pub(super) fn refusal(address: &str, local: SocketAddr, register: SocketAddr) -> Option<String> {
    let (here, there) = (local.ip().to_canonical(), register.ip().to_canonical());
    let same_host = there.is_loopback() || here == there;
    (is_loopback(address) && !same_host).then(|| {
        format!(
            "this process would advertise the loopback address {address}, but the register is on another \
             host, {there}: set `advertise` to an address that other hosts reach"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_refused_only_when_the_register_is_on_another_host() {
        let refused = |address, local: &str, register: &str| {
            refusal(address, local.parse().unwrap(), register.parse().unwrap()).is_some()
        };
        assert!(refused("127.0.0.1:7200", "192.0.2.1:5000", "192.0.2.2:7100"));
        assert!(refused("localhost:7200", "[2001:db8::1]:5000", "[2001:db8::2]:7100"));
        assert!(!refused("127.0.0.1:7200", "127.0.0.1:5000", "127.0.0.1:7100"));
        assert!(!refused("127.0.0.1:7200", "192.0.2.1:5000", "192.0.2.1:7100"));
        assert!(!refused("127.0.0.1:7200", "[::1]:5000", "[::ffff:127.0.0.1]:7100"));
        assert!(!refused("192.0.2.1:7200", "192.0.2.1:5000", "192.0.2.2:7100"));
    }

    #[test]
    fn address_of_a_register_is_checked() {
        assert!(is_register("r2.example:7100") && is_register("[::1]:7100"));
        assert!(!is_register("") && !is_register("no address") && !is_register("http://r2:7100"));
        assert!(!is_register(&format!("{}:7100", "r".repeat(REGISTER_BYTES_MAX))));
    }
}
