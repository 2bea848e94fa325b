//! Over real sockets and files.

use std::{collections::BTreeSet, fs::OpenOptions, io::Write as _};

use broadgate_pusher::auth::AppKey;
use broadgate_tasks::Tasks;

use super::{
    receiver::{Mood, TestReceiver},
    send::PostSender,
    spool::tests::Folder,
    *,
};
use crate::apps::App;

const SECRET: &str = "7ad3773142a6692b25b8";

fn app(webhooks: &[(&str, &str)]) -> App {
    let webhooks = webhooks.iter().map(|(url, rest)| format!("[[webhooks]]\nurl = {url:?}\n{rest}\n"));
    let webhooks: String = webhooks.collect();
    let text = format!("id = \"shop\"\nkeys = [{{ key = \"k\", secret = {SECRET:?} }}]\n{webhooks}");
    toml::from_str(&text).unwrap()
}

/// With little patience for a receiver that hangs.
fn start(apps: &Apps, spool: Option<&Path>) -> Webhooks {
    let (webhooks, shell) = Webhooks::shell(apps, spool, "gw-1", &Tasks::default().spawner()).unwrap();
    let sender = PostSender::new().unwrap().within(Duration::from_millis(500));
    tokio::spawn(shell.with_sender(sender).run());
    webhooks
}

fn occupied(channel: &str) -> Fact {
    Fact::Occupied { channel: channel.into() }
}

fn added(channel: &str, user: usize) -> Fact {
    Fact::MemberAdded { channel: channel.into(), user_id: user.to_string() }
}

