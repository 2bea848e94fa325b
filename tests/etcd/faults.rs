//! Kills and pauses of registers and of etcd's members, under traffic.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    cluster::{self, Cluster},
    engine::Etcd,
    harness::until,
};

/// From a register's death until a new gateway takes clients.
const JOIN_TIME_MAX: Duration = Duration::from_secs(10);

/// While members are killed and paused, epochs form one chain, no beating member is removed, and every send is complete.
pub async fn everything_is_killed_and_paused(dir: &Path, rounds: u64) {
    let mut etcd = Etcd::start(dir, 3, None).await;
    let settings = vec![etcd.settings(); 3];
    let mut cluster = Cluster::start(dir, &settings, 3, 3).await;
    cluster.begin_traffic().await;
    let (since, living) = (cluster.newest(), cluster.living());
    assert!(cluster.status().contains(" leads · ledger etcd, lag "), "{}", cluster.status());
    for _ in 0..rounds {
        leading_register_is_killed(&mut cluster).await;
        leading_register_is_paused(&mut cluster).await;
        leader_of_etcd_is_killed(&mut cluster, &mut etcd).await;
        leader_of_etcd_is_paused(&mut cluster, &etcd).await;
        two_of_etcd_are_paused(&mut cluster, &etcd).await;
        two_of_etcd_are_killed(&mut cluster, &mut etcd).await;
        cluster.check_processes();
    }
    cluster.end_traffic().await;
    cluster.check_views(&cluster::ledger(&etcd), since, &living);
}

async fn leading_register_is_killed(cluster: &mut Cluster) {
    let (term, leader) = (cluster.newest().0, cluster.leader().await.unwrap());
    println!("  register {leader}, which leads, is killed");
    cluster.registers[leader] = None;
    let killed = Instant::now();
    cluster.add_gateway().await;
    let took = killed.elapsed();
    println!("  a new gateway took clients after {took:.1?}");
    assert!(took < JOIN_TIME_MAX, "{took:?}");
    cluster.leads_after(term).await;
    cluster.start_register(leader);
    cluster.goes_on().await;
}

async fn leading_register_is_paused(cluster: &mut Cluster) {
    let (term, leader) = (cluster.newest().0, cluster.leader().await.unwrap());
    println!("  register {leader}, which leads, is paused");
    cluster.registers[leader].as_ref().unwrap().signal("STOP");
    let next = cluster.leads_after(term).await;
    assert_ne!(next, leader);
    cluster.change_the_list().await;
    let paused = cluster.registers[leader].as_ref().unwrap();
    let told = paused.log().matches("leads no more").count();
    paused.signal("CONT");
    until("the paused register follows", async || {
        (paused.log().matches("leads no more").count() > told).then_some(())
    })
    .await;
    assert_eq!(cluster.leader().await, Some(next));
    cluster.goes_on().await;
}

async fn leader_of_etcd_is_killed(cluster: &mut Cluster, etcd: &mut Etcd) {
    let leader = etcd.leader().await;
    println!("  etcd {leader}, which leads, is killed");
    etcd.kill(leader);
    cluster.change_the_list().await;
    etcd.begin(leader);
    cluster.goes_on().await;
    etcd.answers().await;
}

async fn leader_of_etcd_is_paused(cluster: &mut Cluster, etcd: &Etcd) {
    let leader = etcd.leader().await;
    println!("  etcd {leader}, which leads, is paused");
    etcd.signal(leader, "STOP");
    cluster.change_the_list().await;
    etcd.signal(leader, "CONT");
    cluster.goes_on().await;
    etcd.answers().await;
}

async fn nobody_leads(cluster: &Cluster) {
    until("no register leads", async || cluster.leader().await.is_none().then_some(())).await;
    until("status says so", async || cluster.status().contains("NOT HEARD").then_some(())).await;
    cluster.goes_on().await;
}

async fn two_of_etcd_are_paused(cluster: &mut Cluster, etcd: &Etcd) {
    let (term, leader) = (cluster.newest().0, etcd.leader().await);
    println!("  two of etcd are paused");
    for index in [leader, (leader + 1) % 3] {
        etcd.signal(index, "STOP");
    }
    nobody_leads(cluster).await;
    for index in [leader, (leader + 1) % 3] {
        etcd.signal(index, "CONT");
    }
    cluster.leads_after(term).await;
    cluster.change_the_list().await;
    etcd.answers().await;
}

async fn two_of_etcd_are_killed(cluster: &mut Cluster, etcd: &mut Etcd) {
    let (term, leader) = (cluster.newest().0, etcd.leader().await);
    println!("  two of etcd are killed");
    for index in [leader, (leader + 1) % 3] {
        etcd.kill(index);
    }
    nobody_leads(cluster).await;
    for index in [leader, (leader + 1) % 3] {
        etcd.begin(index);
    }
    cluster.leads_after(term).await;
    cluster.change_the_list().await;
    etcd.answers().await;
}
