//! A client's side of TLS. What it measures is the server: any certificate is taken.
//!
//! As in the gateway, rustls is used by its unbuffered API: what was received is opened in the thread's buffer.
//! With buffers of its own each connection would copy everything twice more, through memory that no cache
//! holds, and a part of what TLS seems to cost the server would be the load's.

use std::{
    io,
    sync::{Arc, LazyLock},
};

use broadgate_tls::{
    provider,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::{
            ClientConnectionData, Resumption, UnbufferedClientConnection,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        pki_types::{CertificateDer, ServerName, UnixTime},
        unbuffered::{
            ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
        },
    },
};

/// What a record has besides plaintext is less.
const RECORD_BYTES: usize = 256;

/// Every handshake is a full one.
static CONFIG: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
});

pub(super) struct Tls {
    connection: UnbufferedClientConnection,
    /// The record that has not come whole. rustls may have decrypted a part of it in place: it must not be
    /// replaced by what was received.
    partial: Vec<u8>,
    /// To be sealed when the handshake is over.
    unsealed: Vec<u8>,
}

impl Tls {
    pub(super) fn new() -> io::Result<Self> {
        let config = CONFIG.as_ref().map_err(io::Error::other)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection =
            UnbufferedClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Self { connection, partial: Vec::new(), unsealed: Vec::new() })
    }

    /// Prepares `buffer` for a read: the part where it should go.
    pub(super) fn room<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let (front, room) = buffer.split_at_mut(self.partial.len());
        front.copy_from_slice(&self.partial);
        room
    }

    /// Opens what was read into the room of `buffer`. Plaintext is appended, and so is what must be sent.
    pub(super) fn open(
        &mut self,
        buffer: &mut [u8],
        read: usize,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let received = &mut buffer[..self.partial.len() + read];
        self.partial = Vec::new();
        let used = self.go_on(received, &[], plain, out)?;
        self.partial = received[used..].to_vec();
        Ok(())
    }

    /// Seals something, which is appended to `out`; until the handshake is over it waits.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        // What has not come whole must be shown: rustls knows how much of it it has seen.
        let mut partial = std::mem::take(&mut self.partial);
        let done = self.go_on(&mut partial, plain, &mut Vec::new(), out);
        self.partial = partial;
        done.map(drop)
    }

    /// Does what can be done with what is here; how much of it was used.
    fn go_on(
        &mut self,
        received: &mut [u8],
        sealed: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut received[used..]);
            let is_done = match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    false
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(
                        out,
                        RECORD_BYTES,
                        |bytes| data.encode(bytes),
                        |error| match error {
                            EncodeError::InsufficientSize(size) => Some(*size),
                            EncodeError::AlreadyEncoded => None,
                        },
                    )?;
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    false
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    let unsealed = std::mem::take(&mut self.unsealed);
                    for plain in [&unsealed, sealed] {
                        encrypt(&mut traffic, plain, out)?;
                    }
                    true
                }
                ConnectionState::BlockedHandshake => {
                    self.unsealed.extend_from_slice(sealed);
                    true
                }
                // The end of the stream follows.
                ConnectionState::PeerClosed => false,
                ConnectionState::Closed => true,
                state => return Err(io::Error::other(format!("unexpected state {state:?}"))),
            };
            used += discard;
            if is_done {
                return Ok(used);
            }
        }
    }
}

fn encrypt(
    traffic: &mut WriteTraffic<'_, ClientConnectionData>,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    if plain.is_empty() {
        return Ok(());
    }
    append(
        out,
        plain.len() + RECORD_BYTES,
        |bytes| traffic.encrypt(plain, bytes),
        |error| match error {
            EncryptError::InsufficientSize(size) => Some(*size),
            EncryptError::EncryptExhausted => None,
        },
    )
}

