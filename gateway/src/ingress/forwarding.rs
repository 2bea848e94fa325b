//! What trusted proxies say of a client in headers: its address, and whether it came by TLS. Pure.
//!
//! A proxy that sets none of these headers must remove them, or clients could write them:
//! `X-Forwarded-For` comes before `Forwarded` (RFC 7239), and that before `X-Real-IP`.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

pub(crate) fn is_trusted(proxies: &[IpNet], ip: IpAddr) -> bool {
    proxies.iter().any(|net| net.contains(&ip))
}

/// The client behind trusted proxies: the last address that is not one of them. None if `peer`, who speaks
/// HTTP to us, is no proxy, or says nothing that can be read.
pub(super) fn client(proxies: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
    if !is_trusted(proxies, peer) {
        return None;
    }
    let list = texts(headers, "x-forwarded-for");
    if !list.is_empty() {
        return last_untrusted(proxies, list.split(',').rev().map(str::trim));
    }
    let list = texts(headers, "forwarded");
    let hops: Vec<&str> = elements(&list).filter_map(|element| parameter(element, "for")).collect();
    if !hops.is_empty() {
        return last_untrusted(proxies, hops.into_iter().rev());
    }
    last_untrusted(proxies, texts(headers, "x-real-ip").split(',').rev().map(str::trim))
}

/// Do the headers say that the client came by TLS? Of several hops, the first is the client's.
pub(super) fn says_tls(headers: &HeaderMap) -> bool {
    let first = |list: String| list.split(',').next().map(|one| one.trim().to_ascii_lowercase());
    let is_tls = |proto: &str| proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss");
    let proto = texts(headers, "x-forwarded-proto");
    if !proto.is_empty() {
        return first(proto).is_some_and(|proto| is_tls(&proto));
    }
    let list = texts(headers, "forwarded");
    if let Some(proto) = elements(&list).find_map(|element| parameter(element, "proto")) {
        return is_tls(proto);
    }
    first(texts(headers, "x-forwarded-ssl")).is_some_and(|said| said == "on")
}

/// Several headers of one name are one list (RFC 9110 section 5.3).
fn texts(headers: &HeaderMap, name: &str) -> String {
    let all: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    all.join(",")
}

fn last_untrusted<'a>(proxies: &[IpNet], hops: impl Iterator<Item = &'a str>) -> Option<IpAddr> {
    let mut client = None;
    for hop in hops {
        let ip = address(hop)?.to_canonical();
        client = Some(ip);
        if !is_trusted(proxies, ip) {
            break;
        }
    }
    client
}

/// An address, with or without a port, in brackets or not.
fn address(hop: &str) -> Option<IpAddr> {
    let plain = hop.parse().or_else(|_| hop.parse().map(|address: SocketAddr| address.ip())).ok();
    plain.or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

/// The elements of a `Forwarded` list.
fn elements(list: &str) -> impl Iterator<Item = &str> {
    split_unquoted(list, ',')
}

/// What is in quotes separates nothing.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |letter| {
        quoted ^= letter == '"';
        letter == separator && !quoted
    })
}

/// The value of a parameter of one element, without its quotes. What needs a backslash in quotes is
/// neither an address nor a protocol.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    split_unquoted(element, ';').find_map(|pair| {
        let (its_name, value) = pair.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        its_name.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// A header map with these pairs.
    pub(in crate::ingress) fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn client_of(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        client(&proxies, "10.0.0.1".parse().unwrap(), &headers(pairs)).map(|ip| ip.to_string())
    }

    #[test]
    fn only_trusted_hops_are_skipped() {
        let client_at = Some("192.0.2.7".to_owned());
        for said in [
            &[("x-forwarded-for", "203.0.113.9, 192.0.2.7, 10.0.0.2")][..],
            &[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "192.0.2.7")],
            &[("x-forwarded-for", "192.0.2.7:1234")],
            &[("x-forwarded-for", "::ffff:192.0.2.7")],
            &[("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=9.9.9.9"), ("x-real-ip", "9.9.9.9")],
            &[("forwarded", "for=203.0.113.9;proto=http, For=192.0.2.7;by=10.0.0.3, for=10.0.0.2")],
            &[("forwarded", "for=\"192.0.2.7:4711\""), ("x-real-ip", "9.9.9.9")],
            &[("forwarded", "by=\"a,b;for=x\""), ("x-real-ip", "192.0.2.7")],
            &[("x-real-ip", "192.0.2.7")],
        ] {
            assert_eq!(client_of(said), client_at, "{said:?}");
        }
        assert_eq!(client_of(&[("forwarded", "for=\"[2001:db8::7]:80\"")]), Some("2001:db8::7".to_owned()));
        assert_eq!(client_of(&[("forwarded", "for=\"[2001:db8::7]\"")]), Some("2001:db8::7".to_owned()));
        for nothing in [
            &[][..],
            &[("x-forwarded-for", "nonsense")],
            &[("forwarded", "for=_hidden")],
            &[("forwarded", "for=unknown")],
            &[("x-real-ip", "")],
        ] {
            assert_eq!(client_of(nothing), None, "{nothing:?}");
        }
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let said = headers(&[("x-forwarded-for", "203.0.113.9"), ("x-real-ip", "203.0.113.9")]);
        assert_eq!(client(&proxies, "192.0.2.7".parse().unwrap(), &said), None, "anybody can write headers");
    }

    #[test]
    fn tls_is_what_the_first_hop_says() {
        let tls = |pairs| says_tls(&headers(pairs));
        for said in [
            &[("x-forwarded-proto", "https")][..],
            &[("x-forwarded-proto", "WSS")],
            &[("x-forwarded-proto", "https, http")],
            &[("x-forwarded-proto", "https"), ("forwarded", "proto=http")],
            &[("forwarded", "for=192.0.2.7;Proto=\"https\", for=10.0.0.1;proto=http")],
            &[("x-forwarded-ssl", "on")],
        ] {
            assert!(tls(said), "{said:?}");
        }
        for not in [
            &[][..],
            &[("x-forwarded-proto", "http")],
            &[("x-forwarded-proto", "http, https")],
            &[("forwarded", "for=x;proto=http"), ("x-forwarded-ssl", "on")],
            &[("x-forwarded-ssl", "off")],
        ] {
            assert!(!tls(not), "{not:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(text in "[a-z0-9=;,\"\\[\\]:. ]{0,60}") {
            let proxies = ["0.0.0.0/0".parse().unwrap()];
            for name in ["x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-proto"] {
                let mut said = HeaderMap::new();
                said.insert(name, HeaderValue::from_str(&text).unwrap());
                let _ = (client(&proxies, [10, 0, 0, 1].into(), &said), says_tls(&said));
            }
        }
    }
}
