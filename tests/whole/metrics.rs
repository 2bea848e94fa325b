//! What `/metrics` says, against what alerts and the runbook ask of it.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use broadgate_proto::v1::StatusRequest;

use crate::harness::*;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let whole = words.filter(|word| word.starts_with("broadgate_") && !word.ends_with('_'));
    whole.map(str::to_owned).collect()
}

/// Gauges by app, which are there once something has waited; and what only registers over a ledger have.
const LATER: [&str; 2] =
    ["broadgate_gateway_webhook_queue_events", "broadgate_register_ledger_commit_seconds_bucket"];

pub async fn scrape(address: SocketAddr) -> String {
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    String::from_utf8(crate::malformed_input::answer(address, request, false).await).unwrap()
}

/// Every metric that an alert or the runbook names is described, and is there before anything has
/// happened: an increase from nothing is no increase to Prometheus.
#[tokio::test]
async fn metrics_of_alerts_exist() {
    let cluster = Cluster::of(0).tls().start().await;
    let start = |name: &str, args: &[&str]| {
        let register = format!("--register={}", cluster.register_address);
        let mut all = args.to_vec();
        all.push("--metrics-bind=127.0.0.1:0");
        if args[0] != "register" {
            all.push(&register);
        }
        Process::start(&cluster.dir, name, &all, &cluster.environment())
    };
    // What an app has only if it has webhooks, or a Redis.
    let apps = cluster.dir.join("metered.toml");
    let app = "[[apps]]\nid = \"1\"\nkeys = [{ key = \"k\", secret = \"a-secret-of-an-app\" }]\n\
               webhooks = [{ url = \"http://127.0.0.1:1/\" }]\n\
               redis = { url = \"redis://127.0.0.1:1\", prefix = \"\" }\n";
    std::fs::write(&apps, app).unwrap();
    let apps = format!("--apps={}", apps.display());
    let gateway = ["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0", &apps];
    let processes = [
        start("metered-register", &["register", "--bind=127.0.0.1:0"]),
        start("metered-gateway", &gateway),
        start("metered-worker", &["worker", "echo"]),
    ];
    let mut addresses = Vec::new();
    for process in &processes {
        addresses.push(process.logged("metrics and probes address=").await.parse::<SocketAddr>().unwrap());
    }
    let internal = processes[1].logged("internal=").await;
    cluster.caller_at(&internal).await.status(StatusRequest::default()).await.unwrap();
    let mut asked = named(&read("deploy/alerts.yml"));
    asked.extend(named(&read("deploy/RUNBOOK.md")));
    assert!(asked.len() > 15, "{asked:?}");
    let help = read("src/help.rs");
    for metric in &asked {
        let metric = metric.strip_suffix("_bucket").unwrap_or(metric);
        assert!(help.contains(&format!("\"{metric}\"")), "{metric} is not in src/help.rs");
    }
    until("every metric is there", async || {
        let mut there = String::new();
        for address in &addresses {
            there += &scrape(*address).await;
        }
        let lines = |metric: &&String| {
            let sample = there.lines().filter(|line| !line.starts_with('#'));
            let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
            // Of a histogram, one of its series.
            sample.into_iter().all(|line| name(line).trim_end_matches("_count") != metric.as_str())
        };
        let missing: Vec<_> =
            asked.iter().filter(lines).filter(|metric| !LATER.contains(&&***metric)).collect();
        if !missing.is_empty() {
            println!("not there yet: {missing:?}");
        }
        missing.is_empty().then_some(())
    })
    .await;
    // Of each process, what Prometheus expects of any.
    for address in addresses {
        let text = scrape(address).await;
        for metric in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let value = text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= 0.0), "{metric}: {text}");
        }
    }
}

/// How long commands and the shards' turns take is measured.
#[tokio::test]
async fn commands_and_turns_are_timed() {
    let cluster = Cluster::of(0).start().await;
    let register = format!("--register={}", cluster.register_address);
    let flags = [
        "gateway",
        "--internal-bind=127.0.0.1:0",
        "--client-bind=127.0.0.1:0",
        "--metrics-bind=127.0.0.1:0",
        &register,
    ];
    let gateway = Process::start(&cluster.dir, "timed", &flags, &[]);
    let metrics = gateway.logged("metrics and probes address=").await.parse().unwrap();
    let internal = gateway.logged("internal=").await;
    let mut caller = Caller::connect(format!("http://{internal}")).await.unwrap();
    for _ in 0..3 {
        let _ = caller.count(broadgate_proto::v1::CountRequest::default()).await;
    }
    until("all are measured", async || {
        let text = scrape(metrics).await;
        let count = |name: &str| {
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let brace = if labels.is_empty() { "" } else { "{" };
            let name = format!("broadgate_gateway_{name}_seconds_count{brace}{labels} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let commands = count("commands{call=\"count\"}") >= 3 && count("commands{call=\"send\"}") == 0;
        (commands && count("shard_turn") > 0 && count("shard_lag") > 0).then_some(())
    })
    .await;
}
