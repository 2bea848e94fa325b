//! One link's task: dials, sends the hello, forwards batches, matches their answers; redials when it breaks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use broadgate_port::{FoundListener, connect, look};
use broadgate_proto::{
    id::Incarnation,
    limits::{
        LINK_BATCHES_MAX, LINK_BEAT, PEER_MESSAGE_BYTES_MAX, TCP_KEEP_ALIVE, TCP_KEEP_ALIVE_INTERVAL,
        TCP_KEEP_ALIVE_PROBES,
    },
    v1::{
        self, LinkBeat, PeerFrame, PeerHello, PeerReply, View, ViewQuestion, peer_client::PeerClient,
        peer_frame::Frame, peer_reply::Reply,
    },
    view,
};
use broadgate_tls::Credentials;
use metrics::counter;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, transport::Endpoint};

use crate::{
    cluster::{
        handle::{ClusterEvent, ClusterHandle, OutgoingLink},
        links::{
            batch::OutgoingBatch,
            parts::{self, JoinedParts},
            trouble::LinkTrouble,
            views::{ViewStore, views_sent},
        },
    },
    identity::Identity,
    refusals::now_ms,
};

/// The size up to which messages of homes share a frame.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Every opened link of the process has a number of its own.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// Keeps the link to one incarnation of one gateway.
pub(super) struct Dialer {
    pub(super) me: Arc<ArcSwap<Identity>>,
    pub(super) to: Incarnation,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) credentials: Credentials,
    pub(super) homes: ClusterHandle,
    /// The installed view, for the hello.
    pub(super) view: Arc<ArcSwap<View>>,
    /// Those that the peer may ask for.
    pub(super) views: Arc<ViewStore>,
    /// A link that is silent for this long is dialled again.
    pub(super) silence_max: Duration,
    pub(super) up: Arc<AtomicBool>,
    /// The last try was refused for the secret.
    pub(super) refused: Arc<AtomicBool>,
    pub(super) silent_since_ms: Arc<AtomicU64>,
}

/// A link to a peer that has said hello.
struct OpenLink {
    frames: mpsc::Sender<PeerFrame>,
    replies: Streaming<PeerReply>,
    /// The peer understands views by number.
    numbers: bool,
}

/// Another server than the gateway answers at its address.
#[derive(Debug, thiserror::Error)]
#[error("{address}, which the gateway advertises, {what}")]
struct Stranger {
    address: String,
    what: String,
}

impl Stranger {
    fn new(address: &str, found: &FoundListener) -> Self {
        let mut what = found.sentence();
        if !found.is_of_the_cluster() {
            what += "; set gateway.internal.advertise there to its internal port";
        }
        Self { address: address.to_owned(), what }
    }
}

/// Sent batches, by number, with the waiters for their answers. Dropping a sender means that no answer will
/// come.
type Unanswered = HashMap<u64, oneshot::Sender<Vec<v1::Answer>>>;

/// The bytes of homes' batches that the peer has not accepted yet.
#[derive(Default)]
struct UnacceptedBatches {
    sizes: VecDeque<usize>,
    accepted: u64,
}

impl UnacceptedBatches {
    /// The peer has accepted so many batches since the beginning; returns the bytes of the newly accepted.
    fn accept(&mut self, count: u64) -> usize {
        let new = usize::try_from(count.saturating_sub(self.accepted)).unwrap_or(usize::MAX);
        self.accepted = self.accepted.max(count);
        self.sizes.drain(..new.min(self.sizes.len())).sum()
    }
}

impl Dialer {
    pub(super) async fn run(self, mut batches: mpsc::Receiver<OutgoingBatch>, gone: CancellationToken) {
        let started = Instant::now();
        let mut trouble = LinkTrouble::default();
        // The peer has said once that it understands them.
        let mut numbers = false;
        loop {
            let mut opened = None;
            let ended = tokio::select! {
                () = gone.cancelled() => return,
                ended = self.connect_once(&mut batches, &mut opened, &mut numbers) => ended,
            };
            // Whatever did not work, the whole view may.
            numbers &= opened.is_some();
            self.up.store(false, Ordering::Relaxed);
            let Err(error) = ended else { return };
            counter!("broadgate_gateway_peer_links_lost_total").increment(1);
            let reason = format!("{error:#}");
            let is_refused =
                error.downcast_ref::<Status>().is_some_and(|status| status.code() == Code::Unauthenticated);
            self.refused.store(is_refused, Ordering::Relaxed);
            let is_there = opened.is_some() || is_refused || error.is::<Stranger>();
            let up = is_there.then(|| opened.map_or(Duration::ZERO, |at: Instant| at.elapsed()));
            if trouble.broke(up, &reason, started.elapsed()) {
                tracing::warn!(
                    peer = %self.name, reason,
                    "peer link keeps breaking for the same reason: answers are incomplete meanwhile"
                );
            } else {
                tracing::debug!(peer = %self.name, reason, "peer link down");
            }
            let jitter = getrandom::u32().unwrap_or_default() % 100;
            tokio::select! {
                () = gone.cancelled() => return,
                () = sleep(trouble.wait() * (50 + jitter) / 100) => {}
            }
        }
    }

