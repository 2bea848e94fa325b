//! Watching groups: a stream to every gateway of the view, and one picture of what they tell.
//!
//! `watch_state.rs` decides; this keeps the streams open and passes on what it says.

use std::{collections::HashMap, sync::Arc};

use broadgate_proto::{
    id::Incarnation,
    limits,
    v1::{GroupEvents, View, WatchGroupsRequest, gateway_client::GatewayClient},
};
use broadgate_register::member::view;
use tokio::{
    sync::{Notify, mpsc, watch as cell},
    task::AbortHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};

use super::{
    Cluster, CommandError,
    watch_state::{Effect, GroupChange, Input, State},
};
use crate::dial::{self, Backoff};

/// Changes that wait for the application. While there are so many, no stream is read: a gateway whose
/// stream is too far behind ends it, and when it is opened anew everything is compared.
const CHANGES_MAX: usize = 1024;
/// What streams have told and the picture has not taken: the rest waits in the gateways.
const HEARD_MAX: usize = 1;

/// What happens in groups, told once: see [`Cluster::watch_groups`]. Watching ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct GroupWatch {
    changes: mpsc::Receiver<Result<GroupChange, CommandError>>,
    watcher: AbortHandle,
}

impl GroupWatch {
    /// The next change. May be cancelled: nothing is lost.
    ///
    /// # Errors
    /// If a gateway refused to be watched in a way that repeating does not help, such as for a malformed
    /// pattern. Nothing comes after that.
    pub async fn next(&mut self) -> Result<GroupChange, CommandError> {
        let ended = || super::not_reachable("this watch has ended");
        self.changes.recv().await.unwrap_or_else(|| Err(ended()))
    }
}

impl Drop for GroupWatch {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Cluster {
    /// Watches groups of the app by patterns: a group's name, or how names begin and a `*`.
    ///
    /// First everything that is there is told, as if it happened now; then every change, in order for
    /// each group: it is occupied, users join and leave, it is vacated. Only users are told in whose names
    /// clients have joined by [`Cluster::join_as`]; and they leave when their last client does, also when
    /// that is because its gateway died. What has come and gone again while a stream was broken, or while
    /// you did not take what was told, is not told.
    ///
    /// Needs the cluster's views, and must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If there is no pattern, or the cluster is one of [`Cluster::to_gateway`].
    pub fn watch_groups(
        &self,
        patterns: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<GroupWatch, CommandError> {
        let patterns: Vec<String> = patterns.into_iter().map(Into::into).collect();
        if patterns.is_empty() {
            let how = "no pattern is given: give names of groups, or how they begin and a *";
            return Err(CommandError::invalid(how));
        }
        let Some(views) = self.inner.views.clone() else {
            let why = "one gateway alone does not know all groups: connect by a register to watch them";
            return Err(CommandError::invalid(why));
        };
        let (out, changes) = mpsc::channel(CHANGES_MAX);
        let request = WatchGroupsRequest { app: self.app.to_string(), patterns, requires: Vec::new() };
        let watcher = Watcher::new(self.clone(), request, out).run(views);
        Ok(GroupWatch { changes, watcher: tokio::spawn(watcher).abort_handle() })
    }
}

/// What the stream to a gateway says.
enum Heard {
    Opened,
    Events(GroupEvents),
    Refused(CommandError),
}

/// The handle of a stream, which ends when this is dropped.
struct Stream {
    again: Arc<Notify>,
    _running: DropGuard,
}

struct Watcher {
    // Its views go on for as long as there is one.
    cluster: Cluster,
    request: WatchGroupsRequest,
    state: State,
    streams: HashMap<Incarnation, Stream>,
    heard: mpsc::Sender<(Incarnation, Heard)>,
    hearing: mpsc::Receiver<(Incarnation, Heard)>,
    out: mpsc::Sender<Result<GroupChange, CommandError>>,
}

impl Watcher {
    fn new(
        cluster: Cluster,
        request: WatchGroupsRequest,
        out: mpsc::Sender<Result<GroupChange, CommandError>>,
    ) -> Self {
        let (heard, hearing) = mpsc::channel(HEARD_MAX);
        let state = State::new(&request.app);
        Self { cluster, request, state, streams: HashMap::new(), heard, hearing, out }
    }

