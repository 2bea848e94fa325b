//! Changes in the channels of apps with Pusher clients, by their homes: sends subscribers their counts, and
//! webhooks every fact. One task for the gateway; it sees every channel whose home the gateway is.
//!
//! | file | what |
//! |---|---|
//! | `counts.rs` | pure: the rate of subscription counts |
//! | `facts.rs` | pure: facts for webhooks |

mod counts;
mod facts;

use std::{
    collections::HashMap,
    future::pending,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use broadgate_topics::{Pattern, Report, ReportSubscription, Topic};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    apps::{AppTable, Apps},
    channel_events::{counts::LargeChannels, facts::is_counted},
    cluster::ChannelChange,
    command::{ChannelEvent, EventFlags},
    dispatch::Dispatcher,
    fair_queue::FairReceiver,
    webhooks::{TrackedFact, Webhooks},
};

/// Changes handled in one turn.
const TURN_CHANGES_MAX: usize = 256;
const TICK: Duration = Duration::from_millis(500);

/// The groups with reports. Those for webhooks survive the home.
pub(crate) fn reporting(table: &AppTable) -> Vec<ReportSubscription> {
    let finished = table.iter().filter(|app| {
        app.enabled && !app.keys.is_empty() && (app.subscription_count || !app.webhooks.is_empty())
    });
    finished
        .map(|app| ReportSubscription {
            pattern: Pattern { app: app.id.clone(), pattern: "*".to_owned() },
            inherited: !app.webhooks.is_empty(),
        })
        .collect()
}

/// Runs until the gateway ends.
pub(crate) async fn run(
    apps: Apps,
    webhooks: Webhooks,
    dispatcher: Weak<Dispatcher>,
    mut seen: FairReceiver<ChannelChange>,
) {
    let started = Instant::now();
    let mut counts = LargeChannels::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut taken = Vec::with_capacity(TURN_CHANGES_MAX);
    // The next counts for subscribers, one per channel, and the count being sent: a home that cannot answer
    // for seconds delays neither webhooks nor the inbox.
    let mut next: HashMap<Topic, u64> = HashMap::new();
    let mut sending = None;
    loop {
        tokio::select! {
            open = seen.take(TURN_CHANGES_MAX, &mut taken) => if !open { return },
            _ = tick.tick() => {
                let table = apps.load();
                let due = counts.due(started.elapsed()).into_iter();
                next.extend(due.filter(|(topic, _)| tells_counts(&table, topic)));
            }
            () = finished(&mut sending) => sending = None,
        }
        let table = apps.load();
        for seen in taken.drain(..) {
            tell_webhooks(&table, &webhooks, &seen);
            if let ChannelChange::Report(topic, Report::Count(count), _) = seen
                && tells_counts(&table, &topic)
                && is_counted(topic.name())
                && counts.note(&topic, count, started.elapsed())
            {
                next.insert(topic, count);
            }
        }
        if sending.is_none() && !next.is_empty() {
            let events = next.drain().map(|(topic, count)| subscription_count(&topic, count)).collect();
            sending = dispatcher.upgrade().map(|dispatcher| Box::pin(place(dispatcher, events)) as Sending);
        }
    }
}

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn finished(sending: &mut Option<Sending>) {
    match sending {
        Some(sending) => sending.await,
        None => pending().await,
    }
}

async fn place(dispatcher: Arc<Dispatcher>, events: Vec<ChannelEvent>) {
    drop(dispatcher.place_events(events.into_iter().map(|event| (event, None))).await.answers().await);
}

fn tell_webhooks(table: &AppTable, webhooks: &Webhooks, seen: &ChannelChange) {
    let (topic, arrival) = match seen {
        ChannelChange::Report(topic, _, arrival) => (topic, arrival.clone()),
        ChannelChange::ClientEvent(topic, _) | ChannelChange::CacheMiss(topic) => (topic, None),
    };
    if topic.name().starts_with('#') {
        return;
    }
    match seen {
        ChannelChange::Report(_, Report::Moved, _) => return webhooks.moved(topic.app(), topic.name()),
        // As with the hosted service, only apps that enable counts get them.
        ChannelChange::Report(_, Report::Count(_), _) if !tells_counts(table, topic) => return,
        _ => {}
    }
    if let Some(fact) = facts::of(seen) {
        webhooks.tell(topic.app(), TrackedFact { fact, arrival });
    }
}

/// Whether any app has subscription counts.
fn tells_counts(table: &AppTable, topic: &Topic) -> bool {
    table.by_id(topic.app()).is_some_and(|app| app.enabled && app.subscription_count)
}

/// For the subscribers of a channel.
fn subscription_count(topic: &Topic, count: u64) -> ChannelEvent {
    ChannelEvent {
        app: topic.app().into(),
        channel: topic.name().to_owned(),
        except: None,
        name: "pusher_internal:subscription_count".into(),
        data: format!("{{\"subscription_count\":{count}}}").into(),
        user_id_json: String::new(),
        flags: EventFlags::NOTICE,
        by: "gateway".into(),
        traceparent: None,
    }
}
