//! Watching groups: a stream to every gateway of the view, merged into one state.
//!
//! `watch_state.rs` decides; `streams.rs` keeps the streams open.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use broadgate_proto::{
    id::Incarnation,
    v1::{GroupEvents, View, WatchGroupsRequest},
};
use tokio::{
    sync::{mpsc, watch as cell},
    task::AbortHandle,
};
use tonic::{Response, Status, Streaming};

use crate::cluster::{
    error::CommandError,
    handle::Cluster,
    streams::{GatewayStub, StreamEvent, StreamRequest, Streams},
    watch_state::{Effect, GroupChange, Input, WatchState},
};

/// Changes that wait for the application. While there are so many, no stream is read: a gateway whose
/// stream is too far behind ends it; the next stream starts with a full comparison.
const CHANGES_MAX: usize = 1024;

/// Changes in groups, each reported once: see [`Cluster::watch_groups`]. Dropping it ends the watch.
///
/// ```no_run
/// # async fn example(cluster: broadgate_business::Cluster) -> Result<(), broadgate_business::CommandError> {
/// use broadgate_business::cluster::ChangeKind;
///
/// let mut watch = cluster.watch_groups(["room-*"])?;
/// loop {
///     let change = watch.next().await?;
///     if let ChangeKind::Joined { user_id, .. } = change.kind {
///         println!("{user_id} joined {}", change.group);
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct GroupWatch {
    changes: mpsc::Receiver<Result<GroupChange, CommandError>>,
    broke: Arc<AtomicU64>,
    watcher: AbortHandle,
}

impl GroupWatch {
    /// The next change. Cancel safe.
    ///
    /// # Errors
    /// If a gateway refused to be watched in a way that repeating does not help, such as for a malformed
    /// pattern. Nothing comes after that.
    pub async fn next(&mut self) -> Result<GroupChange, CommandError> {
        let ended = || crate::cluster::handle::not_reachable("this watch has ended");
        self.changes.recv().await.unwrap_or_else(|| Err(ended()))
    }

    /// How often the stream to a gateway has broken. It is opened again, and the state compared; what changed and
    /// was undone meanwhile is not reported.
    #[must_use]
    pub fn interruptions(&self) -> u64 {
        self.broke.load(Ordering::Relaxed)
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
    /// The watch first reports the current state as changes, then every change, in order for each group: it
    /// is occupied, users join and leave, it is vacated. Users are those that clients have joined as
    /// ([`Cluster::join_as`]); a user leaves with its last client, also when a gateway dies. A change that
    /// was undone while a stream was broken, or while you read nothing, is not reported.
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
            let how = "no pattern is given: give names of groups, or prefixes with a *";
            return Err(CommandError::invalid(how));
        }
        let Some(views) = self.inner.views.clone() else {
            let why = "a single gateway does not know all groups: connect through a register to watch them";
            return Err(CommandError::invalid(why));
        };
        let (out, changes) = mpsc::channel(CHANGES_MAX);
        let request = WatchGroupsRequest { app: self.app.to_string(), patterns, requires: Vec::new() };
        let state = WatchState::new(&request.app);
        let broke = Arc::new(AtomicU64::new(0));
        let streams = Streams::new(self.clone(), request);
        let watcher = GroupsWatcher { state, streams, out, broke: Arc::clone(&broke) }.run(views);
        Ok(GroupWatch { changes, broke, watcher: broadgate_tasks::spawn("watch of groups", watcher) })
    }
}

impl StreamRequest for WatchGroupsRequest {
    type Item = GroupEvents;

    async fn ask(
        self,
        _: Incarnation,
        client: &mut GatewayStub,
    ) -> Result<Response<Streaming<GroupEvents>>, Status> {
        client.watch_groups(self).await
    }
}

struct GroupsWatcher {
    state: WatchState,
    streams: Streams<WatchGroupsRequest>,
    out: mpsc::Sender<Result<GroupChange, CommandError>>,
    broke: Arc<AtomicU64>,
}

impl GroupsWatcher {
    async fn run(mut self, mut views: cell::Receiver<Arc<View>>) {
        views.mark_changed();
        loop {
            let input = tokio::select! {
                // If the views have ended, the last one holds.
                Ok(()) = views.changed() => {
                    let view = views.borrow_and_update().clone();
                    for gone in self.streams.follow(&view) {
                        self.streams.end(gone);
                    }
                    Input::View(view)
                }
                Some((gateway, event)) = self.streams.next() => match event {
                    StreamEvent::Opened => Input::Opened(gateway),
                    StreamEvent::Item(events) => Input::Received(gateway, events),
                    StreamEvent::Refused(error) => {
                        let _ = self.out.send(Err(error)).await;
                        return;
                    }
                    StreamEvent::Broke => {
                        self.broke.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    StreamEvent::Gone => continue,
                },
            };
            for effect in self.state.apply(input) {
                match effect {
                    Effect::Report(change) => {
                        if self.out.send(Ok(change)).await.is_err() {
                            return;
                        }
                    }
                    Effect::Reopen(gateway) => self.streams.reopen(gateway),
                }
            }
        }
    }
}
