//! Watching Pusher clients: a stream to every gateway of the view, each with the events of its own clients.

use std::{collections::HashMap, sync::Arc};

use broadgate_proto::{
    id::Incarnation,
    v1::{self, Cause, PusherEvents, View, WatchPusherRequest, pusher_event},
};
use tokio::{
    sync::{mpsc, watch as cell},
    task::AbortHandle,
};
use tonic::{Response, Status, Streaming};

use crate::{
    cluster::{
        error::{CommandError, Refusal},
        handle::Cluster,
        streams::{GatewayStub, StreamEvent, StreamRequest, Streams},
    },
    dial,
};

/// News that wait for the application. While there are so many, no stream is read: the gateways drop what
/// they cannot keep, and say so.
const NEWS_MAX: usize = 1024;

/// Events of Pusher clients: see [`Cluster::watch_pusher`]. Dropping it ends the watch.
///
/// ```no_run
/// # async fn example(cluster: broadgate_business::Cluster) -> Result<(), broadgate_business::CommandError> {
/// use broadgate_business::{PusherEventKind, cluster::PusherNews};
///
/// let mut watch = cluster.in_app("1").watch_pusher()?;
/// loop {
///     if let PusherNews::Event(event) = watch.next().await?
///         && let PusherEventKind::Subscribed { channel, .. } = event.kind
///     {
///         println!("{} subscribed to {channel}", event.socket_id);
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct PusherWatch {
    news: mpsc::Receiver<Result<PusherNews, CommandError>>,
    watcher: AbortHandle,
}

/// What a [`PusherWatch`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PusherNews {
    /// An event of a client.
    Event(PusherEvent),
    /// Events were missed.
    Missed {
        /// The incarnation of the gateway whose clients' events they are.
        gateway: String,
        /// How many events it dropped because you did not read them; none if the stream broke, so that the
        /// number is unknown.
        events: Option<u64>,
    },
    /// A gateway has left the cluster. Clients whose ids begin with its incarnation are disconnected, also
    /// those without a `Closed` event.
    GatewayLeft {
        /// Its incarnation.
        gateway: String,
    },
}

/// An event of a Pusher client.
///
/// ```
/// use broadgate_business::{PusherEvent, PusherEventKind};
///
/// fn describe(event: &PusherEvent) -> String {
///     match &event.kind {
///         PusherEventKind::Subscribed { channel, .. } => format!("{} subscribed to {channel}", event.socket_id),
///         PusherEventKind::Closed { code, .. } => format!("{} left with {code}", event.socket_id),
///         other => format!("{}: {other:?}", event.socket_id),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PusherEvent {
    /// Its app.
    pub app: String,
    /// Its id in the cluster.
    pub client_id: String,
    /// Its id as Pusher's libraries name it.
    pub socket_id: String,
    /// The user that the client is signed in as.
    pub user_id: Option<String>,
    /// What happened.
    pub kind: PusherEventKind,
}

/// The kinds of events of a Pusher client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PusherEventKind {
    /// It has connected.
    Opened {
        /// Its own address.
        address: String,
    },
    /// It has disconnected; no event of it follows.
    Closed {
        /// Why.
        cause: Cause,
        /// The close code that it sent, or that was sent to it; 1006 if none.
        code: u16,
        /// The close reason.
        reason: String,
        /// The channels that it was in: there are no `Unsubscribed` events for them.
        channels: Vec<String>,
    },
    /// It is in a channel: its subscription was confirmed, or a command has added it.
    Subscribed {
        /// The channel.
        channel: String,
        /// The user that it is in a presence channel as; a number as its digits.
        user_id: Option<String>,
        /// The user's public data: JSON.
        user_info: Option<String>,
    },
    /// It has left a channel, by itself or by a command.
    Unsubscribed {
        /// The channel.
        channel: String,
    },
    /// It has sent an event to the others of a channel.
    ClientEvent {
        /// The channel.
        channel: String,
        /// The event's name, which begins with `client-`.
        event: String,
        /// Any JSON value, as it was sent.
        data: String,
        /// The user that it is in a presence channel as.
        user_id: Option<String>,
    },
    /// It has signed in as the event's user.
    SignedIn {
        /// The data that the app's backend has signed: JSON with the user's `id`.
        user_data: String,
    },
}

