//! What operators and members are shown when something is wrong.

use crate::{harness::*, operator::json};

/// A wrong address is explained: what is there, and what was meant.
#[tokio::test]
async fn wrong_addresses_are_explained() {
    use std::io::{Read as _, Write as _};
    let cluster = Cluster::quiet(1).start().await;
    let answering = |answer: &'static [u8]| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(answer);
            }
        });
        address
    };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metered = ["register", "--bind=127.0.0.1:0", "--metrics-bind=127.0.0.1:0"];
    let register = Process::start(&cluster.dir, "metered", &metered, &[]);
    let metrics = register.logged("metrics and probes address=").await;
    let (web, internal) = (cluster.web(0).to_string(), cluster.internal[0].clone());
    let silent_address = silent.local_addr().unwrap().to_string();
    let cases = [
        (web.clone(), "is a gateway's client port"),
        (cluster.register_address.clone(), "is the register's port"),
        (metrics, "is a metrics port"),
        (answering(b"\x15\x03\x01\x00\x02\x02\x46"), "requires TLS"),
        (answering(b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port"), "TLS"),
        (answering(b"HTTP/1.1 404 Not Found\r\n\r\n"), "is an HTTP server"),
        (silent_address, "does not answer as an internal port"),
        ("127.0.0.1:1".to_owned(), "nothing listens there"),
        ("no-such-host.invalid:7200".to_owned(), "no-such-host.invalid"),
    ];
    for (address, words) in &cases {
        let (code, _, err) = cluster.run(&["status", "--timeout", "1s", "--addr", address]);
        assert!(code == 5 && err.contains(words) && err.contains(address), "{address}: {code} {err}");
        assert!(err.contains("gateway.internal.bind"), "{err}");
    }
    // A process that hangs may read later what it was asked: without the secret that would count as refused.
    silent.set_nonblocking(true).unwrap();
    assert_eq!(
        std::iter::from_fn(|| silent.accept().ok()).count(),
        1,
        "it is asked for gRPC, and nothing else"
    );
    // Who is looked for by mistake has one line of it.
    let refused = || cluster.gateways[0].log().matches("refused reason").count();
    let before = refused();
    assert_eq!(cluster.run(&["status", "--addr", &web]).0, 5);
    assert!(refused() <= before + 1, "{}", cluster.gateways[0].log());
    for (address, words) in [(&internal, "gateway's internal port"), (&web, "client port")] {
        let (code, _, err) = cluster.run(&["drain", "gateway-1", "--register", address]);
        assert!(code == 5 && err.contains(words) && err.contains("--register"), "{code} {err}");
    }
}

/// What an operator must see: who attaches without joining, what no worker takes, and that nobody can
/// come or go any more.
#[tokio::test]
async fn status_warns_of_problems() {
    let mut cluster = Cluster::of(1).start().await;
    let (code, out, _) = cluster.run(&["status"]);
    assert!(code == 0 && out.contains("no worker takes service \"default\" of listener \"web\""), "{out}");
    let _worker = TestWorker::attach(&cluster.internal[0], 7).await;
    let (_, out, _) = cluster.run(&["status"]);
    assert!(!out.contains("warning") && out.contains("test-7") && out.contains("not joined"), "{out}");
    cluster.register.as_mut().unwrap().kill();
    until("the register is missed", async || {
        let (code, out, err) = cluster.run(&["status"]);
        (code == 3 && out.contains("NOT HEARD") && err.contains("not heard")).then_some(())
    })
    .await;
}

/// Two registers run by mistake: `status` names them while both have members, and then the gateway that is
/// not where it was configured to be; both sides log it.
#[tokio::test]
async fn status_shows_a_second_register() {
    let second = free_address().to_string();
    let settings = Cluster::quiet(2).register("beat = \"200ms\"\nlease = \"1s\"");
    let cluster = settings.second_register(&second).start().await;
    // The first register's cluster has lived for a lease, so its term is the higher one.
    until("the term rises", async || (cluster.view().await?.epoch?.term > u16::MAX.into()).then_some(()))
        .await;
    let bind = format!("--bind={second}");
    let register = Process::start(&cluster.dir, "second", &["register", &bind], &[]);
    register.logged("register address=").await;
    let config = std::fs::read_to_string(cluster.dir.join("gateway-1.toml")).unwrap();
    let config: String = config
        .lines()
        .map(|line| match line.split(' ').next() {
            Some("register") => format!("register = [\"{second}\"]\n"),
            _ => line.replace("gateway-1", "gateway-9") + "\n",
        })
        .collect();
    let path = cluster.dir.join("gateway-9.toml").display().to_string();
    std::fs::write(&path, config).unwrap();
    let stranger = Process::start(&cluster.dir, "gateway-9", &["gateway", "--config", &path], &[]);
    until("a gateway sees both", async || {
        let gateways = cluster.status(0).await?.gateways;
        let seen = gateways.into_iter().filter_map(|one| one.register).find(|one| !one.outside.is_empty())?;
        assert!(seen.trouble.contains(&format!("register {second} is active as well")), "{seen:?}");
        assert_eq!(seen.outside, ["gateway-9"]);
        Some(())
    })
    .await;
    register.logged("this one steps down").await;
    stranger.logged("the register has stepped down for another one").await;
    let first = &cluster.register_address;
    let warning = format!("warning: gateway-9: register {first}: it is not among cluster.register");
    until("all are at one register", async || {
        let (code, out, _) = cluster.run(&["status"]);
        // The others look again before they call all well.
        (code == 0 && out.contains(&warning) && out.matches("warning: ").count() == 1).then_some(())
    })
    .await;
    let (_, out, _) = cluster.run(&["status", "--json"]);
    let gateways = json(&out)["gateways"].as_array().unwrap().clone();
    let troubles: Vec<_> =
        gateways.iter().map(|one| one["register"]["trouble"].as_str().unwrap().is_empty()).collect();
    assert_eq!(troubles, [true, true, false], "{out}");
    let logs: String = cluster.gateways.iter().map(Process::log).collect();
    assert!(logs.contains("two registers are active: answers are incomplete"), "{logs}");
}

/// A member says what is at an address that it was given by mistake, and not how HTTP/2 failed there.
#[tokio::test]
async fn members_report_what_listens_at_a_wrong_address() {
    let cluster = Cluster::quiet(2).start().await;
    let (web, internal) = (cluster.web(0).to_string(), cluster.internal[0].clone());
    let gateway = ["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0"];
    for (role, args) in [("gateway", &gateway[..]), ("worker", &["worker", "echo"])] {
        for (address, words) in
            [(&web, "is a gateway's client port; name the register's"), (&internal, "it is not a register")]
        {
            let register = format!("--register={address}");
            let args = [args, &[&register]].concat();
            let member = Process::start(&cluster.dir, &format!("{role}-{address}"), &args, &[]);
            until(words, async || member.log().contains(words).then_some(())).await;
            let log = member.log();
            assert!(log.contains(address.as_str()) && !log.contains("transport error"), "{log}");
            assert!(!log.contains("the worker is ready"), "no register has taken it in: {log}");
        }
    }
    // What it tells the others is wrong: they say so.
    let (register, advertise) =
        (format!("--register={}", cluster.register_address), format!("--advertise={web}"));
    let args = [&gateway[..], &["--name=lost", &register, &advertise]].concat();
    let _lost = Process::start(&cluster.dir, "lost", &args, &[]);
    let words = format!("{web}, which the gateway advertises, is a gateway's client port");
    until(&words, async || cluster.gateways[1].log().contains(&words).then_some(())).await;
}

/// A gateway without a register works, and is not ready.
#[tokio::test]
async fn readiness_needs_a_view() {
    let cluster = Cluster::of(0).start().await;
    let flags = [
        "gateway",
        "--register=127.0.0.1:1",
        "--internal-bind=127.0.0.1:0",
        "--client-bind=127.0.0.1:0",
        "--metrics-bind=127.0.0.1:0",
    ];
    let alone = Process::start(&cluster.dir, "alone", &flags, &[]);
    let metrics = alone.logged("metrics and probes address=").await.parse().unwrap();
    for (path, status) in [("/healthz", "200"), ("/readyz", "503")] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = crate::malformed_input::answer(metrics, request.as_bytes(), false).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
}
