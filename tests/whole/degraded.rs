//! Degraded clusters: what still works, and what is reported, while a process is away.

use broadgate_proto::v1;

use crate::harness::*;

/// Coverage of a count, and how many clients it found.
async fn counted(cluster: &Cluster, gateway: usize) -> (bool, Vec<String>, u64) {
    let reply = cluster.caller(gateway).await.count(v1::CountRequest::default()).await.unwrap().into_inner();
    let coverage = reply.coverage.unwrap();
    (coverage.complete, coverage.missing, reply.app.unwrap().clients)
}

/// Without a register nobody can say that a gateway is dead: answers go on naming it, until there is
/// a register again and a lease has ended.
#[tokio::test]
async fn gateway_and_register_die_together() {
    let mut cluster = Cluster::quiet(3).register("beat = \"500ms\"\nlease = \"3s\"").start().await;
    let mut lost = cluster.client(0).await;
    let (mut a, mut b) = (cluster.client(1).await, cluster.client(2).await);
    let mut caller = cluster.caller(1).await;
    caller.join(join(&[&lost.id, &a.id, &b.id], &["room"])).await.unwrap();
    cluster.register.as_mut().unwrap().kill();
    cluster.gateways[0].kill();
    assert_eq!(lost.closed().await.code, 1006);
    for number in 0..2 {
        let receipt = caller.send(text(groups(&["room"]), &number.to_string())).await.unwrap().into_inner();
        let coverage = receipt.coverage.unwrap();
        assert_eq!((receipt.clients, receipt.gateways), (2, 2));
        assert_eq!((coverage.complete, &coverage.missing[..]), (false, &["gateway-1".to_owned()][..]));
    }
    assert_eq!(counted(&cluster, 2).await, (false, vec!["gateway-1".to_owned()], 2));
    cluster.start_register().await;
    until("answers are complete again", async || {
        (counted(&cluster, 1).await == (true, Vec::new(), 2)).then_some(())
    })
    .await;
    for client in [&mut a, &mut b] {
        client.hears(&["0", "1"]).await;
    }
}

/// A pause shorter than the lease closes no client, and sends meanwhile are answered as incomplete.
#[tokio::test]
async fn short_pause_costs_no_client() {
    let cluster = Cluster::quiet(2).register("beat = \"1s\"\nlease = \"50s\"").start().await;
    let mut away = cluster.client(0).await;
    let mut caller = cluster.caller(1).await;
    let before = cluster.view().await.unwrap();
    cluster.gateways[0].signal("STOP");
    let receipt = caller.send(text(all(), "meanwhile")).await.unwrap().into_inner();
    let coverage = receipt.coverage.unwrap();
    assert_eq!((coverage.complete, coverage.missing), (false, vec!["gateway-1".to_owned()]));
    let about = v1::GetClientRequest { client_id: away.id.clone(), ..Default::default() };
    let silent = caller.get_client(about).await.unwrap_err();
    assert_eq!(silent.code(), tonic::Code::Unavailable, "not \"not found\": {silent}");
    cluster.gateways[0].signal("CONT");
    cluster.synced().await;
    assert_eq!(counted(&cluster, 1).await, (true, Vec::new(), 1));
    let receipt = caller.send(text(all(), "after")).await.unwrap().into_inner();
    assert_eq!((receipt.clients, receipt.coverage.unwrap().complete), (1, true));
    // It may have had the first message too: who does not answer may still have heard.
    let first = away.hear().await;
    if first == "meanwhile" {
        away.hears(&["after"]).await;
    } else {
        assert_eq!(first, "after");
    }
    let after = cluster.view().await.unwrap();
    assert_eq!(after.members[0].incarnation, before.members[0].incarnation);
}