impl PusherWatch {
    /// The next news. Cancel safe.
    ///
    /// # Errors
    /// If a gateway refused to be watched in a way that repeating does not help, such as one that is too old
    /// to know this watch. Nothing comes after that.
    pub async fn next(&mut self) -> Result<PusherNews, CommandError> {
        let ended = || crate::cluster::handle::not_reachable("this watch has ended");
        self.news.recv().await.unwrap_or_else(|| Err(ended()))
    }
}

impl Drop for PusherWatch {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Cluster {
    /// Watches the Pusher clients of the app, on all gateways: they connect, sign in, subscribe, send client
    /// events, unsubscribe and disconnect.
    ///
    /// Delivery is at most once, and no client waits for it. The events of one client arrive in order. A
    /// gateway drops what you do not read fast enough, and says how much. What happens before a gateway is
    /// reached, or while its stream is broken, is not reported.
    ///
    /// Needs the cluster's views, and must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the cluster is one of [`Cluster::to_gateway`].
    pub fn watch_pusher(&self) -> Result<PusherWatch, CommandError> {
        self.observe(String::new(), Incarnation::from_bits(dial::random()), true)
    }

    /// As [`Cluster::watch_pusher`], but all watches of the same share split the clients among themselves: the
    /// events of one client go to one of them, and move to another only when watches are added or removed.
    ///
    /// # Errors
    /// As [`Cluster::watch_pusher`], or if the name is empty.
    pub fn share_pusher(&self, share: &str) -> Result<PusherWatch, CommandError> {
        self.share_pusher_as(share, Incarnation::from_bits(dial::random()), true)
    }

    /// A watch that goes on after a gateway has refused it, if it is not `strict`.
    pub(crate) fn share_pusher_as(
        &self,
        share: &str,
        sharer: Incarnation,
        strict: bool,
    ) -> Result<PusherWatch, CommandError> {
        if share.is_empty() {
            let how = "share is empty: give every sharer the same name";
            return Err(CommandError::invalid(how));
        }
        self.observe(share.to_owned(), sharer, strict)
    }

    fn observe(&self, share: String, sharer: Incarnation, strict: bool) -> Result<PusherWatch, CommandError> {
        let Some(views) = self.inner.views.clone() else {
            let why = "a single gateway knows only its own clients: connect through a register to watch them";
            return Err(CommandError::invalid(why));
        };
        let request = WatchPusherRequest {
            app: self.app.to_string(),
            share,
            sharer: sharer.to_string(),
            ..WatchPusherRequest::default()
        };
        let (out, news) = mpsc::channel(NEWS_MAX);
        let streams = Streams::new(self.clone(), request);
        let watcher = PusherWatcher { streams, strict, out }.run(views);
        Ok(PusherWatch { news, watcher: broadgate_tasks::spawn("watch of Pusher clients", watcher) })
    }
}

impl StreamRequest for WatchPusherRequest {
    type Item = PusherEvents;

