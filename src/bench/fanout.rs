//! `broadgate bench fanout`.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use broadgate_business::{Audience, Cluster, Payload, Who};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Load, connect, group, histogram, ids_of, latency_json, latency_text, progress, report, socket::Socket,
};
use crate::{failure::Failure, operate::Target};

/// One of so many clients notes down latencies, so that noting is not the bottleneck.
const SAMPLED: usize = 16;
/// Without a delivery for this long, what is missing is lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A number and a time: as bytes, or as text that stands in JSON as it is.
const HEAD_BYTES: usize = 16;
const TEXT_HEAD_BYTES: usize = 1 + 2 * HEAD_BYTES;
const TEXT_MARK: u8 = b'!';

#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    target: Fanned,
    /// Payload bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=60_000))]
    size: u32,
    /// Messages that are sent and not yet received by all
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// Messages to send
    #[arg(long, default_value_t = 2000)]
    messages: u64,
}

/// `--json` is the load's.
#[derive(Debug, Args)]
struct Fanned {
    /// The internal port of any gateway
    #[arg(long, env = "BROADGATE_ADDR", default_value = "127.0.0.1:7200", value_name = "HOST:PORT")]
    addr: String,
    /// The app of the clients
    #[arg(long, default_value = "default")]
    app: String,
}

/// What the receivers count.
struct Seen {
    started: Instant,
    clients: u64,
    delivered: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    disordered: AtomicU64,
    closed: AtomicU64,
    room: Semaphore,
    latency: Mutex<Histogram<u64>>,
}

pub(super) async fn run(args: FanoutArgs) -> Result<(), Failure> {
    let target = Target {
        addr: args.target.addr.clone(),
        app: args.target.app.clone(),
        timeout: Duration::from_secs(30),
        json: args.load.json,
    };
    let cluster = target.cluster()?;
    let (sockets, _) = connect(&args.load).await?;
    // Pusher clients have subscribed.
    let is_text = args.load.url.iter().any(|url| url.contains("/app/"));
    if !is_text {
        let ids = ids_of(&cluster, &sockets).await?;
        for some in ids.chunks(1000) {
            cluster.join(Who::clients(some.to_vec()), [group()]).await?;
        }
    }
    let seen = Arc::new(Seen {
        started: Instant::now(),
        clients: sockets.len() as u64,
        delivered: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        doubled: AtomicU64::new(0),
        disordered: AtomicU64::new(0),
        closed: AtomicU64::new(0),
        room: Semaphore::new(args.in_flight.max(1)),
        latency: Mutex::new(histogram()?),
    });
    let mut receivers = JoinSet::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        receivers.spawn(receive(socket, Arc::clone(&seen), is_text, index % SAMPLED == 0));
    }
    let began = Instant::now();
    let sent = publish(&args, &cluster, is_text, &seen).await?;
    wait_for_all(&seen, sent).await;
    let took = began.elapsed();
    receivers.abort_all();
    conclude(&args, &seen, sent, took)
}

