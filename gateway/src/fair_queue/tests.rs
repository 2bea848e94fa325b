use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fact {
    Occupied,
    Vacated,
    Came(u8),
    Left(u8),
    Count(u64),
    Event(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TestItem {
    app: &'static str,
    channel: String,
    fact: Fact,
}

const USERS: [&str; 4] = ["0", "1", "2", "3"];

impl QueueItem for TestItem {
    fn about(&self) -> Option<(&str, &str)> {
        (!self.app.is_empty()).then_some((self.app, &self.channel))
    }

    fn bytes(&self) -> usize {
        self.channel.len() + if let Fact::Event(bytes) = self.fact { bytes } else { 0 }
    }

    fn says(&self) -> Says<'_> {
        match self.fact {
            Fact::Occupied => Says::Begins(None),
            Fact::Vacated => Says::Ends(None),
            Fact::Came(user) => Says::Begins(Some(USERS[usize::from(user % 4)])),
            Fact::Left(user) => Says::Ends(Some(USERS[usize::from(user % 4)])),
            Fact::Count(_) => Says::Newest("count"),
            Fact::Event(_) => Says::Once,
        }
    }
}

fn item(app: &'static str, channel: impl Into<String>, fact: Fact) -> TestItem {
    TestItem { app, channel: channel.into(), fact }
}

const ROOM: usize = 1024 * 1024;

/// Puts everything in, and says what was dropped and what is left.
async fn left_of(items: impl IntoIterator<Item = TestItem>) -> (Thinned, Vec<TestItem>) {
    let (sender, mut receiver) = inbox(ROOM);
    let mut all = Thinned::default();
    for item in items {
        let Thinned { full, undone } = sender.put(item);
        (all.full, all.undone) = (all.full + full, all.undone + undone);
        assert!(receiver.bytes() <= ROOM);
    }
    drop(sender);
    let mut left = Vec::new();
    while receiver.take(100, &mut left).await {}
    assert_eq!(receiver.bytes(), 0);
    (all, left)
}

#[tokio::test]
async fn loud_app_drops_nothing_of_another_app() {
    let quiet = |n: u32| item("quiet", format!("private-{n}"), Fact::Event(10));
    let items = (0..40_000_u32).map(|n| match n % 100 {
        7 => quiet(n),
        _ => item("loud", format!("private-{}", n % 13), Fact::Event(n as usize % 3000)),
    });
    let (dropped, left) = left_of(items).await;
    assert!(dropped.full > 10_000);
    let kept: Vec<_> = left.iter().filter(|item| item.app == "quiet").cloned().collect();
    assert_eq!(kept, (0..40_000).filter(|n| n % 100 == 7).map(quiet).collect::<Vec<_>>());
}

#[tokio::test]
async fn flood_of_channels_that_anybody_may_open_drops_nothing_of_signed_channels() {
    let items = (0..30_000_u32).map(|n| match n % 100 {
        7 => item("shop", format!("presence-{n}"), Fact::Came(1)),
        _ => item("shop", format!("open-{n}"), Fact::Occupied),
    });
    let (dropped, left) = left_of(items).await;
    assert!(dropped.full > 20_000 && dropped.undone == 0);
    assert_eq!(left.iter().filter(|item| item.channel.starts_with("presence-")).count(), 300);
    // And the other way round: a user with a signature cannot push out what is public.
    let items = (0..30_000_u32).map(|n| match n % 100 {
        7 => item("shop", format!("open-{n}"), Fact::Occupied),
        _ => item("shop", "private-x", Fact::Event(50)),
    });
    let (_, left) = left_of(items).await;
    assert_eq!(left.iter().filter(|item| item.channel.starts_with("open-")).count(), 300);
}

#[tokio::test]
async fn loud_channel_loses_its_own_and_keeps_its_newest() {
    let items = (0..30_000_u32).map(|n| match n {
        0 => item("shop", "private-loud", Fact::Occupied),
        _ if n % 100 == 7 => item("shop", format!("private-{n}"), Fact::Event(10)),
        _ => item("shop", "private-loud", Fact::Event(n as usize % 50)),
    });
    let (dropped, left) = left_of(items).await;
    assert!(dropped.full > 20_000);
    assert_eq!(left.iter().filter(|item| item.channel != "private-loud").count(), 300);
    assert_eq!(left[0], item("shop", "private-loud", Fact::Occupied), "a channel's state is kept");
    assert_eq!(left.last(), Some(&item("shop", "private-loud", Fact::Event(49))));
}

#[tokio::test]
async fn what_came_and_went_is_undone_and_loses_nothing() {
    let rounds = (0..20_000_u32).flat_map(|n| {
        let channel = format!("open-{}", n % 1000);
        [item("shop", channel.clone(), Fact::Occupied), item("shop", channel, Fact::Vacated)]
    });
    let genuine = ["a", "b"].map(|channel| item("shop", channel, Fact::Occupied));
    let counts = (0..9_000).map(|n| item("shop", "b", Fact::Count(n)));
    let (dropped, left) = left_of(genuine.clone().into_iter().chain(rounds).chain(counts)).await;
    assert_eq!(dropped.full, 0);
    assert!(dropped.undone > 20_000);
    assert!(genuine.iter().all(|one| left.contains(one)));
    assert_eq!(left.last(), Some(&item("shop", "b", Fact::Count(8999))));
}

#[tokio::test]
async fn ends_outlive_beginnings() {
    let items = (0..20_000_u32).map(|n| {
        let fact = if n % 20 == 7 { Fact::Vacated } else { Fact::Occupied };
        item("shop", format!("open-{n}"), fact)
    });
    let (dropped, left) = left_of(items).await;
    assert!(dropped.full > 10_000);
    assert_eq!(left.iter().filter(|item| item.fact == Fact::Vacated).count(), 1000);
}

#[tokio::test]
async fn servers_own_items_are_never_dropped_and_order_is_kept() {
    let items = (0..20_000_u32).map(|n| match n % 1000 {
        999 => item("", n.to_string(), Fact::Event(5000)),
        _ => item("shop", format!("private-{}", n % 5), Fact::Event(n as usize)),
    });
    let (_, left) = left_of(items).await;
    let own: Vec<_> = left.iter().filter(|item| item.app.is_empty()).map(|item| &*item.channel).collect();
    assert_eq!((own.len(), own[0], own[19]), (20, "999", "19999"));
    let sizes: Vec<_> = left.iter().filter(|item| !item.app.is_empty()).map(QueueItem::bytes).collect();
    assert!(sizes.is_sorted());
}

#[tokio::test]
async fn receiver_that_is_gone_costs_nothing() {
    let (sender, receiver) = inbox(ROOM);
    assert_eq!(sender.put(item("shop", "a", Fact::Occupied)), Thinned::default());
    drop(receiver);
    assert_eq!(sender.put(item("shop", "a", Fact::Vacated)), Thinned { full: 1, undone: 0 });
}

proptest! {
    /// However the inbox is thinned: while nothing but what is undone is dropped, a receiver that takes all of
    /// it believes in the end what is so, of every channel and user; and what is left fits.
    #[test]
    fn receiver_believes_what_is_so(
        steps in prop::collection::vec((0..3_u8, 0..4_u8), 1..300),
        room in 2_000..20_000_usize,
    ) {
        let (mut so, mut items) = (HashMap::new(), VecDeque::new());
        for (channel, user) in steps {
            let here = so.entry((channel, user)).or_insert(false);
            *here = !*here;
            let fact = match (user, *here) {
                (0, true) => Fact::Occupied,
                (0, false) => Fact::Vacated,
                (user, true) => Fact::Came(user),
                (user, false) => Fact::Left(user),
            };
            items.push_back(item("shop", format!("presence-{channel}"), fact));
        }
        let thinned = thin::thin(&mut items, room);
        prop_assert!(items.iter().map(cost).sum::<usize>() <= room);
        if thinned.full > 0 {
            return Ok(());
        }
        let mut believed = HashMap::new();
        for TestItem { channel, fact, .. } in items {
            let channel: u8 = channel.trim_start_matches("presence-").parse().unwrap();
            let (user, here) = match fact {
                Fact::Occupied => (0, true),
                Fact::Vacated => (0, false),
                Fact::Came(user) => (user, true),
                Fact::Left(user) => (user, false),
                _ => unreachable!(),
            };
            let before = believed.insert((channel, user), here).unwrap_or(false);
            prop_assert_ne!(before, here, "told twice");
        }
        so.retain(|_, here| *here);
        believed.retain(|_, here| *here);
        prop_assert_eq!(so, believed);
    }
}
