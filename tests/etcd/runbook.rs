//! What the runbook tells an operator to do with etcd, done as it says, under traffic.
//!
//! | procedure | test |
//! |---|---|
//! | Move from memory to etcd | `registers_move_from_memory_to_etcd` |
//! | Restore etcd from a backup | `etcd_is_restored_from_a_backup` |
//!
//! And what is done about a leader's key that somebody else has written, and what the alert that no register leads says of etcd without its quorum.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    cluster::{self, Cluster},
    engine::Etcd,
    harness::until,
};

/// "Move from memory to etcd": members know all addresses, the old register stops, the new ones start.
pub async fn registers_move_from_memory_to_etcd(dir: &Path) {
    let etcd = Etcd::start(dir, 1, None).await;
    let settings = [String::new(), etcd.settings(), etcd.settings()];
    let mut cluster = Cluster::start(dir, &settings, 1, 2).await;
    cluster.begin_traffic().await;
    let (since, living) = (cluster.newest(), cluster.living());
    cluster.stop_register(0).await;
    cluster.start_register(1);
    cluster.start_register(2);
    cluster.leads_after(since.0).await;
    // The third one, where the old one was.
    cluster.change_register(0, &etcd.settings());
    cluster.change_the_list().await;
    until("status names the ledger", async || cluster.status().contains("ledger etcd").then_some(())).await;
    let leader = cluster.leader().await.unwrap();
    let log = cluster.registers[leader].as_ref().unwrap().log();
    assert!(log.contains("a member knows a view that the ledger has not"), "{log}");
    cluster.check_processes();
    cluster.end_traffic().await;
    cluster.check_views(&cluster::ledger(&etcd), since, &living);
    // A register that stands by sends an operator to the leader.
    let standby = (0..3).find(|index| *index != leader).unwrap();
    cluster.drain("gateway-2", standby);
}

/// "Restore etcd from a backup": who joined since the backup stays.
pub async fn etcd_is_restored_from_a_backup(dir: &Path) {
    let mut etcd = Etcd::start(dir, 3, None).await;
    let settings = vec![etcd.settings(); 2];
    let mut cluster = Cluster::start(dir, &settings, 2, 2).await;
    let backup = dir.join("backup");
    etcd.back_up(0, &backup);
    cluster.begin_traffic().await;
    cluster.add_gateway().await;
    cluster.change_the_list().await;
    let (before, living) = (cluster.newest(), cluster.living());
    etcd.restore(&backup).await;
    cluster.change_the_list().await;
    until("all members are in a newer view", async || {
        (cluster.newest() > before && cluster.living() == living).then_some(())
    })
    .await;
    let logs: String = cluster.registers.iter().flatten().map(|register| register.log()).collect();
    assert!(logs.contains("a member knows a view that the ledger has not"), "{logs}");
    cluster.check_processes();
    cluster.end_traffic().await;
}

/// "A register leads within seconds of the quorum's return".
const LEADS_TIME_MAX: Duration = Duration::from_secs(10);

/// "`this register stands by, and no register leads now`": the row, word by word.
pub async fn etcd_loses_its_quorum_and_what_the_runbook_says_is_true(dir: &Path) {
    let mut etcd = Etcd::start(dir, 3, None).await;
    let settings = vec![etcd.settings(); 2];
    let mut cluster = Cluster::start(dir, &settings, 2, 2).await;
    cluster.begin_traffic().await;
    let (since, living) = (cluster.newest(), cluster.living());
    let leads = async |cluster: &Cluster| cluster.metric_of_registers("broadgate_register_leads").await;
    assert_eq!(leads(&cluster).await, Some(1.0));
    etcd.kill(0);
    etcd.kill(1);

    // What an operator sees: the log, the alert, and what etcdctl says.
    cluster.gateways[0].logged("this register stands by, and no register leads now").await;
    until("the alert's expression is true", async || (leads(&cluster).await == Some(0.0)).then_some(()))
        .await;
    let said = etcd.complaint(&["endpoint", "status"]);
    let endpoints = etcd.endpoints();
    let down = |endpoint: &str| said.contains(&format!("Failed to get the status of endpoint {endpoint} "));
    assert!(down(&endpoints[0]) && down(&endpoints[1]) && !down(&endpoints[2]), "{said}");
    assert!(said.contains("no leader"), "{said}");
    // Nobody can join, leave or be removed; traffic goes on.
    let url = cluster.start_gateway();
    let newcomer = cluster.gateways.last().unwrap();
    newcomer.logged("this register stands by, and no register leads now").await;
    cluster.goes_on().await;
    assert_eq!((cluster.newest(), cluster.living()), (since, living.clone()));

    // Start etcd's members again.
    etcd.begin(0);
    etcd.begin(1);
    etcd.answers().await;
    let returned = Instant::now();
    cluster.leads_after(since.0).await;
    let took = returned.elapsed();
    println!("  a register led {took:.1?} after the quorum's return");
    assert!(took < LEADS_TIME_MAX, "{took:?}");
    cluster.gateway_takes_clients(&url).await;
    assert_eq!(leads(&cluster).await, Some(1.0));

    // The quorum cannot come back: the member that is left has the backup.
    etcd.kill(0);
    etcd.kill(1);
    until("no register leads", async || cluster.leader().await.is_none().then_some(())).await;
    let (before, living_now) = (cluster.newest(), cluster.living());
    let backup = dir.join("backup");
    etcd.back_up(2, &backup);
    etcd.restore(&backup).await;
    cluster.leads_after(before.0).await;
    cluster.change_the_list().await;
    assert_eq!(cluster.living(), living_now);
    cluster.check_processes();
    cluster.end_traffic().await;
    cluster.check_views(&cluster::ledger(&etcd), since, &living);
}

/// Somebody writes the leader's key without a lease. A register that leads repairs it; where none leads, those that
/// stand by say which key to delete, and one of them leads as soon as it is deleted.
pub async fn leader_key_without_a_lease(dir: &Path) {
    const KEY: &str = "broadgate/leader";
    let etcd = Etcd::start(dir, 1, None).await;
    let mut cluster = Cluster::start(dir, &[etcd.settings(), etcd.settings()], 1, 1).await;
    let (term, address) = (cluster.newest().0, etcd.told(&["get", KEY, "--print-value-only"]));
    etcd.told(&["put", KEY, "127.0.0.1:9"]);
    until("the leader has written its key again", async || {
        (etcd.told(&["get", KEY, "--print-value-only"]) == address).then_some(())
    })
    .await;
    let log = cluster.registers[0].as_ref().unwrap().log();
    assert!(log.contains("this register leads and has written it again"), "{log}");
    cluster.change_the_list().await;
    assert_eq!(cluster.newest().0, term, "it leads as before");
    // With its lease: the key goes with the register.
    cluster.stop_register(0).await;
    until("no register leads", async || etcd.told(&["get", KEY]).is_empty().then_some(())).await;

    etcd.told(&["put", KEY, "127.0.0.1:9"]);
    cluster.start_register(1);
    let register = cluster.registers[1].as_ref().unwrap();
    register.logged("has no lease").await;
    let log = register.log();
    assert!(log.contains(&format!("etcdctl del {KEY}")) && log.contains("127.0.0.1:9"), "{log}");
    let counted = "broadgate_register_ledger_errors_total{reason=\"no_lease\"}";
    until("it is counted", async || cluster.metric_of_registers(counted).await.filter(|count| *count > 0.0))
        .await;
    assert_eq!(cluster.leader().await, None);
    etcd.told(&["del", KEY]);
    cluster.leads_after(term).await;
    cluster.change_the_list().await;
    cluster.check_processes();
}
