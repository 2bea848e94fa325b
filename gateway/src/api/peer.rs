//! The inbound end of a link: executes a peer's commands among this gateway's own clients.

use std::{fmt::Display, pin::Pin, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    limits::{LINK_BATCHES_MAX, VIEW_ASK_GRACE},
    v1::{
        self, Epoch, LinkBeat, PeerFrame, PeerHello, PeerReply, View, ViewChange, peer_frame::Frame,
        peer_message::Message, peer_reply::Reply, peer_server::Peer,
    },
    view::epoch,
};
use broadgate_tasks::contain;
use broadgate_topics::{LinkMessage, LinkSession};
use futures_util::{Stream, StreamExt as _, stream::FuturesUnordered};
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    cluster::{
        ClusterEvent, DecodeError, decode,
        links::{JoinedParts, PendingBatches, ReadyMessages, parts, views_sent},
    },
    dispatch::{Dispatcher, Installed},
    identity::Identity,
};

pub(crate) struct PeerService(pub(crate) Arc<Dispatcher>);

/// To the peer.
type Replies = mpsc::Sender<Result<PeerReply, Status>>;
type PeerReplies = Pin<Box<dyn Stream<Item = Result<PeerReply, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type LinkStream = PeerReplies;

    async fn link(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<PeerReplies>, Status> {
        let mut frames = request.into_inner();
        let me = self.0.me.load_full();
        let Some(Frame::Hello(hello)) = frames.message().await?.and_then(|frame| frame.frame) else {
            return Err(Status::invalid_argument("a link must start with a hello"));
        };
        if hello.to != me.incarnation.to_string() {
            let sentence =
                format!("this is gateway {} now, not {}: wait for the next view", me.incarnation, hello.to);
            return Err(Status::failed_precondition(sentence));
        }
        let peer: Incarnation =
            hello.incarnation.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let (out, replies) = mpsc::channel(64);
        let over = me.over.clone();
        let served = serve(Arc::clone(&self.0), me, peer, hello, frames, out);
        broadgate_tasks::spawn("peer's link", async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = served => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(replies).boxed()))
    }
}

/// Answers the peer's hello. True if the peer is in the view here; else it learns that from the view, and
/// nothing else.
async fn greet(
    dispatcher: &Dispatcher,
    me: &Identity,
    peer: Incarnation,
    hello: PeerHello,
    frames: &mut Streaming<PeerFrame>,
    out: &Replies,
) -> Result<bool, Status> {
    let view = match (hello.view, hello.epoch) {
        (Some(view), _) => Arc::new(view),
        (None, Some(epoch)) => announced_view(dispatcher, epoch, frames, out).await?,
        (None, None) => Arc::default(),
    };
    let theirs = epoch(&view);
    await_former_views(dispatcher.installed.clone(), &view, dispatcher.link_timeout / 4).await;
    let (reply, greeting) = oneshot::channel();
    dispatcher.homes.send(ClusterEvent::Greet { peer, view, reply }).await;
    let Ok(greeting) = greeting.await else {
        return Err(Status::unavailable("this gateway is stopping"));
    };
    // It has the view that it has sent or named.
    let by_number = hello.numbers && epoch(&greeting.view) == theirs;
    views_sent(if by_number { "number" } else { "whole" }).increment(1);
    let mine = PeerHello {
        incarnation: me.incarnation.to_string(),
        name: me.name.clone(),
        to: hello.incarnation,
        view: (!by_number).then(|| View::clone(&greeting.view)),
        epoch: greeting.view.epoch,
        numbers: true,
    };
    send(out, Reply::Hello(mine)).await?;
    Ok(greeting.known)
}

/// A newcomer may know a later view than the next one here, while this gateway still looks for the register that
/// leads now. Installed at once, it would be a gap, for which the links to all peers are reset; mostly the views before
/// it are on their way.
async fn await_former_views(mut installed: watch::Receiver<Installed>, view: &View, time_max: Duration) {
    let fits = installed.wait_for(|installed| {
        let here = epoch(&installed.view);
        here.term == 0 || epoch(view) <= here || view.before == Some(here)
    });
    // After that a gap is better than no link.
    let _ = timeout(time_max, fits).await;
}

