//! A client's side of TLS. What it measures is the server: any certificate is taken.

use std::{
    io::{self, Read as _, Write as _},
    sync::{Arc, LazyLock},
};

use broadgate_tls::{
    provider,
    rustls::{
        ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

/// Every handshake is a full one.
static CONFIG: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
});

pub(super) struct Tls(ClientConnection);

impl Tls {
    pub(super) fn new() -> io::Result<Self> {
        let config = CONFIG.as_ref().map_err(io::Error::other)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        Ok(Self(ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?))
    }

    /// Opens what was received; plaintext is appended. What must be sent is there to be taken.
    pub(super) fn open(&mut self, mut received: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        while !received.is_empty() {
            self.0.read_tls(&mut received)?;
            self.0.process_new_packets().map_err(io::Error::other)?;
            match self.0.reader().read_to_end(plain) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Seals something; until the handshake is over it waits.
    pub(super) fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(plain)
    }

    /// What must be sent.
    pub(super) fn take(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut bytes)?;
        }
        Ok(bytes)
    }
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
