//! What a register asks of a Hello before it believes it.

use std::net::IpAddr;

use broadgate_proto::{
    id::Incarnation,
    limits::MEMBER_BYTES_MAX,
    name,
    v1::{Member, MemberState, Role},
    view::member_bytes,
};

use crate::member::address::is_loopback;

/// Services of one worker, listeners of one gateway.
const LISTS_MAX: usize = 100;
/// Any other text of a member.
const TEXT_BYTES_MAX: usize = 256;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerOrigin {
    /// The other end's address, if known.
    pub address: Option<IpAddr>,
    /// Does it come from another host than the register's?
    pub remote: bool,
}

/// The member of a Hello, or a sentence that says what is wrong with it.
pub(super) fn hello(origin: PeerOrigin, member: Option<Member>) -> Result<(Incarnation, Member), String> {
    let Some(mut member) = member else {
        return Err("the Hello names no member: fill its `member` field".to_owned());
    };
    // First: what follows repeats texts of the member.
    let bytes = bytes_in_view(&member);
    if bytes > MEMBER_BYTES_MAX {
        return Err(format!(
            "the member announces {bytes} bytes, more than {MEMBER_BYTES_MAX}: give it fewer or shorter services, \
             listeners and addresses"
        ));
    }
    let incarnation: Incarnation = member.incarnation.parse().map_err(|error| format!("{error}"))?;
    name::check_visible("the member's name", &member.name).map_err(|error| error.to_string())?;
    match member.role() {
        Role::Gateway => address(origin, &member)?,
        Role::Worker => {}
        Role::Unspecified => return Err("the member's role is unknown: gateway or worker".to_owned()),
    }
    let long = |text: &str| text.len() > TEXT_BYTES_MAX;
    let texts = [&member.version, &member.address];
    if texts.into_iter().chain(&member.services).any(|text| long(text))
        || member.listeners.iter().any(|(key, value)| long(key) || long(value))
    {
        return Err(format!("a text of the member is longer than {} bytes", TEXT_BYTES_MAX));
    }
    if member.services.len() > LISTS_MAX || member.listeners.len() > LISTS_MAX {
        return Err(format!("the member has more than {LISTS_MAX} services or listeners"));
    }
    // A state that this version does not know must not look like one that serves.
    if member.state() == MemberState::Unspecified {
        member.set_state(MemberState::Joining);
    }
    Ok((incarnation, member))
}

/// What a member takes in every view, in bytes, at most: when it joined is written there later.
pub(super) fn bytes_in_view(member: &Member) -> usize {
    const SINCE_BYTES_MAX: usize = 11;
    member_bytes(member) + SINCE_BYTES_MAX
}

fn address(origin: PeerOrigin, gateway: &Member) -> Result<(), String> {
    let address = &gateway.address;
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(format!("the gateway's address {address:?} is not host:port: set its `advertise`"));
    }
    if origin.remote && is_loopback(address) {
        return Err(format!(
            "the gateway advertises the loopback address {address}, but the register is on another host: \
             set `advertise` to an address that other hosts reach"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(address: &str) -> Member {
        Member {
            incarnation: Incarnation::from_bits(1).to_string(),
            role: Role::Gateway.into(),
            name: "a".into(),
            address: address.into(),
            ..Member::default()
        }
    }

    fn refused(origin: PeerOrigin, member: Member) -> String {
        hello(origin, Some(member)).unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        let near = PeerOrigin::default();
        let far = PeerOrigin { address: None, remote: true };
        assert!(hello(near, Some(gateway("127.0.0.1:7200"))).is_ok());
        assert!(hello(far, Some(gateway("[2001:db8::1]:7200"))).is_ok());
        for loopback in ["127.0.0.1:7200", "[::1]:7200", "localhost:7200"] {
            assert!(refused(far, gateway(loopback)).contains("loopback"), "{loopback}");
        }
        for wrong in ["", "host", ":7200", "host:port"] {
            assert!(refused(near, gateway(wrong)).contains("host:port"), "{wrong}");
        }
        assert!(refused(near, Member { name: String::new(), ..gateway("a:1") }).contains("empty"));
        assert!(
            refused(near, Member { name: " ".into(), ..gateway("a:1") }).contains("no visible character")
        );
        assert!(refused(near, Member { role: 7, ..gateway("a:1") }).contains("role"));
        assert!(refused(near, Member { incarnation: "x".into(), ..gateway("a:1") }).contains("incarnation"));
        assert!(refused(near, Member { version: "v".repeat(300), ..gateway("a:1") }).contains("longer"));
        let services = vec!["s".repeat(250); 20];
        assert!(refused(near, Member { services, ..gateway("a:1") }).contains("more than 4096"));
        assert!(refused(near, gateway(&"a".repeat(1 << 20))).len() < 300);
        let (_, member) = hello(near, Some(Member { state: 99, ..gateway("a:1") })).unwrap();
        assert_eq!(member.state(), MemberState::Joining);
    }
}
