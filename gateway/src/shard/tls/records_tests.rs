//! A rustls client against the record layer, over a network that cuts what is sent anywhere.

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, OnceLock},
};

use broadgate_tls::provider;
use proptest::prelude::*;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring::Ticketer,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    version::{TLS12, TLS13},
};

use super::records::{OPEN_BYTES, Records, Sealed, WIRE_MAX};

/// A certificate of its own, and its key.
fn pair() -> &'static (CertificateDer<'static>, Vec<u8>) {
    static PAIR: OnceLock<(CertificateDer<'static>, Vec<u8>)> = OnceLock::new();
    PAIR.get_or_init(|| {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (own.cert.der().clone(), own.signing_key.serialize_der())
    })
}

pub(super) fn server() -> Arc<ServerConfig> {
    let (certificate, key) = pair();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.ticketer = Ticketer::new().unwrap();
    Arc::new(config)
}

pub(super) fn client(
    version: &'static SupportedProtocolVersion,
    fragment: Option<usize>,
) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(pair().0.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.max_fragment_size = fragment;
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    client.set_buffer_limit(None);
    client
}

/// Both ends, and what is under way between them.
struct Network {
    client: ClientConnection,
    server: Records,
    buffer: Vec<u8>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    server_got: Vec<u8>,
    client_got: Vec<u8>,
    error: Option<rustls::Error>,
}

impl Network {
    fn new(client: ClientConnection) -> Self {
        Self {
            client,
            server: Records::new(server()).unwrap(),
            buffer: vec![0; OPEN_BYTES],
            to_server: Vec::new(),
            to_client: Vec::new(),
            server_got: Vec::new(),
            client_got: Vec::new(),
            error: None,
        }
    }

    /// The server reads so much of what is under way.
    fn serve(&mut self, bytes: usize) {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.to_server).unwrap();
        }
        let bytes = bytes.min(self.to_server.len()).min(WIRE_MAX);
        if bytes == 0 {
            return;
        }
        let part: Vec<u8> = self.to_server.drain(..bytes).collect();
        self.server.room(&mut self.buffer)[..bytes].copy_from_slice(&part);
        let mut out = Sealed::default();
        match self.server.open(&mut self.buffer, bytes, &mut out) {
            Ok(opened) => self.server_got.extend_from_slice(&self.buffer[..opened.plain]),
            Err(error) => self.error = Some(error),
        }
        self.to_client.extend_from_slice(out.bytes());
    }

    fn receive(&mut self, bytes: usize) {
        let bytes = bytes.min(self.to_client.len());
        let part: Vec<u8> = self.to_client.drain(..bytes).collect();
        let mut part = &part[..];
        while !part.is_empty() {
            self.client.read_tls(&mut part).unwrap();
            if self.client.process_new_packets().is_err() {
                return;
            }
            let mut got = [0; 4096];
            while let Ok(count @ 1..) = self.client.reader().read(&mut got) {
                self.client_got.extend_from_slice(&got[..count]);
            }
        }
    }

    fn settle(&mut self) {
        while self.client.wants_write() || !self.to_server.is_empty() || !self.to_client.is_empty() {
            self.serve(WIRE_MAX);
            self.receive(WIRE_MAX);
            if self.error.is_some() {
                return;
            }
        }
    }

    fn seal(&mut self, plain: &[u8]) {
        let mut out = Sealed::default();
        self.server.seal(plain, &mut out).unwrap();
        self.to_client.extend_from_slice(out.bytes());
    }
}

