//! What the runbook tells an operator to do with etcd, done as it says, under traffic.
//!
//! | procedure | test |
//! |---|---|
//! | Move from memory to etcd | `registers_move_from_memory_to_etcd` |
//! | Restore etcd from a backup | `etcd_is_restored_from_a_backup` |

use std::path::Path;

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
    etcd.back_up(&backup);
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
