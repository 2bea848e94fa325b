//! The inbound end of a link: executes a peer's commands among this gateway's own clients.

use std::{pin::Pin, sync::Arc};

use broadgate_proto::{
    id::Incarnation,
    limits::LINK_BATCHES_MAX,
    v1::{
        self, LinkBeat, PeerFrame, PeerHello, PeerReply, View, peer_frame::Frame, peer_reply::Reply,
        peer_server::Peer,
    },
};
use broadgate_tasks::contain;
use broadgate_topics::LinkSession;
use futures_util::{Stream, StreamExt as _, stream::FuturesUnordered};
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    cluster::{
        ClusterEvent, DecodeError, decode,
        links::{JoinedParts, parts},
    },
    dispatch::Dispatcher,
};

pub(crate) struct PeerService(pub(crate) Arc<Dispatcher>);

type PeerReplies = Pin<Box<dyn Stream<Item = Result<PeerReply, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type LinkStream = PeerReplies;

    async fn link(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<PeerReplies>, Status> {
        let mut frames = request.into_inner();
        let me = self.0.me.load_full();
        let Some(Frame::Hello(hello)) = frames.message().await?.and_then(|frame| frame.frame) else {
            return Err(Status::invalid_argument("a link begins with a hello"));
        };
        if hello.to != me.incarnation.to_string() {
            let sentence =
                format!("this is gateway {} now, not {}: wait for the next view", me.incarnation, hello.to);
            return Err(Status::failed_precondition(sentence));
        }
        let peer: Incarnation =
            hello.incarnation.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let (out, replies) = mpsc::channel(64);
        let view = Arc::new(hello.view.unwrap_or_default());
        let (reply, greeting) = oneshot::channel();
        self.0.homes.tell(ClusterEvent::Greet { peer, view, reply }).await;
        let Ok(greeting) = greeting.await else {
            return Err(Status::unavailable("this gateway is stopping"));
        };
        let mine = PeerHello {
            incarnation: me.incarnation.to_string(),
            name: me.name.clone(),
            to: hello.incarnation,
            view: Some(View::clone(&greeting.view)),
        };
        // The queue is new and has room.
        let _ = out.try_send(Ok(PeerReply { reply: Some(Reply::Hello(mine)) }));
        // A peer outside the view learns that from the view, and nothing else.
        if greeting.known {
            let over = me.over.clone();
            let served = serve(Arc::clone(&self.0), peer, frames, out);
            broadgate_tasks::spawn("peer's link", async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = served => {}
                }
            });
        }
        Ok(Response::new(ReceiverStream::new(replies).boxed()))
    }
}

/// A peer's link to us, from its hello to its end.
async fn serve(
    dispatcher: Arc<Dispatcher>,
    peer: Incarnation,
    frames: Streaming<PeerFrame>,
    out: mpsc::Sender<Result<PeerReply, Status>>,
) {
    let session = dispatcher.peers.next_session();
    let cut = CancellationToken::new();
    // Also when this is dropped, because the incarnation is over or the link is reset.
    let mut link = InboundLink { dispatcher, peer, session, last_heard: Instant::now() };
    link.dispatcher.homes.tell(ClusterEvent::InboundUp { peer, session, cut: cut.clone() }).await;
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
}

impl Drop for InboundLink {
    fn drop(&mut self) {
        let (peer, session, since) = (self.peer, self.session, self.last_heard);
        let homes = self.dispatcher.homes.clone();
        let ended = async move { homes.tell(ClusterEvent::InboundDown { peer, session, since }).await };
        self.dispatcher.spawner.spawn("end of a peer's link", ended);
    }
}

impl InboundLink {
    /// Places batches in order; answers each when it is done.
    async fn follow(
        &mut self,
        mut frames: Streaming<PeerFrame>,
        out: &mpsc::Sender<Result<PeerReply, Status>>,
    ) -> Result<(), Status> {
        let mut answering = FuturesUnordered::new();
        let mut taken = 0;
        let mut joined = JoinedParts::default();
        let silence_max = self.dispatcher.link_timeout;
        loop {
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
                            continue;
                        }
                        Some(Frame::Batch(batch)) => {
                            self.take(batch).await;
                            taken += 1;
                            Reply::Taken(taken)
                        }
                        Some(Frame::Beat(beat)) => Reply::Beat(beat),
                        // Unknown frames of a newer peer are ignored: they ask nothing that must be answered.
                        _ => continue,
                    }
                }
                Some(answers) = answering.next() => Reply::Answers(answers),
                () = sleep_until(self.last_heard + silence_max), if answering.len() < LINK_BATCHES_MAX => {
                    return Err(Status::deadline_exceeded(format!("nothing was heard for {silence_max:?}")));
                }
            };
            send(out, reply).await?;
        }
    }

    /// Passes the peer's frames to the cluster task.
    async fn take(&self, batch: v1::PeerBatch) {
        let homes = &self.dispatcher.homes;
        let mut frames = Vec::with_capacity(batch.messages.len());
        for said in batch.messages {
            match decode(said, &self.dispatcher.parser) {
                Ok(frame) => frames.push(frame),
                Err(DecodeError::Ask(id, refused)) => {
                    homes.tell(ClusterEvent::Refuse { peer: self.peer, id, refused }).await;
                }
                Err(DecodeError::Other(what)) => {
                    counter!("broadgate_gateway_peer_frames_unreadable_total", "what" => what).increment(1);
                }
            }
        }
        homes.tell(ClusterEvent::Received { peer: self.peer, session: self.session, frames }).await;
    }
}

/// Answers the peer, in parts if the answer is large. If it cannot be sent, the peer times out and names this
/// gateway as missing.
async fn send(out: &mpsc::Sender<Result<PeerReply, Status>>, reply: Reply) -> Result<(), Status> {
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
    Status::internal("this gateway failed at a frame of the link: see its log")
}

fn unreadable(error: parts::BadParts) -> Status {
    Status::invalid_argument(format!("the peer sent {error}"))
}
