//! Clients that come by TLS.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use broadgate_tls::{
    client_config, provider,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        version::{TLS12, TLS13},
    },
    tokio_rustls::{TlsConnector, client::TlsStream},
};
use data_encoding::BASE64;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::harness::*;

/// Certificates of one test, which are their own CAs.
struct Certificates(PathBuf);

impl Certificates {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("broadgate-tls-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Makes a pair for a name, under a name of files.
    fn make(&self, files: &str, name: &str) -> String {
        let own = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(self.path(files, "pem"), pem("CERTIFICATE", own.cert.der())).unwrap();
        std::fs::write(self.path(files, "key"), pem("PRIVATE KEY", &own.signing_key.serialize_der()))
            .unwrap();
        self.toml(files)
    }

    fn path(&self, files: &str, ending: &str) -> PathBuf {
        self.0.join(format!("{files}.{ending}"))
    }

    fn toml(&self, files: &str) -> String {
        format!("{{ cert = {:?}, key = {:?} }}", self.path(files, "pem"), self.path(files, "key"))
    }

    fn der(&self, files: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(files, "pem")).unwrap()
    }
}

fn pem(what: &str, der: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", BASE64.encode(der))
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn trusting(certificates: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).unwrap();
    }
    Arc::new(client_config(roots, None).unwrap())
}

