//! A worker whose every answer the test decides: the raw contract, nothing of the SDK.

use broadgate_proto::v1::{
    self, Acks, Decision, Event, GatewayFrame, Leaving, WorkerFrame, WorkerHello, gateway_frame,
    worker_client::WorkerClient, worker_frame::Frame,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::soon;

pub struct TestWorker {
    frames: mpsc::Sender<WorkerFrame>,
    replies: Streaming<GatewayFrame>,
    waiting: std::collections::VecDeque<Event>,
    pub released: bool,
}

impl TestWorker {
    /// Attaches to a gateway for the service `default`. The number makes its incarnation.
    pub async fn attach(internal: &str, number: u64) -> Self {
        Self::attach_as(internal, number, |_| {}).await
    }

    /// Attaches and says hello in another way.
    pub async fn attach_as(internal: &str, number: u64, change: impl FnOnce(&mut WorkerHello)) -> Self {
        let mut client = WorkerClient::connect(format!("http://{internal}")).await.unwrap();
        let (frames, queue) = mpsc::channel(1024);
        let mut hello = WorkerHello {
            incarnation: broadgate_proto::id::Incarnation::from_bits(number).to_string(),
            name: format!("test-{number}"),
            services: vec!["default".to_owned()],
            ..WorkerHello::default()
        };
        change(&mut hello);
        frames.send(WorkerFrame { frame: Some(Frame::Hello(hello)) }).await.unwrap();
        let mut replies = client.attach(ReceiverStream::new(queue)).await.unwrap().into_inner();
        let first = soon("a hello comes", replies.message()).await.unwrap().unwrap();
        assert!(matches!(first.frame, Some(gateway_frame::Frame::Hello(_))));
        Self { frames, replies, waiting: std::collections::VecDeque::new(), released: false }
    }

    /// The next event.
    pub async fn event(&mut self) -> Event {
        soon("an event comes", async {
            loop {
                if let Some(event) = self.waiting.pop_front() {
                    return event;
                }
                self.read().await;
            }
        })
        .await
    }

    async fn read(&mut self) {
        match self.replies.message().await.unwrap().expect("the gateway ended the stream").frame {
            Some(gateway_frame::Frame::Events(events)) => self.waiting.extend(events.events),
            Some(gateway_frame::Frame::Released(_)) => self.released = true,
            _ => {}
        }
    }

    /// Like `event`, but returns none when the gateway says that this worker is released.
    pub async fn poll_event(&mut self) -> Option<Event> {
        while self.waiting.is_empty() && !self.released {
            self.read().await;
        }
        self.waiting.pop_front()
    }

    pub async fn wait_released(&mut self) {
        soon("the gateway releases the worker", async {
            while !self.released {
                self.read().await;
            }
        })
        .await;
    }

    pub async fn ack(&self, event: &Event) {
        self.write(Frame::Acks(Acks { seqs: vec![event.seq] })).await;
    }

    pub async fn decide(&self, event: &Event, decision: v1::decision::Decision) {
        self.write(Frame::Decision(Decision { seq: event.seq, decision: Some(decision) })).await;
    }

    pub async fn leave(&self) {
        self.write(Frame::Leaving(Leaving {})).await;
    }

    async fn write(&self, frame: Frame) {
        self.frames.send(WorkerFrame { frame: Some(frame) }).await.unwrap();
    }

    /// The next event, which is acknowledged.
    pub async fn take(&mut self) -> Event {
        let event = self.event().await;
        self.ack(&event).await;
        event
    }

    /// The next event is a message with this text; it is acknowledged.
    pub async fn takes(&mut self, text: &str) -> Event {
        let event = self.take().await;
        assert_eq!(said(&event), Some(text), "{event:?}");
        event
    }
}

/// The text of a message event.
pub fn said(event: &Event) -> Option<&str> {
    match &event.event {
        Some(v1::event::Event::Message(v1::Message { payload: Some(v1::message::Payload::Text(text)) })) => {
            Some(text)
        }
        _ => None,
    }
}
