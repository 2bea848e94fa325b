//! Which gateway commands go to, in which order, and what they carry.

use std::{collections::HashSet, sync::Arc, time::Duration};

use broadgate_business::{
    Audience, Cluster, ClusterConfig, CommandError, Secret, Who,
    cluster::{Close, DEFAULT_TIMEOUT, Page, Refusal},
};
use broadgate_proto::ring::Ring;
use broadgate_proto::v1::{Epoch, MemberState, Receipt, View, command::Command};
use tokio::{task::JoinHandle, time::sleep};

use crate::fake::{Answers, Fake, Register, soon};

fn config(register: &Register) -> ClusterConfig {
    ClusterConfig { registers: vec![register.address.clone()], ..ClusterConfig::default() }
}

async fn view_with_ready(gateway: &Fake, count: usize) {
    let mut views = gateway.view();
    let ready = |view: &Arc<View>| {
        view.members.iter().filter(|member| member.state() == MemberState::Ready).count() == count
    };
    soon("the view", views.wait_for(ready)).await.unwrap();
}

/// A group whose home is the first of two gateways, and will be the second's when that is ready.
fn moving_group(before: &Fake, after: &Fake) -> String {
    let ring = Ring::new([before.incarnation, after.incarnation]);
    let home = |group: &String| ring.pick(format!("gdefault\0{group}").as_bytes());
    (0..).map(|n| format!("room {n}")).find(|group| home(group) == Some(after.incarnation)).unwrap()
}

/// Sends these at the same time, in this order.
async fn begin(
    cluster: &Cluster,
    group: &str,
    texts: &[&str],
) -> Vec<JoinHandle<Result<Receipt, CommandError>>> {
    let mut begun = Vec::new();
    for text in texts {
        let (cluster, group, text) = (cluster.clone(), group.to_owned(), (*text).to_owned());
        begun.push(tokio::spawn(async move { cluster.send(Audience::group(group), text).await }));
        // Tests run on one thread: a task that is begun is polled in turn.
        tokio::task::yield_now().await;
    }
    begun
}

/// A cluster that has the same views as this gateway.
async fn connected(gateway: &Fake, ready: usize) -> Cluster {
    view_with_ready(gateway, ready).await;
    Cluster::with_views(gateway.view(), Secret::default(), "", DEFAULT_TIMEOUT)
}

async fn all_sent(begun: Vec<JoinHandle<Result<Receipt, CommandError>>>) {
    for send in begun {
        soon("a receipt", send).await.unwrap().unwrap();
    }
}