fn of_version(
    certificate: CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn connect(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    soon("the TLS handshake", TlsConnector::from(Arc::clone(config)).connect(name, stream)).await
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn websocket(address: SocketAddr, path: &str, name: &str, config: &Arc<ClientConfig>) -> Socket {
    let stream = connect(address, name, config).await.unwrap();
    let url = format!("wss://{name}{path}");
    soon("the WebSocket handshake", client_async(url, stream)).await.unwrap().0
}

async fn hear(socket: &mut Socket) -> Message {
    loop {
        match soon("a message comes", socket.next()).await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return message,
            other => panic!("the connection ended: {other:?}"),
        }
    }
}

async fn metrics(cluster: &Cluster) -> SocketAddr {
    cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap()
}

/// The certificate that is shown to a client that asks for a name.
async fn shown(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let stream = connect(address, name, config).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn scrape(address: SocketAddr) -> String {
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    String::from_utf8(crate::malformed_input::answer(address, request, false).await).unwrap()
}

#[tokio::test]
async fn clients_of_every_kind_come_by_tls() {
    let certificates = Certificates::new("kinds");
    let (first, second) = (certificates.make("first", "a.test"), certificates.make("second", "b.test"));
    let (text, frame) = (free_address(), free_address());
    let cluster = Cluster::quiet(1)
        .listener(&format!("tls = [{first}, {second}]"))
        .more(&format!(
            "[[gateway.listeners]]\nname = \"text\"\nkind = \"text\"\nbind = \"{text}\"\nservice = \"\"\n\
             tls = [{first}]\n\
             [[gateway.listeners]]\nname = \"frame\"\nkind = \"frame\"\nbind = \"{frame}\"\nservice = \"\"\n\
             tls = [{first}]\n\
             [[apps]]\nid = \"1\"\nkeys = [{{ key = \"k\", secret = \"a-secret-of-an-app\" }}]\n\
             tls_only = true\n[metrics]\nbind = \"127.0.0.1:0\"\n"
        ))
        .start()
        .await;
    let address = cluster.web(0);
    let metrics = metrics(&cluster).await;
    let (a, b) = (certificates.der("first"), certificates.der("second"));
    let both = trusting(&[a.clone(), b.clone()]);
    // The certificate is chosen by name.
    assert!(shown(address, "a.test", &both).await == a);
    assert!(shown(address, "b.test", &both).await == b);
    let wrong = connect(address, "c.test", &both).await.unwrap_err();
    assert!(wrong.to_string().contains("a.test"), "the first is for all others: {wrong}");

    let mut old = websocket(address, "/ws", "a.test", &of_version(a.clone(), &TLS12)).await;
    let mut new = websocket(address, "/ws", "a.test", &of_version(a.clone(), &TLS13)).await;
    let mut lines = connect(text, "a.test", &both).await.unwrap();
    let mut frames = connect(frame, "a.test", &both).await.unwrap();
    clients(&cluster, 4).await;
    // Of one record, and of many.
    for size in [5, 300_000] {
        let content = "x".repeat(size);
        cluster.caller(0).await.send(text_to_all(&content)).await.unwrap();
        for socket in [&mut old, &mut new] {
            assert!(hear(socket).await == Message::text(content.clone()));
        }
        let mut line = vec![0; size + 1];
        soon("the line", lines.read_exact(&mut line)).await.unwrap();
        assert!(line.ends_with(b"x\n"));
        let mut got = vec![0; size + 4];
        soon("the frame", frames.read_exact(&mut got)).await.unwrap();
        assert!(got[..4] == u32::try_from(size + 4).unwrap().to_be_bytes());
    }
    // It is TLS for apps that insist on it.
    let mut pusher = websocket(address, "/app/k?protocol=7", "a.test", &both).await;
    let greeting = hear(&mut pusher).await.to_string();
    assert!(greeting.contains("connection_established"), "{greeting}");
    // A close is announced at both levels.
    new.close(None).await.unwrap();
    while let Some(Ok(_)) = soon("the close", new.next()).await {}
    lines.shutdown().await.unwrap();
    assert_eq!(soon("the end", lines.read(&mut [0; 9])).await.unwrap(), 0, "with a close_notify");

    // What does not speak TLS is refused in its own protocol, and counted.
    let plain = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = crate::malformed_input::answer(address, plain, false).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("wss://"), "{answer}");
    let mut garbage = TcpStream::connect(address).await.unwrap();
    garbage.write_all(&[22, 3, 1, 0, 5, 9, 9, 9, 9, 9]).await.unwrap();
    let _ = soon("the end", garbage.read_to_end(&mut Vec::new())).await;
    drop(connect(address, "a.test", &trusting(&[])).await.unwrap_err());
    until("the failures are counted", async || {
        let text = scrape(metrics).await;
        let has = |reason: &str| {
            text.contains(&format!("broadgate_gateway_tls_failures_total{{reason=\"{reason}\"}}"))
        };
        (has("plain") && has("malformed") && has("certificate_refused")).then_some(())
    })
    .await;
    let text = scrape(metrics).await;
    assert!(text.contains("broadgate_gateway_tls_handshakes_total{version=\"1.2\"} 1"), "{text}");
}

/// What `openssl s_client` says of a listener, and whether its handshake succeeded.
fn s_client(address: SocketAddr, args: &[&str]) -> (bool, String) {
    let output = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-brief", "-showcerts"])
        .args(args)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Another implementation than the gateway's own: versions, the whole chain, names and ALPN.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_finds_the_versions_the_chain_and_the_names() {
    if !has_program("openssl") {
        return;
    }
    let certificates = Certificates::new("openssl");
    let dir = certificates.0.display().to_string();
    crate::harness::certs(&["ca", "--dir", &dir]);
    crate::harness::certs(&["listener", "a", "--host", "a.test", "--dir", &dir]);
    let other = certificates.make("b", "b.test");
    // A chain: the CA's own certificate follows.
    let (leaf, ca) = (certificates.path("a", "pem"), certificates.path("ca", "pem"));
    let chain = std::fs::read_to_string(&leaf).unwrap() + &std::fs::read_to_string(&ca).unwrap();
    std::fs::write(&leaf, chain).unwrap();
    let cluster = Cluster::quiet(1)
        .listener(&format!("tls = [{}, {other}]", certificates.toml("a")))
        .more("[metrics]\nbind = \"127.0.0.1:0\"")
        .start()
        .await;
    let (address, ca) = (cluster.web(0), ca.display().to_string());
    let a = ["-CAfile", &ca, "-verify_return_error", "-servername", "a.test", "-verify_hostname", "a.test"];
    for (version, said) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let (succeeds, text) = s_client(address, &[&a[..], &[version]].concat());
        assert!(succeeds && text.contains(said) && text.contains("Verification: OK"), "{version}: {text}");
    }
    for version in ["-tls1", "-tls1_1"] {
        // At a security level at which OpenSSL itself would still speak it.
        let (succeeds, text) =
            s_client(address, &[&a[..], &[version, "-cipher", "DEFAULT@SECLEVEL=0"]].concat());
        assert!(!succeeds, "{version}: {text}");
    }
    let whole = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-showcerts", "-alpn", "h2,http/1.1"])
        .args(a)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let whole = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert_eq!(whole.matches("BEGIN CERTIFICATE").count(), 2, "{whole}");
    assert!(whole.contains("ALPN protocol: http/1.1"), "{whole}");
    // By its name the other certificate is shown, which the CA has not signed; nobody's name gets the first.
    let by_name = |name| s_client(address, &["-CAfile", &ca, "-servername", name]).1;
    assert!(by_name("b.test").contains("Verification error"), "{}", by_name("b.test"));
    assert!(by_name("nobody.test").contains("Verification: OK"), "{}", by_name("nobody.test"));
    // A client that does not know the CA.
    let (succeeds, text) = s_client(address, &["-verify_return_error", "-servername", "a.test"]);
    assert!(!succeeds, "{text}");
    let metrics = metrics(&cluster).await;
    until("the failures are counted", async || {
        let text = scrape(metrics).await;
        let has = |reason: &str| {
            text.contains(&format!("broadgate_gateway_tls_failures_total{{reason=\"{reason}\"}}"))
        };
        (has("version") && has("certificate_refused")).then_some(())
    })
    .await;
}

async fn clients(cluster: &Cluster, count: u64) {
    until("the clients are counted", async || (cluster.count(0).await == count).then_some(())).await;
}

fn text_to_all(content: &str) -> broadgate_proto::v1::SendRequest {
    text(all(), content)
}

