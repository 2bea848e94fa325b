//! Mutual TLS inside a cluster: everything works over it, nothing works without it, and every refusal has one
//! sentence on both sides.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use broadgate_business::cluster::{Audience as To, Cluster as Sdk, ClusterConfig};
use broadgate_tls::{
    FileReads, PairFiles, client_config, load_pair, load_roots,
    rustls::pki_types::ServerName,
    tokio_rustls::{TlsAcceptor, TlsConnector},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::harness::*;

const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub const DAY: Duration = Duration::from_secs(86_400);

/// A command with these files in the place of the cluster's.
pub fn run_with(cluster: &Cluster, files: &[(&str, PathBuf)], args: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"));
    command.args(args).env_remove("BROADGATE_SECRET").stdin(std::process::Stdio::null());
    for (flag, path) in files {
        command.arg(format!("--tls-{flag}={}", path.display()));
    }
    let output = command.env("BROADGATE_ADDR", &cluster.internal[0]).output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

pub fn files(dir: &Path, ca: &str, pair: &str) -> [(&'static str, PathBuf); 3] {
    [
        ("ca", dir.join(ca)),
        ("cert", dir.join(format!("{pair}.pem"))),
        ("key", dir.join(format!("{pair}.key"))),
    ]
}

pub fn certs_dir(cluster: &Cluster) -> PathBuf {
    cluster.tls.as_ref().unwrap().dir.clone()
}

/// What a port answers to these bytes.
async fn answer(address: &str, question: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(question).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the port closes", stream.read_to_end(&mut answer)).await;
    answer
}

/// Waits until the log of a process has all of these.
pub async fn logs(process: &Process, words: &[&str]) {
    until(&format!("{} logs {words:?}", process.name), async || {
        let log = process.log();
        words.iter().all(|words| log.contains(words)).then_some(())
    })
    .await;
}

fn echo(cluster: &Cluster) -> Process {
    let register = format!("--register={}", cluster.register_address);
    Process::start(
        &cluster.dir,
        "echo",
        &["worker", "echo", &register, "--name=echo"],
        &cluster.environment(),
    )
}

/// Clients, a worker, a program and every command, without a shared secret: certificates suffice.
#[tokio::test]
async fn cluster_does_over_tls_all_that_it_does_without() {
    let cluster = Cluster::of(2).tls().start().await;
    let _worker = echo(&cluster);
    let mut client = cluster.client(0).await;
    client.say("hello").await;
    client.hears(&["hello"]).await;
    let config = ClusterConfig {
        registers: vec![cluster.register_address.clone()],
        tls: cluster.credentials().tls,
        ..ClusterConfig::default()
    };
    let sdk = Sdk::connect(config).await.unwrap();
    sdk.join(broadgate_business::Who::client(&client.id), ["lobby"]).await.unwrap();
    assert_eq!(sdk.send(To::group("lobby"), "by the program").await.unwrap().clients, 1);
    client.hears(&["by the program"]).await;
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["clients"],
        &["client", &client.id],
        &["groups"],
        &["uids"],
        &["roster", "lobby"],
        &["send", "--group", "lobby", "by a command"],
    ] {
        let (code, out, err) = cluster.run(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
    }
    client.hears(&["by a command"]).await;
    // JSON by HTTPS.
    let dir = certs_dir(&cluster);
    let pair = load_pair(
        &PairFiles { cert: dir.join("test.pem"), key: dir.join("test.key") },
        &mut FileReads::default(),
    );
    let roots = load_roots(&dir.join("ca.pem"), &mut FileReads::default()).unwrap();
    let mut https = client_config(roots, Some(&pair.unwrap())).unwrap();
    https.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(&cluster.internal[1]).await.unwrap();
    let name = ServerName::try_from("broadgate").unwrap();
    let mut stream = TlsConnector::from(Arc::new(https)).connect(name, stream).await.unwrap();
    let call = b"POST /v1/Count HTTP/1.1\r\nHost: any.name\r\nContent-Type: application/json\r\n\
                 Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    stream.write_all(call).await.unwrap();
    let mut text = String::new();
    soon("JSON is answered", stream.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"clients\""), "{text}");
    // Orders that end something, at last.
    assert_eq!(cluster.run(&["kick", "--client", &client.id]).0, 0);
    let (code, out, err) = cluster.run(&["drain", "gateway-2", "--wait"]);
    assert!(code == 0 && out.contains("has left"), "{code} {out}{err}");
}

/// Who speaks without TLS reads so in its own protocol, and the port's log says the same.
#[tokio::test]
async fn nothing_plain_is_served() {
    let cluster = Cluster::quiet(1).tls().start().await;
    let ports = [
        (&cluster.gateways[0], &cluster.internal[0]),
        (cluster.register.as_ref().unwrap(), &cluster.register_address),
    ];
    for (process, address) in ports {
        for request in [
            &b"POST /v1/Count HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n{}"[..],
            b"GET /metrics HTTP/1.1\r\n\r\n",
        ] {
            let text = String::from_utf8(answer(address, request).await).unwrap();
            assert!(text.starts_with("HTTP/1.1 400") && text.contains("this port speaks TLS only"), "{text}");
        }
        for other in [HTTP2, b"\0\0\0\0\0\0", b"what is this"] {
            assert_eq!(answer(address, other).await, [0x15, 3, 3, 0, 2, 2, 70], "{other:?}");
        }
        logs(process, &["reason=\"tls_plain\" why=\"it speaks without TLS, and this port speaks TLS"]).await;
    }
    // Looking whether something listens is no trouble.
    drop(TcpStream::connect(&cluster.internal[0]).await.unwrap());
    let (code, err) = run_with(&cluster, &[], &["status"]);
    assert!(code == 5 && err.contains("requires TLS, and this process has no [cluster.tls]"), "{code} {err}");
    let member = ["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0"];
    let register = format!("--register={}", cluster.register_address);
    let plain = Process::start(&cluster.dir, "plain", &[&member[..], &[&register]].concat(), &[]);
    logs(&plain, &["requires TLS, and this process has no [cluster.tls]"]).await;
}

/// And the other way round.
#[tokio::test]
async fn member_with_tls_and_cluster_without_say_so() {
    let cluster = Cluster::quiet(1).start().await;
    let dir = cluster.dir.join("certs");
    certs(&["ca", "--dir", &dir.display().to_string()]);
    certs(&["pair", "node", "--dir", &dir.display().to_string()]);
    let sentence = "speaks gRPC without TLS, and this process has [cluster.tls]";
    let own = files(&dir, "ca.pem", "node");
    let (code, err) = run_with(&cluster, &own, &["status"]);
    assert!(code == 5 && err.contains(sentence), "{code} {err}");
    let flags = own.map(|(flag, path)| format!("--tls-{flag}={}", path.display()));
    let register = format!("--register={}", cluster.register_address);
    let mut member = vec!["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0", &register];
    member.extend(flags.iter().map(String::as_str));
    let secured = Process::start(&cluster.dir, "secured", &member, &[]);
    logs(&secured, &[sentence]).await;
    let there = "reason=\"tls_not_here\" why=\"it speaks TLS, and this process has no [cluster.tls]";
    for process in [&cluster.gateways[0], cluster.register.as_ref().unwrap()] {
        logs(process, &[there]).await;
    }
}

/// A CA of this test, and what it has signed with days from now until when.
pub struct Ca(pub CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        // webpki finds an issuer by its name.
        let name = format!("a test's CA {:016x}", getrandom::u64().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pair(&self, dir: &Path, name: &str, of: &str, expired: bool) -> PairFiles {
        self.signed(dir, name, CertificateParams::new(vec![of.to_owned()]).unwrap(), expired)
    }

    /// With a certificate that only a server may show.
    pub fn pair_of_a_server(&self, dir: &Path, name: &str) -> PairFiles {
        let mut params = CertificateParams::new(vec!["broadgate".to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        self.signed(dir, name, params, false)
    }

    fn signed(&self, dir: &Path, name: &str, mut params: CertificateParams, expired: bool) -> PairFiles {
        let now = SystemTime::now();
        params.not_before = (now - 9 * DAY).into();
        params.not_after = (if expired { now - DAY } else { now + DAY }).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let files = PairFiles { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) };
        std::fs::write(&files.cert, pem("CERTIFICATE", certificate.der())).unwrap();
        std::fs::write(&files.key, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        std::fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        files
    }
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// One sentence of one side.
#[track_caller]
pub fn says(place: &str, text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "{place} does not say {words:?}: {text}");
    }
}

/// Certificates of another CA are refused with one sentence by both sides.
#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_another_ca_has_a_sentence_on_both_sides() {
    let cluster = Cluster::quiet(1).tls().start().await;
    let (dir, strange) = (certs_dir(&cluster), cluster.dir.join("strange"));
    certs(&["ca", "--dir", &strange.display().to_string()]);
    certs(&["pair", "node", "--dir", &strange.display().to_string()]);
    let gateway = &cluster.gateways[0];

    // Of another CA, on both sides.
    let (code, err) = run_with(&cluster, &files(&strange, "ca.pem", "node"), &["status"]);
    assert_eq!((code, err.lines().count()), (5, 1), "{err}");
    says("the command", &err, &[&cluster.internal[0], "a CA that is not in this process's cluster.tls.ca"]);
    logs(gateway, &["tls_refused_by_peer", "its CA is not in the other's cluster.tls.ca"]).await;

    // A CA that this cluster does not trust, in a program that trusts the cluster's.
    let both = std::fs::read_to_string(dir.join("ca.pem")).unwrap()
        + &std::fs::read_to_string(strange.join("ca.pem")).unwrap();
    std::fs::write(strange.join("both.pem"), both).unwrap();
    let (code, err) = run_with(&cluster, &files(&strange, "both.pem", "node"), &["status"]);
    assert_eq!((code, err.lines().count()), (5, 1), "{err}");
    says(
        "the command",
        &err,
        &["refuses this process's certificate", "is not in the other's cluster.tls.ca"],
    );
    logs(gateway, &["tls_unknown_ca", "shows a certificate of a CA that is not in"]).await;
    let member = ["worker", "echo", &format!("--register={}", cluster.register_address)];
    let flags =
        files(&strange, "both.pem", "node").map(|(flag, path)| format!("--tls-{flag}={}", path.display()));
    let args: Vec<&str> = member.into_iter().chain(flags.iter().map(String::as_str)).collect();
    let worker = Process::start(&cluster.dir, "strange", &args, &[]);
    logs(&worker, &["its CA is not in the other's cluster.tls.ca"]).await;
    let config = ClusterConfig {
        registers: vec![cluster.register_address.clone()],
        tls: Some(
            broadgate_tls::ClusterTls::open(broadgate_tls::ClusterFiles {
                ca: strange.join("both.pem"),
                pair: PairFiles { cert: strange.join("node.pem"), key: strange.join("node.key") },
                server_name: "broadgate".to_owned(),
            })
            .unwrap(),
        ),
        timeout: Duration::from_secs(3),
        ..ClusterConfig::default()
    };
    let error = Sdk::connect(config).await.unwrap_err().to_string();
    says("the program", &error, &["named a gateway", "is not in the other's cluster.tls.ca"]);
}

/// No certificate, an expired one, and one for another name.
#[tokio::test(flavor = "multi_thread")]
async fn missing_expired_and_misnamed_certificates_have_a_sentence_on_both_sides() {
    let cluster = Cluster::quiet(1).tls().start().await;
    let (dir, gateway) = (certs_dir(&cluster), &cluster.gateways[0]);
    // None, and one that has expired: no process of ours would show it.
    let ca = Ca::new();
    let trusted = std::fs::read_to_string(dir.join("ca.pem")).unwrap() + &pem("CERTIFICATE", ca.0.der());
    std::fs::write(dir.join("ca.pem"), trusted).unwrap();
    cluster.gateways[0].signal("HUP");
    logs(gateway, &["certificates read again"]).await;
    let expired = load_pair(&ca.pair(&dir, "expired", "broadgate", true), &mut FileReads::default()).unwrap();
    let roots = load_roots(&dir.join("ca.pem"), &mut FileReads::default()).unwrap();
    for (pair, reason, words) in [
        (None, "tls_no_certificate", "shows no certificate: give it cluster.tls.cert"),
        (Some(&expired), "tls_expired", "shows a certificate that expired at"),
    ] {
        let connector = TlsConnector::from(Arc::new(client_config(roots.clone(), pair).unwrap()));
        let stream = TcpStream::connect(&cluster.internal[0]).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("broadgate").unwrap(), stream).await.unwrap();
        let refused = soon("the gateway refuses", stream.read_u8()).await.unwrap_err();
        assert!(refused.to_string().contains("alert"), "{refused}");
        logs(gateway, &[reason, words]).await;
    }

    // A server with such ones.
    for (name, of, is_expired, words) in [
        (
            "late",
            "broadgate",
            true,
            &["shows a certificate that expired at", "renew it, or set the clock"][..],
        ),
        ("other", "other", false, &["shows a certificate for", "other", "not for \"broadgate\""]),
    ] {
        let server =
            serve_with(&load_pair(&ca.pair(&dir, name, of, is_expired), &mut FileReads::default()).unwrap())
                .await;
        let own = files(&dir, "ca.pem", "test");
        let (code, err) = run_with(&cluster, &own, &["status", "--addr", &server.to_string()]);
        assert_eq!((code, err.lines().count()), (5, 1), "{err}");
        says("the command", &err, words);
    }
}

/// Something that shows this certificate.
pub async fn serve_with(pair: &broadgate_tls::Pair) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = broadgate_tls::rustls::ServerConfig::builder_with_provider(broadgate_tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pair.key.cert.clone(), load_key(&pair.files.key))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    address
}

fn load_key(path: &Path) -> broadgate_tls::rustls::pki_types::PrivateKeyDer<'static> {
    broadgate_tls::load_key(path, &mut FileReads::default()).unwrap()
}

