//! The other end of a link: what a peer passes on is carried out among this gateway's own clients.

use std::{pin::Pin, sync::Arc};

use broadgate_proto::{
    limits::LINK_BATCHES_MAX,
    v1::{self, PeerFrame, PeerHello, PeerReply, peer_frame::Frame, peer_reply::Reply, peer_server::Peer},
};
use futures_util::{Stream, StreamExt as _, stream::FuturesOrdered};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::commands::Dispatcher;

pub(crate) struct PeerService(pub(crate) Arc<Dispatcher>);

type Replies = Pin<Box<dyn Stream<Item = Result<PeerReply, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type LinkStream = Replies;

    async fn link(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<Replies>, Status> {
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
        let (out, replies) = mpsc::channel(64);
        let mine = PeerHello { incarnation: me.incarnation.to_string(), name: me.name.clone(), ..hello };
        // The queue is new and has room.
        let _ = out.try_send(Ok(PeerReply { reply: Some(Reply::Hello(mine)) }));
        let over = me.over.clone();
        let served = serve(Arc::clone(&self.0), frames, out);
        tokio::spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = served => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(replies).boxed()))
    }
}

/// Places batches in order; answers them in order.
async fn serve(
    dispatcher: Arc<Dispatcher>,
    mut frames: Streaming<PeerFrame>,
    out: mpsc::Sender<Result<PeerReply, Status>>,
) {
    let mut answering = FuturesOrdered::new();
    loop {
        let reply = tokio::select! {
            frame = frames.message(), if answering.len() < LINK_BATCHES_MAX => match frame {
                Ok(Some(PeerFrame { frame: Some(Frame::Commands(batch)) })) => {
                    let placed = dispatcher.place_for_peer(batch.commands).await;
                    let dispatcher = Arc::clone(&dispatcher);
                    answering.push_back(async move { dispatcher.answer_peer(placed).await });
                    continue;
                }
                Ok(Some(PeerFrame { frame: Some(Frame::Beat(beat)) })) => Reply::Beat(beat),
                // What a newer peer says may be passed over: it asks nothing that must be answered.
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return,
            },
            Some(answers) = answering.next() => Reply::Answers(v1::AnswerBatch { answers }),
        };
        if out.send(Ok(PeerReply { reply: Some(reply) })).await.is_err() {
            return;
        }
    }
}
