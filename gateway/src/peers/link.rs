//! One link's task: dial, say hello, pass batches on, match their answers; again when it breaks.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use broadgate_proto::{
    id::Incarnation,
    limits::{GRPC_MESSAGE_BYTES_MAX, LINK_BATCHES_MAX, LINK_BEAT},
    secret::Secret,
    v1::{
        self, LinkBeat, PeerFrame, PeerHello, PeerReply, peer_client::PeerClient, peer_frame::Frame,
        peer_reply::Reply,
    },
};
use metrics::counter;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Endpoint};

use super::Batch;
use crate::me::Me;

const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Keeps the link to one incarnation of one gateway.
pub(super) struct Dialer {
    pub(super) me: Arc<ArcSwap<Me>>,
    pub(super) to: Incarnation,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) secret: Secret,
    /// A link that is silent for this long is dialled anew.
    pub(super) silence_max: Duration,
    pub(super) up: Arc<AtomicBool>,
}

/// Batches that were sent, in order, and who waits for their answers. Dropping a sender says that no
/// answer will come.
type Unanswered = VecDeque<oneshot::Sender<Vec<v1::Answer>>>;

impl Dialer {
    pub(super) async fn run(self, mut batches: mpsc::Receiver<Batch>, gone: CancellationToken) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let ended = tokio::select! {
                () = gone.cancelled() => return,
                ended = self.hold(&mut batches) => ended,
            };
            if self.up.swap(false, Ordering::Relaxed) {
                back_off = BACK_OFF_MIN;
            }
            if let Err(error) = ended {
                counter!("gateway_peer_links_lost_total").increment(1);
                tracing::debug!(peer = %self.name, error = %format!("{error:#}"), "peer link down");
            }
            let jitter = getrandom::u32().unwrap_or_default() % 100;
            tokio::select! {
                () = gone.cancelled() => return,
                () = sleep(back_off * (50 + jitter) / 100) => {}
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// One connection's life.
    async fn hold(&self, batches: &mut mpsc::Receiver<Batch>) -> anyhow::Result<()> {
        let (frames, mut replies) = self.open().await?;
        self.up.store(true, Ordering::Relaxed);
        tracing::debug!(peer = %self.name, "peer link up");
        let mut unanswered = Unanswered::new();
        let mut beat = interval(LINK_BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                reply = replies.message() => {
                    let reply = reply?.context("the peer ended the link")?;
                    heard = Instant::now();
                    if let Some(Reply::Answers(answers)) = reply.reply {
                        let waiting = unanswered.pop_front().context("the peer answered what was not asked")?;
                        // Whoever asked may have given up.
                        let _ = waiting.send(answers.answers);
                    }
                }
                batch = batches.recv(), if unanswered.len() < LINK_BATCHES_MAX => {
                    let Some(batch) = batch else { return Ok(()) };
                    if batch.until <= Instant::now() {
                        counter!("gateway_peer_batches_dropped_total", "reason" => "too_late").increment(1);
                        continue;
                    }
                    unanswered.push_back(batch.reply);
                    let commands = Frame::Commands(v1::CommandBatch { commands: batch.commands });
                    self.write(&frames, commands).await?;
                }
                _ = beat.tick() => {
                    if heard.elapsed() > self.silence_max {
                        bail!("nothing was heard for {:?}", self.silence_max);
                    }
                    number += 1;
                    self.write(&frames, Frame::Beat(LinkBeat { number })).await?;
                }
            }
        }
    }

    async fn write(&self, frames: &mpsc::Sender<PeerFrame>, frame: Frame) -> anyhow::Result<()> {
        let sent = timeout(self.silence_max, frames.send(PeerFrame { frame: Some(frame) })).await;
        sent.context("the peer takes nothing")?.map_err(|_| anyhow!("the link is closed"))
    }

    async fn open(&self) -> anyhow::Result<(mpsc::Sender<PeerFrame>, Streaming<PeerReply>)> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .context("the peer's address is malformed")?
            .connect_timeout(self.silence_max)
            .connect()
            .await?;
        let mut client = PeerClient::with_interceptor(channel, self.secret.sender())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let (frames, queue) = mpsc::channel(64);
        let me = self.me.load();
        let hello = PeerHello {
            incarnation: me.incarnation.to_string(),
            name: me.name.clone(),
            to: self.to.to_string(),
            view: None,
        };
        frames.send(PeerFrame { frame: Some(Frame::Hello(hello)) }).await?;
        let opening = async {
            let mut replies = client.link(ReceiverStream::new(queue)).await?.into_inner();
            let first = replies.message().await?.and_then(|reply| reply.reply);
            match first {
                Some(Reply::Hello(_)) => Ok(replies),
                _ => Err(anyhow!("the peer did not say hello")),
            }
        };
        let replies = timeout(self.silence_max, opening).await.context("the peer did not answer")??;
        Ok((frames, replies))
    }
}
