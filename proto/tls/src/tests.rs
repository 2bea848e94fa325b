use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::{
    ClusterFiles, ClusterTls, FileError, FileReads, PairFiles, Reloading, Side, explain, load_pair,
    load_roots,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Files of a test, removed after it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("broadgate-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn pair(&self, name: &str, (cert, key): &(String, String)) -> PairFiles {
        PairFiles {
            cert: self.write(&format!("{name}.pem"), cert),
            key: self.write(&format!("{name}.key"), key),
        }
    }

    fn cluster(&self, name: &str, ca: &str, pair: &(String, String)) -> anyhow::Result<ClusterTls> {
        ClusterTls::open(ClusterFiles {
            ca: self.write(&format!("{name}-ca.pem"), ca),
            pair: self.pair(name, pair),
            server_name: "broadgate".to_owned(),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.der())
    }

    fn pair(&self, name: &str) -> (String, String) {
        self.pair_with(name, |_| {})
    }

    fn pair_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = ((now() - DAY).into(), (now() + 30 * DAY).into());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: String =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n").collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

fn now() -> SystemTime {
    // Certificates have whole seconds.
    SystemTime::UNIX_EPOCH
        + Duration::from_secs(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
}

#[track_caller]
fn says(error: &dyn std::fmt::Display, parts: &[&str]) {
    let text = format!("{error:#}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
}

#[test]
fn each_bad_file_has_a_sentence_that_names_it() {
    let folder = Folder::new("bad");
    let ca = Ca::new("one");
    let (cert, key) = ca.pair("broadgate");
    let good = folder.pair("good", &(cert.clone(), key.clone()));
    let load = |cert: &Path, key: &Path| {
        let files = PairFiles { cert: cert.to_owned(), key: key.to_owned() };
        load_pair(&files, &mut FileReads::default()).map(drop)
    };
    load(&good.cert, &good.key).unwrap();
    let missing = folder.0.join("missing.pem");
    says(&load(&missing, &good.key).unwrap_err(), &["certificate file", "missing.pem cannot be read"]);
    says(&load(&folder.0, &good.key).unwrap_err(), &["not a regular file"]);
    let empty = folder.write("empty.pem", " \n");
    says(&load(&empty, &good.key).unwrap_err(), &["certificate file", "empty.pem is empty"]);
    says(&load(&good.cert, &empty).unwrap_err(), &["key file", "empty.pem is empty"]);
    says(&load(&good.key, &good.key).unwrap_err(), &["good.key holds no certificate", "BEGIN CERTIFICATE"]);
    says(&load(&good.cert, &good.cert).unwrap_err(), &["key file", "good.pem holds no key"]);
    let cut = folder.write("cut.pem", &cert[..cert.len() / 2]);
    says(&load(&cut, &good.key).unwrap_err(), &["cut.pem is damaged"]);
    // Half-written files: cut in a block, in its first line, and in the middle of its text.
    let first = |text: &str| text[..20].to_owned();
    let holed = |text: &str| text.replacen('M', "*", 1);
    for (content, words) in [
        (cert[..cert.len() / 2].to_owned(), "it ends before the line \"-----END CERTIFICATE-----\""),
        (first(&cert), "its line \"-----BEGIN CERTIFICA\" is incomplete"),
        (holed(&cert), "one of its blocks is not base64"),
    ] {
        let error = load(&folder.write("half.pem", &content), &good.key).unwrap_err();
        says(&error, &["certificate file", "half.pem is damaged", words, "copy it again"]);
        assert!(!error.to_string().contains("[45,"), "{error}");
    }
    for (content, words) in [
        (key[..key.len() / 2].to_owned(), "it ends before the line \"-----END PRIVATE KEY-----\""),
        (first(&key), "its line \"-----BEGIN PRIVATE K\" is incomplete"),
        (holed(&key), "one of its blocks is not base64"),
    ] {
        let error = load(&good.cert, &folder.write("half.key", &content)).unwrap_err();
        says(&error, &["key file", "half.key is damaged", words, "copy it again"]);
        assert!(!error.to_string().contains("[45,"), "{error}");
    }
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    says(
        &load(&folder.write("nonsense.pem", nonsense), &good.key).unwrap_err(),
        &["nonsense.pem is damaged"],
    );
    for encrypted in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".to_owned(),
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
         -----END EC PRIVATE KEY-----\n"
            .to_owned(),
    ] {
        let encrypted = folder.write("encrypted.key", &encrypted);
        let error = load(&good.cert, &encrypted).unwrap_err();
        assert!(matches!(error, FileError::Encrypted { .. }), "{error}");
        says(&error, &["encrypted.key is encrypted", "openssl pkey -in"]);
    }
    let other = folder.write("other.key", &ca.pair("broadgate").1);
    says(
        &load(&good.cert, &other).unwrap_err(),
        &["other.key does not belong to certificate file", "good.pem"],
    );
}

#[test]
fn certificate_tells_its_names_and_times() {
    let folder = Folder::new("names");
    let ca = Ca::new("one");
    let (from, until) = (now() - DAY, now() + 3 * DAY);
    let files = folder.pair(
        "pair",
        &ca.pair_with("*.example.com", |params| {
            params.subject_alt_names.push(rcgen::SanType::IpAddress([192, 0, 2, 1].into()));
            (params.not_before, params.not_after) = (from.into(), until.into());
        }),
    );
    let mut reads = FileReads::default();
    let pair = load_pair(&files, &mut reads).unwrap();
    assert_eq!(pair.names(), ["*.example.com", "192.0.2.1"]);
    assert_eq!((pair.validity.from, pair.validity.until), (from, until));
    assert_eq!(reads.expiries().collect::<Vec<_>>(), [(&*files.cert, until)]);
    let name = |name: &'static str| ServerName::try_from(name).unwrap();
    assert!(pair.covers(&name("a.example.com")) && pair.covers(&name("192.0.2.1")));
    assert!(!pair.covers(&name("example.com")) && !pair.covers(&name("a.b.example.com")));
    says(
        &pair.check_name(&name("broadgate"), "x.server_name").unwrap_err(),
        &["pair.pem is for *.example.com, 192.0.2.1, and not for \"broadgate\"", "set x.server_name"],
    );
    pair.check_time(now()).unwrap();
    says(&pair.check_time(until + DAY).unwrap_err(), &["pair.pem expired at ", "renew it"]);
    says(&pair.check_time(from - DAY).unwrap_err(), &["pair.pem is valid from ", "set the clock"]);
    // A chain is valid as long as all of it.
    let short = ca.pair_with("intermediate", |params| params.not_after = (now() + DAY).into()).0;
    let chain = fs::read_to_string(&files.cert).unwrap() + &short;
    fs::write(&files.cert, chain).unwrap();
    let pair = load_pair(&files, &mut FileReads::default()).unwrap();
    assert_eq!((pair.validity.until, pair.key.cert.len()), (now() + DAY, 2));
    // CAs, of an age that no handshake asks for.
    let roots =
        load_roots(&folder.write("ca.pem", &(ca.pem() + &Ca::new("two").pem())), &mut FileReads::default());
    assert_eq!(roots.unwrap().len(), 2);
}

#[test]
fn cluster_refuses_a_pair_that_others_would_refuse() {
    let folder = Folder::new("cluster");
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let open = |pair: &(String, String)| folder.cluster("own", &one.pem(), pair).map(drop);
    open(&one.pair("broadgate")).unwrap();
    says(&open(&two.pair("broadgate")).unwrap_err(), &["own.pem is not signed by a CA in", "own-ca.pem"]);
    says(&open(&one.pair("gateway-1")).unwrap_err(), &["is for gateway-1, and not for \"broadgate\""]);
    let expired = one.pair_with("broadgate", |params| params.not_after = (now() - DAY / 2).into());
    says(&open(&expired).unwrap_err(), &["cluster.tls: the certificate in ", "expired at"]);
    for (usage, lacks) in [
        (ExtendedKeyUsagePurpose::ServerAuth, "clientAuth"),
        (ExtendedKeyUsagePurpose::ClientAuth, "serverAuth"),
    ] {
        let half = one.pair_with("broadgate", |params| params.extended_key_usages = vec![usage]);
        says(&open(&half).unwrap_err(), &["extended key usage must have", lacks]);
    }
    let files = ClusterFiles {
        ca: folder.write("ca.pem", &one.pem()),
        pair: folder.pair("pair", &one.pair("broadgate")),
        server_name: "127.0.0.1".to_owned(),
    };
    says(&ClusterTls::open(files).unwrap_err(), &["cluster.tls.server_name", "127.0.0.1", "not a DNS name"]);
}

/// What both sides say after a handshake and a byte in both directions.
async fn meet(server: &ClusterTls, client: &ClusterTls) -> (Result<(), String>, Result<(), String>) {
    let (here, there) = duplex(16 * 1024);
    let serving = async {
        let mut stream = server.acceptor().accept(here).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    };
    let calling = async {
        let mut stream = client.connect(there).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        stream.read_u8().await.map(|byte| assert_eq!(byte, 7))
    };
    let (server, client) = tokio::join!(serving, calling);
    let said = |side| move |error| explain(&error, side).sentence;
    (server.map_err(said(Side::Server)), client.map_err(said(Side::Client)))
}

#[tokio::test]
async fn each_refused_handshake_has_a_sentence_on_both_sides() {
    let folder = Folder::new("meet");
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let good = folder.cluster("good", &one.pem(), &one.pair("broadgate")).unwrap();
    assert_eq!(meet(&good, &good).await, (Ok(()), Ok(())));

    let stranger = folder.cluster("stranger", &two.pem(), &two.pair("broadgate")).unwrap();
    let (server, client) = meet(&good, &stranger).await;
    says(&client.unwrap_err(), &["shows a certificate of a CA that is not in this process's cluster.tls.ca"]);
    says(&server.unwrap_err(), &["refuses this process's certificate", "is not in the other's"]);

    // It trusts this cluster, but the cluster does not trust it.
    let both = folder.cluster("both", &(one.pem() + &two.pem()), &two.pair("broadgate")).unwrap();
    let (server, client) = meet(&good, &both).await;
    says(&server.unwrap_err(), &["shows a certificate of a CA that is not in this process's cluster.tls.ca"]);
    says(&client.unwrap_err(), &["refuses this process's certificate", "is not in the other's"]);

    // Of another CA that has the same name.
    let twin = Ca::new("one");
    let twin = folder.cluster("twin", &(one.pem() + &twin.pem()), &twin.pair("broadgate")).unwrap();
    let (server, client) = meet(&good, &twin).await;
    says(&server.unwrap_err(), &["a CA of the same name", "this process's cluster.tls.ca"]);
    says(&client.unwrap_err(), &["refuses this process's certificate", "another CA of the same name"]);

    let files = ClusterFiles {
        ca: folder.write("named-ca.pem", &one.pem()),
        pair: folder.pair("named", &one.pair("other")),
        server_name: "other".to_owned(),
    };
    let named = ClusterTls::open(files).unwrap();
    let (server, client) = meet(&named, &good).await;
    says(&client.unwrap_err(), &["shows a certificate for", "other", "not for \"broadgate\""]);
    says(&server.unwrap_err(), &["refuses this process's certificate", "lacks the name"]);
}

#[tokio::test]
async fn missing_and_expired_certificates_have_a_sentence_on_both_sides() {
    let folder = Folder::new("missing");
    let one = Ca::new("one");
    let good = folder.cluster("good", &one.pem(), &one.pair("broadgate")).unwrap();
    let mut reads = FileReads::default();
    let roots = load_roots(&folder.0.join("good-ca.pem"), &mut reads).unwrap();
    let expired = one.pair_with("broadgate", |params| params.not_after = (now() - DAY / 2).into());
    let expired = load_pair(&folder.pair("expired", &expired), &mut reads).unwrap();
    let shows = async |pair: Option<&crate::Pair>| {
        let config = crate::client_config(roots.clone(), pair).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (here, there) = duplex(16 * 1024);
        let calling = async {
            let name = ServerName::try_from("broadgate").unwrap();
            let mut stream = connector.connect(name, there).await?;
            stream.read_u8().await
        };
        let (server, client) = tokio::join!(good.acceptor().accept(here), calling);
        let server = explain(&server.map(drop).unwrap_err(), Side::Server);
        let client = explain(&client.map(drop).unwrap_err(), Side::Client);
        assert_eq!(client.reason, "refused_by_peer");
        (server, client.sentence)
    };
    let (server, client) = shows(None).await;
    assert_eq!(server.reason, "no_certificate");
    says(&server.sentence, &["shows no certificate", "cluster.tls.cert"]);
    says(&client, &["wants a certificate of this process, which showed none"]);
    let (server, client) = shows(Some(&expired)).await;
    assert_eq!(server.reason, "expired");
    says(&server.sentence, &["expired at", "this host's clock says"]);
    says(&client, &["as expired, or not valid yet by the other's clock"]);
}

#[tokio::test]
async fn what_is_no_tls_is_called_so() {
    let folder = Folder::new("plain");
    let one = Ca::new("one");
    let good = folder.cluster("good", &one.pem(), &one.pair("broadgate")).unwrap();
    let plain = async |mut stream: DuplexStream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let (here, there) = duplex(16 * 1024);
    let (_here, client) = tokio::join!(plain(here), good.connect(there));
    assert_eq!(explain(&client.map(drop).unwrap_err(), Side::Client).reason, "not_tls");
    let (here, there) = duplex(16 * 1024);
    let (_there, server) = tokio::join!(plain(there), good.acceptor().accept(here));
    assert_eq!(explain(&server.map(drop).unwrap_err(), Side::Server).reason, "not_tls");
}

/// Waits in virtual time until the handshake of these two succeeds, or fails.
async fn until(server: &ClusterTls, client: &ClusterTls, succeeds: bool) {
    for _ in 0..100 {
        if meet(server, client).await.1.is_ok() == succeeds {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("handshakes never change to {succeeds}");
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_taken_as_a_whole_and_bad_ones_not_at_all() {
    let folder = Folder::new("reload");
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let server = folder.cluster("server", &one.pem(), &one.pair("broadgate")).unwrap();
    let client = folder.cluster("client", &one.pem(), &one.pair("broadgate")).unwrap();
    let watching = [&server, &client].map(|tls| tokio::spawn(tls.clone().watch(None)));
    until(&server, &client, true).await;

    // The key arrives later than its certificate: until then the former pair is shown.
    let (cert, key) = one.pair("broadgate");
    folder.write("server.pem", &cert);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(meet(&server, &client).await, (Ok(()), Ok(())));
    }
    folder.write("server.key", &key);

    // The CA is changed: first both are trusted, then pairs of the new one are shown, then the old one goes.
    for name in ["server", "client"] {
        folder.write(&format!("{name}-ca.pem"), &(one.pem() + &two.pem()));
    }
    let of_two = folder.cluster("two", &(one.pem() + &two.pem()), &two.pair("broadgate")).unwrap();
    until(&server, &of_two, true).await;
    until(&of_two, &client, true).await;
    for name in ["server", "client"] {
        folder.pair(name, &two.pair("broadgate"));
        until(&server, &client, true).await;
    }
    let only_two = folder.cluster("only-two", &two.pem(), &two.pair("broadgate")).unwrap();
    until(&server, &only_two, true).await;
    until(&only_two, &client, true).await;
    for name in ["server", "client"] {
        folder.write(&format!("{name}-ca.pem"), &two.pem());
    }
    let of_one = folder.cluster("one", &(one.pem() + &two.pem()), &one.pair("broadgate")).unwrap();
    until(&server, &of_one, false).await;
    assert_eq!(meet(&server, &client).await, (Ok(()), Ok(())));
    for task in watching {
        assert!(!task.is_finished());
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_used_is_tried_again_although_no_file_changes() {
    let folder = Folder::new("again");
    let file = folder.write("number", "1");
    let refuses = Arc::new(AtomicBool::new(false));
    let refusing = Arc::clone(&refuses);
    let number = Reloading::open("test", move |reads| {
        let number: u32 = String::from_utf8(reads.read(&file)?)?.parse()?;
        anyhow::ensure!(!refusing.load(Ordering::Relaxed), "not now");
        Ok(number)
    });
    let number = Arc::new(number.unwrap());
    let watching = tokio::spawn(Arc::clone(&number).watch(None));
    refuses.store(true, Ordering::Relaxed);
    folder.write("number", "2");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(**number.current(), 1);
    refuses.store(false, Ordering::Relaxed);
    let started = tokio::time::Instant::now();
    while **number.current() == 1 && started.elapsed() < Duration::from_secs(300) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(**number.current(), 2);
    watching.abort();
}
