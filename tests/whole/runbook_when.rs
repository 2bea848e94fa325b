//! What the runbook says about symptoms, each made for real. `documents.rs` checks that every row of its table
//! "When", which begins with these words, has its test, here or elsewhere.
//!
//! | you see | test |
//! |---|---|
//! | `… was removed … ago: it did not beat` | `doctor::worker_that_hangs_is_named` |
//! | `no worker takes service …` | `doctor::workers_that_are_missing_or_silent_are_named` |
//! | `… is in no cluster: it has never heard | `doctor::gateway_that_never_joined_is_named` |
//! | `… is not in the cluster: the register has refused it` | `doctor::gateway_that_the_register_refuses_is_named` |
//! | `register … (NOT HEARD)` | `diagnosis::status_warns_of_problems` |
//! | `this register stands by, and no register leads now` | `etcd/runbook::etcd_loses_its_quorum_and_what_the_runbook_says_is_true` |
//! | `the ledger in etcd cannot be used` | `etcd/access::users_and_tls_work_and_wrong_ones_are_named` |
//! | `has no lease, so it is no register's` | `etcd/runbook::leader_key_without_a_lease` |
//! | `this register leads and has written it again` | `etcd/runbook::leader_key_without_a_lease` |
//! | `etcd has not accepted a change for … ms` | by hand: nothing here makes a disk slow |
//! | alert BroadgateLedgerBehind | `etcd/runbook::etcd_is_restored_from_a_backup` |
//! | a user says that a message did not arrive | `why_send::who_got_a_message_and_who_was_not_meant_is_said` |
//! | answers list a gateway as missing | `doctor::what_cannot_be_heard_is_named` |
//! | receipts say `ordered: false` | `runbook_when::home_that_cannot_be_reached_leaves_messages_without_order` |
//! | sends take up to 2 s once after a crash | `faults::killed_gateway_costs_only_its_own_clients` |
//! | `broadgate_gateway_cluster_majority_lost` is 1 | `runbook_when::loss_of_most_gateways_is_named` |
//! | clients are closed with 1013 | `why::ends_for_want_of_workers_and_by_their_deaths_are_explained` |
//! | clients are closed with 4100 | `why::ends_of_slow_clients_name_the_limit_and_the_loudest_group` |
//! | `more than this shard's share of outboxes_bytes_max` | `why::ends_for_want_of_memory_are_explained` |
//! | clients are closed with 4011 | `why::ends_for_want_of_workers_and_by_their_deaths_are_explained` |
//! | `register … is active as well` | `diagnosis::status_shows_a_second_register` |
//! | `it is not among cluster.register` | `diagnosis::status_shows_a_second_register` |
//! | clients' messages are answered late or not at all | `doctor::worker_that_leaves_one_client_without_an_answer_is_named` |
//! | gateways answer differently for the same app | `doctor::gateways_that_differ_are_named` |
//! | a gateway logs `register … refused this process | `runbook_when::gateway_with_the_name_of_another_is_refused` |
//! | `peer link keeps breaking` | `bad_certificates::gateways_and_workers_say_what_is_wrong_with_the_certificate_of_a_gateway` |
//! | `shard was not running` | `doctor::gateway_that_has_just_stopped_is_named` |
//! | clients are closed with 1008 | `why::ends_by_clients_commands_and_broken_protocols_are_explained` |
//! | clients are closed with 4201 | `why::ends_by_clients_commands_and_broken_protocols_are_explained` |
//! | `dropped in the last minutes: … busy` | by hand: it takes more clients than a test has |
//! | `dropped in the last minutes: … watcher_slow` | `pusher_watch::slow_observer_slows_no_client_and_learns_what_it_missed` |
//! | many cores, and one thread of a gateway | by hand: it takes many cores |
//! | `400` or `426` at the handshake | `refusals::upgrade_spoiled_by_a_proxy_is_explained` |
//! | Socket.IO clients do not connect | `why_refusals::refusals_of_long_requests_and_clients_are_named` |
//! | Socket.IO clients get `subscription_error` | `why_refusals::refusals_of_backends_and_subscriptions_are_named` |
//! | Pusher clients are closed with 4000 | `refusals::tls_header_is_trusted_from_the_connected_proxy_only` |
//! | `503` with `Retry-After` at the handshake | `handshakes::handshake_without_a_worker_gets_retry_after` |
//! | `broadgate_gateway_refused_total` grows with `clients_max` | `why::refusals_are_named_and_nothing_else_is` |
//! | … with `api_bodies_bytes_max` | `why_refusals::refusals_of_backends_and_subscriptions_are_named` |
//! | `broadgate_port_closed_total` grows with `crowded` | `runbook_when::strangers_that_crowd_a_port_are_counted` |
//! | JSON commands get 403 | `ports::web_pages_reach_no_internal_port` |
//! | "the open-files limit allows fewer clients" | `doctor::limit_on_open_files_is_named` |
//! | `the apps stay as they were: FILE:LINE | `apps::gateway_reloads_its_apps` |
//! | `the tokens stay as they were | `tokens::tokens_are_read_again` |
//! | `lines of the audit are lost | `audit::full_disk_of_the_audit_is_named` |
//! | exit code 6 | `tokens::command_line_is_an_operator_with_a_token` |
//! | `… connections (connections_max): … refused` | `doctor::limits_that_refuse_an_apps_users_are_named` |
//! | `… on with the tokens of … ago` | `doctor::tokens_file_that_cannot_be_used_is_named` |
//! | `the token is unknown here` | `tokens::tokens_are_read_again` |
//! | `Redis is not read | `doctor::redis_that_is_not_read_is_named` |
//! | `prefix is "…" | `redis::what_is_wrong_is_said` |
//! | `a message from Redis was dropped | `redis::every_client_gets_each_message_once` |
//! | `a task panicked` | `contained::panic_at_one_client_closes_only_this_client` |
//! | alert BroadgateCertificateExpires | `cluster_tls::bad_files_leave_the_former_certificates_and_show` |
//! | `the former certificates stay in use | `cluster_tls::bad_files_leave_the_former_certificates_and_show` |
//! | `the apps stay as they were: FILE has no app any more` | `apps::emptied_apps_file_closes_no_client` |
//! | `… does not accept the secret of …` | `doctor::gateway_with_another_secret_is_named` |
//! | `the shared secret is missing or differs` | `refusals::calls_with_a_wrong_secret_are_logged` |

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::{flood::METRICS, harness::*, metrics::scrape};

