//! Streams from the gateway's side.

use broadgate_proto::events::Events;
use broadgate_proto::v1::{
    self, Epoch, Event, GatewayFrame, GroupEvent, GroupEvents, WatchGroupsRequest, WorkerFrame, WorkerHello,
    gateway_frame, group_event, worker_frame,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::register::soon;

/// One worker's stream.
pub struct Attachment {
    pub hello: WorkerHello,
    out: mpsc::Sender<Result<GatewayFrame, Status>>,
    said: Streaming<WorkerFrame>,
    acks: Vec<u64>,
}

impl Attachment {
    pub fn new(
        hello: WorkerHello,
        out: mpsc::Sender<Result<GatewayFrame, Status>>,
        said: Streaming<WorkerFrame>,
    ) -> Self {
        Self { hello, out, said, acks: Vec::new() }
    }

    pub async fn give(&self, events: Vec<Event>) {
        self.frame(gateway_frame::Frame::Events(Events { events, ..Events::default() })).await;
    }

    pub async fn release(&self) {
        self.frame(gateway_frame::Frame::Released(v1::Released {})).await;
    }

    async fn frame(&self, frame: gateway_frame::Frame) {
        self.out.send(Ok(GatewayFrame { frame: Some(frame) })).await.unwrap();
    }

    /// The next thing said that is no acknowledgement; those are kept.
    pub async fn said(&mut self) -> worker_frame::Frame {
        loop {
            match self.next().await {
                worker_frame::Frame::Acks(acks) => self.acks.extend(acks.seqs),
                other => return other,
            }
        }
    }

    /// The acknowledgements so far, once there are this many.
    pub async fn acks(&mut self, count: usize) -> Vec<u64> {
        while self.acks.len() < count {
            match self.next().await {
                worker_frame::Frame::Acks(acks) => self.acks.extend(acks.seqs),
                other => panic!("{other:?} instead of acknowledgements"),
            }
        }
        self.acks.clone()
    }

    async fn next(&mut self) -> worker_frame::Frame {
        let frame = soon("a frame of the worker", self.said.message()).await;
        frame.unwrap().expect("the worker ended its stream").frame.unwrap()
    }
}

/// One watcher's stream; it ends when this is dropped.
pub struct Watching {
    pub request: WatchGroupsRequest,
    out: mpsc::Sender<Result<GroupEvents, Status>>,
}

pub type Told = mpsc::Receiver<Result<GroupEvents, Status>>;

impl Watching {
    pub fn of(request: WatchGroupsRequest) -> Result<(Self, Told), Status> {
        if request.patterns.iter().any(|pattern| pattern == "bad") {
            return Err(Status::invalid_argument("patterns"));
        }
        let (out, complete_as_of) = mpsc::channel(4);
        Ok((Self { request, out }, complete_as_of))
    }

    pub async fn tell(&self, events: &[(&str, group_event::Event)], complete_as_of: Option<Epoch>) {
        soon("somebody reads", self.out.send(Ok(batch(events, complete_as_of)))).await.unwrap();
    }

    /// As many of these as are taken, until nobody reads for a while.
    pub async fn fill(&self, events: &[(&str, group_event::Event)]) -> usize {
        let mut taken = 0;
        let patience = std::time::Duration::from_millis(500);
        while let Ok(sent) = tokio::time::timeout(patience, self.out.send(Ok(batch(events, None)))).await {
            sent.unwrap();
            taken += 1;
        }
        taken
    }

    pub async fn ended(&self) {
        soon("the watcher drops the stream", self.out.closed()).await;
    }
}

/// The stream of a watcher of Pusher clients; it ends when this is dropped.
pub struct Observing {
    pub request: v1::WatchPusherRequest,
    out: mpsc::Sender<Result<v1::PusherEvents, Status>>,
}

impl Observing {
    /// Of the app `old`, this is a gateway that does not know the call.
    pub fn of(
        request: v1::WatchPusherRequest,
    ) -> Result<(Self, mpsc::Receiver<Result<v1::PusherEvents, Status>>), Status> {
        if request.app == "old" {
            return Err(Status::unimplemented(""));
        }
        let (out, complete_as_of) = mpsc::channel(4);
        Ok((Self { request, out }, complete_as_of))
    }

    /// Clients have left channels; so many events were missed before.
    pub async fn tell(&self, events: &[(&str, &str)], missed: u64) {
        let event = |(client, channel): &(&str, &str)| v1::PusherEvent {
            client_id: (*client).to_owned(),
            app: self.request.app.clone(),
            event: Some(v1::pusher_event::Event::Unsubscribed(v1::PusherUnsubscribed {
                channel: (*channel).to_owned(),
            })),
            ..v1::PusherEvent::default()
        };
        let events = v1::PusherEvents { events: events.iter().map(event).collect(), missed };
        soon("somebody reads", self.out.send(Ok(events))).await.unwrap();
    }

    pub async fn ended(&self) {
        soon("the watcher drops the stream", self.out.closed()).await;
    }
}

fn batch(events: &[(&str, group_event::Event)], complete_as_of: Option<Epoch>) -> GroupEvents {
    let event = |(group, event): &(&str, group_event::Event)| GroupEvent {
        group: (*group).to_owned(),
        event: Some(event.clone()),
    };
    GroupEvents { events: events.iter().map(event).collect(), complete_as_of }
}

/// Who is in a group.
pub fn is(users: &[&str]) -> group_event::Event {
    let members = users.iter().map(|user| member(user)).collect();
    group_event::Event::Is(v1::GroupState { members })
}

pub fn member(user: &str) -> v1::PresenceMember {
    v1::PresenceMember { user_id: user.to_owned(), info: String::new() }
}
