//! `broadgate bench echo`.

use std::time::{Duration, Instant};

use broadgate::failure::Failure;
use clap::Args;
use serde_json::json;

use crate::{
    engine::{Engine, now_ns},
    load::{Load, latency_json, latency_text, tell},
    meter::Meter,
};

/// After the time is over, for the last echo of each.
const LAST_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(super) load: Load,
    /// Payload bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=60_000))]
    size: u32,
    /// Duration
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    time: Duration,
}

/// Each client sends one message at a time, and waits for it.
pub(super) fn run(args: &EchoArgs) -> Result<(), Failure> {
    let mut engine = Engine::with(&args.load, 1, 1, |plan| plan.echo_size = args.size as usize)?;
    engine.connect()?;
    let meter = Meter::start(&args.load.pid, Vec::new())?;
    let began = Instant::now();
    let until = now_ns() + u64::try_from(args.time.as_nanos()).unwrap_or(u64::MAX / 2);
    engine.workers.iter_mut().for_each(|worker| worker.start_echoes(until));
    engine.during(|| {
        std::thread::sleep(args.time);
        Ok(())
    })?;
    let (took, used) = (began.elapsed(), meter.read()?);
    let mut silent = waiting(&engine);
    // An echo that has not come by then will not come.
    while silent > 0 && began.elapsed() < took + LAST_TIME_MAX {
        engine.during(|| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        })?;
        silent = waiting(&engine);
    }
    let tally = engine.tally()?;
    let rate = tally.delivered as f64 / took.as_secs_f64();
    let per_echo = |cpu_s: f64| cpu_s * 1e6 / tally.delivered.max(1) as f64;
    let result = json!({
        "clients": args.load.clients, "size": args.size, "echoes": tally.delivered, "wrong": tally.wrong,
        "silent": silent, "closed": tally.closed, "echoes_per_s": rate, "seconds": took.as_secs_f64(),
        "server_cpu_us_per_echo": used.server_cpu_s.map(per_echo),
        "load_cpu_us_per_echo": per_echo(used.load_cpu_s), "latency": latency_json(&tally.latency),
    });
    let text = format!(
        "echoed   {} messages of {} bytes for {} clients in {:.2} s: {rate:.0} echoes/s, {} wrong\n{}",
        tally.delivered,
        args.size,
        args.load.clients,
        took.as_secs_f64(),
        tally.wrong,
        latency_text(&tally.latency)
    );
    tell(args.load.json, &result, &text)?;
    if tally.wrong > 0 {
        return Err(Failure::Failed("echoes were not what was sent".to_owned()));
    }
    if silent + usize::try_from(tally.closed).unwrap_or(usize::MAX) > 0 {
        return Err(Failure::Failed(format!(
            "{silent} clients wait for an echo, {} were closed; does an echo worker run (`broadgate worker echo`)?",
            tally.closed
        )));
    }
    Ok(())
}

/// Clients whose echo has not come.
fn waiting(engine: &Engine) -> usize {
    engine.workers.iter().map(|worker| worker.silent()).sum()
}