#[tokio::test]
async fn posts_are_signed_and_arrive_in_order_though_the_receiver_fails_and_hangs_at_first() {
    let moods = [Mood::Answers(500), Mood::Hangs, Mood::Breaks, Mood::Takes];
    let receiver = TestReceiver::start(&moods).await;
    let apps =
        Apps::new(vec![app(&[(&receiver.url(), "headers = { Authorization = \"Bearer b\" }")])]).unwrap();
    let webhooks = start(&apps, None);
    for user in 0..20 {
        webhooks.tell("shop", added("presence-a", user));
        webhooks.tell("shop", added("presence-b", user));
        webhooks.tell("nobody", added("presence-b", user));
    }
    let taken = receiver.takes(40).await;
    for channel in ["presence-a", "presence-b"] {
        let own =
            receiver.posts().into_iter().filter(|post| post.was_taken && post.events()[0][1] == channel);
        let users: Vec<u64> = own
            .map(|post| {
                serde_json::from_slice::<serde_json::Value>(&post.body).unwrap()["events"][0]["user_id"]
                    .clone()
            })
            .map(|user| user.as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(users, (0..20).collect::<Vec<_>>(), "{channel}");
    }
    let ids: BTreeSet<&String> = taken.iter().map(|[_, _, id]| id).collect();
    assert_eq!(ids.len(), 40);
    let posts = receiver.posts();
    assert_eq!(posts.len(), 43);
    for post in &posts {
        let header = |name: &str| post.headers[name].to_str().unwrap();
        assert!(AppKey::new("k", SECRET).verify(&post.body, header("x-pusher-signature")));
        assert_eq!((header("x-pusher-key"), header("content-type")), ("k", "application/json"));
        assert_eq!(header("authorization"), "Bearer b");
        assert!(header("user-agent").starts_with("broadgate/"));
        if !post.was_taken {
            assert!(taken.contains(&post.events()[0]), "another attempt has the same id");
        }
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_other_and_batches_hold_several_events() {
    let (hangs, takes) =
        (TestReceiver::start(&[Mood::Hangs]).await, TestReceiver::start(&[Mood::Takes]).await);
    let hooks = [(&*hangs.url(), ""), (&*takes.url(), "batch = true\nevents = [\"member_added\"]")];
    let apps = Apps::new(vec![app(&hooks)]).unwrap();
    let webhooks = start(&apps, None);
    webhooks.tell("shop", occupied("presence-a"));
    (0..50).for_each(|user| webhooks.tell("shop", added(&format!("presence-{}", user % 20), user)));
    let taken = takes.takes(50).await;
    assert!(taken.iter().all(|[name, ..]| name == "member_added"));
    assert_eq!(takes.posts().len(), 1);
    hangs.is_sent(broadgate_proto::limits::WEBHOOK_POSTS_MAX).await;
}

#[tokio::test]
async fn endpoints_come_and_go_while_it_runs() {
    let (first, second) =
        (TestReceiver::start(&[Mood::Takes]).await, TestReceiver::start(&[Mood::Takes]).await);
    let apps = Apps::new(vec![app(&[(&first.url(), "")])]).unwrap();
    let webhooks = start(&apps, None);
    webhooks.tell("shop", occupied("a"));
    first.takes(1).await;
    let _ = apps.swap(vec![app(&[(&second.url(), "")])]).unwrap();
    // The task looks in no promised order.
    tokio::time::sleep(Duration::from_millis(50)).await;
    webhooks.tell("shop", occupied("b"));
    second.takes(1).await;
    assert_eq!((first.taken().len(), second.taken()[0][1].as_str()), (1, "b"));
    let _ = apps.swap(vec![app(&[])]).unwrap();
    webhooks.tell("shop", occupied("c"));
    webhooks.drain(Duration::from_secs(5)).await;
    assert_eq!((first.taken().len(), second.taken().len()), (1, 1));
}

#[tokio::test]
async fn a_drain_waits_for_returns_and_for_what_waits() {
    let receiver = TestReceiver::start(&[Mood::Slow(Duration::from_millis(200))]).await;
    let apps = Apps::new(vec![app(&[(&receiver.url(), "")])]).unwrap();
    let webhooks = start(&apps, None);
    (0..3).for_each(|user| webhooks.tell("shop", added("presence-a", user)));
    for channel in ["presence-a", "presence-b"] {
        webhooks.tell("shop", Fact::Vacated { channel: channel.into() });
    }
    let started = std::time::Instant::now();
    let returns = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        webhooks.tell("shop", occupied("presence-b"));
    };
    tokio::join!(webhooks.drain(Duration::from_secs(10)), returns);
    assert!(started.elapsed() < Duration::from_secs(5));
    let names: Vec<String> = receiver.taken().into_iter().map(|[name, ..]| name).collect();
    assert_eq!(names, ["member_added", "member_added", "member_added", "channel_vacated"]);
    // It has ended; what comes too late is dropped, and nobody waits.
    webhooks.tell("shop", occupied("a"));
    webhooks.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let receiver = TestReceiver::start(&[Mood::Answers(500)]).await;
    let apps = Apps::new(vec![app(&[(&receiver.url(), "")])]).unwrap();
    let webhooks = start(&apps, None);
    webhooks.tell("shop", occupied("a"));
    receiver.is_sent(1).await;
    let started = std::time::Instant::now();
    webhooks.drain(Duration::from_millis(300)).await;
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn what_waits_survives_a_restart_and_a_torn_spool() {
    let receiver = TestReceiver::start(&[Mood::Answers(500)]).await;
    let apps = Apps::new(vec![app(&[(&receiver.url(), "")])]).unwrap();
    let folder = Folder::new();
    let webhooks = start(&apps, Some(&folder.0));
    (0..5).for_each(|user| webhooks.tell("shop", added("presence-a", user)));
    webhooks.tell("shop", Fact::Vacated { channel: "presence-b".into() });
    receiver.is_sent(1).await;
    webhooks.drain(Duration::from_secs(60)).await;
    let before = receiver.posts();

    let file = folder.0.join("gw-1.webhooks");
    OpenOptions::new().append(true).open(&file).unwrap().write_all(b"torn").unwrap();
    receiver.turns(Mood::Takes);
    let webhooks = start(&apps, Some(&folder.0));
    let taken = receiver.takes(6).await;
    assert!(before.iter().flat_map(receiver::Post::events).all(|event| taken.contains(&event)), "ids stay");
    assert_eq!(taken.iter().filter(|[name, ..]| name == "channel_vacated").count(), 1);
    webhooks.tell("shop", occupied("presence-c"));
    let ids: BTreeSet<String> = receiver.takes(7).await.into_iter().map(|[_, _, id]| id).collect();
    assert_eq!(ids.len(), 7);
    webhooks.drain(Duration::from_secs(5)).await;
    assert!(
        Spool::open(&folder.0, "gw-1", &Tasks::default().spawner()).unwrap().1.is_empty(),
        "what was delivered is done with"
    );
}

/// Nobody says that it stops: the handle goes.
#[tokio::test]
async fn what_waits_survives_when_the_handle_is_dropped() {
    let receiver = TestReceiver::start(&[Mood::Answers(500)]).await;
    let apps = Apps::new(vec![app(&[(&receiver.url(), "")])]).unwrap();
    let folder = Folder::new();
    let (webhooks, shell) =
        Webhooks::shell(&apps, Some(&folder.0), "gw-1", &Tasks::default().spawner()).unwrap();
    let running = tokio::spawn(shell.run());
    webhooks.tell("shop", occupied("a"));
    receiver.is_sent(1).await;
    drop(webhooks);
    running.await.unwrap();
    assert_eq!(Spool::open(&folder.0, "gw-1", &Tasks::default().spawner()).unwrap().1.len(), 1);
}

#[tokio::test]
async fn the_inbox_has_a_limit_in_bytes() {
    let apps = Apps::new(vec![app(&[("http://127.0.0.1:1/", "")])]).unwrap();
    let (webhooks, shell) = Webhooks::shell(&apps, None, "gw-1", &Tasks::default().spawner()).unwrap();
    let event = |data: String| Fact::ClientEvent {
        channel: "private-a".into(),
        event: "client-x".into(),
        data,
        socket_id: "1.2".into(),
        user_id: None,
    };
    (0..5).for_each(|_| webhooks.tell("shop", event("1".repeat(WEBHOOK_INBOX_BYTES_MAX / 4))));
    let waits = shell.inbox().bytes();
    assert!((WEBHOOK_INBOX_BYTES_MAX / 2..WEBHOOK_INBOX_BYTES_MAX).contains(&waits), "{waits}");
    let running = tokio::spawn(shell.run());
    webhooks.drain(Duration::ZERO).await;
    running.await.unwrap();
}
