//! What members announce and report to the register: nothing of it may keep the others out.

use broadgate_proto::{
    id::Incarnation,
    limits::{GRPC_MESSAGE_BYTES_MAX, VIEW_BYTES_MAX},
    v1::{
        self, Epoch, Hello, JoinReply, JoinRequest, Member, Role, View, join_reply::Reply, join_request,
        register_client::RegisterClient,
    },
    view::{epoch, member_bytes},
};

use crate::harness::*;

fn worker(number: u64, services: usize) -> Member {
    Member {
        incarnation: Incarnation::from_bits(number).to_string(),
        role: Role::Worker.into(),
        name: format!("worker-{number}"),
        services: vec!["s".repeat(200); services],
        ..Member::default()
    }
}

/// The first answer to a Hello: a welcome, or the sentence of the refusal.
async fn join(cluster: &Cluster, member: Member, view: Option<View>) -> Result<v1::Welcome, String> {
    let address = format!("http://{}", cluster.register_address);
    let mut register = RegisterClient::connect(address).await.unwrap();
    let hello = join_request::Request::Hello(Hello { member: Some(member), view, ..Hello::default() });
    let requests = tokio_stream::iter([JoinRequest { request: Some(hello) }]);
    let mut replies =
        register.join(requests).await.map_err(|status| status.message().to_owned())?.into_inner();
    match soon("the register answers", replies.message()).await {
        Ok(Some(JoinReply { reply: Some(Reply::Welcome(welcome)) })) => Ok(welcome),
        Ok(other) => panic!("{other:?}"),
        Err(status) => Err(status.message().to_owned()),
    }
}

fn bytes(view: &View) -> usize {
    view.members.iter().map(member_bytes).sum()
}

#[tokio::test]
async fn view_stays_small_enough_for_every_gateway() {
    let cluster = Cluster::quiet(1).start().await;
    let refused = join(&cluster, worker(1, 100), None).await.unwrap_err();
    assert!(refused.contains("more than 4096"), "{refused}");

    // One member reports more than a view may have.
    let before = cluster.view().await.unwrap();
    let higher = Epoch::new(epoch(&before).term + (1 << 16), 1);
    let members = (1000..1950).map(|number| worker(number, 19)).collect();
    let report = View { epoch: Some(higher), members, before: None };
    assert!(bytes(&report) > VIEW_BYTES_MAX && bytes(&report) < GRPC_MESSAGE_BYTES_MAX);
    join(&cluster, worker(2, 1), Some(report)).await.unwrap();
    let large = cluster.view().await.unwrap();
    assert!(bytes(&large) > VIEW_BYTES_MAX * 9 / 10 && bytes(&large) <= VIEW_BYTES_MAX, "{}", bytes(&large));
    let refused = join(&cluster, worker(3, 19), None).await.unwrap_err();
    assert!(refused.contains(&VIEW_BYTES_MAX.to_string()), "{refused}");

    until("the gateway has the large view", async || {
        let status = cluster.status(0).await?;
        (epoch(&status.view?) >= epoch(&large)).then_some(())
    })
    .await;
    until("the members that nobody heard are gone", async || {
        let view = cluster.view().await?;
        (view.members.len() == 1).then_some(())
    })
    .await;
    let view = cluster.view().await.unwrap();
    assert_eq!(view.members[0].incarnation, before.members[0].incarnation, "the gateway has stayed");
}

#[tokio::test]
async fn false_report_of_a_high_term_does_not_keep_gateways_from_the_next_register() {
    let mut cluster = Cluster::quiet(2).start().await;
    until("the register's first lease is over", async || {
        (epoch(&cluster.view().await?).term >= 1 << 16).then_some(())
    })
    .await;
    let report = View { epoch: Some(Epoch::new((1 << 48) - 1, 9)), ..View::default() };
    let refused = join(&cluster, worker(1, 1), Some(report)).await.unwrap_err();
    assert!(refused.contains("not believed"), "{refused}");

    gateways_come_back(&mut cluster).await;
}

/// A register that knows no cluster yet believes more; then the next one hesitates for a lease.
#[tokio::test]
async fn false_report_to_a_fresh_register_only_delays_the_next_one() {
    let mut cluster = Cluster::quiet(2).register("lease = \"15s\"\nbeat = \"1s\"").start().await;
    let report = View { epoch: Some(Epoch::new((1 << 48) - 1, 9)), ..View::default() };
    join(&cluster, worker(1, 1), Some(report)).await.unwrap();
    let leave = v1::LeaveRequest { incarnation: worker(1, 1).incarnation };
    let address = format!("http://{}", cluster.register_address);
    RegisterClient::connect(address).await.unwrap().leave(leave).await.unwrap();
    until("the gateways have the view of the high term", async || {
        let status = cluster.status(0).await?;
        (epoch(&status.view?).term >= 1 << 48).then_some(())
    })
    .await;
    gateways_come_back(&mut cluster).await;
}

/// Starts the register again: both gateways must be in its view as they were.
async fn gateways_come_back(cluster: &mut Cluster) {
    let before = cluster.view().await.unwrap();
    cluster.register.as_mut().unwrap().kill();
    cluster.start_register().await;
    let after = until("both gateways are back", async || {
        let view = cluster.view().await?;
        (view.members.len() == 2).then_some(view)
    })
    .await;
    assert!(after.epoch > before.epoch);
    let same = |view: &View| view.members.iter().map(|one| one.incarnation.clone()).collect::<Vec<_>>();
    assert_eq!(same(&after), same(&before));
}