/// The view that a hello names: the peer is asked for it if it is not here, and the register does not send it at once.
async fn announced_view(
    dispatcher: &Dispatcher,
    number: Epoch,
    frames: &mut Streaming<PeerFrame>,
    out: &Replies,
) -> Result<Arc<View>, Status> {
    let views = &dispatcher.peers.views;
    let mut added = views.watch();
    let found = async {
        loop {
            if let Some(view) = views.get(number) {
                return view;
            }
            // The sender lives as long as the process.
            let _ = added.changed().await;
        }
    };
    if let Ok(view) = timeout(VIEW_ASK_GRACE, found).await {
        return Ok(view);
    }
    send(out, Reply::ViewQuestion(views.question(number, false))).await?;
    let late = |_| Status::deadline_exceeded(format!("the peer has not sent its view {number}"));
    let answer = timeout(dispatcher.link_timeout, frames.message()).await.map_err(late)??;
    match answer.and_then(|frame| frame.frame) {
        Some(Frame::View(change)) if change.epoch == Some(number) => views.take(change).map_err(unreadable),
        _ => Err(Status::invalid_argument(format!(
            "the peer was asked for its view {number} and sent another frame"
        ))),
    }
}

/// A peer's link to us, from its hello to its end.
async fn serve(
    dispatcher: Arc<Dispatcher>,
    me: Arc<Identity>,
    peer: Incarnation,
    hello: PeerHello,
    mut frames: Streaming<PeerFrame>,
    out: Replies,
) {
    match greet(&dispatcher, &me, peer, hello, &mut frames, &out).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(status) => return drop(out.try_send(Err(status))),
    }
    let session = dispatcher.peers.next_session();
    let cut = CancellationToken::new();
    // Also when this is dropped, because the incarnation is over or the link is reset.
    let mut link = InboundLink { dispatcher, peer, session, last_heard: Instant::now(), taken: 0 };
    link.dispatcher.homes.send(ClusterEvent::InboundUp { peer, session, cut: cut.clone() }).await;
    let ended = tokio::select! {
        () = cut.cancelled() => Err(Status::aborted("this gateway resyncs: open the link again")),
        ended = contain("peer's link", link.follow(frames, &out)) => ended.unwrap_or_else(|| Err(panicked())),
    };
    if let Err(status) = ended {
        // The peer reads there why its link has ended. If it reads nothing, it finds out by its own timeout.
        let _ = out.try_send(Err(status));
    }
}

struct InboundLink {
    dispatcher: Arc<Dispatcher>,
    peer: Incarnation,
    session: LinkSession,
    last_heard: Instant,
    /// Batches of the peer that have been passed on.
    taken: u64,
}

impl Drop for InboundLink {
    fn drop(&mut self) {
        let (peer, session, since) = (self.peer, self.session, self.last_heard);
        let homes = self.dispatcher.homes.clone();
        let ended = async move { homes.send(ClusterEvent::InboundDown { peer, session, since }).await };
        self.dispatcher.spawner.spawn("end of a peer's link", ended);
    }
}