/// Appends what `write` writes; it says how much room it needs if this is too little.
fn append<E: std::error::Error + Send + Sync + 'static>(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
    too_small: impl Fn(&E) -> Option<InsufficientSizeError>,
) -> io::Result<()> {
    let begin = out.len();
    out.resize(begin + room, 0);
    let written = match write(&mut out[begin..]) {
        Err(error) => match too_small(&error) {
            Some(size) => {
                out.resize(begin + size.required_size, 0);
                write(&mut out[begin..])
            }
            None => Err(error),
        },
        written => written,
    };
    let written = written.map_err(io::Error::other)?;
    out.truncate(begin + written);
    Ok(())
}
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use broadgate_tls::rustls::{
        ServerConfig, ServerConnection, SupportedProtocolVersion,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        version::{TLS12, TLS13},
    };

    use super::*;

    /// A server, a client, and what is under way between them.
    struct Network {
        server: ServerConnection,
        client: Tls,
        buffer: Vec<u8>,
        to_server: Vec<u8>,
        server_got: Vec<u8>,
        client_got: Vec<u8>,
    }

    impl Network {
        fn new(version: &'static SupportedProtocolVersion) -> Self {
            let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
            let config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![own.cert.der().clone()], key)
                .unwrap();
            let mut server = ServerConnection::new(Arc::new(config)).unwrap();
            server.set_buffer_limit(None);
            Self {
                server,
                client: Tls::new().unwrap(),
                buffer: vec![0; 64 * 1024],
                to_server: Vec::new(),
                server_got: Vec::new(),
                client_got: Vec::new(),
            }
        }

        /// The server reads everything; what it sends comes to the client in parts of so many bytes.
        fn pass(&mut self, cut: usize) {
            let mut sent = &self.to_server[..];
            while !sent.is_empty() {
                self.server.read_tls(&mut sent).unwrap();
                self.server.process_new_packets().unwrap();
            }
            self.to_server.clear();
            let _ = self.server.reader().read_to_end(&mut self.server_got);
            let mut to_client = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut to_client).unwrap();
            }
            for part in to_client.chunks(cut) {
                self.client.room(&mut self.buffer)[..part.len()].copy_from_slice(part);
                let Self { client, buffer, client_got, to_server, .. } = self;
                client.open(buffer, part.len(), client_got, to_server).unwrap();
            }
        }
    }

    #[test]
    fn what_comes_cut_anywhere_is_read_whole() {
        for version in [&TLS12, &TLS13] {
            for cut in [1, 3, 100, 1000, 40_000] {
                let mut net = Network::new(version);
                // As a request is: before the handshake.
                net.client.seal(b"first", &mut net.to_server).unwrap();
                while !net.to_server.is_empty() {
                    net.pass(cut);
                }
                assert_eq!(net.server_got, b"first", "{version:?} {cut}");
                let said: Vec<u8> =
                    (0..50_000_u32).map(|at| at.to_be_bytes()[2] ^ at.to_be_bytes()[3]).collect();
                net.server.writer().write_all(&said).unwrap();
                if version.version == TLS13.version {
                    net.server.refresh_traffic_keys().unwrap();
                }
                net.server.writer().write_all(b"last").unwrap();
                net.pass(cut);
                assert!(net.client_got == [&said[..], b"last"].concat(), "{version:?} {cut}");
                // Behind the answer to new keys.
                net.client.seal(b"second", &mut net.to_server).unwrap();
                net.pass(cut);
                assert_eq!(net.server_got, b"firstsecond", "{version:?} {cut}");
            }
        }
    }

    /// What has come of a record stays, whatever is sent meanwhile.
    #[test]
    fn half_a_record_outlives_what_is_sealed() {
        let mut net = Network::new(&TLS13);
        net.client.seal(b"first", &mut net.to_server).unwrap();
        while !net.to_server.is_empty() {
            net.pass(40_000);
        }
        net.server.writer().write_all(b"whole").unwrap();
        let mut record = Vec::new();
        net.server.write_tls(&mut record).unwrap();
        let Network { client, buffer, to_server, client_got, .. } = &mut net;
        for (at, byte) in record.iter().enumerate() {
            client.room(buffer)[0] = *byte;
            client.open(buffer, 1, client_got, to_server).unwrap();
            assert_eq!(client_got.is_empty(), at + 1 < record.len());
            client.seal(b".", to_server).unwrap();
        }
        assert_eq!(client_got, b"whole");
        net.pass(1);
        assert_eq!(net.server_got.len(), b"first".len() + record.len());
    }
}
