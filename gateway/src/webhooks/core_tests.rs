use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{apps::Apps, webhooks::health::HealthChange};

const RUN: u64 = 0xabc;

/// A table with one app, which has these webhooks (TOML, without their header).
fn table(webhooks: &[&str]) -> Arc<AppTable> {
    let webhooks: String = webhooks.iter().map(|webhook| format!("[[webhooks]]\n{webhook}\n")).collect();
    let app = format!("id = \"shop\"\nkeys = [{{ key = \"k\", secret = \"s\" }}]\n{webhooks}");
    Apps::new(vec![toml::from_str(&app).unwrap()]).unwrap().load()
}

struct Bench {
    core: WebhookCore,
    now: Duration,
    out: EndpointEffect,
    urls: BTreeMap<EndpointId, String>,
}

impl Bench {
    fn new(webhooks: &[&str]) -> Self {
        let (core, now) = (WebhookCore::new(RUN), Duration::ZERO);
        let mut bench = Self { core, now, out: EndpointEffect::new(), urls: BTreeMap::new() };
        bench.apps(webhooks);
        bench
    }

    fn apps(&mut self, webhooks: &[&str]) {
        let endpoints = self.core.apps(&table(webhooks), &mut self.out);
        self.urls.extend(endpoints.iter().map(|(id, app, index)| (*id, app.webhooks[*index].url.clone())));
    }

    fn tell(&mut self, fact: Fact) {
        self.core.fact(self.now, 77, "shop", fact.into(), &mut self.out);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.core.next().filter(|next| *next <= end) {
            assert!(next > self.now, "it would be woken for ever");
            self.now = next;
            self.core.wake(self.now, 77, &mut self.out);
        }
        self.now = end;
    }

    /// What was posted since, as (url, flight, JSON of the events).
    fn posts(&mut self) -> Vec<(String, u64, Vec<String>)> {
        let posts = std::mem::take(&mut self.out).into_iter().filter_map(|(id, effect)| match effect {
            WebhookEffect::Post { flight, events } => {
                Some((self.urls[&id].clone(), flight, events.iter().map(|it| it.json.to_string()).collect()))
            }
            _ => None,
        });
        posts.collect()
    }

    fn done(&mut self, url: &str, flight: u64, arrived: bool) {
        let id = self.urls.iter().find(|(_, known)| *known == url).map(|(id, _)| *id).unwrap();
        self.core.done(self.now, id, flight, arrived, &mut self.out);
    }
}

fn occupied(channel: &str) -> Fact {
    Fact::Occupied { channel: channel.into() }
}

fn names(posts: &[(String, u64, Vec<String>)]) -> Vec<(&str, &str)> {
    posts
        .iter()
        .flat_map(|(url, _, events)| events.iter().map(move |event| (url.as_str(), event.as_str())))
        .map(|(url, event)| (url, event.split("\"channel\":\"").nth(1).unwrap().split('"').next().unwrap()))
        .collect()
}

#[test]
fn each_endpoint_gets_what_it_asks_for() {
    let mut bench = Bench::new(&[
        "url = \"http://all\"",
        "url = \"http://some\"\nevents = [\"channel_vacated\", \"cache_miss\"]",
        "url = \"http://named\"\nchannel_prefix = \"private-\"\nchannel_suffix = \"-x\"",
    ]);
    for channel in ["private-x", "private-y", "x"] {
        bench.tell(occupied(channel));
    }
    let posts = bench.posts();
    assert_eq!(
        names(&posts),
        [
            ("http://all", "private-x"),
            ("http://named", "private-x"),
            ("http://all", "private-y"),
            ("http://all", "x")
        ]
    );
    assert_eq!(posts[0].2, posts[1].2, "one event has one id at every endpoint");
    assert_eq!(
        posts[0].2[0],
        r#"{"name":"channel_occupied","channel":"private-x","id":"0000000000000abc-1"}"#
    );
    bench.tell(Fact::Vacated { channel: "gone".into() });
    assert!(bench.posts().is_empty());
    bench.pass(Duration::from_secs(3));
    let both = bench.posts();
    assert_eq!(names(&both), [("http://all", "gone"), ("http://some", "gone")]);
    bench.core.fact(bench.now, 0, "other", occupied("x").into(), &mut bench.out);
    assert!(bench.out.is_empty());
}

#[test]
fn an_endpoint_that_fails_delays_no_other() {
    let mut bench = Bench::new(&["url = \"http://bad\"", "url = \"http://good\""]);
    for _ in 0..20 {
        bench.tell(occupied("x"));
        for (url, flight, _) in bench.posts() {
            bench.done(&url, flight, url == "http://good");
        }
    }
    assert_eq!(bench.core.waiting("shop").0, 20);
    bench.out.clear();
    bench.tell(occupied("x"));
    assert_eq!(names(&bench.posts()), [("http://good", "x")]);
}