/// A gateway that is killed and started again at the same addresses, before its lease has ended, is
/// another one: nothing of the former is left.
#[tokio::test]
async fn restarted_gateway_serves_at_once() {
    let mut cluster = Cluster::quiet(2).register("lease = \"4s\"").start().await;
    let mut lost = cluster.client(0).await;
    let mut caller = cluster.caller(1).await;
    caller.bind(bind(&lost.id, "ann")).await.unwrap();
    caller.join(join(&[&lost.id], &["room"])).await.unwrap();
    let before = cluster.view().await.unwrap();
    cluster.gateways[0].kill();
    assert_eq!(lost.closed().await.code, 1006);
    let config = cluster.dir.join("gateway-1.toml").display().to_string();
    let internal = format!("--internal-bind={}", cluster.internal[0]);
    let clients = format!("--client-bind={}", cluster.web(0));
    let again = ["gateway", "--config", &config, &internal, &clients];
    cluster.gateways[0] = Process::start(&cluster.dir, "gateway-1", &again, &[]);
    let after = until("only the new one is in the view", async || {
        let view = cluster.view().await?;
        let known =
            |member: &&v1::Member| before.members.iter().any(|old| old.incarnation == member.incarnation);
        (view.members.len() == 2 && view.members.iter().filter(known).count() == 1).then_some(view)
    })
    .await;
    assert_eq!(after.members.iter().filter(|member| member.address == cluster.internal[0]).count(), 1);
    cluster.linked().await;
    let mut fresh = cluster.client(0).await;
    until("counts are right", async || (counted(&cluster, 1).await == (true, Vec::new(), 1)).then_some(()))
        .await;
    let online = v1::OnlineRequest {
        clients: vec![lost.id.clone(), fresh.id.clone()],
        uids: vec!["ann".into()],
        ..Default::default()
    };
    let online = caller.online(online).await.unwrap().into_inner();
    assert_eq!((online.clients[&lost.id], online.clients[&fresh.id], online.uids["ann"]), (false, true, 0));
    assert_eq!(caller.send(text(groups(&["room"]), "nobody")).await.unwrap().into_inner().clients, 0);
    caller.send(text(all(), "welcome back")).await.unwrap();
    fresh.hears(&["welcome back"]).await;
}

/// The metrics port tells the truth about a role while its register is away.
#[tokio::test]
async fn probes_and_metrics_report_degradation() {
    let mut cluster = Cluster::quiet(1)
        .limits("close_time_max = \"1s\"")
        .more("[metrics]\nbind = \"127.0.0.1:0\"")
        .start()
        .await;
    let metrics = cluster.gateways[0].logged("metrics and probes address=").await.parse().unwrap();
    let get = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = crate::malformed_input::answer(metrics, request.as_bytes(), false).await;
        String::from_utf8(answer).unwrap()
    };
    let ok = |answer: String| answer.starts_with("HTTP/1.1 200");
    assert!(ok(get("/healthz").await));
    until("it is ready", async || ok(get("/readyz").await).then_some(())).await;
    let mut client = cluster.client(0).await;
    let rude = [crate::malformed_input::UPGRADE.as_bytes(), b"\x81\x02hi"].concat();
    crate::malformed_input::answer(cluster.web(0), &rude, false).await;
    crate::malformed_input::answer(
        cluster.web(0),
        b"GET /ws/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        false,
    )
    .await;
    let wanted = [
        "broadgate_build_info{",
        "broadgate_gateway_clients_opened_total 2",
        "broadgate_gateway_clients_closed_total{cause=\"protocol\"} 1",
        "broadgate_gateway_drops_total{reason=\"slow\"} 0",
    ];
    until("what has happened is counted", async || {
        let text = get("/metrics").await;
        wanted.iter().all(|line| text.contains(line)).then_some(())
    })
    .await;
    cluster.register.as_mut().unwrap().kill();
    assert!(ok(get("/healthz").await), "alive, whatever the register is");
    cluster.start_register().await;
    until("it is ready", async || ok(get("/readyz").await).then_some(())).await;
    cluster.gateways[0].signal("TERM");
    assert_eq!(client.closed().await.code, 1012);
    assert_eq!(cluster.gateways[0].ended().await.code(), Some(0));
}

fn incarnations(view: &v1::View) -> Vec<String> {
    view.members.iter().map(|member| member.incarnation.clone()).collect()
}

