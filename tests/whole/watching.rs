//! A program that watches groups hears of every change in the cluster once, whatever becomes of homes.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_business::{
    ClusterConfig,
    cluster::{ChangeKind, GroupChange, GroupWatch},
};
use broadgate_proto::ring::Ring;
use broadgate_proto::v1;

use crate::harness::*;

/// Rooms; only the even ones have clients at gateways that live on.
const ROOMS: usize = 24;

fn rooms() -> Vec<String> {
    (0..ROOMS).map(|number| format!("room-{number}")).collect()
}

async fn watch(cluster: &Cluster) -> GroupWatch {
    let registers = vec![cluster.register_address.clone()];
    let config = ClusterConfig { registers, ..ClusterConfig::default() };
    broadgate_business::Cluster::connect(config).await.unwrap().watch_groups(["room-*"]).unwrap()
}

/// The next changes: what has happened in which rooms, each once.
async fn told(watch: &mut GroupWatch, count: usize) -> BTreeMap<String, BTreeSet<String>> {
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..count {
        let GroupChange { group, kind } = soon("a change", watch.next()).await.unwrap();
        let what = match kind {
            ChangeKind::Occupied => "occupied".to_owned(),
            ChangeKind::Vacated => "vacated".to_owned(),
            ChangeKind::Joined { user_id, info } => format!("+{user_id} {info}"),
            ChangeKind::Left { user_id } => format!("-{user_id}"),
        };
        assert!(told.entry(what.clone()).or_default().insert(group.clone()), "{group}: {what} twice");
    }
    told
}

fn expected(what: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
    let names = |rooms: &[&str]| rooms.iter().map(ToString::to_string).collect();
    what.iter().map(|(what, rooms)| ((*what).to_owned(), names(rooms))).collect()
}

async fn join_as(caller: &mut Caller, client: &Client, user: &str, rooms: &[&str]) {
    let member = v1::PresenceMember { user_id: user.to_owned(), info: "here".to_owned() };
    let request = v1::JoinGroupsRequest { member: Some(member), ..join(&[&client.id], rooms) };
    caller.join(request).await.unwrap();
}

#[tokio::test]
async fn users_lost_with_a_gateway_leave_once() {
    let mut cluster = Cluster::quiet(3).register("beat = \"500ms\"\nlease = \"3s\"").start().await;
    let all = rooms();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let even: Vec<&str> = all.iter().copied().step_by(2).collect();
    let odd: Vec<&str> = all.iter().copied().skip(1).step_by(2).collect();
    let mut early = watch(&cluster).await;
    let mut caller = cluster.caller(1).await;
    let (ann, nobody, bob) = (cluster.client(0).await, cluster.client(0).await, cluster.client(0).await);
    let (also_bob, cid) = (cluster.client(1).await, cluster.client(2).await);
    join_as(&mut caller, &ann, "ann", &all).await;
    caller.join(join(&[&nobody.id], &odd)).await.unwrap();
    for client in [&bob, &also_bob] {
        join_as(&mut caller, client, "bob", &even).await;
    }
    join_as(&mut caller, &cid, "cid", &even).await;
    let there = [("occupied", &*all), ("+ann here", &*all), ("+bob here", &*even), ("+cid here", &*even)];
    assert_eq!(told(&mut early, 3 * ROOMS).await, expected(&there));
    let mut late = watch(&cluster).await;
    assert_eq!(told(&mut late, 3 * ROOMS).await, expected(&there));

    let dead = ann.id[..10].parse().unwrap();
    let ring = Ring::of_view(&cluster.view().await.unwrap());
    let homes = all.iter().filter(|room| ring.pick(format!("gdefault\0{room}").as_bytes()) == Some(dead));
    assert!((1..ROOMS).contains(&homes.count()), "some have their home there, and some have not");
    cluster.gateways[0].kill();
    let gone = expected(&[("-ann", &*all), ("vacated", &*odd)]);
    for watch in [&mut early, &mut late] {
        assert_eq!(told(watch, ROOMS + ROOMS / 2).await, gone);
    }

    // Homes move to another gateway. It is heard of only because something happens there.
    cluster.add_gateway().await;
    let (_, _, _) = (cluster.gateways.remove(0), cluster.internal.remove(0), cluster.listeners.remove(0));
    cluster.linked().await;
    cluster.synced().await;
    let dan = cluster.client(2).await;
    join_as(&mut caller, &dan, "dan", &all).await;
    let came = expected(&[("occupied", &*odd), ("+dan here", &*all)]);
    for watch in [&mut early, &mut late] {
        assert_eq!(told(watch, ROOMS + ROOMS / 2).await, came);
    }
}