async fn elapses() {
    sleep(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn what_is_about_one_topic_goes_straight_to_its_home() {
    let register = Register::start().await;
    let (a, b) = (Fake::start(&register, "a").await, Fake::start(&register, "b").await);
    let cluster = connected(&a, 2).await;
    let ring = Ring::of_view(&a.view().borrow());
    let heard = |key: String| {
        let home = ring.pick(key.as_bytes()).unwrap();
        let counts = (a.commands().len(), b.commands().len());
        if home == a.incarnation { counts } else { (counts.1, counts.0) }
    };
    for n in 0..30 {
        let name = format!("name {n}");
        let (group, uid) = (format!("gdefault\0{name}"), format!("ushop\0{name}"));
        let shop = cluster.in_app("shop");
        let before = heard(group.clone());
        cluster.send(Audience::group(&name).except_client(a.client(1)), "x").await.unwrap();
        cluster.close(Audience::group(&name), Close::default()).await.unwrap();
        cluster.dissolve([&name]).await.unwrap();
        cluster.count([&name], false).await.unwrap();
        cluster.post(Audience::group(&name), "y").await.unwrap();
        assert_eq!(cluster.roster(&name, Page::default()).await.unwrap().members[0].user_id, name);
        assert_eq!(heard(group), (before.0 + 6, before.1), "{name}");
        let before = heard(uid.clone());
        shop.send(Audience::uid(&name), "x").await.unwrap();
        shop.online([&name]).await.unwrap();
        shop.bind_exclusive(b.client(1), &name).await.unwrap();
        assert_eq!(heard(uid), (before.0 + 3, before.1), "{name}");
    }
    let before = heard("adefault\0".into());
    cluster.send(Audience::all(), "x").await.unwrap();
    assert_eq!(heard("adefault\0".into()), (before.0 + 1, before.1));
    let bound = a.commands().len();
    cluster.bind(a.client(1), "ada").await.unwrap();
    assert_eq!(a.commands().len(), bound + 1, "what is not exclusive is the client's gateway's alone");
}

#[tokio::test]
async fn unanswered_sends_keep_their_order_and_ids_when_the_home_moves() {
    let register = Register::start().await;
    let (a, b) = (Fake::start(&register, "a").await, Fake::joining(&register, "b").await);
    let group = moving_group(&a, &b);
    let cluster = connected(&a, 1).await;
    a.answers(Answers::Silence);
    let mut begun = begin(&cluster, &group, &["1", "2", "3"]).await;
    a.hears(3).await;
    b.ready();
    view_with_ready(&a, 2).await;
    elapses().await;
    begun.extend(begin(&cluster, &group, &["4", "5"]).await);
    let posted = tokio::spawn({
        let (cluster, group) = (cluster.clone(), group.clone());
        async move { cluster.post(Audience::group(group), "6").await }
    });
    // Another topic does not wait.
    let other = (0..).map(|n| format!("other {n}"));
    let ring = Ring::new([a.incarnation, b.incarnation]);
    let at_b = |uid: &String| ring.pick(format!("udefault\0{uid}").as_bytes()) == Some(b.incarnation);
    cluster.send(Audience::uid(other.into_iter().find(at_b).unwrap()), "other").await.unwrap();
    elapses().await;
    assert_eq!(b.texts(), ["other"], "nothing overtakes what is unanswered at the former home");
    a.cut();
    all_sent(begun).await;
    soon("the post", posted).await.unwrap().unwrap();
    assert_eq!(b.hears(7).await, ["other", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(a.sent()[..3], b.sent()[1..4], "repeats carry the same ids");
}

#[tokio::test]
async fn abandoned_command_at_a_former_home_delays_no_other() {
    let register = Register::start().await;
    let (a, b) = (Fake::start(&register, "a").await, Fake::joining(&register, "b").await);
    let group = moving_group(&a, &b);
    let cluster = connected(&a, 1).await;
    a.answers(Answers::Silence);
    let first = begin(&cluster, &group, &["1"]).await;
    a.hears(1).await;
    b.ready();
    view_with_ready(&a, 2).await;
    elapses().await;
    let second = begin(&cluster, &group, &["2", "3"]).await;
    elapses().await;
    assert!(b.texts().is_empty());
    // Its caller gives up: nobody waits for it any more.
    first[0].abort();
    all_sent(second).await;
    assert_eq!((a.texts(), b.texts()), (vec!["1".to_owned()], vec!["2".to_owned(), "3".to_owned()]));
}

#[tokio::test]
async fn a_stream_that_breaks_changes_no_order() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let cluster = Cluster::connect(config(&register)).await.unwrap();
    gateway.answers(Answers::Silence);
    let mut begun = begin(&cluster, "g", &["1", "2"]).await;
    gateway.hears(2).await;
    gateway.answers(Answers::Receipts);
    gateway.cut();
    begun.extend(begin(&cluster, "g", &["3", "4"]).await);
    all_sent(begun).await;
    assert_eq!(gateway.texts(), ["1", "2", "1", "2", "3", "4"]);
    let ids: HashSet<_> = gateway.sent().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn a_gateway_that_cannot_now_is_asked_again_or_another_one() {
    let register = Register::start().await;
    let (a, b) = (Fake::start(&register, "a").await, Fake::start(&register, "b").await);
    let cluster = connected(&a, 2).await;
    a.answers(Answers::Unavailable);
    all_sent(begin(&cluster, "g", &["1", "2", "3"]).await).await;
    cluster.join(Who::client(a.client(1)), ["g"]).await.unwrap();
    assert_eq!(b.texts(), ["1", "2", "3"]);
    b.answers(Answers::Unavailable);
    let last = begin(&cluster, "g", &["4", "5"]).await;
    elapses().await;
    b.answers(Answers::Receipts);
    all_sent(last).await;
    assert_eq!(b.texts().split_off(b.texts().len() - 2), ["4", "5"]);
    // What never becomes possible says so in the end.
    a.answers(Answers::Unavailable);
    let short = Duration::from_secs(1);
    let alone = Cluster::to_gateway(&a.address, Secret::default(), "", short).unwrap();
    let error = alone.send(Audience::all(), "x").await.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::Unavailable), "{error}");
}

#[tokio::test]
async fn ids_are_the_callers_or_all_different() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let cluster = Cluster::connect(config(&register)).await.unwrap();
    let client = gateway.client(1);
    cluster.send(Audience::all(), "1").await.unwrap();
    cluster.clone().send(Audience::all(), "2").await.unwrap();
    cluster.in_app("shop").send(Audience::all(), "3").await.unwrap();
    cluster.with_id("mine").send(Audience::all(), "4").await.unwrap();
    cluster.with_id("mine").send(Audience::all(), "4").await.unwrap();
    let ids: Vec<_> = gateway.sent().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids[3..], ["mine", "mine"]);
    let own: HashSet<_> = ids[..3].iter().collect();
    assert!(own.len() == 3 && own.iter().all(|id| (1..=64).contains(&id.len())), "{own:?}");
    cluster.join_as(Who::client(client.clone()), ["g"], "ada", "{}").await.unwrap();
    let Some(Command::Join(join)) = gateway.commands().pop() else { panic!("no join") };
    let member = join.member.unwrap();
    assert_eq!((member.user_id.as_str(), member.info.as_str()), ("ada", "{}"));
    assert!(!join.command_id.is_empty());
    cluster.leave(Who::client(client), ["g"]).await.unwrap();
    let Some(Command::Leave(leave)) = gateway.commands().pop() else { panic!("no leave") };
    assert!(!leave.command_id.is_empty() && leave.command_id != join.command_id);
}

