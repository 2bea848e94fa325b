//! The whole host is paused, as a virtual machine is when it is moved: nobody is blamed for that.

use std::time::Duration;

use crate::harness::*;

#[tokio::test]
async fn pause_of_the_whole_host_closes_no_client() {
    let quick = "service = \"\"\nping_interval = \"1s\"\nsilence_max = \"3s\"";
    let cluster = Cluster::of(1).listener(quick).start().await;
    let mut pongs = Vec::new();
    for _ in 0..5 {
        let mut client = cluster.client_at(0).await;
        // It answers pings from now on.
        pongs.push(tokio::spawn(async move {
            let heard = client.hear().await;
            (client, heard)
        }));
    }
    let processes = || cluster.gateways.iter().chain(&cluster.register);
    processes().for_each(|process| process.signal("STOP"));
    tokio::time::sleep(Duration::from_secs(8)).await;
    processes().for_each(|process| process.signal("CONT"));
    // What was due while nothing ran has been looked at after some seconds.
    cluster.gateways[0].logged("shard was not running").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cluster.count(0).await, 5);
    cluster.caller(0).await.send(text(all(), "still here")).await.unwrap();
    for pong in pongs {
        assert_eq!(soon("a message", pong).await.unwrap().1, "still here");
    }
}
