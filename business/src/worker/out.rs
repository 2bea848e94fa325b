//! What a worker says to a gateway: the connection takes all that waits and makes one frame of
//! many acknowledgements.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use broadgate_proto::v1::{Acks, Decision, Leaving, WorkerFrame, WorkerHello, worker_frame::Frame};
use futures_util::Stream;
use tokio::sync::mpsc;

/// Acknowledgements in one frame.
const ACKS_MAX: usize = 1024;

/// One thing said.
#[derive(Debug)]
pub(crate) enum OutFrame {
    Ack(u64),
    Decision(Decision),
    Leaving,
}

pub(crate) type FramesOut = mpsc::Sender<OutFrame>;

/// The frames of one stream, its hello first.
pub(crate) struct StreamFrames {
    next: Option<Frame>,
    said: mpsc::Receiver<OutFrame>,
}

/// A stream's two ends. What waits is bounded by the events that the gateway leaves unanswered.
pub(crate) fn frames(hello: WorkerHello) -> (FramesOut, StreamFrames) {
    let (out, said) = mpsc::channel(hello.events_max.max(1) as usize);
    (out, StreamFrames { next: Some(Frame::Hello(hello)), said })
}

impl Stream for StreamFrames {
    type Item = WorkerFrame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WorkerFrame>> {
        let mut seqs = Vec::new();
        while self.next.is_none() && seqs.len() < ACKS_MAX {
            match self.said.poll_recv(cx) {
                Poll::Ready(Some(OutFrame::Ack(seq))) => seqs.push(seq),
                Poll::Ready(Some(OutFrame::Decision(decision))) => {
                    self.next = Some(Frame::Decision(decision))
                }
                Poll::Ready(Some(OutFrame::Leaving)) => self.next = Some(Frame::Leaving(Leaving {})),
                Poll::Ready(None) if seqs.is_empty() => return Poll::Ready(None),
                Poll::Pending if seqs.is_empty() => return Poll::Pending,
                _ => break,
            }
        }
        let frame = if seqs.is_empty() { self.next.take() } else { Some(Frame::Acks(Acks { seqs })) };
        Poll::Ready(Some(WorkerFrame { frame }))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn acknowledgements_are_merged_and_nothing_overtakes() {
        let hello = WorkerHello { events_max: 16, ..WorkerHello::default() };
        let (out, frames) = frames(hello);
        for seq in 1..=3 {
            out.send(OutFrame::Ack(seq)).await.unwrap();
        }
        out.send(OutFrame::Decision(Decision { seq: 4, decision: None })).await.unwrap();
        out.send(OutFrame::Ack(5)).await.unwrap();
        out.send(OutFrame::Leaving).await.unwrap();
        drop(out);
        let said: Vec<_> = frames.filter_map(|frame| async { frame.frame }).collect().await;
        assert!(matches!(said[0], Frame::Hello(_)));
        assert_eq!(said[1], Frame::Acks(Acks { seqs: vec![1, 2, 3] }));
        assert!(matches!(said[2], Frame::Decision(_)));
        assert_eq!(said[3], Frame::Acks(Acks { seqs: vec![5] }));
        assert!(matches!(said[4], Frame::Leaving(_)));
        assert_eq!(said.len(), 5);
    }
}