#[tokio::test]
async fn the_highest_epoch_seen_goes_with_every_command() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let cluster = Cluster::connect(config(&register)).await.unwrap();
    for epoch in [Epoch::new(3, 7), Epoch::new(3, 9), Epoch::new(3, 8)] {
        gateway.epoch(epoch);
        cluster.clone().send(Audience::all(), "x").await.unwrap();
    }
    cluster.in_app("shop").post(Audience::all(), "y").await.unwrap();
    gateway.hears(4).await;
    let after: Vec<_> = gateway.heard().into_iter().map(|heard| heard.after).collect();
    let seen = [None, Some(Epoch::new(3, 7)), Some(Epoch::new(3, 9)), Some(Epoch::new(3, 9))];
    assert_eq!(after, seen);
}

#[tokio::test]
async fn what_was_seen_of_a_cluster_is_not_asked_of_its_successor() {
    let (former, successor) = (Register::start().await, Register::start().await);
    let (a, b) = (Fake::start(&former, "a").await, Fake::start(&successor, "b").await);
    view_with_ready(&a, 1).await;
    view_with_ready(&b, 1).await;
    let view = |gateway: &Fake| gateway.view().borrow().clone();
    let (views, followed) = tokio::sync::watch::channel(view(&a));
    let cluster = Cluster::with_views(followed, Secret::default(), "", DEFAULT_TIMEOUT);
    // Above whatever term the other register has.
    let seen = Epoch::new(1 << 40, 9);
    a.epoch(seen);
    cluster.send(Audience::all(), "1").await.unwrap();
    // An older view of the same gateways is only late.
    views.send(Arc::new(View { epoch: Some(Epoch::new(1, 0)), ..(*view(&a)).clone() })).unwrap();
    elapses().await;
    cluster.send(Audience::all(), "2").await.unwrap();
    assert_eq!(a.heard()[1].after, Some(seen));
    views.send(view(&b)).unwrap();
    elapses().await;
    cluster.send(Audience::all(), "3").await.unwrap();
    assert_eq!(b.heard()[0].after, None);
}

/// More than may be unanswered on one link: each would hold its place for ever.
#[tokio::test]
async fn what_is_posted_is_not_answered_and_waits_for_nothing() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let cluster = Cluster::connect(config(&register)).await.unwrap();
    cluster.send(Audience::group("g"), "first").await.unwrap();
    let posts = 70_000;
    for _ in 0..posts {
        cluster.post(Audience::group("g"), "x").await.unwrap();
    }
    cluster.send(Audience::group("g"), "last").await.unwrap();
    let heard = gateway.heard();
    assert_eq!(heard.len(), posts + 2);
    assert_eq!(gateway.texts().last().unwrap(), "last");
    let no_receipt =
        |command: &Option<Command>| matches!(command, Some(Command::Send(send)) if send.no_receipt);
    assert_eq!(heard.iter().filter(|heard| no_receipt(&heard.command)).count(), posts);
    assert!(heard.iter().all(|heard| no_receipt(&heard.command) == (heard.id == 0)));
}

#[tokio::test]
async fn posts_are_written_after_the_cluster_is_dropped() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let cluster = connected(&gateway, 1).await;
    cluster.send(Audience::all(), "first").await.unwrap();
    for n in 0..500 {
        let to = if n % 2 == 0 { Audience::all() } else { Audience::client(gateway.client(1)) };
        cluster.post(to, n.to_string()).await.unwrap();
    }
    drop(cluster);
    gateway.hears(501).await;
}

#[tokio::test]
async fn unanswered_command_error_names_its_id() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let short = Duration::from_secs(1);
    let cluster = Cluster::to_gateway(&gateway.address, Secret::default(), "", short).unwrap();
    gateway.answers(Answers::Silence);
    let error = cluster.send(Audience::group("g"), "x").await.unwrap_err();
    let CommandError::Unanswered { command_id, .. } = &error else { panic!("{error}") };
    gateway.answers(Answers::Receipts);
    let again = Cluster::connect(config(&register)).await.unwrap().with_id(command_id);
    again.send(Audience::group("g"), "x").await.unwrap();
    let sent = gateway.sent();
    assert_eq!(sent[0], sent[1]);
}