/// A balancer says in clear who the client is; then the client's own TLS follows.
#[tokio::test]
async fn proxy_header_comes_before_tls() {
    let certificates = Certificates::new("proxy");
    let pair = certificates.make("pair", "a.test");
    let cluster = Cluster::quiet(1)
        .listener("proxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .listener(&format!("tls = [{pair}]"))
        .start()
        .await;
    let config = trusting(&[certificates.der("pair")]);
    let mut stream = TcpStream::connect(cluster.web(0)).await.unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 50123 443\r\n").await.unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let stream = soon("the TLS handshake", TlsConnector::from(config).connect(name, stream)).await.unwrap();
    let (mut socket, _) =
        soon("the WebSocket handshake", client_async("wss://a.test/ws", stream)).await.unwrap();
    clients(&cluster, 1).await;
    cluster.caller(0).await.send(text_to_all("hello")).await.unwrap();
    assert!(hear(&mut socket).await == Message::text("hello"));
    let request = broadgate_proto::v1::ListClientsRequest {
        of: Some(all()),
        fields: vec![broadgate_proto::v1::ClientField::Connection.into()],
        ..Default::default()
    };
    let listed = cluster.caller(0).await.list_clients(request).await.unwrap().into_inner();
    let addresses: Vec<&str> = listed.clients.iter().map(|client| &*client.address).collect();
    assert_eq!(addresses, ["192.0.2.7:50123"]);
}

/// Handshakes take the new certificate, a bad one changes nothing, and no connection ends.
#[tokio::test]
async fn certificates_are_replaced_under_a_thousand_clients() {
    const CLIENTS: usize = 1000;
    let certificates = Certificates::new("reload");
    let pair = certificates.make("pair", "a.test");
    let cluster = Cluster::quiet(1)
        .listener(&format!("tls = [{pair}]"))
        .more("[metrics]\nbind = \"127.0.0.1:0\"")
        .start()
        .await;
    let address = cluster.web(0);
    let metrics = metrics(&cluster).await;
    let former = certificates.der("pair");
    let trusts_former = trusting(std::slice::from_ref(&former));
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        sockets.push(websocket(address, "/ws", "a.test", &trusts_former).await);
    }
    clients(&cluster, CLIENTS as u64).await;

    certificates.make("pair", "a.test");
    let current = certificates.der("pair");
    let trusts_both = trusting(&[former.clone(), current.clone()]);
    until("the new certificate is shown", async || {
        (shown(address, "a.test", &trusts_both).await == current).then_some(())
    })
    .await;
    // A key that is not its own.
    certificates.make("other", "a.test");
    std::fs::copy(certificates.path("other", "key"), certificates.path("pair", "key")).unwrap();
    until("the bad pair is reported", async || {
        let failed = "broadgate_tls_reload_failures_total{role=\"clients\"} 1";
        scrape(metrics).await.contains(failed).then_some(())
    })
    .await;
    let text = scrape(metrics).await;
    assert!(text.contains("broadgate_tls_stale{role=\"clients\"} 1"), "{text}");
    assert!(text.contains("broadgate_tls_certificate_expires_seconds{role=\"clients\""), "{text}");
    assert!(shown(address, "a.test", &trusts_both).await == current);
    // SIGHUP reads the files at once.
    cluster.gateways[0].signal("HUP");
    until("it has been read again", async || {
        let failed = "broadgate_tls_reload_failures_total{role=\"clients\"} 2";
        scrape(metrics).await.contains(failed).then_some(())
    })
    .await;

    cluster.caller(0).await.send(text_to_all("still here")).await.unwrap();
    for socket in &mut sockets {
        assert!(hear(socket).await == Message::text("still here"));
        socket.send(Message::Ping("p".into())).await.unwrap();
        assert!(matches!(soon("the pong", socket.next()).await, Some(Ok(Message::Pong(_)))));
    }
}

/// A gateway that could not show its certificate does not start: one sentence names the file.
#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_at_the_start() {
    let certificates = Certificates::new("bad");
    certificates.make("good", "a.test");
    certificates.make("other", "a.test");
    let (cert, key) = (certificates.path("good", "pem"), certificates.path("good", "key"));
    let missing = Path::new("/nowhere/x.pem").to_owned();
    for (cert, key, words) in [
        (&missing, &key, "/nowhere/x.pem"),
        (&cert, &certificates.path("other", "key"), "other.key"),
        (&cert, &cert, "good.pem"),
    ] {
        let config = certificates.0.join("config.toml");
        let toml = format!(
            "[[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"127.0.0.1:0\"\n\
             [[gateway.listeners.tls]]\ncert = {cert:?}\nkey = {key:?}\n"
        );
        std::fs::write(&config, toml).unwrap();
        let config = config.display().to_string();
        for args in [&["check-config", &config][..], &["gateway", "--config", &config]] {
            let done =
                std::process::Command::new(env!("CARGO_BIN_EXE_broadgate")).args(args).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(2), "{said}");
            assert!(said.contains(words) && said.contains("gateway.listeners[0] (web): tls[0]"), "{said}");
        }
    }
}
