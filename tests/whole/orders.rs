//! What operators say with their orders: how they gave them, and why; and who they are to the cluster.

use serde_json::{Value, json};

use crate::{
    audit::AuditFile,
    harness::*,
    http::post,
    operator,
    tokens::{TokensFile, as_json},
};

const SECRET: &str = "secret-of-orders-0123456789abcdefgh";

/// A note stands in the audit and in the events, with the program that gave the order; also for a send, which has no
/// line otherwise.
#[tokio::test]
async fn orders_have_their_notes() {
    let (mut tokens, file) = (TokensFile::new("notes"), AuditFile::new("notes"));
    tokens.add("ann", &["--role", "operator"]);
    let token = tokens.file_of("ann");
    let cluster =
        Cluster::quiet(1).secret(SECRET).gateway(&tokens.setting()).more(&file.section()).start().await;
    let here = &cluster.internal[0];
    let run = |args: &[&str]| cluster.run(&[args, &["--token-file", &token]].concat());
    for (args, what, note) in [
        (&["kick", "--uid", "42", "--note", "#4711"][..], "close", "#4711"),
        (&["send", "--uid", "43", "--note", "  für Anna, 100 % "], "send", "für Anna, 100 %"),
    ] {
        let args = if what == "send" { [args, &["farewell"]].concat() } else { args.to_vec() };
        let (code, _, err) = run(&args);
        assert_eq!(code, 0, "{args:?}: {err}");
        let line = file.line(note, |line| line["what"] == what).await;
        assert_eq!(
            (&line["note"], &line["how"], &line["who"], &line["complete"]),
            (&json!(note), &json!("cli"), &json!("token:ann"), &json!(true)),
            "{line}"
        );
        let (_, told, _) = run(&["events", "--kind", "audit"]);
        assert!(told.contains(&format!("(note: {note})")), "{told}");
    }
    // As JSON, by hand: what the caller says it is counts if it is one of the words.
    let bearer = format!("Bearer {SECRET}");
    let by = |more: &[(&'static str, &'static str)], uid: &'static str| {
        let mut headers =
            vec![("Content-Type", "application/json"), ("Host", "x"), ("Authorization", bearer.as_str())];
        headers.extend(more);
        async move { post(here, "Close", &headers, &json!({"to": {"uids": [uid]}}).to_string()).await }
    };
    for (headers, uid, how, note) in [
        (&[("broadgate-note", "by hand: 50%")][..], "44", "json", json!("by hand: 50%")),
        (&[("broadgate-how", "dashboard")], "45", "dashboard", Value::Null),
        (&[("broadgate-how", "root"), ("broadgate-worker", "chat-1")], "46", "json", Value::Null),
    ] {
        assert_eq!(by(headers, uid).await.0, 200);
        let line = file.line(uid, |line| line["on"]["uids"] == json!([uid])).await;
        assert_eq!((&line["how"], &line["note"]), (&json!(how), &note), "{line}");
    }
    // What would break a line, or fill it, is refused, and nothing is done.
    let long = "x".repeat(257);
    for (note, said) in [("a\nb", "control character"), (&long, "at most 256"), (" ", "it is empty")] {
        let (code, _, err) = run(&["kick", "--uid", "47", "--note", note]);
        assert!(code == 2 && err.contains(said), "{note:?}: {code} {err}");
    }
    let (status, body) = by(&[("broadgate-note", "a%0Ab")], "47").await;
    assert!(status == 400 && body.to_string().contains("control character"), "{status} {body}");
    // A send without a note has none.
    assert_eq!(run(&["send", "--uid", "48", "farewell"]).0, 0);
    assert_eq!(run(&["kick", "--uid", "49"]).0, 0);
    file.line("the last order", |line| line["on"]["uids"] == json!(["49"])).await;
    let all = file.text();
    assert!(!["\"47\"", "\"48\"", "farewell"].iter().any(|never| all.contains(never)), "{all}");
}

