//! Certificates that cannot be used, for each pair of processes: every side that can know what is wrong says so in
//! one sentence. `cluster_tls.rs` has the pairs of a gateway with commands and programs.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use broadgate_business::cluster::{Cluster as Sdk, ClusterConfig};
use broadgate_proto::{
    id::Incarnation,
    v1::{
        Beat, Hello, JoinRequest, Member, MemberState, Role, join_request::Request,
        register_client::RegisterClient,
    },
};
use broadgate_tls::{
    FileReads, Pair, PairFiles, client_config, load_pair, load_roots, rustls::pki_types::ServerName,
    tokio_rustls::TlsConnector,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::{
    cluster_tls::{Ca, certs_dir, logs, pem, says, serve_with},
    harness::*,
    operator::run,
};

const FOREIGN: &str = "a CA that is not in this process's cluster.tls.ca";
const EXPIRED: &str = "shows a certificate that expired at";
const MISNAMED: &str = "shows a certificate for other, and not for";

fn load(files: &PairFiles) -> Pair {
    load_pair(files, &mut FileReads::default()).unwrap()
}

/// Makes the processes of a cluster trust another CA besides their own, from their next start or SIGHUP on.
fn trust(cluster: &Cluster, ca: &Ca) {
    let file = certs_dir(cluster).join("ca.pem");
    let trusted = std::fs::read_to_string(&file).unwrap() + &pem("CERTIFICATE", ca.0.der());
    std::fs::write(file, trusted).unwrap();
}

/// Servers with certificates that no member accepts, and what is said of each.
async fn bad_servers(cluster: &Cluster) -> Vec<(&'static str, SocketAddr, &'static str)> {
    let dir = certs_dir(cluster);
    let (known, foreign) = (Ca::new(), Ca::new());
    trust(cluster, &known);
    let mut servers = Vec::new();
    for (name, ca, of, is_expired, words) in [
        ("expired", &known, "broadgate", true, EXPIRED),
        ("misnamed", &known, "other", false, MISNAMED),
        ("foreign", &foreign, "broadgate", false, FOREIGN),
    ] {
        servers.push((name, serve_with(&load(&ca.pair(&dir, name, of, is_expired))).await, words));
    }
    servers
}

/// No certificate, an expired one, and one of another CA, shown to a register.
#[tokio::test(flavor = "multi_thread")]
async fn register_says_what_is_wrong_with_the_certificate_of_a_caller() {
    let cluster = Cluster::quiet(0).tls().start().await;
    let (dir, register) = (certs_dir(&cluster), cluster.register.as_ref().unwrap());
    let (known, foreign) = (Ca::new(), Ca::new());
    trust(&cluster, &known);
    register.signal("HUP");
    logs(register, &["certificates read again"]).await;
    let expired = load(&known.pair(&dir, "expired", "broadgate", true));
    let strange = load(&foreign.pair(&dir, "strange", "broadgate", false));
    let roots = load_roots(&dir.join("ca.pem"), &mut FileReads::default()).unwrap();
    for (pair, reason, words) in [
        (None, "tls_no_certificate", "shows no certificate: give it cluster.tls.cert"),
        (Some(&expired), "tls_expired", EXPIRED),
        (Some(&strange), "tls_unknown_ca", FOREIGN),
    ] {
        let connector = TlsConnector::from(Arc::new(client_config(roots.clone(), pair).unwrap()));
        let stream = TcpStream::connect(&cluster.register_address).await.unwrap();
        let name = ServerName::try_from("broadgate").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let refused = soon("the register refuses", stream.read_u8()).await.unwrap_err();
        assert!(refused.to_string().contains("alert"), "{refused}");
        logs(register, &[reason, words]).await;
    }
}

/// A register whose certificate is expired, for another name, or of another CA: gateways, workers, programs and
/// commands that dial it.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_dial_a_register_say_what_is_wrong_with_its_certificate() {
    let cluster = Cluster::quiet(0).tls().start().await;
    let servers = bad_servers(&cluster).await;
    let environment = cluster.environment();
    for (name, address, words) in servers {
        let register = format!("--register={address}");
        let gateway = ["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0", &register];
        let gateway = Process::start(&cluster.dir, &format!("gateway-{name}"), &gateway, &environment);
        let worker = ["worker", "echo", &register];
        let worker = Process::start(&cluster.dir, &format!("worker-{name}"), &worker, &environment);
        let config = ClusterConfig {
            registers: vec![address.to_string()],
            tls: Some(Certificates::of(&certs_dir(&cluster), "test").unwrap()),
            timeout: Duration::from_secs(3),
            ..ClusterConfig::default()
        };
        let error = Sdk::connect(config).await.unwrap_err().to_string();
        says("the program", &error, &["named a gateway", words]);
        let (code, err) = run(&["drain", "gateway-1", &register], &environment);
        assert_eq!((code, err.lines().count()), (5, 1), "{err}");
        says("the command", &err, &[&address.to_string(), words]);
        for process in [&gateway, &worker] {
            logs(process, &[words]).await;
        }
    }
}

