//! Handshakes, and what a worker learns of them.

use broadgate_proto::v1::{
    Accept, Handshake, Refuse, accept::Greeting, decision::Decision, event::Event as Kind,
};
use tokio_tungstenite::tungstenite::Error;

use crate::harness::*;

fn handshake(event: &broadgate_proto::v1::Event) -> &Handshake {
    match &event.event {
        Some(Kind::Handshake(handshake) | Kind::Opened(handshake)) => handshake,
        other => panic!("no handshake: {other:?}"),
    }
}

fn header<'a>(handshake: &'a Handshake, name: &str) -> &'a str {
    handshake.headers.iter().find(|header| header.name == name).map_or("", |header| &header.value)
}

fn status(result: Result<Client, Error>) -> (u16, String) {
    match result.map(|_| ()).unwrap_err() {
        Error::Http(answer) => {
            let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            (answer.status().as_u16(), body)
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn worker_decides_handshakes() {
    let cluster = Cluster::of(1).listener("authorize = \"worker\"").start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let url = format!("ws://{}/ws?token=t&x=1", cluster.web(0));
    let coming = tokio::spawn(async move {
        let headers = [("cookie", "sid=42"), ("sec-websocket-protocol", "one, two")];
        Client::try_connect(&url, &headers).await.unwrap()
    });
    let asked = worker.event().await;
    let shake = handshake(&asked);
    assert_eq!((shake.path.as_str(), shake.query.as_str()), ("/ws", "token=t&x=1"));
    assert_eq!((header(shake, "cookie"), asked.listener.as_str()), ("sid=42", "web"));
    assert!(shake.address.starts_with("127.0.0.1:") && shake.proxy.is_empty());
    let accept = Accept {
        uid: "ann".into(),
        groups: vec!["room".into()],
        session_json: r#"{"k":1}"#.into(),
        greeting: Some(Greeting::Text("welcome".into())),
        subprotocol: "two".into(),
    };
    worker.decide(&asked, Decision::Accept(accept)).await;
    let mut client = soon("the client is in", coming).await.unwrap();
    assert_eq!(client.answer.headers()["sec-websocket-protocol"], "two");
    client.hears(&["welcome"]).await;
    let opened = worker.take().await;
    assert_eq!((opened.client_id.as_str(), opened.uid.as_str()), (asked.client_id.as_str(), "ann"));
    assert_eq!(opened.session.unwrap().json, r#"{"k":1}"#);
    let receipt = cluster.caller(0).await.send(text(groups(&["room"]), "hi")).await.unwrap().into_inner();
    assert_eq!(receipt.clients, 1);
    client.hears(&["hi"]).await;
}

#[tokio::test]
async fn handshake_without_a_worker_gets_retry_after() {
    let cluster =
        Cluster::of(1).listener("authorize = \"worker\"").limits("hold_time_max = \"1s\"").start().await;
    let url = format!("ws://{}/ws", cluster.web(0));
    let none = Client::try_connect(&url, &[]).await.map(|_| ()).unwrap_err();
    let Error::Http(answer) = none else { panic!("{none}") };
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let coming = tokio::spawn(async move { Client::try_connect(&url, &[]).await });
    let asked = worker.event().await;
    worker.decide(&asked, Decision::Refuse(Refuse { status: 401, body: "who are you?".into() })).await;
    assert_eq!(status(coming.await.unwrap()).0, 401);
    assert_eq!(cluster.count(0).await, 0);
    // A worker that only acknowledges has not consented; one that is lost is asked again elsewhere.
    let url = format!("ws://{}/ws", cluster.web(0));
    let again = url.clone();
    let coming = tokio::spawn(async move { Client::try_connect(&url, &[]).await });
    worker.take().await;
    assert_eq!(status(coming.await.unwrap()).0, 503);
    let coming = tokio::spawn(async move { Client::try_connect(&again, &[]).await });
    let first = worker.event().await;
    let mut second = TestWorker::attach(&cluster.internal[0], 2).await;
    drop(worker);
    let asked = second.event().await;
    assert_eq!((asked.client_id, asked.redelivered), (first.client_id, true));
    second.decide(&Event { seq: asked.seq, ..Default::default() }, Decision::Accept(Accept::default())).await;
    assert!(coming.await.unwrap().is_ok());
}

use broadgate_proto::v1::Event;

#[tokio::test]
async fn client_address_comes_from_trusted_proxies_only() {
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    let cluster = Cluster::of(1).listener(trusted).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let url = format!("ws://{}/ws", cluster.web(0));
    let _client = Client::try_connect(&url, &[("x-forwarded-for", "203.0.113.9, 192.0.2.7")]).await.unwrap();
    let opened = worker.take().await;
    let shake = handshake(&opened);
    assert_eq!(shake.address, "192.0.2.7:0");
    assert!(shake.proxy.starts_with("127.0.0.1:"));
    drop(cluster);
    let cluster = Cluster::of(1).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let url = format!("ws://{}/ws", cluster.web(0));
    let _client = Client::try_connect(&url, &[("x-forwarded-for", "192.0.2.7")]).await.unwrap();
    let opened = worker.take().await;
    assert!(handshake(&opened).address.starts_with("127.0.0.1:"), "nobody may say who they are");
}

#[tokio::test]
async fn origins_and_bad_upgrades_are_refused_with_a_status() {
    let cluster = Cluster::quiet(1)
        .more("[[apps]]\nid = \"site\"\nraw = true\norigins = [\"https://good.example\"]")
        .start()
        .await;
    let url = format!("ws://{}/ws/site", cluster.web(0));
    assert_eq!(status(Client::try_connect(&url, &[("origin", "https://evil.example")]).await).0, 403);
    assert!(Client::try_connect(&url, &[("origin", "https://good.example")]).await.is_ok());
    let unknown = format!("ws://{}/ws/nothing", cluster.web(0));
    let (code, body) = status(Client::try_connect(&unknown, &[]).await);
    assert!(code == 404 && body.contains("nothing"), "{body}");
    for (request, code) in [
        ("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "426"),
        ("GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"),
        ("POST /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "405"),
        (
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n",
            "426",
        ),
        (
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n",
            "400",
        ),
    ] {
        let answer = crate::malformed_input::answer(cluster.web(0), request.as_bytes(), false).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{request}: {answer}");
    }
}
