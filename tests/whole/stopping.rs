//! Stopping is a feature.

use broadgate_proto::v1::{Cause, event::Event as Kind};

use crate::harness::*;

/// SIGTERM while messages are sent: what was acknowledged arrived, clients are told to come back, the
/// worker hears of each, and the exit code is 0.
#[tokio::test]
async fn a_gateway_stops_in_good_order() {
    let mut cluster = Cluster::of(2).start().await;
    let mut worker = TestWorker::attach(&cluster.internal[0], 1).await;
    let mut leaving = Vec::new();
    for _ in 0..50 {
        leaving.push(cluster.client(0).await);
        worker.take().await;
    }
    let mut caller = cluster.caller(1).await;
    cluster.gateways[0].signal("TERM");
    let mut acknowledged = 0;
    let full = loop {
        let receipt = caller.send(text(all(), &acknowledged.to_string())).await.unwrap().into_inner();
        if receipt.clients < 50 {
            break receipt;
        }
        acknowledged += 1;
    };
    println!("{acknowledged} sends reached all fifty before the first was let go; then {}", full.clients);
    assert!(acknowledged > 0);
    for _ in 0..50 {
        let closed = worker.take().await;
        let Some(Kind::Closed(how)) = closed.event else { panic!("{closed:?}") };
        assert_eq!((how.cause(), how.code), (Cause::Drain, 1012));
    }
    for client in &mut leaving {
        let closed = client.closed().await;
        assert_eq!(closed.code, 1012);
        let expected: Vec<String> = (0..acknowledged).map(|number: i32| number.to_string()).collect();
        assert_eq!(closed.before[..expected.len()], expected);
    }
    assert_eq!(cluster.gateways[0].ended().await.code(), Some(0));
    until("it has left the view", async || (cluster.view().await?.members.len() == 1).then_some(())).await;
}

#[tokio::test]
async fn an_operator_drains_a_gateway() {
    let mut cluster = Cluster::quiet(2).start().await;
    let mut client = cluster.client(1).await;
    let (code, out, _) = cluster.run(&["drain", "gateway-2"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(client.closed().await.code, 1012);
    assert_eq!(cluster.gateways[1].ended().await.code(), Some(0));
    let (code, _, err) = cluster.run(&["drain", "nobody"]);
    assert_eq!(code, 4, "{err}");
}