impl InboundLink {
    /// Places batches in order; answers each when it is done.
    async fn follow(&mut self, mut frames: Streaming<PeerFrame>, out: &Replies) -> Result<(), Status> {
        let mut answering = FuturesUnordered::new();
        let mut joined = JoinedParts::default();
        // The links of a gateway that wait for one view do not all wake at once; one of them asks.
        let jitter = getrandom::u32().unwrap_or_default() % 100;
        let mut pending = PendingBatches::new(VIEW_ASK_GRACE * (100 + jitter) / 100);
        let mut views_added = self.dispatcher.peers.views.watch();
        let silence_max = self.dispatcher.link_timeout;
        loop {
            let waits_until = pending.wake(silence_max);
            let reply = tokio::select! {
                frame = frames.message(), if answering.len() < LINK_BATCHES_MAX => {
                    self.last_heard = Instant::now();
                    let Some(mut frame) = frame? else { return Ok(()) };
                    if let Some(Frame::Part(part)) = &frame.frame {
                        // However long it takes, the peer sees progress.
                        send(out, Reply::Beat(LinkBeat::default())).await?;
                        let Some(whole) = joined.add(part).map_err(unreadable)? else { continue };
                        frame = whole;
                    }
                    match frame.frame {
                        Some(Frame::Commands(batch)) => {
                            let number = batch.number;
                            let placed = self.dispatcher.place_for_peer(batch.commands).await;
                            let dispatcher = Arc::clone(&self.dispatcher);
                            answering.push(async move {
                                v1::PeerAnswers { answers: dispatcher.answer_peer(placed).await, number }
                            });
                            None
                        }
                        Some(Frame::Batch(batch)) => {
                            pending.add(batch).map_err(|error| Status::resource_exhausted(error.to_string()))?;
                            self.pass_on(&mut pending).await
                        }
                        Some(Frame::View(change)) => {
                            self.learn(change, &mut pending)?;
                            self.pass_on(&mut pending).await
                        }
                        Some(Frame::Beat(beat)) => Some(Reply::Beat(beat)),
                        // Unknown frames of a newer peer are ignored: they ask nothing that must be answered.
                        _ => None,
                    }
                }
                Some(answers) = answering.next() => Some(Reply::Answers(answers)),
                // The register or another link has brought a view.
                Ok(()) = views_added.changed(), if waits_until.is_some() => self.pass_on(&mut pending).await,
                () = sleep_until(waits_until.unwrap_or(self.last_heard)), if waits_until.is_some() => {
                    self.ask(&mut pending)?
                }
                () = sleep_until(self.last_heard + silence_max), if answering.len() < LINK_BATCHES_MAX => {
                    return Err(Status::deadline_exceeded(format!("nothing was heard for {silence_max:?}")));
                }
            };
            if let Some(reply) = reply {
                send(out, reply).await?;
            }
        }
    }

    /// Passes on what need not wait for a view; says so if batches end by it.
    async fn pass_on(&mut self, pending: &mut PendingBatches) -> Option<Reply> {
        let before = self.taken;
        let dispatcher = Arc::clone(&self.dispatcher);
        while let Some(ready) = pending.next(|epoch| dispatcher.peers.views.get(epoch), Instant::now()) {
            self.taken += u64::from(ready.is_end);
            self.take(ready).await;
        }
        (self.taken > before).then_some(Reply::Taken(self.taken))
    }

    /// A question for the view that batches wait for, when it is due.
    fn ask(&self, pending: &mut PendingBatches) -> Result<Option<Reply>, Status> {
        let (views, now) = (&self.dispatcher.peers.views, Instant::now());
        let Some(wanted) = pending.wanted() else { return Ok(None) };
        if now >= wanted.late_at(self.dispatcher.link_timeout) {
            let sentence = format!("the peer has announced view {} and not sent it", wanted.epoch);
            return Err(Status::deadline_exceeded(sentence));
        }
        let epoch = wanted.epoch;
        let due = wanted.is_due(now, || views.may_ask(epoch));
        Ok(due.then(|| Reply::ViewQuestion(views.question(epoch, wanted.whole))))
    }

