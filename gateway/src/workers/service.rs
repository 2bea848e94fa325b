//! The Worker service: one bidirectional stream per worker.

use std::{pin::Pin, sync::Arc, time::Duration};

use broadgate_proto::{
    VERSION,
    v1::{
        self, GatewayFrame, GatewayHello, Released, WorkerFrame, gateway_frame, worker_frame::Frame,
        worker_server::Worker,
    },
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future::join_all, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::workers::attachments::{AttachedWorker, Attachments};

/// From the stream's begin to its hello.
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);

pub(crate) struct WorkerService(pub(crate) Arc<Attachments>);

type WorkerFrames = Pin<Box<dyn Stream<Item = Result<GatewayFrame, Status>> + Send>>;
type EventsOut = mpsc::Sender<Result<GatewayFrame, Status>>;

#[tonic::async_trait]
impl Worker for WorkerService {
    type AttachStream = WorkerFrames;

    async fn attach(
        &self,
        request: Request<Streaming<WorkerFrame>>,
    ) -> Result<Response<WorkerFrames>, Status> {
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIME_MAX, frames.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came within 5 s"))?;
        let Some(Frame::Hello(hello)) = first?.and_then(|frame| frame.frame) else {
            return Err(Status::invalid_argument("an attachment must start with a hello"));
        };
        let me = self.0.me.load_full();
        let name = hello.name.clone();
        let (attached, events) = self.0.attach(hello).await.map_err(Status::invalid_argument)?;
        // WorkerFrames other than events: the hello and, once, that the worker is released.
        let (out, said) = mpsc::channel(2);
        let greeting = GatewayHello {
            incarnation: me.incarnation.to_string(),
            name: me.name.clone(),
            version: VERSION.to_owned(),
        };
        // The queue is new and has room.
        let _ = out.try_send(Ok(frame(gateway_frame::Frame::Hello(greeting))));
        broadgate_tasks::spawn("worker's stream", async move {
            tokio::select! {
                () = me.over.cancelled() => {}
                () = follow(frames, &attached, out) => {}
            }
            tracing::info!(worker = %name, "worker detached");
        });
        let events = ReceiverStream::new(events).map(|written| Ok(frame(written_events(written))));
        // The connection takes the shards' batches itself. The hello is there and goes first.
        Ok(Response::new(stream::select(ReceiverStream::new(said), events).boxed()))
    }
}

fn written_events(written: Bytes) -> gateway_frame::Frame {
    gateway_frame::Frame::Events(broadgate_proto::events::Events { events: Vec::new(), written })
}

/// A panic ends the stream; the worker reads why, and redials.
async fn follow(frames: Streaming<WorkerFrame>, attached: &AttachedWorker, out: EventsOut) {
    let received = receive(frames, attached, out.clone());
    if broadgate_tasks::contain("worker's stream", received).await.is_none() {
        let why = "this gateway panicked at a frame of the worker: see its log";
        let _ = out.try_send(Err(Status::internal(why)));
    }
}

/// Answers from the worker, until its stream ends.
async fn receive(mut frames: Streaming<WorkerFrame>, attached: &AttachedWorker, out: EventsOut) {
    // Anything but a frame ends the stream: the worker redials.
    while let Ok(Some(WorkerFrame { frame })) = frames.message().await {
        match frame {
            Some(Frame::Acks(acks)) => attached.acks(acks.seqs).await,
            Some(Frame::Decision(v1::Decision { seq, decision: Some(decision) })) => {
                attached.decision(seq, decision).await;
            }
            // A decision of a kind that this gateway does not know is no consent.
            Some(Frame::Decision(v1::Decision { seq, decision: None })) => attached.acks(vec![seq]).await,
            Some(Frame::Leaving(_)) => {
                let waiting = attached.leaving().await;
                let out = out.clone();
                broadgate_tasks::spawn("release of a worker", async move {
                    join_all(waiting).await;
                    // The worker may have left without waiting for it.
                    let _ = out.send(Ok(self::frame(gateway_frame::Frame::Released(Released {})))).await;
                });
            }
            Some(Frame::Hello(_)) | None => {}
        }
    }
}

fn frame(frame: gateway_frame::Frame) -> GatewayFrame {
    GatewayFrame { frame: Some(frame) }
}