#[derive(Debug, Clone)]
enum Step {
    ClientSends(usize),
    ServerSends(usize),
    KeyUpdate,
    ServerReads(usize),
    ClientReads(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let cut = prop_oneof![1..40usize, 1..40_000usize];
    let size = prop_oneof![1..200usize, 1..40_000usize];
    prop_oneof![
        size.clone().prop_map(Step::ClientSends),
        size.prop_map(Step::ServerSends),
        Just(Step::KeyUpdate),
        cut.clone().prop_map(Step::ServerReads),
        cut.prop_map(Step::ClientReads),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn plaintext_arrives_in_order_however_records_are_cut(
        is_old in any::<bool>(),
        fragment in prop_oneof![Just(None), (32..200usize).prop_map(Some)],
        cuts in 1..700usize,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let version = if is_old { &TLS12 } else { &TLS13 };
        let mut net = Network::new(client(version, fragment));
        while net.client.is_handshaking() || net.server.is_handshaking() {
            net.serve(cuts);
            net.receive(cuts);
            prop_assert!(net.error.is_none(), "{:?}", net.error);
        }
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut updates = 0;
        for (number, step) in steps.into_iter().enumerate() {
            let bytes = |size: usize| (0..size).map(|at| (at + number) as u8).collect::<Vec<_>>();
            match step {
                Step::ClientSends(size) => {
                    net.client.writer().write_all(&bytes(size)).unwrap();
                    to_server.extend(bytes(size));
                }
                Step::ServerSends(size) => {
                    // As the shard does: a record at a time.
                    for piece in bytes(size).chunks(16 * 1024) {
                        net.seal(piece);
                    }
                    to_client.extend(bytes(size));
                }
                Step::KeyUpdate if !is_old && updates < 20 => {
                    updates += 1;
                    net.client.refresh_traffic_keys().unwrap();
                }
                Step::KeyUpdate => {}
                Step::ServerReads(cut) => net.serve(cut),
                Step::ClientReads(cut) => net.receive(cut),
            }
            prop_assert!(net.error.is_none(), "{:?}", net.error);
        }
        net.settle();
        prop_assert!(net.error.is_none(), "{:?}", net.error);
        prop_assert!(net.server_got == to_server, "{} of {}", net.server_got.len(), to_server.len());
        prop_assert!(net.client_got == to_client, "{} of {}", net.client_got.len(), to_client.len());
        // Both say that they are done.
        net.client.send_close_notify();
        net.settle();
        prop_assert!(net.server.is_ended());
        let mut out = Sealed::default();
        net.server.close(&mut out).unwrap();
        net.to_client.extend_from_slice(out.bytes());
        net.settle();
        prop_assert!(matches!(net.client.reader().read(&mut [0]), Ok(0)));
    }

    #[test]
    fn whatever_is_sent_is_refused_without_a_panic(
        is_begun in any::<bool>(),
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..5),
        at in 0..300usize,
    ) {
        let mut net = Network::new(client(&TLS13, None));
        if is_begun {
            // What is in the middle of a good handshake.
            net.serve(at);
        }
        net.to_server = parts.concat();
        while !net.to_server.is_empty() && net.error.is_none() {
            net.serve(100);
        }
        prop_assert!(net.server_got.is_empty());
        prop_assert!(net.server.is_handshaking());
    }
}

#[test]
fn a_record_that_was_changed_is_refused_with_an_alert() {
    let mut net = Network::new(client(&TLS13, None));
    while net.client.is_handshaking() || net.server.is_handshaking() {
        net.settle();
    }
    net.client.writer().write_all(b"hello").unwrap();
    net.client.write_tls(&mut net.to_server).unwrap();
    *net.to_server.last_mut().unwrap() ^= 1;
    net.serve(WIRE_MAX);
    assert!(matches!(net.error, Some(rustls::Error::DecryptError)), "{:?}", net.error);
    net.client.read_tls(&mut &net.to_client[..]).unwrap();
    let told = net.client.process_new_packets().unwrap_err();
    assert!(matches!(told, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)), "{told:?}");
}

/// The client's handshake messages may not grow without bound.
#[test]
fn a_handshake_message_without_an_end_is_refused() {
    let mut net = Network::new(client(&TLS13, None));
    // A client hello of 60,000 bytes, in records of 1,000.
    let mut record = vec![22, 3, 1, 3, 232];
    record.extend([1, 0, 234, 96]);
    record.extend([0; 996]);
    net.to_server.extend(&record);
    let next = [&[22, 3, 1, 3, 232][..], &[0; 1000]].concat();
    for _ in 0..30 {
        net.to_server.extend(&next);
    }
    while !net.to_server.is_empty() && net.error.is_none() {
        net.serve(3000);
    }
    assert!(net.error.is_some());
}
