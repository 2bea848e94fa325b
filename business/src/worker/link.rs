//! One gateway, from when it comes into the view until it leaves it: attaches, again and again,
//! and hands its events to their clients' queues.

use std::sync::{Arc, atomic::Ordering};

use broadgate_proto::{
    events::Events,
    id::Incarnation,
    limits,
    v1::{Event, WorkerHello, gateway_frame::Frame, worker_client::WorkerClient},
};

use crate::{
    dial::{self, Backoff},
    worker::{
        clients::Clients,
        core::WorkerCore,
        handler::Handler,
        job::Orders,
        out::{self, FramesOut, OutFrame},
    },
};

/// Why an attached stream ended.
#[derive(Debug)]
enum StreamEnd {
    Broken(String),
    /// The worker is another incarnation now: attach again as that.
    Renamed,
    Released,
}

/// Follows one gateway until it leaves the view, or has released a stopping worker.
pub(crate) async fn run<H: Handler>(
    core: Arc<WorkerCore<H>>,
    incarnation: Incarnation,
    name: Arc<str>,
    orders: Orders,
) {
    let mut clients = Clients::new(core.clone(), name.clone());
    let (mut backoff, mut trouble) = (Backoff::default(), AttachTrouble::default());
    let lost = loop {
        let end = tokio::select! {
            biased;
            () = orders.gone.cancelled() => {
                clients.detached();
                break true;
            }
            end = attach(&core, incarnation, &orders, &mut clients, &mut backoff) => end,
        };
        clients.detached();
        match end {
            StreamEnd::Released => break false,
            StreamEnd::Renamed => continue,
            StreamEnd::Broken(why) => {
                core.meters.breaks.increment(1);
                if backoff.is_reset() {
                    trouble = AttachTrouble::default();
                }
                if trouble.is_due(&why) {
                    tracing::warn!(
                        gateway = &*name,
                        why,
                        "cannot attach to a gateway: this worker gets none of its events; trying on"
                    );
                } else {
                    tracing::debug!(gateway = &*name, why, "not attached");
                }
                if orders.leaving.is_cancelled() {
                    break false;
                }
            }
        }
        tokio::select! {
            () = orders.gone.cancelled() => break true,
            () = orders.leaving.cancelled() => break false,
            () = tokio::time::sleep(backoff.next(dial::random())) => {}
        }
    };
    if lost {
        let clean = orders.draining.load(Ordering::Relaxed);
        clients.lost(clean, &incarnation.to_string()).await;
    }
    clients.finish().await;
}

async fn attach<H: Handler>(
    core: &Arc<WorkerCore<H>>,
    incarnation: Incarnation,
    orders: &Orders,
    clients: &mut Clients<H>,
    backoff: &mut Backoff,
) -> StreamEnd {
    let mut own = core.context.incarnation.clone();
    let hello = WorkerHello { incarnation: own.borrow_and_update().to_string(), ..core.hello.clone() };
    let (out, frames) = out::frames(hello);
    let opened = async {
        let cluster = core.context.cluster();
        let channel = cluster.channel(incarnation).await;
        WorkerClient::with_interceptor(channel, cluster.credentials().sender())
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_HIGHEST)
            .attach(frames)
            .await
    };
    let opened = tokio::select! {
        opened = opened => opened,
        () = orders.leaving.cancelled() => return StreamEnd::Broken("the worker is stopping".to_owned()),
    };
    let mut stream = match opened {
        Ok(stream) => stream.into_inner(),
        Err(status) => return StreamEnd::Broken(dial::reason(&status)),
    };
    let mut left = false;
    loop {
        let frame = tokio::select! {
            frame = stream.message() => frame,
            () = orders.leaving.cancelled(), if !left => {
                left = true;
                let _ = out.send(OutFrame::Leaving).await;
                continue;
            }
            _ = own.changed() => return StreamEnd::Renamed,
        };
        match frame {
            Ok(Some(frame)) => match frame.frame {
                Some(Frame::Hello(hello)) if hello.incarnation != incarnation.to_string() => {
                    return StreamEnd::Broken(format!("its address now belongs to {}", hello.incarnation));
                }
                Some(Frame::Hello(_)) => {
                    backoff.reset();
                    clients.attached();
                }
                Some(Frame::Events(Events { events, .. })) => take(clients, events, &out),
                Some(Frame::Released(_)) => return StreamEnd::Released,
                // From a newer gateway.
                None => {}
            },
            Ok(None) => return StreamEnd::Broken("the gateway ended the stream".to_owned()),
            Err(status) => return StreamEnd::Broken(dial::reason(&status)),
        }
    }
}

/// Tries for the same reason before the log says so: within a lease the gateway may just be gone.
const SAME_TRIES: u32 = 8;

/// Tries in a row that have failed for the same reason.
#[derive(Default)]
struct AttachTrouble {
    why: String,
    tries: u32,
}

impl AttachTrouble {
    /// Records a failed try. True once for each reason that stays; the time in it may differ.
    fn is_due(&mut self, why: &str) -> bool {
        let why = why.replace(|char: char| char.is_ascii_digit(), "");
        if self.why != why {
            *self = Self { why, tries: 0 };
        }
        self.tries = self.tries.saturating_add(1);
        self.tries == SAME_TRIES
    }
}

fn take<H: Handler>(clients: &mut Clients<H>, events: Vec<Event>, out: &FramesOut) {
    clients.sweep();
    for event in events {
        clients.take(event, out);
    }
    clients.start();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_that_stays_is_reported_once() {
        let mut trouble = AttachTrouble::default();
        let due = |trouble: &mut AttachTrouble, why: &str| {
            (0..30).filter(|second| trouble.is_due(&format!("{why} at {second}"))).count()
        };
        assert_eq!(due(&mut trouble, "expired, and the clock is"), 1);
        assert_eq!(due(&mut trouble, "refused"), 1);
        assert!((0..7).all(|_| !trouble.is_due("short")));
    }
}
