//! Metrics and health checks over TLS.

use std::{path::Path, sync::Arc};

use broadgate_tls::{
    FileReads, PairFiles, client_config, load_pair, load_roots, rustls::pki_types::ServerName,
    tokio_rustls::TlsConnector,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    cluster_tls::{certs_dir, logs},
    harness::*,
    operator::run,
};

/// What the port answers to a caller with this pair; without one, or with a foreign one, the error.
async fn get(address: &str, path: &str, dir: &Path, pair: Option<&str>) -> std::io::Result<String> {
    let roots = load_roots(&dir.join("ca.pem"), &mut FileReads::default()).unwrap();
    let files = |name: &str| PairFiles {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    let pair = pair.map(|name| load_pair(&files(name), &mut FileReads::default()).unwrap());
    let mut config = client_config(roots, pair.as_ref()).unwrap();
    // As Prometheus does.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("broadgate").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // The name of the certificate, not the address that was dialled.
    let request = format!("GET {path} HTTP/1.1\r\nHost: broadgate\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    soon("the metrics port answers", stream.read_to_string(&mut text)).await?;
    Ok(text)
}

/// Every role serves metrics and health checks to callers with a certificate of the cluster, and to no others.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_over_tls_need_a_certificate_of_the_cluster() {
    let cluster = Cluster::quiet(1).tls().start().await;
    let dir = certs_dir(&cluster);
    certs(&["pair", "prometheus", "--dir", &dir.display().to_string()]);
    let strange = cluster.dir.join("strange");
    certs(&["ca", "--dir", &strange.display().to_string()]);
    certs(&["pair", "node", "--dir", &strange.display().to_string()]);
    // It trusts the cluster, which does not trust it.
    std::fs::copy(dir.join("ca.pem"), strange.join("ca.pem")).unwrap();
    let mut environment = cluster.environment();
    environment.push(("BROADGATE_METRICS__TLS", "true"));
    let register = format!("--register={}", cluster.register_address);
    let metrics = "--metrics-bind=127.0.0.1:0";
    for (role, args) in [
        ("register", &["register", "--bind=127.0.0.1:0", metrics][..]),
        (
            "gateway",
            &["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0", metrics, &register],
        ),
        ("worker", &["worker", "echo", metrics, &register]),
    ] {
        let process = Process::start(&cluster.dir, &format!("metered-{role}"), args, &environment);
        let address = process.logged("metrics and probes address=").await;
        let text = get(&address, "/metrics", &dir, Some("prometheus")).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.contains(&format!("role=\"{role}\"")), "{text}");
        let well = get(&address, "/healthz", &dir, Some("prometheus")).await.unwrap();
        assert!(well.starts_with("HTTP/1.1 200") && well.ends_with("ok\n"), "{well}");

        let plain = crate::metrics::scrape(address.parse().unwrap()).await;
        assert!(plain.starts_with("HTTP/1.1 400") && plain.contains("this port speaks TLS only"), "{plain}");
        get(&address, "/metrics", &dir, None).await.unwrap_err();
        get(&address, "/metrics", &strange, Some("node")).await.unwrap_err();
        logs(
            &process,
            &[
                "reason=\"tls_plain\"",
                "shows no certificate: give it cluster.tls.cert",
                "reason=\"tls_unknown_ca\"",
            ],
        )
        .await;

        // The health check of a container has the process's own environment.
        let health = ["health", "--metrics-bind", &address];
        let ready = [&health[..], &["--ready"]].concat();
        until("the process is ready", async || (run(&ready, &environment).0 == 0).then_some(())).await;
        assert_eq!(run(&health, &environment), (0, "ok\n".to_owned()));
        let (code, said) = run(&health, &[]);
        assert!(
            code == 5 && said.contains("requires TLS: give this command the metrics.tls"),
            "{code} {said}"
        );
        let file = |name: &str| strange.join(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("node.pem"), file("node.key"));
        let files = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
        let (code, said) = run(&[&health[..], &files].concat(), &[("BROADGATE_METRICS__TLS", "true")]);
        // The command itself sees that its CA has not signed its certificate.
        assert!(code == 2 && said.contains("is not signed by a CA in"), "{code} {said}");
        let (code, said) = run(&["status", "--addr", &address], &cluster.environment());
        assert!(code == 5 && said.contains("is a metrics port"), "{code} {said}");
    }
}

/// The setting needs certificates: a start without them would serve metrics in clear.
#[test]
fn metrics_tls_without_certificates_is_refused() {
    let dir = std::env::temp_dir().join(format!("broadgate-metrics-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("broadgate.toml");
    std::fs::write(&file, "[metrics]\nbind = \"127.0.0.1:0\"\ntls = true\n").unwrap();
    let path = file.to_str().unwrap();
    for args in [
        &["check-config", path][..],
        &["register", "--config", path],
        &["gateway", "--config", path],
        &["worker", "echo", "--config", path],
        &["health", "--config", path],
    ] {
        let (code, text) = run(args, &[]);
        assert!(
            code == 2 && text.contains("metrics.tls = true needs the certificates of [cluster.tls]"),
            "{args:?}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
