//! Who the client is behind a proxy: the PROXY protocol (v1 and v2, as HAProxy specifies it), only from
//! proxies that the configuration trusts.

use std::{io, net::SocketAddr};

use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A v1 header is at most this long, its CRLF included (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// Enough to tell the versions apart; no v1 header is shorter.
const HEAD_BYTES: usize = 12;
/// The fixed part of a v2 header (section 2.2).
const V2_FIXED_BYTES: usize = 16;
/// Addresses and extensions of a v2 header; proxies send far fewer.
const V2_REST_BYTES_MAX: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the connection does not come from one of trusted_proxies")]
    NotTrusted,
    #[error(
        "the connection does not begin with a PROXY protocol header: let the proxy send one (send-proxy-v2 in \
         HAProxy), or take proxy_protocol out of the listener"
    )]
    Missing,
    #[error("the PROXY protocol header is malformed: {0}")]
    Malformed(String),
    #[error("the connection ended before its PROXY protocol header was whole")]
    Ended,
    #[error("the PROXY protocol header could not be read: {0}")]
    Io(io::Error),
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Ended } else { Self::Io(error) }
    }
}

/// What a header says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// None if it names no client (a proxy's own check).
    pub(crate) client: Option<SocketAddr>,
    /// The client came to the proxy by TLS (PP2_TYPE_SSL, section 2.2.6).
    pub(crate) tls: bool,
}

/// The client connected over TLS: a bit of the first byte of PP2_TYPE_SSL.
const PP2_CLIENT_SSL: u8 = 0x01;