    /// The answer to a question for a view. Changes that do not make it are followed by one question for the
    /// whole view.
    fn learn(&self, change: ViewChange, pending: &mut PendingBatches) -> Result<(), Status> {
        let Err(error) = self.dispatcher.peers.views.take(change) else { return Ok(()) };
        tracing::warn!(peer = %self.peer, %error, "a peer's answer does not make a view: asking for the whole");
        match pending.wanted() {
            Some(wanted) if wanted.whole => Err(unreadable(error)),
            Some(wanted) => {
                wanted.ask_for_all(Instant::now());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Passes the peer's frames to the cluster task.
    async fn take(&self, ReadyMessages { messages, mut views, .. }: ReadyMessages) {
        let homes = &self.dispatcher.homes;
        let mut frames = Vec::with_capacity(messages.len());
        for message in messages {
            if let Some(Message::ViewNumber(_)) = message.message {
                frames.extend(views.pop_front().map(LinkMessage::View));
                continue;
            }
            match decode(message, &self.dispatcher.parser) {
                Ok(frame) => frames.push(frame),
                Err(DecodeError::Ask(id, refused)) => {
                    homes.send(ClusterEvent::Refuse { peer: self.peer, id, refused }).await;
                }
                Err(DecodeError::Other(what)) => {
                    counter!("broadgate_gateway_peer_frames_unreadable_total", "what" => what).increment(1);
                }
            }
        }
        homes.send(ClusterEvent::Received { peer: self.peer, session: self.session, frames }).await;
    }
}

/// Answers the peer, in parts if the answer is large. If it cannot be sent, the peer times out and names this
/// gateway as missing.
async fn send(out: &Replies, reply: Reply) -> Result<(), Status> {
    let reply = PeerReply { reply: Some(reply) };
    let gone = |_| Status::cancelled("the peer does not listen");
    let parts = match parts::cut(&reply) {
        Ok(None) => return out.send(Ok(reply)).await.map_err(gone),
        Ok(Some(parts)) => parts,
        Err(error) => {
            tracing::warn!(%error, "answer to a peer is too large: dropped");
            counter!("broadgate_gateway_peer_batches_dropped_total", "reason" => "too_large").increment(1);
            return Ok(());
        }
    };
    for part in parts {
        out.send(Ok(PeerReply { reply: Some(Reply::Part(part)) })).await.map_err(gone)?;
    }
    Ok(())
}

fn panicked() -> Status {
    Status::internal("this gateway panicked at a frame of the link: see its log")
}

fn unreadable(error: impl Display) -> Status {
    Status::invalid_argument(format!("the peer sent {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_MAX: Duration = Duration::from_secs(2);

    fn numbered(count: u64) -> View {
        View { epoch: Some(Epoch::new(7, count)), before: Some(Epoch::new(7, count - 1)), ..View::default() }
    }

    fn here(view: View) -> Installed {
        Installed { view: Arc::new(view), ..Installed::default() }
    }

    /// Milliseconds until a view may be installed, if nothing else happens.
    async fn waits_for(installed: View, view: &View) -> u128 {
        let (_sender, installed) = watch::channel(here(installed));
        let began = Instant::now();
        await_former_views(installed, view, TIME_MAX).await;
        began.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_view_behind_a_gap_waits() {
        assert_eq!(waits_for(View::default(), &numbered(12)).await, 0, "the first view of all");
        for (view, what) in [(9, "an older one"), (10, "the same"), (11, "the next")] {
            assert_eq!(waits_for(numbered(10), &numbered(view)).await, 0, "{what}");
        }
        let of_next_term = View { epoch: Some(Epoch::new(8, 1)), ..numbered(11) };
        assert_eq!(waits_for(numbered(10), &of_next_term).await, 0, "what follows the one here");
        assert_eq!(waits_for(numbered(10), &numbered(12)).await, TIME_MAX.as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn wait_for_former_views_ends_with_the_one_before() {
        let (sender, installed) = watch::channel(here(numbered(10)));
        let view = numbered(13);
        let mut waiting = std::pin::pin!(await_former_views(installed, &view, TIME_MAX));
        for count in [11, 12] {
            let early = timeout(Duration::from_millis(1), waiting.as_mut()).await;
            assert!(early.is_err(), "the view before is not here, but {count}");
            sender.send_replace(here(numbered(count)));
        }
        let began = Instant::now();
        waiting.await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