/// Gateways and workers follow the view to a gateway with such a certificate.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_and_workers_say_what_is_wrong_with_the_certificate_of_a_gateway() {
    let cluster = Cluster::quiet(0).tls().start().await;
    let servers = bad_servers(&cluster).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.register_address)).unwrap();
    let own = Certificates::of(&certs_dir(&cluster), "test").unwrap();
    let channel = broadgate_port::connect(endpoint, Some(&own)).await.unwrap();
    let (mut beating, mut streams) = (Vec::new(), Vec::new());
    for (number, (name, address, _)) in servers.iter().enumerate() {
        let member = Member {
            incarnation: Incarnation::from_bits(number as u64 + 1).to_string(),
            role: Role::Gateway.into(),
            name: (*name).to_owned(),
            address: address.to_string(),
            state: MemberState::Draining.into(),
            ring_version: broadgate_proto::ring::RING_VERSION,
            ..Member::default()
        };
        let hello = Hello { member: Some(member), ..Hello::default() };
        let hello = JoinRequest { request: Some(Request::Hello(hello)) };
        let (sender, requests) = mpsc::channel(1);
        // It beats as long as the test runs.
        beating.push(tokio::spawn(async move {
            let beat = |number| JoinRequest { request: Some(Request::Beat(Beat { number })) };
            for request in std::iter::once(hello).chain((1..).map(beat)) {
                if sender.send(request).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }));
        let requests = ReceiverStream::new(requests);
        streams.push(RegisterClient::new(channel.clone()).join(requests).await.unwrap());
    }
    let register = format!("--register={}", cluster.register_address);
    let gateway = ["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0", &register];
    let gateway = Process::start(&cluster.dir, "follower", &gateway, &cluster.environment());
    let worker = ["worker", "echo", &register];
    let worker = Process::start(&cluster.dir, "attacher", &worker, &cluster.environment());
    for (name, _, words) in &servers {
        let line = async |process: &Process, marker: &str| {
            until(&format!("{} says {words:?} of {name}", process.name), async || {
                let log = process.log();
                let mut lines = log.lines().filter(|line| line.contains(marker) && line.contains(*words));
                lines.next_back().map(str::to_owned)
            })
            .await
        };
        let text = line(&gateway, "peer link keeps breaking").await;
        assert!(text.contains(&format!("peer={name}")), "{text}");
        let text = line(&worker, "cannot attach to a gateway").await;
        assert!(text.contains(name), "{text}");
    }
    beating.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A listener of clients: an expired certificate is not served, and a client that refuses one is logged.
#[tokio::test]
async fn client_listener_says_what_is_wrong_with_its_certificate() {
    let dir: PathBuf = std::env::temp_dir().join(format!("broadgate-bad-listener-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (ca, other) = (Ca::new(), Ca::new());
    let expired = ca.pair(&dir, "expired", "a.test", true);
    let config = dir.join("expired.toml");
    let listener = |files: &PairFiles| format!("{{ cert = {:?}, key = {:?} }}", files.cert, files.key);
    let toml = "[[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"127.0.0.1:0\"\n";
    std::fs::write(&config, format!("{toml}tls = [{}]\n", listener(&expired))).unwrap();
    for command in ["check-config", "gateway"] {
        let mut args = vec![command];
        args.extend((command == "gateway").then_some("--config"));
        let config = config.display().to_string();
        args.push(&config);
        let (code, text) = run(&args, &[]);
        assert_eq!((code, text.lines().count()), (2, 1), "{text}");
        says(command, &text, &["gateway.listeners[0] (web): tls[0]", "expired.pem expired at", "renew it"]);
    }
    let good = ca.pair(&dir, "good", "a.test", false);
    let cluster = Cluster::quiet(1).listener(&format!("tls = [{}]", listener(&good))).start().await;
    for (issuer, name, alert) in [(&other, "a.test", "UnknownCA"), (&ca, "b.test", "BadCertificate")] {
        std::fs::write(dir.join("roots.pem"), pem("CERTIFICATE", issuer.0.der())).unwrap();
        let roots = load_roots(&dir.join("roots.pem"), &mut FileReads::default()).unwrap();
        let connector = TlsConnector::from(Arc::new(client_config(roots, None).unwrap()));
        let stream = TcpStream::connect(cluster.web(0)).await.unwrap();
        let refused = connector.connect(ServerName::try_from(name).unwrap(), stream).await.unwrap_err();
        assert!(!refused.to_string().is_empty());
        let sentence =
            format!("the client refuses the listener's certificate: received fatal alert: {alert}");
        logs(&cluster.gateways[0], &[&sentence]).await;
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
