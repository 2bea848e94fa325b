//! How requests are read on the client port, what proxies do to them, and what the log says of refusals.

use broadgate_proto::v1;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{harness::*, malformed_input::UPGRADE};

/// An app for Pusher clients behind a prefix.
const APP: &str = "[[apps]]\nid = \"shop\"\nraw = true\npath_prefix = \"/reverb\"\n\
    [[apps.keys]]\nkey = \"shop-key\"\nsecret = \"secret-of-the-shop\"\n";

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.0/8\"]";

fn upgrade(path: &str, headers: &str) -> String {
    UPGRADE.replacen("/ws", path, 1).replacen("\r\n", &format!("\r\n{headers}"), 1)
}

/// The whole answer; of an upgrade also what follows at once, which raw clients are not sent.
async fn told(cluster: &Cluster, request: &str) -> String {
    told_bytes(cluster, request.as_bytes()).await
}

async fn told_bytes(cluster: &Cluster, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(cluster.web(0)).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut told = Vec::new();
    let mut some = [0; 4096];
    loop {
        let read = soon("an answer", stream.read(&mut some)).await.unwrap_or(0);
        told.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&told).into_owned();
        let is_raw = String::from_utf8_lossy(request).contains("/ws");
        let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.to_ascii_lowercase();
            let length = length
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
            if head.contains(" 101 ") {
                is_raw || !body.is_empty()
            } else {
                body.len() >= length.unwrap_or(0)
            }
        });
        if read == 0 || is_whole {
            return text;
        }
    }
}

#[tokio::test]
async fn upgrade_spoiled_by_a_proxy_is_explained() {
    let cluster = Cluster::quiet(1).more(APP).start().await;
    for path in ["/ws", "/app/shop-key?protocol=7"] {
        let good = upgrade(path, "");
        assert!(told(&cluster, &good).await.starts_with("HTTP/1.1 101 "), "{path}");
        for (spoiled, status, words) in [
            (good.replace("HTTP/1.1", "HTTP/1.0"), "400", "proxy_http_version 1.1"),
            (
                good.replace("HTTP/1.1", "HTTP/1.0").replace("Host: x\r\n", ""),
                "400",
                "proxy_http_version 1.1",
            ),
            (good.replace("Host: x\r\n", ""), "400", "Host"),
            (good.replace("Host: x\r\n", "Host: x\r\nHost: y\r\n"), "400", "Host"),
            (good.replace("Upgrade: websocket\r\n", ""), "426", "proxy_set_header Upgrade $http_upgrade"),
            (good.replace("Connection: Upgrade", "Connection: close"), "426", "proxy_set_header Connection"),
        ] {
            let told = told(&cluster, &spoiled).await;
            assert!(told.contains(&format!(" {status} ")) && told.contains(words), "{spoiled}: {told}");
        }
    }
    // A health check over HTTP/1.0 is none of that.
    let up = until("a health check over HTTP/1.0 succeeds", || async {
        let up = told(&cluster, "GET /up HTTP/1.0\r\n\r\n").await;
        up.starts_with("HTTP/1.").then_some(up).filter(|up| up.contains(" 200 "))
    });
    up.await;
}

