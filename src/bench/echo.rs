//! `broadgate bench echo`.

use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Load, connect, frames, histogram, latency_json, latency_text, report, socket::Socket};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(super) load: Load,
    /// Payload bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=60_000))]
    size: u32,
    /// How long
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    time: Duration,
}

/// What one client saw.
struct Echoes {
    count: u64,
    wrong: u64,
    latency: Histogram<u64>,
}

pub(super) async fn run(args: EchoArgs) -> Result<(), Failure> {
    let (sockets, _) = connect(&args.load).await?;
    let clients = sockets.len();
    let began = Instant::now();
    let until = began + args.time;
    let mut running = JoinSet::new();
    for socket in sockets {
        running.spawn(echo(socket, args.size as usize, until, histogram()?));
    }
    let (mut count, mut wrong, mut latency) = (0, 0, histogram()?);
    while let Some(ended) = running.join_next().await {
        let echoes = ended.map_err(|error| Failure::Failed(error.to_string()))?.map_err(|error| {
            Failure::Failed(format!("{error}; does an echo worker run (`broadgate worker echo`)?"))
        })?;
        count += echoes.count;
        wrong += echoes.wrong;
        latency.add(&echoes.latency).map_err(|error| Failure::Failed(error.to_string()))?;
    }
    let took = began.elapsed();
    let rate = count as f64 / took.as_secs_f64();
    let result = json!({
        "clients": clients, "size": args.size, "echoes": count, "wrong": wrong, "echoes_per_s": rate,
        "seconds": took.as_secs_f64(), "latency": latency_json(&latency),
    });
    let text = format!(
        "echoed   {count} messages of {} bytes for {clients} clients in {:.2} s: {rate:.0} echoes/s, {wrong} wrong\n{}",
        args.size,
        took.as_secs_f64(),
        latency_text(&latency)
    );
    report(&args.load, &result, &text)?;
    if wrong > 0 {
        return Err(Failure::Failed("echoes were not what was sent".to_owned()));
    }
    Ok(())
}

/// One message at a time: sent, and waited for.
async fn echo(
    mut socket: Socket,
    size: usize,
    until: Instant,
    latency: Histogram<u64>,
) -> std::io::Result<Echoes> {
    let mut echoes = Echoes { count: 0, wrong: 0, latency };
    while Instant::now() < until {
        let mut payload = vec![0; size];
        payload[..8].copy_from_slice(&echoes.count.to_be_bytes());
        let sent = Instant::now();
        socket.write(&frames::client(2, &payload)).await?;
        let right = tokio::time::timeout(Duration::from_secs(10), socket.next(|echo| echo == payload)).await;
        let right = right.map_err(|_| std::io::Error::other("no echo came within 10 s"))??;
        echoes.count += 1;
        echoes.wrong += u64::from(!right);
        let nanos = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        echoes.latency.saturating_record(nanos);
    }
    Ok(echoes)
}
