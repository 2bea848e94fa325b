//! A watcher of groups, and the gateways that tell it.

use broadgate_business::{
    Cluster, ClusterConfig, Secret,
    cluster::{ChangeKind, DEFAULT_TIMEOUT, GroupChange, GroupWatch, Refusal},
};
use broadgate_proto::ring::Ring;
use broadgate_proto::v1::{Epoch, HistoryPosition, MemberState, command::Command, group_event::Event};

use crate::{
    fake::{Fake, Register, soon},
    streams::{is, member},
};

/// Waits until so many gateways are ready; which epoch is that?
async fn ready(gateway: &Fake, count: usize) -> Epoch {
    let mut views = gateway.view();
    let ready = views.wait_for(|view| {
        view.members.iter().filter(|member| member.state() == MemberState::Ready).count() == count
    });
    soon("the view", ready).await.unwrap().epoch.unwrap()
}

fn group_of(home: &Fake, gateways: &[&Fake]) -> String {
    let ring = Ring::new(gateways.iter().map(|gateway| gateway.incarnation));
    let at_home = |name: &String| ring.pick(format!("gshop\0{name}").as_bytes()) == Some(home.incarnation);
    (0..).map(|number| format!("room-{number}")).find(at_home).unwrap()
}

async fn tells(watch: &mut GroupWatch, expected: &[(&str, &str)]) {
    for (group, what) in expected {
        let GroupChange { group: told, kind } = soon("a change", watch.next()).await.unwrap();
        let kind = match kind {
            ChangeKind::Occupied => "occupied".to_owned(),
            ChangeKind::Vacated => "vacated".to_owned(),
            ChangeKind::Joined { user_id, .. } => format!("+{user_id}"),
            ChangeKind::Left { user_id } => format!("-{user_id}"),
        };
        assert_eq!((&*told, &*kind), (*group, *what));
    }
}

fn watching(gateway: &Fake) -> (Cluster, GroupWatch) {
    let cluster = Cluster::with_views(gateway.view(), Secret::default(), "shop", DEFAULT_TIMEOUT);
    let watch = cluster.watch_groups(["room-*"]).unwrap();
    (cluster, watch)
}

#[tokio::test]
async fn next_home_continues_reports_of_a_lost_gateway() {
    let register = Register::start().await;
    let (mut a, mut b) = (Fake::start(&register, "a").await, Fake::start(&register, "b").await);
    let two = ready(&b, 2).await;
    let (at_a, at_b) = (group_of(&a, &[&a, &b]), group_of(&b, &[&a, &b]));
    let (_cluster, mut watch) = watching(&b);
    let (by_a, by_b) = (a.watched().await, b.watched().await);
    assert_eq!((&*by_a.request.app, &*by_a.request.patterns), ("shop", &["room-*".to_owned()][..]));
    by_a.tell(&[(&at_a, is(&["ann", "bob"]))], Some(two)).await;
    tells(&mut watch, &[(&at_a, "occupied"), (&at_a, "+ann"), (&at_a, "+bob")]).await;
    by_b.tell(&[(&at_b, is(&[])), (&at_b, Event::Joined(member("cid")))], Some(two)).await;
    tells(&mut watch, &[(&at_b, "occupied"), (&at_b, "+cid")]).await;
    // The stream breaks; what changed in the meantime is reported.
    drop(by_a);
    let by_a = a.watched().await;
    by_a.tell(&[(&at_a, is(&["bob", "dan"]))], Some(two)).await;
    tells(&mut watch, &[(&at_a, "-ann"), (&at_a, "+dan")]).await;
    a.lose().await;
    let one = ready(&b, 1).await;
    by_b.tell(&[(&at_a, is(&["dan"])), (&at_b, Event::Left("cid".into()))], Some(one)).await;
    tells(&mut watch, &[(&at_a, "-bob"), (&at_b, "-cid")]).await;
    by_a.ended().await;
    drop(watch);
    by_b.ended().await;
}

#[tokio::test]
async fn watcher_that_does_not_read_gets_the_state_later() {
    let register = Register::start().await;
    let mut gateway = Fake::start(&register, "a").await;
    let epoch = ready(&gateway, 1).await;
    let (cluster, mut watch) = watching(&gateway);
    let by = gateway.watched().await;
    by.tell(&[("room-1", is(&[]))], Some(epoch)).await;
    let comings: Vec<_> = (0..200)
        .flat_map(|_| [Event::Joined(member(&"x".repeat(100))), Event::Left("x".repeat(100))])
        .map(|event| ("room-1", event))
        .collect();
    let taken = by.fill(&comings).await;
    assert!(taken < 1000, "{taken} batches are under way");
    cluster.send(broadgate_business::Audience::all(), "commands have their own connection").await.unwrap();
    for _ in 0..taken * comings.len() {
        soon("a change", watch.next()).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let config = ClusterConfig { registers: vec![register.address.clone()], ..ClusterConfig::default() };
    let cluster = Cluster::connect(config).await.unwrap();
    let none: [&str; 0] = [];
    assert_eq!(cluster.watch_groups(none).unwrap_err().refusal(), Some(Refusal::Invalid));
    let mut watch = cluster.watch_groups(["bad"]).unwrap();
    assert_eq!(soon("a refusal", watch.next()).await.unwrap_err().refusal(), Some(Refusal::Invalid));
    assert!(soon("the end", watch.next()).await.unwrap_err().to_string().contains("ended"));
    let alone = Cluster::to_gateway(&gateway.address, Secret::default(), "", DEFAULT_TIMEOUT).unwrap();
    assert!(alone.watch_groups(["room-*"]).is_err());
}

#[tokio::test]
async fn histories_are_read_at_their_homes() {
    let register = Register::start().await;
    let (a, b) = (Fake::start(&register, "a").await, Fake::start(&register, "b").await);
    ready(&a, 2).await;
    let registers = vec![register.address.clone()];
    let config = ClusterConfig { registers, app: "shop".into(), ..ClusterConfig::default() };
    let cluster = Cluster::connect(config).await.unwrap();
    for home in [&a, &b] {
        let group = group_of(home, &[&a, &b]);
        let since = HistoryPosition { epoch: "1.1.1".into(), offset: 7 };
        let history = cluster.history(&group, Some(since.clone()), 5).await.unwrap();
        assert_eq!((history.position, history.recovered), (Some(since), true));
        assert!(cluster.last_value(&group).await.unwrap().payload.is_some());
        let heard = home.commands();
        assert!(matches!(&heard[0], Command::History(asked) if asked.group == group && asked.limit == 5));
        assert!(matches!(&heard[1], Command::LastValue(asked) if asked.app == "shop"));
    }
}