    async fn run(mut self, mut views: cell::Receiver<Arc<View>>) {
        views.mark_changed();
        loop {
            let input = tokio::select! {
                // If the views have ended, the last one holds.
                Ok(()) = views.changed() => {
                    let view = views.borrow_and_update().clone();
                    self.follow(&view);
                    Input::View(view)
                }
                Some((gateway, heard)) = self.hearing.recv() => match heard {
                    Heard::Opened => Input::Opened(gateway),
                    Heard::Events(events) => Input::Said(gateway, events),
                    Heard::Refused(error) => {
                        let _ = self.out.send(Err(error)).await;
                        return;
                    }
                },
            };
            for effect in self.state.apply(input) {
                match effect {
                    Effect::Tell(change) => {
                        if self.out.send(Ok(change)).await.is_err() {
                            return;
                        }
                    }
                    Effect::Reopen(gateway) => {
                        self.streams.get(&gateway).inspect(|stream| stream.again.notify_one());
                    }
                }
            }
        }
    }

    /// A stream to every gateway of the view, in whatever state: also one that is going tells of its groups.
    fn follow(&mut self, view: &View) {
        let mut there = HashMap::new();
        for gateway in view::gateways(view).filter(|gateway| !gateway.address.is_empty()) {
            let Ok(incarnation) = gateway.incarnation.parse::<Incarnation>() else { continue };
            let stream = match self.streams.remove(&incarnation) {
                Some(stream) => stream,
                None => match self.open(incarnation, &gateway.address) {
                    Ok(stream) => stream,
                    Err(why) => {
                        tracing::warn!(gateway = gateway.name, why, "a gateway cannot be watched");
                        continue;
                    }
                },
            };
            there.insert(incarnation, stream);
        }
        self.streams = there;
    }

    fn open(&self, gateway: Incarnation, address: &str) -> Result<Stream, String> {
        // A connection of its own: while it is not read, it must not hold up commands.
        let client = GatewayClient::with_interceptor(dial::channel(address)?, self.cluster.secret().sender())
            // All groups of a gateway may come as one message.
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        let again = Arc::new(Notify::new());
        let ended = CancellationToken::new();
        let (heard, request) = (self.heard.clone(), self.request.clone());
        let listening = listen(client, request, Ears { gateway, heard, again: again.clone() });
        let stop = ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = listening => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Stream { again, _running: ended.drop_guard() })
    }
}

/// What a stream tells, and to whom.
struct Ears {
    gateway: Incarnation,
    heard: mpsc::Sender<(Incarnation, Heard)>,
    again: Arc<Notify>,
}

impl Ears {
    /// Is somebody still there?
    async fn tell(&self, heard: Heard) -> bool {
        self.heard.send((self.gateway, heard)).await.is_ok()
    }

    async fn hear(&self, mut events: tonic::Streaming<GroupEvents>) -> Result<(), Status> {
        while let Some(events) = events.message().await? {
            self.tell(Heard::Events(events)).await;
        }
        Ok(())
    }
}

type Client = GatewayClient<
    tonic::service::interceptor::InterceptedService<
        tonic::transport::Channel,
        broadgate_proto::secret::SendSecret,
    >,
>;

/// Keeps a stream open for as long as it is wanted.
async fn listen(mut client: Client, request: WatchGroupsRequest, ears: Ears) {
    let mut backoff = Backoff::default();
    loop {
        match client.watch_groups(request.clone()).await {
            Ok(events) => {
                if !ears.tell(Heard::Opened).await {
                    return;
                }
                let gateway = ears.gateway;
                tokio::select! {
                    end = ears.hear(events.into_inner()) => {
                        backoff.reset();
                        tracing::debug!(%gateway, ?end, "the stream of a watched gateway broke");
                    }
                    // Each time later, until the gateway knows as much as we do.
                    () = ears.again.notified() => tracing::debug!(%gateway, "a gateway is watched anew"),
                }
            }
            Err(status) if is_final(&status) => {
                ears.tell(Heard::Refused(CommandError::from_status(&status))).await;
                return;
            }
            Err(status) => tracing::debug!(gateway = %ears.gateway, %status, "a gateway is not watched"),
        }
        tokio::time::sleep(backoff.next(dial::random())).await;
    }
}

/// Every gateway would say so, always.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::Unauthenticated)
}
