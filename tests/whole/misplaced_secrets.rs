//! Secrets in the wrong places: in queries, paths, headers and bodies, encoded or not. None reaches a log, what `why`
//! remembers, or a metric.

use std::net::SocketAddr;

use data_encoding::BASE64;

use crate::harness::*;

/// A secret of the app, which the gateway knows.
const KNOWN: &str = "known-secret-of-the-shop";
/// One of another system, which it cannot know.
const FOREIGN: &str = "foreign-secret-of-somebody";

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn ask(at: SocketAddr, line: &str, headers: &str, body: &str) {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    crate::malformed_input::answer(at, request.as_bytes(), false).await;
}

#[tokio::test]
async fn misplaced_secrets_are_logged_nowhere() {
    let app = format!(
        "[[apps]]\nid = \"shop\"\nraw = true\nsocketio = true\n[[apps.keys]]\nkey = \"shop-key\"\n\
         secret = {KNOWN:?}\n[metrics]\nbind = \"127.0.0.1:0\"\n"
    );
    let cluster = Cluster::quiet(1).logging("debug").more(&app).start().await;
    let (web, internal) = (cluster.web(0), cluster.internal[0].parse().unwrap());
    for secret in [KNOWN, FOREIGN] {
        in_queries(web, internal, secret).await;
        in_headers(web, internal, secret).await;
        in_bodies(web, internal, secret).await;
        in_frames(web, secret).await;
    }
    in_paths(web, KNOWN).await;
    // What is refused last is remembered and logged last; each refusal has its line. Of a flood some are left out.
    until("all is refused", async || {
        ask(web, "GET /the-last-one", "", "").await;
        let (code, out, _) = cluster.run(&["why", "--address", "127.0.0.1", "--limit", "1000"]);
        (code == 0 && out.contains("/the-last-one")).then_some(())
    })
    .await;
    let metrics = cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let metrics = String::from_utf8(crate::malformed_input::answer(metrics, request, false).await).unwrap();
    assert!(metrics.contains("broadgate_gateway_refused_total"), "{metrics}");
    let why = cluster.run(&["why", "--address", "127.0.0.1", "--limit", "1000", "--json"]).1;
    let rows: serde_json::Value = serde_json::from_str(&why).unwrap();
    assert!(rows["refused"].as_array().unwrap().len() > 20, "{why}");
    for (place, text) in [("log", cluster.gateways[0].log()), ("why", why), ("metrics", metrics)] {
        for secret in [KNOWN, FOREIGN] {
            for form in [secret.to_owned(), encoded(secret), BASE64.encode(secret.as_bytes())] {
                let line = text.lines().find(|line| line.to_lowercase().contains(&form.to_lowercase()));
                assert!(line.is_none(), "{place} has {form:?}: {line:?}");
            }
        }
    }
}

async fn in_queries(web: SocketAddr, internal: SocketAddr, secret: &str) {
    let once = encoded(secret);
    for query in [
        format!("auth_key={secret}"),
        format!("auth_key={once}"),
        format!("auth_key={once}&auth_signature=00&auth_timestamp=1&auth_version=1.0"),
        format!("key={once}"),
        format!("access_token={secret}&key={secret}"),
    ] {
        for path in
            ["/apps/shop/channels", "/apps/nobody/channels", "/apps/shop/events", "/ws", "/ws/nobody", "/x"]
        {
            ask(web, &format!("GET {path}?{query}"), "", "").await;
            ask(web, &format!("GET {path}%3F{query}"), "", "").await;
            ask(web, &format!("GET {path}/%3F{}", encoded(&query)), "", "").await;
        }
        ask(web, &format!("GET /socket.io/?EIO=9&transport=polling&{query}"), "", "").await;
        ask(web, &format!("POST /channels/x/messages?{query}"), "", "{}").await;
        ask(internal, &format!("GET /nothing?{query}"), "", "").await;
        ask(internal, &format!("GET /v1/Send%3F{query}"), "", "").await;
    }
}

async fn in_headers(web: SocketAddr, internal: SocketAddr, secret: &str) {
    for basic in [format!("{secret}:{secret}"), format!("{secret}:shop-key"), format!("shop-key:{secret}x")] {
        let header = format!("Authorization: Basic {}\r\n", BASE64.encode(basic.as_bytes()));
        ask(web, "POST /channels/x/messages", &header, "{}").await;
    }
    for scheme in ["Bearer", "Basic", "Token"] {
        let header = format!("Authorization: {scheme} {secret}x\r\nCookie: a={secret}\r\n");
        ask(web, "GET /apps/shop/channels", &header, "").await;
        ask(internal, "POST /v1/Send", &header, "{}").await;
    }
}

/// Where another type is expected.
async fn in_bodies(web: SocketAddr, internal: SocketAddr, secret: &str) {
    let bearer = format!("Authorization: Bearer {KNOWN}\r\n");
    let basic = format!(
        "Authorization: Basic {}\r\nContent-Type: application/json\r\n",
        BASE64.encode(format!("shop-key:{KNOWN}").as_bytes())
    );
    for body in [
        format!("{{\"name\":\"e\",\"channels\":{secret:?},\"data\":1}}"),
        format!("{{\"batch\":{secret:?}}}"),
        format!("{secret:?}"),
        format!("[{secret:?}]"),
        secret.to_owned(),
    ] {
        for path in ["/apps/shop/events", "/apps/shop/batch_events"] {
            ask(web, &format!("POST {path}"), &bearer, &body).await;
        }
        ask(web, "POST /channels/x/messages", &basic, &body).await;
    }
    let json = "Content-Type: application/json\r\n";
    for body in [
        format!("{{\"to\":{secret:?}}}"),
        format!("{{\"to\":{{\"all\":{secret:?}}}}}"),
        format!("{{\"to\":{{\"clients\":{secret:?}}},\"close\":{secret:?}}}"),
        format!("{{\"code\":{secret:?}}}"),
    ] {
        ask(internal, "POST /v1/Send", json, &body).await;
        ask(internal, "POST /v1/Close", json, &body).await;
    }
}

/// Of what is in a path only secrets of apps can be known to be secrets.
async fn in_paths(web: SocketAddr, secret: &str) {
    for text in [encoded(secret), encoded(&encoded(secret))] {
        for path in ["/app/", "/ws/", "/", "/apps/", "/apps/shop/channels/", "/socket.io/"] {
            ask(web, &format!("GET {path}{text}"), "", "").await;
            ask(web, &format!("GET {path}{text}/users"), "", "").await;
        }
    }
}

async fn in_frames(web: SocketAddr, secret: &str) {
    let url = format!("ws://{web}/app/shop-key?protocol=7");
    for frame in [
        format!("{{\"event\":\"pusher:subscribe\",\"data\":{secret:?}}}"),
        format!("{{\"event\":[{secret:?}]}}"),
        format!("{{\"event\":\"pusher:signin\",\"data\":{{\"auth\":[{secret:?}]}}}}"),
        format!(
            "{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"private-x\",\"auth\":{secret:?}}}}}"
        ),
    ] {
        let mut client = Client::connect(&url).await;
        client.hear().await;
        client.say(&frame).await;
        client.goodbye(1000, "").await;
    }
}