/// The value of a metric whose line has all of these words.
async fn metric(address: SocketAddr, words: &[&str]) -> Option<f64> {
    let all = scrape(address).await;
    let mut values = all.lines().filter(|line| !line.starts_with('#'));
    let line = values.find(|line| words.iter().all(|words| line.contains(words)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// A gateway that has stopped, and is still in the view, is the home of some groups: what is sent to them arrives
/// at the others without its place in the order, and the receipt says so.
#[tokio::test]
async fn home_that_cannot_be_reached_leaves_messages_without_order() {
    let settings = Cluster::quiet(2).register("beat = \"500ms\"\nlease = \"60s\"");
    let cluster = settings.limits("link_timeout = \"2s\"").start().await;
    cluster.synced().await;
    let client = cluster.client(0).await;
    let mut caller = cluster.caller(0).await;
    let all: Vec<String> = (0..16).map(|number| format!("group-{number}")).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    caller.join(join(&[&client.id], &names)).await.unwrap();
    cluster.gateways[1].signal("STOP");
    let mut unordered = 0;
    for group in &names {
        let receipt = caller.send(text(groups(&[group]), "x")).await.unwrap().into_inner();
        let coverage = receipt.coverage.unwrap();
        assert!(receipt.ordered || !coverage.complete, "{group}: {coverage:?}");
        unordered += usize::from(!receipt.ordered);
        assert!(receipt.ordered || coverage.missing == ["gateway-2"], "{group}: {coverage:?}");
        // Each takes as long as the home is waited for.
        if unordered == 2 {
            break;
        }
    }
    assert!(unordered > 0, "some have their home there");
    let (code, out, err) = cluster.run(&["doctor", "--only", "answers,links,views,homes", "--timeout", "3s"]);
    cluster.gateways[1].signal("CONT");
    assert!(code == 1 && out.contains("gateway-2"), "{code} {out}{err}");
}

/// Two of three gateways vanish at once: the metric says so, and the doctor names them.
#[tokio::test]
async fn loss_of_most_gateways_is_named() {
    let settings = Cluster::quiet(3).register("beat = \"200ms\"\nlease = \"2s\"").more(METRICS);
    let mut cluster = settings.start().await;
    cluster.synced().await;
    let metrics = cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let name = "broadgate_gateway_cluster_majority_lost ";
    until("it is measured", async || metric(metrics, &[name]).await.filter(|value| *value == 0.0)).await;
    cluster.gateways[1].kill();
    cluster.gateways[2].kill();
    until("most are lost", async || metric(metrics, &[name]).await.filter(|value| *value > 0.0)).await;
    until("they are named", async || {
        let (code, out, _) = cluster.run(&["doctor", "--only", "answers,removed,links", "--timeout", "3s"]);
        (code == 1 && out.contains("gateway-2") && out.contains("gateway-3")).then_some(())
    })
    .await;
}

/// The register says whose name it is; the one that has it goes on.
#[tokio::test]
async fn gateway_with_the_name_of_another_is_refused() {
    let cluster = Cluster::quiet(1).start().await;
    let register = format!("--register={}", cluster.register_address);
    let flags = [
        "gateway",
        &register,
        "--name=gateway-1",
        "--internal-bind=127.0.0.1:0",
        "--client-bind=127.0.0.1:0",
    ];
    let other = Process::start(&cluster.dir, "other", &flags, &[]);
    until("it is refused", async || {
        let log = other.log();
        let refused = |line: &str| line.contains("refused this process") && line.contains("is alive");
        log.lines().any(refused).then_some(())
    })
    .await;
    assert_eq!(cluster.view().await.unwrap().members.len(), 1);
}

/// More connections without business than a port keeps.
#[tokio::test]
async fn strangers_that_crowd_a_port_are_counted() {
    let cluster = Cluster::quiet(1).more(METRICS).start().await;
    let metrics = cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let words = ["broadgate_port_closed_total{", "port=\"internal\"", "reason=\"crowded\""];
    until("it is measured", async || metric(metrics, &words).await.filter(|value| *value == 0.0)).await;
    let mut strangers = Vec::new();
    for _ in 0..broadgate_proto::limits::INTERNAL_STRANGERS_MAX + 20 {
        strangers.extend(TcpStream::connect(&cluster.internal[0]).await);
    }
    until("some are closed", async || metric(metrics, &words).await.filter(|value| *value > 0.0)).await;
    assert_eq!(cluster.count(0).await, 0, "who has business there gets through");
}