    /// Opens the link and forwards until it breaks.
    async fn connect_once(
        &self,
        batches: &mut mpsc::Receiver<OutgoingBatch>,
        opened: &mut Option<Instant>,
        numbers: &mut bool,
    ) -> anyhow::Result<()> {
        let me = self.me.load_full();
        let open = match self.open(&me, *numbers).await {
            Ok(open) => open,
            Err(error) => return Err(self.stranger().await.map_or(error, anyhow::Error::new)),
        };
        *numbers = open.numbers;
        self.up.store(true, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
        *opened = Some(Instant::now());
        tracing::debug!(peer = %self.name, "peer link up");
        let (sender, home_batches) = mpsc::channel(LINK_BATCHES_MAX);
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let link = OutgoingLink { generation, batches: sender, numbers: open.numbers };
        self.homes.send(ClusterEvent::OutboundUp { me: me.incarnation, peer: self.to, link }).await;
        let mut last_heard = Instant::now();
        let ended = self.pass(generation, open, batches, home_batches, &mut last_heard).await;
        let silent_ms = u64::try_from(last_heard.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.silent_since_ms.store(now_ms().saturating_sub(silent_ms), Ordering::Relaxed);
        let down = ClusterEvent::OutboundDown { peer: self.to, generation, since: last_heard };
        self.homes.send(down).await;
        ended
    }

    /// Forwards frames of homes and batches of callers to the peer, and its answers back.
    async fn pass(
        &self,
        generation: u64,
        OpenLink { frames, mut replies, .. }: OpenLink,
        batches: &mut mpsc::Receiver<OutgoingBatch>,
        mut home_batches: mpsc::Receiver<Vec<v1::PeerMessage>>,
        last_heard: &mut Instant,
    ) -> anyhow::Result<()> {
        let mut unanswered = Unanswered::new();
        let mut unaccepted = UnacceptedBatches::default();
        let mut beat_at = next_beat();
        let mut number = 0;
        let mut joined = JoinedParts::default();
        loop {
            tokio::select! {
                reply = replies.message() => {
                    let reply = reply.map_err(|status| anyhow!("{}", status.message()))?;
                    let mut reply = reply.context("the peer ended the link")?;
                    *last_heard = Instant::now();
                    if let Some(Reply::Part(part)) = &reply.reply {
                        let Some(whole) = joined.add(part)? else { continue };
                        reply = whole;
                    }
                    match reply.reply {
                        Some(Reply::Answers(answers)) => {
                            // The caller may have given up.
                            let waiting = unanswered.remove(&answers.number);
                            waiting.map(|waiting| waiting.send(answers.answers));
                        }
                        Some(Reply::Taken(count)) => {
                            let bytes = unaccepted.accept(count);
                            self.homes.send(ClusterEvent::Taken { peer: self.to, generation, bytes }).await;
                        }
                        Some(Reply::ViewQuestion(question)) => {
                            let answer = self.answer(&question)?;
                            self.write(&frames, answer).await?;
                        }
                        _ => {}
                    }
                }
                batch = home_batches.recv() => {
                    let batch = batch.context("the link is reset to resync")?;
                    for messages in split(batch) {
                        unaccepted.sizes.push_back(messages.iter().map(command_bytes).sum());
                        self.write(&frames, Frame::Batch(v1::PeerBatch { messages })).await?;
                    }
                }
                batch = batches.recv(), if unanswered.len() < LINK_BATCHES_MAX => {
                    let Some(batch) = batch else { return Ok(()) };
                    if batch.until <= Instant::now() {
                        counter!("broadgate_gateway_peer_batches_dropped_total", "reason" => "too_late").increment(1);
                        continue;
                    }
                    number += 1;
                    unanswered.insert(number, batch.reply);
                    let commands = Frame::Commands(v1::PeerCommands { commands: batch.commands, number });
                    self.write(&frames, commands).await?;
                }
                () = sleep_until(beat_at) => {
                    beat_at = next_beat();
                    if last_heard.elapsed() > self.silence_max {
                        bail!("the peer was silent for {:?}", self.silence_max);
                    }
                    unanswered.retain(|_, waiting| !waiting.is_closed());
                    self.write(&frames, Frame::Beat(LinkBeat { number })).await?;
                }
            }
        }
    }

    /// The answer to the peer's question for a view that was announced to it.
    fn answer(&self, question: &ViewQuestion) -> anyhow::Result<Frame> {
        let change = self.views.answer(question).with_context(|| {
            let wanted = question.epoch.unwrap_or_default();
            format!("the peer asks for view {wanted}, which is not kept any more")
        })?;
        Ok(Frame::View(change))
    }

    async fn write(&self, frames: &mpsc::Sender<PeerFrame>, frame: Frame) -> anyhow::Result<()> {
        let frame = PeerFrame { frame: Some(frame) };
        let Some(parts) = parts::cut(&frame).context("a message to the peer is too large")? else {
            return self.send(frames, frame).await;
        };
        for part in parts {
            self.send(frames, PeerFrame { frame: Some(Frame::Part(part)) }).await?;
        }
        Ok(())
    }

    async fn send(&self, frames: &mpsc::Sender<PeerFrame>, frame: PeerFrame) -> anyhow::Result<()> {
        let sent = timeout(self.silence_max, frames.send(frame)).await;
        sent.context("write timeout")?.map_err(|_| anyhow!("the link is closed"))
    }

    /// What listens at the peer's address, if it is no gateway's internal port.
    async fn stranger(&self) -> Option<Stranger> {
        let found = look(&self.address, self.silence_max, self.credentials.tls.as_ref()).await.ok();
        let found = found.filter(|found| *found != FoundListener::Http2)?;
        Some(Stranger::new(&self.address, &found))
    }

    /// Connects and says hello; with the number of the view if the peer is known to understand it.
    async fn open(&self, me: &Identity, by_number: bool) -> anyhow::Result<OpenLink> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .context("the peer's address is malformed")?
            .connect_timeout(self.silence_max)
            .tcp_keepalive(Some(TCP_KEEP_ALIVE))
            .tcp_keepalive_interval(Some(TCP_KEEP_ALIVE_INTERVAL))
            .tcp_keepalive_retries(Some(TCP_KEEP_ALIVE_PROBES));
        let channel = connect(endpoint, self.credentials.tls.as_ref()).await?;
        let mut client = PeerClient::with_interceptor(channel, self.credentials.sender())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
        let (frames, queue) = mpsc::channel(64);
        let known = self.view.load_full();
        views_sent(if by_number { "number" } else { "whole" }).increment(1);
        let hello = PeerHello {
            incarnation: me.incarnation.to_string(),
            name: me.name.clone(),
            to: self.to.to_string(),
            view: (!by_number).then(|| View::clone(&known)),
            epoch: known.epoch,
            numbers: true,
        };
        frames.send(PeerFrame { frame: Some(Frame::Hello(hello)) }).await?;
        let opening = async {
            let mut replies = client.link(ReceiverStream::new(queue)).await?.into_inner();
            loop {
                match replies.message().await?.and_then(|reply| reply.reply) {
                    Some(Reply::Hello(hello)) => return Ok((replies, hello)),
                    Some(Reply::ViewQuestion(question)) => {
                        frames.send(PeerFrame { frame: Some(self.answer(&question)?) }).await?;
                    }
                    _ => bail!("the peer did not say hello"),
                }
            }
        };
        let (replies, hello) =
            timeout(self.silence_max, opening).await.context("the peer did not answer")??;
        let view = match hello.view {
            Some(view) => Arc::new(view),
            // It has the same one.
            None if hello.epoch == known.epoch => known,
            None => bail!("the peer did not say which view it has"),
        };
        let knows_us = view::find(&view, me.incarnation).is_some();
        self.homes.send(ClusterEvent::View(view)).await;
        // It may not know this gateway yet, or know that it was removed: its view shows that.
        anyhow::ensure!(knows_us, "the peer does not have this gateway in its view");
        Ok(OpenLink { frames, replies, numbers: hello.numbers })
    }
}

/// When to beat next: all gateways beat at the same moments of the clock, as far as their clocks agree. Each then
/// wakes once and finds the beats of all its peers, instead of once for every one of them.
fn next_beat() -> Instant {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now() + until_beat(wall)
}

/// Never longer than a beat, whatever the clock says.
const fn until_beat(wall: Duration) -> Duration {
    let beat = LINK_BEAT.as_millis();
    Duration::from_millis((beat - wall.as_millis() % beat) as u64)
}

/// What counts against the limit of a link.
fn command_bytes(message: &v1::PeerMessage) -> usize {
    use v1::peer_message::Message;
    match &message.message {
        Some(Message::Ask(ask)) => ask.encoded_len(),
        Some(Message::Deliver(deliver)) => deliver.encoded_len(),
        _ => 0,
    }
}

/// Splits a batch, in order, into messages of a sensible size.
fn split(batch: Vec<v1::PeerMessage>) -> Vec<Vec<v1::PeerMessage>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for message in batch {
        let size = message.encoded_len();
        if bytes + size > BATCH_BYTES_MAX && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(message);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_fall_on_common_moments_and_never_later_than_a_beat() {
        for ms in [0, 1, 499, 500, 501, 1_795_932_000_123, u64::MAX / 2] {
            let wait = until_beat(Duration::from_millis(ms));
            assert!(wait > Duration::ZERO && wait <= LINK_BEAT);
            assert_eq!((u128::from(ms) + wait.as_millis()) % LINK_BEAT.as_millis(), 0);
        }
    }
}