    async fn ask(
        mut self,
        gateway: Incarnation,
        client: &mut GatewayStub,
    ) -> Result<Response<Streaming<PusherEvents>>, Status> {
        self.gateway = gateway.to_string();
        client.watch_pusher(self).await
    }
}

struct PusherWatcher {
    streams: Streams<WatchPusherRequest>,
    strict: bool,
    out: mpsc::Sender<Result<PusherNews, CommandError>>,
}

impl PusherWatcher {
    async fn run(mut self, mut views: cell::Receiver<Arc<View>>) {
        let mut state = StreamStates::default();
        views.mark_changed();
        loop {
            let (gateway, event) = tokio::select! {
                // If the views have ended, the last one holds.
                Ok(()) = views.changed() => {
                    let view = views.borrow_and_update().clone();
                    for gone in self.streams.follow(&view) {
                        self.streams.finish(gone);
                    }
                    continue;
                }
                Some(event) = self.streams.next() => event,
            };
            match &event {
                StreamEvent::Refused(error) if self.strict || error.refusal() != Some(Refusal::Unknown) => {
                    let _ = self.out.send(Err(error.clone())).await;
                    return;
                }
                StreamEvent::Refused(error) => {
                    tracing::warn!(%error, "cannot watch the Pusher clients of a gateway");
                }
                StreamEvent::Gone => {
                    self.streams.end(gateway);
                    // It may have been named again while its stream came to its end.
                    views.mark_changed();
                }
                _ => {}
            }
            for news in state.apply(gateway, event) {
                if self.out.send(Ok(news)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// How it stands with the stream to each gateway that was heard. Pure.
#[derive(Default)]
struct StreamStates(HashMap<Incarnation, StreamState>);

enum StreamState {
    Open,
    Broken,
}

impl StreamStates {
    /// What that means to the watcher.
    fn apply(&mut self, gateway: Incarnation, event: StreamEvent<PusherEvents>) -> Vec<PusherNews> {
        let missed = |events| PusherNews::Missed { gateway: gateway.to_string(), events };
        let mut news = Vec::new();
        match event {
            StreamEvent::Opened => {
                if let Some(StreamState::Broken) = self.0.insert(gateway, StreamState::Open) {
                    news.push(missed(None));
                }
            }
            StreamEvent::Item(batch) => {
                if batch.missed > 0 {
                    news.push(missed(Some(batch.missed)));
                }
                // What a newer gateway tells besides is not for this version.
                news.extend(
                    batch.events.into_iter().filter_map(PusherEvent::from_wire).map(PusherNews::Event),
                );
            }
            StreamEvent::Broke => drop(self.0.insert(gateway, StreamState::Broken)),
            StreamEvent::Gone => {
                if self.0.remove(&gateway).is_some() {
                    news.push(PusherNews::GatewayLeft { gateway: gateway.to_string() });
                }
            }
            StreamEvent::Refused(_) => {}
        }
        news
    }
}

impl PusherEvent {
    fn from_wire(event: v1::PusherEvent) -> Option<Self> {
        let v1::PusherEvent { client_id, socket_id, app, user_id, event } = event;
        let kind = PusherEventKind::from_wire(event?);
        Some(Self { app, client_id, socket_id, user_id: some(user_id), kind })
    }
}

impl PusherEventKind {
    fn from_wire(event: pusher_event::Event) -> Self {
        use pusher_event::Event;
        match event {
            Event::Opened(opened) => Self::Opened { address: opened.address },
            Event::Closed(closed) => Self::Closed {
                cause: closed.cause(),
                code: u16::try_from(closed.code).unwrap_or(1006),
                reason: closed.reason,
                channels: closed.channels,
            },
            Event::Subscribed(v1::PusherSubscribed { channel, user_id, user_info_json }) => {
                Self::Subscribed { channel, user_id: some(user_id), user_info: some(user_info_json) }
            }
            Event::Unsubscribed(v1::PusherUnsubscribed { channel }) => Self::Unsubscribed { channel },
            Event::ClientEvent(v1::PusherClientEvent { channel, event, data_json, user_id }) => {
                Self::ClientEvent { channel, event, data: data_json, user_id: some(user_id) }
            }
            Event::SignedIn(v1::PusherSignedIn { user_data }) => Self::SignedIn { user_data },
        }
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_events_and_breaks_are_reported_in_place() {
        let gateway = Incarnation::from_bits(7);
        let name = gateway.to_string();
        let missed = |events| PusherNews::Missed { gateway: name.clone(), events };
        let mut state = StreamStates::default();
        assert!(state.apply(gateway, StreamEvent::Opened).is_empty());
        let opened = v1::PusherOpened { address: "a".into() };
        let event = v1::PusherEvent {
            client_id: "c".into(),
            event: Some(pusher_event::Event::Opened(opened)),
            ..v1::PusherEvent::default()
        };
        let events = vec![event, v1::PusherEvent::default()];
        let batch = state.apply(gateway, StreamEvent::Item(PusherEvents { events, missed: 3 }));
        let kind = PusherEventKind::Opened { address: "a".into() };
        let (app, socket_id) = (String::new(), String::new());
        let event = PusherEvent { app, client_id: "c".into(), socket_id, user_id: None, kind };
        assert_eq!(batch, [missed(Some(3)), PusherNews::Event(event)]);
        assert!(state.apply(gateway, StreamEvent::Broke).is_empty());
        assert_eq!(state.apply(gateway, StreamEvent::Opened), [missed(None)]);
        assert_eq!(
            state.apply(gateway, StreamEvent::Gone),
            [PusherNews::GatewayLeft { gateway: name.clone() }]
        );
        assert!(state.apply(Incarnation::from_bits(8), StreamEvent::Gone).is_empty(), "it was never heard");
    }
}