/// Reads the header and not a byte more.
pub(crate) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProxyHeader, HeaderError> {
    let mut header = vec![0; HEAD_BYTES];
    let mut filled = 0;
    while filled < HEAD_BYTES {
        let count = stream.read(&mut header[filled..]).await?;
        if count == 0 {
            return Err(HeaderError::Ended);
        }
        filled += count;
        // What cannot become a header is not waited for.
        let begins = |whole: &[u8]| {
            let common = filled.min(whole.len());
            header[..common] == whole[..common]
        };
        if !begins(v2::PROTOCOL_PREFIX) && !begins(b"PROXY ") {
            return Err(HeaderError::Missing);
        }
    }
    if header == v2::PROTOCOL_PREFIX {
        header.resize(V2_FIXED_BYTES, 0);
        stream.read_exact(&mut header[HEAD_BYTES..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if rest > V2_REST_BYTES_MAX {
            return Err(HeaderError::Malformed(format!("its length is {rest} bytes")));
        }
        header.resize(V2_FIXED_BYTES + rest, 0);
        stream.read_exact(&mut header[V2_FIXED_BYTES..]).await?;
    } else if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            if header.len() == V1_BYTES_MAX {
                return Err(HeaderError::Malformed("it has no end".to_owned()));
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(HeaderError::Missing);
    }
    said(&header)
}

fn said(header: &[u8]) -> Result<ProxyHeader, HeaderError> {
    let parsed = HeaderResult::parse(header);
    if parsed.is_incomplete() {
        return Err(HeaderError::Malformed("it is incomplete".to_owned()));
    }
    match parsed {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
                v1::Addresses::Tcp6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
                v1::Addresses::Unknown => None,
            };
            Ok(ProxyHeader { client, tls: false })
        }
        HeaderResult::V2(Ok(header)) => {
            let client = match (header.command, header.addresses) {
                (v2::Command::Local, _) => return Ok(ProxyHeader::default()),
                (_, v2::Addresses::IPv4(ip)) => Some((ip.source_address, ip.source_port).into()),
                (_, v2::Addresses::IPv6(ip)) => Some((ip.source_address, ip.source_port).into()),
                _ => None,
            };
            let mut extensions = header.tlvs().map_while(Result::ok);
            let ssl = extensions.find(|extension| extension.kind == v2::Type::SSL as u8);
            let flags = ssl.and_then(|ssl| ssl.value.first().copied()).unwrap_or_default();
            Ok(ProxyHeader { client, tls: flags & PP2_CLIENT_SSL != 0 })
        }
        HeaderResult::V1(Err(error)) => Err(HeaderError::Malformed(error.to_string())),
        HeaderResult::V2(Err(error)) => Err(HeaderError::Malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, usize) {
        let mut rest = bytes;
        let result = read_header(&mut rest).await;
        (result.map(|said| said.client), rest.len())
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_the_rest() {
        let (peer, rest) = read(b"PROXY TCP4 192.0.2.7 10.0.0.1 50123 80\r\nGET /").await;
        assert_eq!((peer.unwrap(), rest), (Some("192.0.2.7:50123".parse().unwrap()), 5));
        let (peer, _) = read(b"PROXY TCP6 2001:db8::1 ::1 50123 80\r\n").await;
        assert_eq!(peer.unwrap(), Some("[2001:db8::1]:50123".parse().unwrap()));
        let (peer, rest) = read(b"PROXY UNKNOWN\r\nxx").await;
        assert_eq!((peer.unwrap(), rest), (None, 2));
        let mut v2 = v2::PROTOCOL_PREFIX.to_vec();
        v2.extend_from_slice(&[0x21, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 1, 0xc3, 0xcb, 0, 80, b'x']);
        let (peer, rest) = read(&v2).await;
        assert_eq!((peer.unwrap(), rest), (Some("192.0.2.7:50123".parse().unwrap()), 1));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXY", b"PROXY TCP4 nonsense\r\n", &[b'P'; 200]] {
            assert!(read(bytes).await.0.is_err());
        }
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        assert!(matches!(read(&endless).await.0, Err(HeaderError::Malformed(_))));
    }

    #[tokio::test]
    async fn what_cannot_become_a_header_is_not_waited_for() {
        for (bytes, missing) in
            [(&b"hi\n"[..], true), (b"\x16\x03", true), (b"PROX", false), (b"\r\n\r", false)]
        {
            let (mut client, mut server) = tokio::io::duplex(64);
            tokio::io::AsyncWriteExt::write_all(&mut client, bytes).await.unwrap();
            let reading =
                tokio::time::timeout(std::time::Duration::from_millis(50), read_header(&mut server));
            let read = reading.await;
            assert_eq!(matches!(read, Ok(Err(HeaderError::Missing))), missing, "{read:?}");
            assert_eq!(read.is_err(), !missing, "the rest of one is waited for: {read:?}");
            drop(client);
            assert!(missing || matches!(read_header(&mut server).await, Err(HeaderError::Ended)));
        }
    }

    #[tokio::test]
    async fn version_2_says_whether_the_client_came_by_tls() {
        let header = |command: u8, extensions: &[u8]| {
            let mut header = v2::PROTOCOL_PREFIX.to_vec();
            header.extend_from_slice(&[command, 0x11, 0, 12 + extensions.len() as u8]);
            header.extend_from_slice(&[192, 0, 2, 7, 10, 0, 0, 1, 0xc3, 0xcb, 0, 80]);
            [&header, extensions].concat()
        };
        let ssl = |flags| [0x20, 0, 5, flags, 0, 0, 0, 0];
        for (command, extensions, tls) in [
            (0x21, &[][..], false),
            (0x21, &ssl(1), true),
            (0x21, &[&[0x04, 0, 1, 0][..], &ssl(0x07)].concat(), true),
            (0x21, &ssl(0x06), false),
            (0x21, &[0x20, 0, 0], false),
            (0x21, &[0x20, 0, 9, 1], false),
            (0x20, &ssl(1), false),
        ] {
            let said = read_header(&mut &header(command, extensions)[..]).await.unwrap();
            assert_eq!((said.tls, said.client.is_some()), (tls, command == 0x21), "{extensions:?}");
        }
    }
}
