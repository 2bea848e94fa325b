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

use super::{Load, connect, histogram, ids_of, latency_json, latency_text, progress, report, socket::Socket};
use crate::{failure::Failure, operate::Target};

/// One of so many clients notes down latencies, so that noting is not the bottleneck.
const SAMPLED: usize = 16;
/// Without a delivery for this long, what is missing is lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A number and a time.
const HEAD_BYTES: usize = 16;

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
    let group = format!("bench-{}", std::process::id());
    let ids = ids_of(&cluster, &sockets).await?;
    for some in ids.chunks(1000) {
        cluster.join(Who::clients(some.to_vec()), [group.as_str()]).await?;
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
        receivers.spawn(receive(socket, Arc::clone(&seen), index % SAMPLED == 0));
    }
    let began = Instant::now();
    let sent = publish(&args, &cluster, &group, &seen).await?;
    wait_for_all(&seen, sent).await;
    let took = began.elapsed();
    receivers.abort_all();
    conclude(&args, &seen, sent, took)
}

/// Sends with at most so many messages in flight; returns how many were sent.
async fn publish(
    args: &FanoutArgs,
    cluster: &Cluster,
    group: &str,
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
        let mut payload = vec![0; args.size as usize];
        payload[..8].copy_from_slice(&sent.to_be_bytes());
        let now = u64::try_from(seen.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        payload[8..HEAD_BYTES].copy_from_slice(&now.to_be_bytes());
        // The order of the calls is the order of the sends.
        cluster.post(Audience::group(group), Payload::from(payload)).await?;
        sent += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(sent)
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

async fn receive(mut socket: Socket, seen: Arc<Seen>, sampled: bool) {
    let mut expected = 0;
    loop {
        let message = socket
            .next(|payload| {
                let number = payload.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
                let at = payload
                    .get(8..HEAD_BYTES)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(u64::from_be_bytes);
                number.zip(at)
            })
            .await;
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