#[test]
fn an_endpoint_keeps_its_queue_while_its_url_stays_and_loses_it_otherwise() {
    let mut bench =
        Bench::new(&["url = \"http://a\"", "url = \"http://b\"", "url = \"http://b\"\nbatch = true"]);
    (0..3).for_each(|_| bench.tell(occupied("x")));
    let posts = bench.posts();
    assert_eq!(bench.core.len(), 9);
    bench.apps(&["url = \"http://new\"", "url = \"http://b\"\nbatch = true\nchannel_prefix = \"y\""]);
    let dropped = bench
        .out
        .iter()
        .filter(|(_, it)| matches!(it, WebhookEffect::Dropped { reason: DropReason::EndpointGone, .. }));
    assert_eq!((dropped.count(), bench.core.len()), (6, 3));
    bench.out.clear();
    // What is under way goes on; a post to an endpoint that is gone changes nothing.
    posts.iter().for_each(|(url, flight, _)| bench.done(url, *flight, true));
    assert_eq!(names(&bench.posts()), [("http://b", "x"); 2], "it takes several now");
    bench.tell(occupied("x"));
    assert_eq!(names(&bench.posts()), [("http://new", "x")], "the new filter counts");
    bench.apps(&[]);
    bench.pass(Duration::from_secs(600));
    assert_eq!((bench.core.len(), bench.core.next()), (0, None));
}

#[test]
fn what_an_earlier_run_has_left_comes_first_and_numbers_go_on() {
    let mut bench = Bench::new(&["url = \"http://a\""]);
    let id = *bench.urls.keys().next().unwrap();
    let event = |seq| {
        Arc::new(EndpointEvent {
            seq,
            channel: "x".into(),
            at_ms: 5,
            json: "\"channel\":\"old\"".into(),
            arrival: None,
        })
    };
    let kept = vec![(id, event(41)), (EndpointId(1), event(42)), (id, event(43))];
    bench.core.restore(bench.now, kept, &mut bench.out);
    assert!(
        bench
            .out
            .iter()
            .any(|(_, it)| matches!(it, WebhookEffect::Dropped { reason: DropReason::EndpointGone, .. }))
    );
    bench.tell(occupied("x"));
    for expected in ["old", "old", "x"] {
        let posts = bench.posts();
        assert_eq!(names(&posts), [("http://a", expected)]);
        bench.done("http://a", posts[0].1, true);
    }
}

#[test]
fn debounced_events_of_a_moved_channel_are_posted_at_once() {
    let mut bench = Bench::new(&["url = \"http://a\""]);
    bench.tell(Fact::Vacated { channel: "x".into() });
    bench.tell(Fact::Vacated { channel: "y".into() });
    bench.core.moved(bench.now, 77, "shop", "x", &mut bench.out);
    assert_eq!((names(&bench.posts()), bench.core.waits_for_returns()), (vec![("http://a", "x")], true));
    bench.pass(Duration::from_secs(3));
    assert_eq!((names(&bench.posts()), bench.core.waits_for_returns()), (vec![("http://a", "y")], false));
}

#[test]
fn debounced_events_are_posted_when_the_gateway_stops() {
    let mut bench = Bench::new(&["url = \"http://a\""]);
    bench.tell(Fact::Vacated { channel: "x".into() });
    bench.core.flush(bench.now, 77, &mut bench.out);
    assert_eq!((names(&bench.posts()), bench.core.next().is_some()), (vec![("http://a", "x")], false));
}

proptest! {
    /// With a receiver that fails at random: what was queued is delivered or dropped once, and news come
    /// in turn.
    #[test]
    fn every_event_has_one_end(seed: u64, batch: bool, facts in 1_usize..200) {
        let webhook = format!("url = \"http://a\"\nbatch = {batch}");
        let mut bench = Bench::new(&[&webhook]);
        let mut chance = Chance(seed);
        let (mut queued, mut ended, mut under_way) = (Vec::new(), Vec::new(), Vec::new());
        let mut fails = false;
        let mut told = 0;
        while told < facts || bench.core.len() > 0 {
            if told < facts {
                told += 1;
                let channel = (chance.next() % 5).to_string();
                bench.tell(match chance.next() % 3 {
                    0 => occupied(&channel),
                    1 => Fact::Vacated { channel },
                    _ => Fact::SubscriptionCount { channel, count: chance.next() % 200 },
                });
            }
            bench.pass(Duration::from_millis(chance.next() % 8000));
            for (id, effect) in std::mem::take(&mut bench.out) {
                match effect {
                    WebhookEffect::Queued(event) => queued.push(event.seq),
                    WebhookEffect::Post { flight, .. } => under_way.push((id, flight)),
                    WebhookEffect::Delivered { event, .. } | WebhookEffect::Dropped { event, .. } => ended.push(event.seq),
                    WebhookEffect::News(news) => {
                        prop_assert_eq!(fails, !matches!(news, HealthChange::Fails));
                        fails = !fails;
                    }
                }
            }
            while !under_way.is_empty() && !chance.next().is_multiple_of(3) {
                let (id, flight) = under_way.remove(chance.next() as usize % under_way.len());
                bench.core.done(bench.now, id, flight, chance.next().is_multiple_of(2), &mut bench.out);
            }
        }
        for (_, effect) in bench.out {
            if let WebhookEffect::Delivered { event, .. } | WebhookEffect::Dropped { event, .. } = effect {
                ended.push(event.seq);
            }
        }
        ended.sort_unstable();
        prop_assert_eq!(ended, queued);
    }
}