/// A register that was asleep for longer than a lease finds everybody's beats waiting for it: nobody is
/// taken for dead because the register was.
#[tokio::test]
async fn paused_register_removes_no_member() {
    let cluster = Cluster::quiet(2).register("beat = \"250ms\"\nlease = \"1s\"").start().await;
    let mut client = cluster.client(0).await;
    let before = cluster.view().await.unwrap();
    for turn in 0..3 {
        let register = cluster.register.as_ref().unwrap();
        register.signal("STOP");
        // The gateways say that they do not hear it; by then a lease is long over.
        until("the register is missed", async || (!cluster.status(1).await?.register_heard).then_some(()))
            .await;
        assert_eq!(cluster.caller(1).await.send(text(all(), "on")).await.unwrap().into_inner().clients, 1);
        client.hears(&["on"]).await;
        register.signal("CONT");
        until("the register is heard", async || cluster.status(1).await?.register_heard.then_some(())).await;
        let after = until("both are in the view", async || {
            let view = cluster.view().await?;
            (view.members.len() == 2).then_some(view)
        })
        .await;
        assert_eq!(incarnations(&after), incarnations(&before), "turn {turn}");
    }
    cluster.caller(1).await.send(text(all(), "still here")).await.unwrap();
    client.hears(&["still here"]).await;
}

/// Two registers run from the beginning; the members follow one, then the other, then come back.
#[tokio::test]
async fn standby_register_takes_over_repeatedly() {
    let port = free_address();
    let mut cluster = Cluster::quiet(2).second_register(&port.to_string()).start().await;
    let mut client = cluster.client(0).await;
    let members = incarnations(&cluster.view().await.unwrap());
    let first = cluster.register_address.clone();
    let mut highest = (0, 0);
    for (turn, address) in [port.to_string(), first.clone(), port.to_string()].iter().enumerate() {
        // The next one runs, empty, before the present one is gone.
        let bind = format!("--bind={address}");
        let next = Process::start(&cluster.dir, &format!("register-{turn}"), &["register", &bind], &[]);
        next.logged("register address=").await;
        cluster.register = Some(next);
        cluster.register_address.clone_from(address);
        let view = until("the members follow", async || {
            let view = cluster.view().await?;
            (view.members.len() == 2).then_some(view)
        })
        .await;
        assert_eq!(incarnations(&view), members, "turn {turn}");
        let epoch = view.epoch.unwrap();
        assert!((epoch.term, epoch.count) > highest, "turn {turn}: {epoch:?} after {highest:?}");
        highest = (epoch.term, epoch.count);
        // One of them may have told it of the other.
        for gateway in 0..2 {
            until("a gateway follows", async || {
                let status = cluster.status(gateway).await?;
                (status.register_heard && status.register == *address).then_some(())
            })
            .await;
        }
    }
    cluster.caller(1).await.send(text(all(), "undisturbed")).await.unwrap();
    client.hears(&["undisturbed"]).await;
}

/// A worker process that is paused for longer than its lease is out of the view; its clients go on
/// with the other one, and what it had not answered is handled there.
#[tokio::test]
async fn paused_worker_is_removed() {
    let cluster = Cluster::of(1).register("beat = \"500ms\"\nlease = \"3s\"").start().await;
    let start = |name: &str| {
        let register = format!("--register={}", cluster.register_address);
        Process::start(&cluster.dir, name, &["worker", "echo", &register, &format!("--name={name}")], &[])
    };
    let (paused, _other) = (start("paused"), start("other"));
    until("both are attached", async || (cluster.status(0).await?.workers.len() == 2).then_some(())).await;
    let mut talking = Vec::new();
    for _ in 0..10 {
        let mut client = cluster.client(0).await;
        client.say("before").await;
        client.hears(&["before"]).await;
        talking.push(client);
    }
    paused.signal("STOP");
    for client in &mut talking {
        client.say("meanwhile").await;
    }
    for client in &mut talking {
        client.hears(&["meanwhile"]).await;
        client.say("after").await;
        client.hears(&["after"]).await;
    }
    paused.signal("CONT");
    // It rejoins and works again; its late work may arrive a second time.
    until("both are attached again", async || {
        let workers = cluster.status(0).await?.workers;
        (workers.len() == 2 && workers.iter().all(|worker| worker.gateways == 1)).then_some(())
    })
    .await;
    for client in &mut talking {
        client.say("together").await;
        while client.hear().await != "together" {}
    }
}