/// Who had a gateway drained is in its own audit, also where the register was asked directly.
#[tokio::test]
async fn drained_gateway_says_who_wanted_it() {
    let (mut tokens, file) = (TokensFile::new("drains"), AuditFile::new("drains"));
    tokens.add("ann", &["--role", "operator"]);
    let token = tokens.file_of("ann");
    let mut cluster =
        Cluster::quiet(3).secret(SECRET).gateway(&tokens.setting()).more(&file.section()).start().await;
    let other = cluster.internal[2].clone();
    let by_register = ["--register", &cluster.register_address.clone()];
    let by_gateway = ["--addr", &other, "--token-file", &token];
    for (number, by, who, note) in
        [(0, &by_register[..], "secret", "by register"), (1, &by_gateway[..], "token:ann", "by gateway")]
    {
        let name = format!("gateway-{}", number + 1);
        let args = ["drain", &name, "--note", note, "--wait=60s"];
        let (code, out, err) = cluster.run(&[&args, by].concat());
        assert_eq!(code, 0, "{out}{err}");
        let line = file.line(&name, |line| line["what"] == "drained" && line["gateway"] == *name).await;
        assert_eq!(
            (&line["who"], &line["how"], &line["from"], &line["note"], &line["on"]["gateway"]),
            (&json!(who), &json!("cli"), &json!("127.0.0.1"), &json!(note), &json!(name)),
            "{line}"
        );
        assert_eq!(cluster.gateways[number].ended().await.code(), Some(0));
    }
    // The gateway that passed the order on has its own line, and the register has both in its log.
    let line = file.line("passed on", |line| line["what"] == "drain").await;
    assert_eq!((&line["gateway"], &line["note"]), (&json!("gateway-3"), &json!("by gateway")), "{line}");
    let log = cluster.register.as_ref().unwrap().log();
    for said in ["by register", "by gateway", "token:ann"] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

/// A time that is too short is said in words, wherever on the way it ends.
#[tokio::test]
async fn short_times_are_said_in_words() {
    let cluster = Cluster::quiet(2).start().await;
    for time in ["1ms", "2ms", "3ms", "5ms", "8ms", "13ms", "21ms"] {
        for args in [
            &["status"][..],
            &["whoami"],
            &["top", "--once"],
            &["clients"],
            &["group", "x"],
            &["send", "--uid", "x", "x"],
            &["watch", "--group", "x", "--json"],
            &["tap", "--uid", "x", "--for", "1s"],
        ] {
            // These go on if the time was enough: a nonsensical app ends them.
            let app = if ["watch", "tap"].contains(&args[0]) { &["--app", "none"][..] } else { &[] };
            let (code, _, err) = cluster.run(&[args, app, &["--timeout", time]].concat());
            assert!(!err.contains("gRPC code") && !err.contains("expired"), "{args:?} {time}: {err}");
            // A message that may have been sent is no cluster that cannot be reached.
            let may = if args[0] == "send" { &[0, 1, 3, 5][..] } else { &[0, 3, 4, 5] };
            assert!(may.contains(&code), "{args:?} {time}: {code} {err}");
        }
    }
}

/// `whoami` is the way to see whether a profile works, for any token and for the secret.
#[tokio::test]
async fn whoami_says_what_a_caller_may() {
    let mut tokens = TokensFile::new("whoami");
    tokens.add("ann", &["--role", "operator", "--app", "shop", "--app", "blog", "--expires", "30d"]);
    tokens.add("eyes", &["--role", "reader", "--right", "payload"]);
    let cluster = Cluster::quiet(2).secret(SECRET).gateway(&tokens.setting()).start().await;
    let (ann, eyes) = (tokens.file_of("ann"), tokens.file_of("eyes"));
    // A token that may not even see the default app.
    let (code, out, err) = cluster.run(&["whoami", "--token-file", &ann]);
    assert_eq!(code, 0, "{err}");
    for said in ["token:ann", "operator", "shop, blog", "none", "in 29d 23h", "gateway-1, at 127.0.0.1:"] {
        assert!(out.contains(said), "{said}: {out}");
    }
    let (_, out, _) = cluster.run(&["whoami", "--token-file", &eyes, "--json"]);
    let who = operator::json(&out);
    assert_eq!(
        (&who["who"], &who["apps"], &who["rights"], &who["expires_at_ms"]),
        (&json!("token:eyes"), &json!(["*"]), &json!(["payload"]), &json!(0))
    );
    let (code, out, _) = cluster.run(&["whoami"]);
    assert!(code == 0 && out.contains("secret") && out.contains("does not expire"), "{out}");
    // By a profile, whose first address is dead.
    let home = cluster.dir.join("home").display().to_string();
    let run = |args: &[&str]| operator::run(args, &[("HOME", &home), ("XDG_CONFIG_HOME", "")]);
    let both = format!("{},{}", free_address(), cluster.internal[1]);
    let added = run(&["cluster", "add", "prod", "--address", &both, "--token-file", &eyes, "--protected"]);
    assert_eq!(added.0, 0, "{}", added.1);
    let (code, out) = run(&["whoami", "--cluster", "prod"]);
    assert!(code == 0 && out.contains("gateway-2") && out.contains("prod, protected"), "{out}");
    // It does not count any more, or never did.
    tokens.remove("eyes");
    until("the token is forgotten", async || (run(&["whoami", "--cluster", "prod"]).0 == 2).then_some(()))
        .await;
    let (_, out) = run(&["whoami", "--cluster", "prod"]);
    assert!(out.contains("the token is unknown here"), "{out}");
    let (status, _) = as_json(&cluster.internal[0], "WhoAmI", "", "{}").await;
    assert_eq!(status, 401);
    let (code, out) = run(&["whoami", "--addr", &cluster.internal[0]]);
    assert!(code == 2 && out.contains("shared secret"), "{code} {out}");
    let (code, out) = run(&["whoami", "--addr", &free_address().to_string()]);
    assert!(code == 5 && out.contains("cannot be reached"), "{code} {out}");
}
