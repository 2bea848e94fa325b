//! Questions, asked at a gateway that does not know the answer alone.

use std::collections::BTreeSet;

use broadgate_proto::v1::{self, ClientField};

use crate::harness::*;

#[tokio::test]
async fn counts_lists_and_details_cover_the_whole_cluster() {
    let cluster = Cluster::quiet(3).start().await;
    let mut connected = Vec::new();
    for number in 0..9 {
        connected.push(cluster.client(number % 3).await);
    }
    let ids: Vec<&str> = connected.iter().map(|client| client.id.as_str()).collect();
    let mut caller = cluster.caller(2).await;
    for (number, id) in ids.iter().enumerate() {
        caller.bind(bind(id, ["ann", "bob", "cid"][number / 3])).await.unwrap();
        caller.join(join(&[id], &["everyone", &format!("own-{number}")])).await.unwrap();
    }
    caller.join(join(&ids[..4], &["some"])).await.unwrap();

    let count =
        v1::CountRequest { groups: vec!["some".into(), "none".into()], uids: true, ..Default::default() };
    let count = caller.count(count).await.unwrap().into_inner();
    let pair = |counts: &v1::Counts| (counts.clients, counts.uids);
    assert_eq!(pair(count.app.as_ref().unwrap()), (9, 3));
    assert_eq!((pair(&count.groups["some"]), pair(&count.groups["none"])), ((4, 2), (0, 0)));
    assert!(count.coverage.unwrap().complete);

    let online = v1::OnlineRequest {
        clients: vec![ids[0].to_owned(), "0123456780".to_owned() + &"0".repeat(20)],
        uids: vec!["ann".into(), "zoe".into()],
        ..Default::default()
    };
    let online = caller.online(online).await.unwrap().into_inner();
    assert_eq!((online.clients[ids[0]], online.clients.values().filter(|on| **on).count()), (true, 1));
    assert_eq!((online.uids["ann"], online.uids["zoe"]), (3, 0));

    let session =
        v1::SetSessionRequest { client_id: ids[5].into(), json: r#"{"k":1}"#.into(), ..Default::default() };
    caller.set_session(session).await.unwrap();
    let one = v1::GetClientRequest { client_id: ids[5].into(), ..Default::default() };
    let one = caller.get_client(one).await.unwrap().into_inner().client.unwrap();
    assert_eq!(one.groups, ["everyone", "own-5"]);
    assert_eq!((one.uid.as_str(), one.gateway.as_str(), one.listener.as_str()), ("bob", "gateway-3", "web"));
    assert_eq!((one.protocol.as_str(), one.address.as_str()), ("websocket", connected[5].local.as_str()));
    assert_eq!(one.session.unwrap().json, r#"{"k":1}"#);
    assert!(one.opened_at_ms > 1_700_000_000_000);

    let uids = v1::ListUidsRequest { groups: vec!["some".into()], ..Default::default() };
    let uids = caller.list_uids(uids).await.unwrap().into_inner();
    let uids: Vec<_> = uids.names.into_iter().map(|named| (named.name, named.clients)).collect();
    assert_eq!(uids, [("ann".to_owned(), 3), ("bob".to_owned(), 1)]);

    let status = cluster.status(0).await.unwrap();
    let sums =
        status.gateways.iter().fold((0, 0), |sum, gateway| (sum.0 + gateway.clients, sum.1 + gateway.groups));
    assert_eq!((status.gateways.len(), sums.0), (3, 9));
    assert!(status.register_heard && sums.1 >= 12, "{status:?}");
}

/// Pages over three gateways with two shards each: everything once, whatever the page's length.
#[tokio::test]
async fn pages_list_everything_once() {
    let cluster = Cluster::quiet(3).start().await;
    let mut connected = Vec::new();
    for number in 0..13 {
        connected.push(cluster.client(number % 3).await);
    }
    let mut caller = cluster.caller(1).await;
    for (number, client) in connected.iter().enumerate() {
        let mine = format!("group-{number:02}");
        caller.join(join(&[&client.id], &["all", &mine, "shared"])).await.unwrap();
        caller.bind(bind(&client.id, &format!("uid-{:02}", number / 2))).await.unwrap();
    }
    let everybody: BTreeSet<String> = connected.iter().map(|client| client.id.clone()).collect();
    for limit in [1, 4, 13, 100] {
        for of in [all(), groups(&["all", "shared"])] {
            let mut seen = Vec::new();
            let mut cursor = String::new();
            loop {
                let fields = vec![ClientField::Uid.into()];
                let list = v1::ListClientsRequest {
                    of: Some(of.clone()),
                    fields,
                    limit,
                    cursor,
                    ..Default::default()
                };
                let page = caller.list_clients(list).await.unwrap().into_inner();
                assert!(page.clients.len() <= limit as usize && page.coverage.unwrap().complete);
                assert!(
                    page.clients
                        .iter()
                        .all(|client| client.uid.starts_with("uid-") && client.groups.is_empty()),
                    "{:?}",
                    page.clients
                );
                seen.extend(page.clients.into_iter().map(|client| client.client_id));
                cursor = page.next_cursor;
                if cursor.is_empty() {
                    break;
                }
            }
            assert_eq!(seen.len(), 13, "limit {limit}");
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), everybody);
        }
        let mut names = Vec::new();
        let mut cursor = String::new();
        loop {
            let list = v1::ListGroupsRequest { prefix: "group-".into(), limit, cursor, ..Default::default() };
            let page = caller.list_groups(list).await.unwrap().into_inner();
            names.extend(page.names.into_iter().map(|named| named.name));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!(
            names,
            (0..13).map(|number| format!("group-{number:02}")).collect::<Vec<_>>(),
            "limit {limit}"
        );
        let list = v1::ListUidsRequest { limit: 100, ..Default::default() };
        let uids = caller.list_uids(list).await.unwrap().into_inner().names;
        assert_eq!(uids.iter().map(|named| named.clients).collect::<Vec<_>>(), [2, 2, 2, 2, 2, 2, 1]);
    }
    let wrong = v1::ListClientsRequest { of: Some(all()), cursor: "x".into(), ..Default::default() };
    assert!(caller.list_clients(wrong).await.unwrap_err().message().contains("cursor"));
    let many = v1::ListGroupsRequest { limit: 1001, ..Default::default() };
    assert!(caller.list_groups(many).await.unwrap_err().message().contains("1000"));
}

/// A uid whose clients are on several gateways is on one page, with all of them; a client that stays while
/// others come and go is listed once.
#[tokio::test]
async fn pages_are_complete_while_clients_join_and_leave() {
    let cluster = Cluster::quiet(3).start().await;
    let mut caller = cluster.caller(0).await;
    let mut staying = Vec::new();
    for number in 0..21 {
        let client = cluster.client(number % 3).await;
        // Each uid is on all three gateways.
        caller.bind(bind(&client.id, &format!("uid-{}", number / 3))).await.unwrap();
        caller.join(join(&[&client.id], &["stay"])).await.unwrap();
        staying.push(client);
    }
    for limit in 1..4 {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let list =
                v1::ListUidsRequest { limit, cursor, groups: vec!["stay".into()], ..Default::default() };
            let page = caller.list_uids(list).await.unwrap().into_inner();
            assert!(page.names.len() <= limit as usize);
            names.extend(page.names.into_iter().map(|named| (named.name, named.clients)));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        let expected: Vec<_> = (0..7).map(|number| (format!("uid-{number}"), 3)).collect();
        assert_eq!(names, expected, "limit {limit}");
    }
    let mut passing = Vec::new();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        passing.push(cluster.client(passing.len() % 3).await);
        if passing.len() > 2 {
            passing.remove(0);
        }
        let list = v1::ListClientsRequest { of: Some(all()), limit: 2, cursor, ..Default::default() };
        let page = caller.list_clients(list).await.unwrap().into_inner();
        seen.extend(page.clients.into_iter().map(|client| client.client_id));
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    for client in &staying {
        assert_eq!(seen.iter().filter(|id| **id == client.id).count(), 1);
    }
}

/// By an address, or by a network; of a group as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_listed_by_their_address() {
    let cluster = Cluster::quiet(2).start().await;
    let clients = [cluster.client(0).await, cluster.client(1).await];
    let mut ids: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
    ids.sort();
    let mut caller = cluster.caller(0).await;
    caller.join(join(&[&clients[1].id], &["g"])).await.unwrap();
    let mut list = async |of: v1::Audience, address: &str| {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let list = v1::ListClientsRequest {
                of: Some(of.clone()),
                fields: vec![ClientField::Connection.into()],
                limit: 1,
                cursor,
                address: address.to_owned(),
                requires: vec!["address".to_owned()],
                ..Default::default()
            };
            let page = caller.list_clients(list).await?.into_inner();
            assert!(page.clients.iter().all(|client| client.address.starts_with("127.0.0.1:")), "{page:?}");
            found.extend(page.clients.into_iter().map(|client| client.client_id));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                found.sort();
                return Ok::<_, tonic::Status>(found);
            }
        }
    };
    for address in ["127.0.0.1", "127.0.0.0/8", "::ffff:127.0.0.1"] {
        assert_eq!(list(all(), address).await.unwrap(), ids, "{address}");
    }
    assert_eq!(list(groups(&["g"]), "127.0.0.1").await.unwrap(), [clients[1].id.clone()]);
    assert!(list(all(), "10.1.7.0/24").await.unwrap().is_empty());
    let refused = list(all(), "gw-1").await.unwrap_err();
    assert!(refused.message().contains("give an IP address"), "{refused}");
    let run = |args: &[&str]| tokio::task::block_in_place(|| cluster.run(args));
    let (code, out, _) = run(&["clients", "--address", "127.0.0.0/8"]);
    assert!(code == 0 && ids.iter().all(|id| out.contains(id)), "{out}");
    let (code, out, _) = run(&["clients", "--address", "10.1.7.9", "--json"]);
    assert!(code == 0 && !out.contains("client_id"), "{out}");
}
