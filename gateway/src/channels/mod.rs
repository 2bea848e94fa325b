//! What happens in the channels of apps with Pusher clients, by their homes: subscribers are told how many
//! they are. One task for the gateway; it sees every channel whose home the gateway is.

mod counts;

use std::{sync::Arc, time::Duration};

use broadgate_proto::v1::{self, command::Command, send_request::Payload};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use self::counts::Counts;
use crate::{
    apps::{Apps, Table},
    desk::Desk,
    homes::{GroupChange, Pattern, Topic},
};

/// Changes that wait; those beyond are dropped, and counted.
pub(crate) const CHANGES_MAX: usize = 65_536;
const TICK: Duration = Duration::from_millis(500);

/// The groups about which something is to be told.
pub(crate) fn patterns(table: &Table) -> Vec<Pattern> {
    let told = table.iter().filter(|app| app.enabled && !app.keys.is_empty() && app.subscription_count);
    told.map(|app| Pattern { app: app.id.clone(), pattern: "*".to_owned() }).collect()
}

/// Tells, until the gateway ends.
pub(crate) async fn run(apps: Apps, desk: Arc<Desk>, mut changes: mpsc::Receiver<(Topic, GroupChange)>) {
    let started = Instant::now();
    let mut counts = Counts::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            change = changes.recv() => match change {
                Some((topic, GroupChange::Count(count))) if counts.note(&topic, count, started.elapsed()) => {
                    vec![(topic, count)]
                }
                Some(_) => continue,
                None => return,
            },
            _ = tick.tick() => counts.due(started.elapsed()),
        };
        let table = apps.load();
        let wanted = |(topic, _): &(Topic, u64)| {
            let app = table.by_id(topic.app()).filter(|app| app.enabled && app.subscription_count);
            app.is_some() && is_counted(topic.name())
        };
        let commands: Vec<_> =
            told.into_iter().filter(wanted).map(|(topic, count)| tell(&topic, count)).collect();
        if let Some(dispatcher) = desk.dispatcher().filter(|_| !commands.is_empty()) {
            drop(dispatcher.place(commands).await.answers().await);
        }
    }
}

/// Subscribers of presence channels know each other; names with `#` are the server's own.
fn is_counted(channel: &str) -> bool {
    !channel.starts_with('#') && !crate::pusher::channel::Kind::of(channel).is_presence()
}

fn tell(topic: &Topic, count: u64) -> v1::Command {
    let to = v1::Audience {
        app: topic.app().to_owned(),
        groups: vec![topic.name().to_owned()],
        ..v1::Audience::default()
    };
    let send = v1::SendRequest {
        to: Some(to),
        event: "pusher_internal:subscription_count".to_owned(),
        payload: Some(Payload::Text(format!("{{\"subscription_count\":{count}}}"))),
        not_kept: true,
        no_receipt: true,
        ..v1::SendRequest::default()
    };
    v1::Command { command: Some(Command::Send(send)), ..v1::Command::default() }
}