/// What cannot be used ends a start, with exit code 2 and one sentence that names file and setting.
#[tokio::test]
async fn unusable_certificates_end_a_start_with_one_sentence() {
    let dir = std::env::temp_dir().join(format!("broadgate-tls-start-{}", std::process::id()));
    let folder = dir.display().to_string();
    let made = certs(&["ca", "--dir", &folder]);
    assert!(made.contains("broadgate certs pair NAME"), "{made}");
    let made = certs(&["pair", "node", "--dir", &folder]);
    assert!(made.contains("[cluster.tls]") && made.contains("node.pem"), "{made}");
    certs(&["pair", "named", "--server-name=other", "--dir", &folder]);
    certs(&["listener", "web", "--host=chat.example", "--dir", &folder]);
    let other = dir.join("other").display().to_string();
    certs(&["ca", "--dir", &other]);
    certs(&["pair", "foreign", "--dir", &other]);
    let path = |name: &str| dir.join(name).display().to_string();
    std::fs::write(
        path("encrypted.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path("encrypted.key"), private).unwrap();
    std::fs::write(path("empty.pem"), "").unwrap();
    let ca = Ca::new();
    ca.pair(&dir, "expired", "broadgate", true);
    std::fs::write(path("test-ca.pem"), pem("CERTIFICATE", ca.0.der())).unwrap();
    let cases = [
        ("ca.pem", "", "", &["needs all of ca, cert and key", "cluster.tls.cert and cluster.tls.key"][..]),
        ("none.pem", "node.pem", "node.key", &["cluster.tls", "none.pem cannot be read"]),
        ("empty.pem", "node.pem", "node.key", &["cluster.tls", "empty.pem is empty"]),
        ("ca.pem", "node.key", "node.key", &["node.key holds no certificate"]),
        ("ca.pem", "node.pem", "ca.key", &["ca.key does not belong to certificate file", "node.pem"]),
        ("ca.pem", "node.pem", "encrypted.key", &["encrypted.key is encrypted", "openssl pkey"]),
        (
            "ca.pem",
            "named.pem",
            "named.key",
            &["named.pem is for other, and not for \"broadgate\"", "cluster.tls.server_name"],
        ),
        ("ca.pem", "web.pem", "web.key", &["web.pem is for chat.example"]),
        (
            "ca.pem",
            "other/foreign.pem",
            "other/foreign.key",
            &["foreign.pem is not signed by a CA in", "ca.pem"],
        ),
        (
            "test-ca.pem",
            "expired.pem",
            "expired.key",
            &["expired.pem expired at", "renew it, or set the clock"],
        ),
    ];
    for (ca, cert, key, words) in cases {
        let mut toml = "[cluster.tls]\n".to_owned();
        for (name, file) in [("ca", ca), ("cert", cert), ("key", key)] {
            if !file.is_empty() {
                toml += &format!("{name} = {:?}\n", path(file));
            }
        }
        let config = path("broadgate.toml");
        std::fs::write(&config, toml).unwrap();
        for args in [
            &["register", "--bind=127.0.0.1:0", "--config", &config][..],
            &["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0", "--config", &config],
            &["worker", "echo", "--config", &config],
            &["status", "--config", &config],
            &["check-config", &config],
        ] {
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"))
                .args(args)
                .env_remove("BROADGATE_SECRET")
                .output()
                .unwrap();
            let err = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), err.lines().count()), (Some(2), 1), "{args:?}: {err}");
            assert!(words.iter().all(|words| err.contains(words)), "{args:?} does not say {words:?}: {err}");
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Certificates say who calls, so a port with them may be reached from other hosts; without them and without a
/// secret it may not.
#[tokio::test]
async fn port_with_tls_may_listen_beyond_loopback() {
    let cluster = Cluster::quiet(0).tls().start().await;
    let args = ["register", "--bind=0.0.0.0:0"];
    let open = Process::start(&cluster.dir, "open", &args, &cluster.environment());
    let address = open.logged("register address=").await;
    let port = address.rsplit_once(':').unwrap().1;
    let text =
        String::from_utf8(answer(&format!("127.0.0.1:{port}"), b"GET / HTTP/1.1\r\n\r\n").await).unwrap();
    assert!(text.contains("this port speaks TLS only"), "{text}");
    let mut refused = Process::start(&cluster.dir, "refused", &args, &[]);
    assert_eq!(refused.ended().await.code(), Some(2));
    assert!(refused.log().contains("without a shared secret or TLS"), "{}", refused.log());
}

/// Files that cannot be used change nothing: handshakes go on with the former ones, and metrics say so until the
/// files are good again.
#[tokio::test]
async fn bad_files_leave_the_former_certificates_and_show() {
    let cluster = Cluster::quiet(0).tls().start().await;
    let dir = certs_dir(&cluster);
    let args = ["register", "--bind=127.0.0.1:0", "--metrics-bind=127.0.0.1:0"];
    let register = Process::start(&cluster.dir, "metered", &args, &cluster.environment());
    let metrics: SocketAddr = register.logged("metrics and probes address=").await.parse().unwrap();
    let address = register.logged("register address=").await;
    let shows = async |words: &[&str]| {
        until(&format!("metrics show {words:?}"), async || {
            let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let text = crate::malformed_input::answer(metrics, request, false).await;
            let text = String::from_utf8(text).unwrap();
            words.iter().all(|words| text.contains(words)).then_some(())
        })
        .await;
    };
    let accepts = async || {
        let own = cluster.credentials().tls.unwrap();
        own.connect(TcpStream::connect(&address).await.unwrap()).await.unwrap();
    };
    shows(&[
        "broadgate_tls_stale{role=\"cluster\"} 0",
        "broadgate_tls_certificate_expires_seconds{",
        "node.pem",
    ])
    .await;
    let key = std::fs::read_to_string(dir.join("node.key")).unwrap();
    std::fs::write(dir.join("node.key"), &key[..key.len() / 2]).unwrap();
    shows(&[
        "broadgate_tls_stale{role=\"cluster\"} 1",
        "broadgate_tls_reload_failures_total{role=\"cluster\"} 1",
    ])
    .await;
    logs(&register, &["the former certificates stay in use: cluster.tls: key file", "node.key is damaged"])
        .await;
    accepts().await;
    std::fs::write(dir.join("node.key"), &key).unwrap();
    shows(&["broadgate_tls_stale{role=\"cluster\"} 0", "broadgate_tls_reloads_total{role=\"cluster\"} 1"])
        .await;
    accepts().await;
}

/// A handshake that is not begun, or not ended, is given up within the time of a request's head.
#[tokio::test]
async fn slow_handshakes_are_given_up() {
    let cluster = Cluster::quiet(1).tls().start().await;
    let address = &cluster.internal[0];
    let silent = TcpStream::connect(address).await.unwrap();
    let mut begun = TcpStream::connect(address).await.unwrap();
    begun.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    let started = std::time::Instant::now();
    for mut stream in [silent, begun] {
        let _ = soon("the port closes", stream.read(&mut [0; 16])).await;
    }
    // Five seconds for the first byte, ten for the head.
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(40), "{took:?}");
}
