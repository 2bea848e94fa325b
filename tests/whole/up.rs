//! `broadgate up` and its children.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{
    harness::*,
    operator::{first_json, run},
};

/// `up` whose output nobody reads any more looks after its children all the same.
#[tokio::test]
async fn up_survives_an_unread_output() {
    let cluster = Cluster::of(0).start().await;
    let base = free_base();
    let state = format!("--state={}", cluster.dir.join("state").display());
    let mut up = Command::new(env!("CARGO_BIN_EXE_broadgate"))
        .args(["up", &format!("--base-port={base}"), &state, "--workers=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((up.stdout.take(), up.stderr.take()));
    let pid = up.id();
    let first = until("a gateway runs", async || find_child(pid, "gateway-1")).await;
    let address = format!("127.0.0.1:{}", base + 10);
    let ready = async || (run(&["status", "--addr", &address], &[]).0 == 0).then_some(());
    until("it answers", ready).await;
    // Its end is reported on standard error.
    signal(first, "KILL");
    until("it is started again", async || find_child(pid, "gateway-1").filter(|&now| now != first)).await;
    until("it answers again", ready).await;
    assert!(up.try_wait().unwrap().is_none());
    signal(pid, "INT");
    let up = std::cell::RefCell::new(up);
    let ended = until("it ends", async || up.borrow_mut().try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));
}

/// `up` from its start to its end: the table, the page, a child that dies and comes back, and
/// children that end with their supervisor, also when it is killed.
#[tokio::test]
async fn up_supervises_its_children() {
    // The guard that bounds how many clusters run, with no process of its own but the register.
    let cluster = Cluster::of(0).start().await;
    let base = free_base();
    let apps = cluster.dir.join("state/apps.toml").display().to_string();
    let state = cluster.dir.join("state").display().to_string();
    let args = ["up".to_owned(), format!("--base-port={base}"), format!("--state={state}")];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut up = Process::start(&cluster.dir, "up", &args, &[]);
    until("it says that it runs", async || up.log().contains("The cluster is ready").then_some(())).await;
    assert!(up.log().contains(&format!("http://127.0.0.1:{}/", base + 20)), "{}", up.log());
    // The new app is shown, and all gateways know it.
    let list = first_json(&run(&["apps", "--json", "--apps", &apps], &[]).1).unwrap();
    let key = list["apps"][0]["keys"][0].as_str().unwrap();
    let log = up.log();
    assert!(log.contains(&format!("/console#app=1&key={key}\n")), "{log}");
    assert!(
        log.contains("apps env 1 --apps ") && log.contains(&format!("--url http://127.0.0.1:{}", base + 20))
    );
    let address = format!("127.0.0.1:{}", base + 10);
    let status = || first_json(&run(&["status", "--json", "--addr", &address], &[]).1);
    let first = status().unwrap();
    let incarnation = |status: &Value| {
        let gateways = status["gateways"].as_array().unwrap().clone();
        gateways
            .into_iter()
            .find(|gateway| gateway["name"] == "gateway-2")
            .map(|gateway| gateway["incarnation"].clone())
    };
    let page = crate::malformed_input::answer(
        format!("127.0.0.1:{}", base + 20).parse().unwrap(),
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        false,
    )
    .await;
    assert!(page.starts_with(b"HTTP/1.1 200") && String::from_utf8_lossy(&page).contains("<html"));
    dashboard_is_open_to_this_machines_own_page(base + 5).await;
    for (path, status, words) in [
        ("/healthz", "200", "ok"),
        ("/readyz", "200", "ready"),
        ("/metrics", "200", "# HELP broadgate_gateway_clients "),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let metrics = format!("127.0.0.1:{}", base + 31).parse().unwrap();
        let answer = crate::malformed_input::answer(metrics, request.as_bytes(), false).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words),
            "{path}: {answer}"
        );
        crate::malformed_input::answer(metrics, b"\x16\x03\x01garbage", true).await;
    }
    let (code, text) = run(&["up", &format!("--base-port={base}"), &format!("--state={state}")], &[]);
    assert!(code == 2 && text.contains(&format!("port {base}")), "{text}");
    let child = children(up.id(), "gateway-2");
    signal(child, "KILL");
    until("the child is back", async || {
        let now = status()?;
        (incarnation(&now).is_some() && incarnation(&now) != incarnation(&first)).then_some(())
    })
    .await;
    assert!(up.log().contains("gateway-2 has ended: signal 9"), "{}", up.log());
    let child = children(up.id(), "gateway-1");
    signal(child, "TERM");
    until("a child that was told to stop has stopped", async || {
        up.log().contains("gateway-1 has ended: exit code 0").then_some(())
    })
    .await;
    let running = || ["gateway-1", "gateway-2", "chat-1"].map(|name| find_child(up.id(), name));
    until("all are back", async || running().iter().all(Option::is_some).then_some(())).await;
    let others = running().map(Option::unwrap);
    up.kill();
    for pid in others {
        until("the children end", async || {
            (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        })
        .await;
    }
    let mut again = Process::start(&cluster.dir, "again", &args, &[]);
    until("it runs again", async || again.log().contains("The cluster is ready").then_some(())).await;
    again.signal("INT");
    assert_eq!(again.ended().await.code(), Some(0), "{}", again.log());
}

/// A base port from which on what `up` needs is free.
pub fn free_base() -> u16 {
    // Each base is given out once: another test may be about to use it. Below the ephemeral ports.
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 50).unwrap();
    loop {
        let step = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let base = 20_000 + (own + step) % 120 * 100;
        if (0..40).all(|port| std::net::TcpListener::bind(("127.0.0.1", base + port)).is_ok()) {
            return base;
        }
    }
}

fn children(parent: u32, name: &str) -> u32 {
    find_child(parent, name).unwrap_or_else(|| panic!("{name} is not a child of {parent}"))
}

/// The process of a supervisor's child.
fn find_child(parent: u32, name: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let wanted = format!("--name={name}");
    pids.into_iter().find(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        String::from_utf8_lossy(&command).split('\0').any(|arg| arg == wanted)
            && status.contains(&format!("PPid:\t{parent}\n"))
    })
}

/// Without a secret nothing is asked for, but other pages get nothing.
async fn dashboard_is_open_to_this_machines_own_page(port: u16) {
    let at = format!("127.0.0.1:{port}").parse().unwrap();
    let answer = async |request: String| {
        let answer = crate::malformed_input::answer(at, request.as_bytes(), false).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    let page = answer(get("/")).await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("default-src 'none'"), "{page}");
    assert!(answer(get("/me")).await.contains(r#"{"logged_in":false,"login":"open"}"#));
    let login = |origin: &str| {
        format!(
            "POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {origin}\r\nX-Broadgate-Dashboard: 1\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        )
    };
    assert!(answer(login("http://evil.example")).await.starts_with("HTTP/1.1 403"));
    let entered = answer(login(&format!("http://127.0.0.1:{port}"))).await;
    assert!(entered.starts_with("HTTP/1.1 204") && entered.contains("SameSite=Strict"), "{entered}");
}