/// Sends with at most so many messages in flight; returns how many were sent.
async fn publish(
    args: &FanoutArgs,
    cluster: &Cluster,
    is_text: bool,
    seen: &Arc<Seen>,
) -> Result<u64, Failure> {
    let bar = progress(args.messages, "sending");
    let mut sent = 0;
    while sent < args.messages {
        match tokio::time::timeout(SILENCE_MAX, seen.room.acquire()).await {
            Ok(Ok(permit)) => permit.forget(),
            // Nothing was delivered for long: what is missing will be counted as lost.
            _ => break,
        }
        let now = u64::try_from(seen.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // The order of the calls is the order of the sends.
        cluster.post(Audience::group(group()), payload(is_text, args.size as usize, sent, now)).await?;
        sent += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(sent)
}

fn payload(is_text: bool, size: usize, number: u64, at: u64) -> Payload {
    if is_text {
        let head = format!("{}{number:016x}{at:016x}", char::from(TEXT_MARK));
        return Payload::event("bench", format!("{head:x<size$}"));
    }
    let mut payload = vec![0; size];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload[8..HEAD_BYTES].copy_from_slice(&at.to_be_bytes());
    Payload::from(payload)
}

/// The number and the time of a message, if it is one of this run's.
fn head(is_text: bool, payload: &[u8]) -> Option<(u64, u64)> {
    if is_text {
        let at = payload.iter().position(|byte| *byte == TEXT_MARK)?;
        let head = std::str::from_utf8(payload.get(at..at + TEXT_HEAD_BYTES)?).ok()?;
        let number = |digits: Option<&str>| u64::from_str_radix(digits?, 16).ok();
        return number(head.get(1..17)).zip(number(head.get(17..)));
    }
    let number = payload.first_chunk::<8>()?;
    let at = payload.get(8..HEAD_BYTES)?.try_into().ok()?;
    Some((u64::from_be_bytes(*number), u64::from_be_bytes(at)))
}

async fn wait_for_all(seen: &Seen, sent: u64) {
    let mut before = seen.delivered.load(Ordering::Relaxed);
    let mut moved = Instant::now();
    while before < sent * seen.clients && moved.elapsed() < SILENCE_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = seen.delivered.load(Ordering::Relaxed);
        if now != before {
            (before, moved) = (now, Instant::now());
        }
    }
}

async fn receive(mut socket: Socket, seen: Arc<Seen>, is_text: bool, sampled: bool) {
    let mut expected = 0;
    loop {
        let message = socket.next(|payload| head(is_text, payload)).await;
        let Ok(message) = message else {
            seen.closed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // Somebody else's message.
        let Some((number, at)) = message else { continue };
        match number.cmp(&expected) {
            std::cmp::Ordering::Equal => expected += 1,
            std::cmp::Ordering::Greater => {
                seen.lost.fetch_add(number - expected, Ordering::Relaxed);
                expected = number + 1;
            }
            std::cmp::Ordering::Less if number + 1 == expected => {
                seen.doubled.fetch_add(1, Ordering::Relaxed);
            }
            std::cmp::Ordering::Less => {
                seen.disordered.fetch_add(1, Ordering::Relaxed);
            }
        }
        if sampled {
            let now = u64::try_from(seen.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            seen.latency
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .saturating_record(now.saturating_sub(at));
        }
        if (seen.delivered.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(seen.clients) {
            seen.room.add_permits(1);
        }
    }
}

fn conclude(args: &FanoutArgs, seen: &Seen, sent: u64, took: Duration) -> Result<(), Failure> {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let delivered = load(&seen.delivered);
    let rate = delivered as f64 / took.as_secs_f64();
    let latency = seen.latency.lock().unwrap_or_else(PoisonError::into_inner);
    let missing = (sent * seen.clients).saturating_sub(delivered);
    let result = json!({
        "clients": seen.clients, "size": args.size, "in_flight": args.in_flight, "messages": sent,
        "delivered": delivered, "deliveries_per_s": rate, "seconds": took.as_secs_f64(),
        "missing": missing, "lost": load(&seen.lost), "doubled": load(&seen.doubled),
        "disordered": load(&seen.disordered), "closed": load(&seen.closed), "latency": latency_json(&latency),
    });
    let text = format!(
        "sent     {sent} messages of {} bytes to {} clients, {} in flight\n\
         received {delivered} in {:.2} s: {rate:.0} deliveries/s\n\
         missing {missing}, lost {}, doubled {}, out of order {}, clients closed {}\n{}",
        args.size,
        seen.clients,
        args.in_flight,
        took.as_secs_f64(),
        load(&seen.lost),
        load(&seen.doubled),
        load(&seen.disordered),
        load(&seen.closed),
        latency_text(&latency),
    );
    report(&args.load, &result, &text)?;
    if missing + load(&seen.lost) + load(&seen.doubled) + load(&seen.disordered) > 0 {
        return Err(Failure::Failed("messages were lost, doubled or out of order".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_payload_tells_its_number_and_its_time() {
        let message =
            br#"{"event":"bench","channel":"bench-7","data":"!00000000000000070000000000000102xxxx"}"#;
        assert_eq!(head(true, message), Some((7, 258)));
        assert_eq!(head(true, b"!0000"), None);
        let bytes = [7_u64.to_be_bytes(), 258_u64.to_be_bytes()].concat();
        assert_eq!(head(false, &bytes), Some((7, 258)));
    }
}