#[tokio::test]
async fn every_port_reads_paths_alike() {
    let cluster = Cluster::quiet(1).more(APP).start().await;
    let status = async |request: String| {
        let told = told(&cluster, &request).await;
        told.split(' ').nth(1).unwrap().to_owned()
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for prefix in ["", "/", "/reverb", "//reverb/", "/%72everb"] {
        for (path, wanted) in [("/up", "200"), ("/up/", "200"), ("/apps/shop/channels", "401")] {
            assert_eq!(status(get(&format!("{prefix}{path}"))).await, wanted, "{prefix}{path}");
        }
        for path in
            ["/ws", "/ws/", "//ws/shop", "/ws/shop/", "/app/shop-key", "/app//shop-key/", "/%61pp/shop-key"]
        {
            let told = told(&cluster, &upgrade(&format!("{prefix}{path}"), "")).await;
            let is_in = !path.contains("shop-key") || told.contains("connection_established");
            assert!(told.starts_with("HTTP/1.1 101 ") && is_in, "{prefix}{path}: {told}");
        }
    }
    for (path, words) in [
        ("/foreign/app/shop-key", "path_prefix = \\\"/foreign\\\""),
        ("/shop-key", "/app/{key}"),
        ("/foreign/ws", "path_prefix"),
        ("/nowhere", "/app/{key}"),
    ] {
        let told = told(&cluster, &upgrade(path, "")).await.replace("\\\\", "\\");
        assert!(told.contains(words), "{path}: {told}");
    }
    let api = told(&cluster, &get("/foreign/apps/shop/channels")).await;
    assert!(api.contains(" 404 ") && api.contains("path_prefix"), "{api}");
}

#[tokio::test]
async fn tls_header_is_trusted_from_the_connected_proxy_only() {
    let app = APP.replace("raw = true", "tls_only = true");
    let listener = format!("{TRUSTED}\nproxy_protocol = true");
    let cluster = Cluster::quiet(1).listener(&listener).more(&app).start().await;
    let established = async |header: &[u8], headers: &str| {
        let bytes = [header, upgrade("/app/shop-key", headers).as_bytes()].concat();
        let told = told_bytes(&cluster, &bytes).await;
        let is_in = told.contains("connection_established");
        assert!(is_in || told.contains("4000"), "{told}");
        is_in
    };
    let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 50123 443\r\n";
    assert!(established(v1, "X-Forwarded-Proto: https\r\n").await);
    assert!(established(v1, "Forwarded: for=192.0.2.7;proto=https\r\n").await);
    assert!(!established(v1, "").await && !established(v1, "X-Forwarded-Proto: http\r\n").await);
    let v2 = |flags: u8| {
        let signature = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xc0\0\x02\x07\x0a\0\0\x01\xc3\xcb\x01\xbb";
        [&signature[..], &[0x20, 0, 5, flags, 0, 0, 0, 0]].concat()
    };
    assert!(established(&v2(1), "").await && !established(&v2(0), "").await);
    // Whose word it is that nobody trusts.
    drop(cluster);
    let cluster = Cluster::quiet(1).more(&app).start().await;
    let told = told(&cluster, &upgrade("/app/shop-key", "X-Forwarded-Proto: https\r\n")).await;
    assert!(told.contains("4000"), "{told}");
}

#[tokio::test]
async fn refusals_are_logged_without_secrets() {
    let app = APP.replace("raw = true", "raw = true\norigins = [\"https://www.example.com\"]");
    let cluster = Cluster::quiet(1).listener(TRUSTED).more(&app).start().await;
    let log = || cluster.gateways[0].log();
    let page = "Origin: https://shop.example.org\r\nX-Forwarded-For: 192.0.2.7\r\n";
    let refused = told(&cluster, &upgrade("/app/shop-key", page)).await;
    assert!(refused.contains("4009") && refused.contains("https://shop.example.org"), "{refused}");
    told(&cluster, &upgrade("/ws/shop", page)).await;
    told(&cluster, &upgrade("/app/secret-of-the-shop", "")).await;
    told(&cluster, &upgrade("/nowhere?token=hush", "")).await;
    let publish = |query: &str| {
        format!(
            "POST /apps/shop/events?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        )
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for timestamp in [1, now] {
        let query = format!(
            "auth_key=shop-key&auth_version=1.0&auth_timestamp={timestamp}&body_md5=x&auth_signature=f00df00d"
        );
        assert!(told(&cluster, &publish(&query)).await.contains(" 401 "));
    }
    crate::http::post(
        &cluster.internal[0],
        "Send",
        &[("Content-Type", "application/json"), ("Host", "127.0.0.1")],
        "{",
    )
    .await;
    let url = format!("ws://{}/app/shop-key?protocol=7", cluster.web(0));
    let mut client = Client::try_connect(&url, &[("origin", "https://www.example.com")]).await.unwrap();
    client.hear().await;
    client
        .say(r#"{"event":"pusher:subscribe","data":{"channel":"private-x","auth":"shop-key:f00df00d"}}"#)
        .await;
    assert!(client.hear().await.contains("subscription_error"));
    for words in [
        "reason=\"subscription\" why=\"private-x: Invalid signature\"",
        "reason=\"origin\" why=\"the origin \\\"https://shop.example.org\\\" may not connect",
        "address=192.0.2.7:0 app=\"shop\" key=\"shop-key\" path=\"/app/shop-key\" origin=\"https://shop.example.org\"",
        "app=\"shop\" path=\"/ws/shop\" origin=\"https://shop.example.org\"",
        "reason=\"key\"",
        "key=\"[the secret of an app]\"",
        "path=\"/nowhere\"",
        "reason=\"api_401\" why=\"Timestamp expired",
        "why=\"Invalid signature\"",
        "reason=\"command_invalid\"",
    ] {
        until(&format!("the log has {words}"), async || log().contains(words).then_some(())).await;
    }
    for secret in ["secret-of-the-shop", "hush", "f00df00d", "auth_signature"] {
        assert!(!log().contains(secret), "{secret}");
    }
    // Anybody can be refused as often as they like.
    for number in 0..30 {
        told(&cluster, &upgrade(&format!("/app/mistyped-{number}"), "")).await;
    }
    assert_eq!(log().matches("reason=\"key\"").count(), 10);
    assert!(log().contains("key=\"mistyped-0\"") && !log().contains("mistyped-29"));
}

#[tokio::test]
async fn debug_log_shows_clients_but_no_dependencies() {
    let cluster = Cluster::quiet(0).start().await;
    let flags = [
        "gateway",
        "--register",
        &cluster.register_address,
        "--internal-bind=127.0.0.1:0",
        "--client-bind=127.0.0.1:0",
        "--raw-app=default",
    ];
    let gateway = Process::start(&cluster.dir, "talkative", &flags, &[("BROADGATE_LOG", "debug")]);
    let internal = gateway.logged("internal=").await;
    let web = gateway.logged("(\"web\", ").await;
    let web = web.trim_end_matches([')', ']']);
    let mut caller = Caller::connect(format!("http://{internal}")).await.unwrap();
    until("it is in the view", || {
        let mut caller = caller.clone();
        async move { caller.count(v1::CountRequest::default()).await.ok().map(drop) }
    })
    .await;
    let mut client = Client::connect(&format!("ws://{web}/ws")).await;
    until("it is open", async || gateway.log().contains("client opened").then_some(())).await;
    let close =
        v1::CloseRequest { to: Some(all()), code: 4321, reason: "enough".into(), ..Default::default() };
    let receipt = caller.close(close).await.unwrap().into_inner();
    assert_eq!((receipt.clients, client.closed().await.code), (1, 4321));
    let log = gateway.log();
    let line = |words: &str| {
        log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {log}"))
    };
    let closed = line("client closed");
    for words in [
        format!("address={}", client.local),
        "cause=\"CAUSE_COMMAND\" code=4321 reason=\"enough\"".to_owned(),
        format!("command=\"{}\"", receipt.command_id),
    ] {
        assert!(closed.contains(&words), "{words}: {closed}");
    }
    let commanded = line("command closes clients");
    assert!(
        commanded.contains(&receipt.command_id) && commanded.contains("caller=127.0.0.1:"),
        "{commanded}"
    );
    for foreign in [" h2::", " hyper", " tonic::", " tower"] {
        assert!(!log.contains(foreign), "{foreign}: {log}");
    }
}

/// Callers with another secret are in the log of gateways and of the register, some a minute.
#[tokio::test]
async fn calls_with_a_wrong_secret_are_logged() {
    const RIGHT: &str = "the-right-secret-of-this-cluster-0123456789";
    const WRONG: &str = "the-wrong-secret-of-this-cluster-0123456789";
    let cluster = Cluster::quiet(1).secret(RIGHT).start().await;
    for secret in ["", WRONG] {
        let sender = broadgate_proto::secret::Secret::parse(secret).unwrap().sender();
        let to = |address: &str| tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
        let gateway = to(&cluster.internal[0]).connect().await.unwrap();
        let mut caller = v1::gateway_client::GatewayClient::with_interceptor(gateway, sender.clone());
        let refused = caller.count(v1::CountRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        let register = to(&cluster.register_address).connect().await.unwrap();
        let mut watcher = v1::register_client::RegisterClient::with_interceptor(register, sender);
        for _ in 0..20 {
            let refused = watcher.watch(v1::WatchRequest::default()).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        }
    }
    let gateway = &cluster.gateways[0];
    let register = cluster.register.as_ref().unwrap();
    for (process, path) in
        [(gateway, "/broadgate.v1.Gateway/Count"), (register, "/broadgate.v1.Register/Watch")]
    {
        let log = process.log();
        let line = log.lines().find(|line| line.contains(path)).unwrap_or_else(|| panic!("{path}: {log}"));
        for words in ["INFO", "reason=\"secret\"", "address=127.0.0.1:", "refused"] {
            assert!(line.contains(words), "{words}: {line}");
        }
        assert!(!log.contains(RIGHT) && !log.contains(WRONG));
    }
    assert_eq!(register.log().matches("reason=\"secret\"").count(), 10);
}

/// The log says who ended a user's connections by the HTTP API.
#[tokio::test]
async fn terminated_connections_name_their_caller() {
    let cluster = Cluster::quiet(1).more(crate::pusher::APPS).start().await;
    // Like the first one, but talkative.
    let config = std::fs::read_to_string(cluster.dir.join("gateway-1.toml")).unwrap();
    let path = cluster.dir.join("talkative.toml");
    std::fs::write(&path, config.replace("gateway-1", "talkative")).unwrap();
    let args = ["gateway", "--config", path.to_str().unwrap()];
    let talkative = Process::start(&cluster.dir, "talkative", &args, &[("BROADGATE_LOG", "debug")]);
    until("it is in the view", async || cluster.view().await.filter(|view| view.members.len() == 2)).await;
    let member =
        cluster.view().await.unwrap().members.into_iter().find(|one| one.name == "talkative").unwrap();
    let web = member.listeners["web"].clone();
    let path = "/apps/shop/users/ann/terminate_connections";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let query = format!("auth_key=shop-key&auth_timestamp={now}&auth_version=1.0");
    let signature = crate::pusher::sign(&format!("POST\n{path}\n{query}"));
    let signature = signature.split_once(':').unwrap().1;
    let request = format!(
        "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    until("both answer", async || {
        let answer = crate::malformed_input::answer(web.parse().unwrap(), request.as_bytes(), false).await;
        String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200 ").then_some(())
    })
    .await;
    let log = talkative.log();
    let line =
        log.lines().find(|line| line.contains("command closes clients")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("caller=127.0.0.1:") && line.contains("app=\"shop\""), "{line}");
}
