//! `broadgate bench storm`.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use broadgate::failure::Failure;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    broadcast,
    engine::Engine,
    load::{Load, Sender, block, tell},
    publish,
};

/// All must be served again within this.
const SERVED_TIME_MAX: Duration = Duration::from_secs(120);
/// Served means that nobody is found to be closed for so long.
const CALM: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    /// Clients of the storm connect to the first URL, and to the next if refused or closed
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) sender: Sender,
    /// Number of clients that receive a broadcast meanwhile
    #[arg(long, default_value_t = 100)]
    pub(super) stay: usize,
    /// URL of these clients; not of the gateway that is killed
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    stay_url: String,
    /// Process id of the first URL's gateway, which is killed when all have connected
    #[arg(long, value_name = "PID")]
    kill: Option<i32>,
    /// Messages of the broadcast per second
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
}

pub(super) fn run(args: &StormArgs) -> Result<(), Failure> {
    let staying = Load { url: vec![args.stay_url.clone()], clients: args.stay, ..args.load.clone() };
    let mut stayers = Engine::new(&staying, 1, 64)?;
    stayers.connect()?;
    block(publish::join(&args.sender, &stayers))?;
    let at_once = Load { connecting: args.load.clients, ..args.load.clone() };
    let mut storm = Engine::with(&at_once, 1, 1, |plan| plan.comes_back = true)?;
    // What is only posted may be lost with the home of its group.
    let publish = Some(args.sender.publish.unwrap_or(publish::by::By::Receipt));
    let sender = Sender { publish, ..args.sender.clone() };
    // The broadcast goes on until the storm is over.
    let messages =
        broadcast::Messages { size: 128, in_flight: 64, messages: u64::MAX, rate: Some(args.rate) };
    let over = std::sync::Arc::clone(&stayers.plan);
    let (outcome, took) = std::thread::scope(|scope| {
        let heard = scope.spawn(|| broadcast::run(&mut stayers, &staying, &sender, &messages));
        let took = weather(args, &mut storm);
        over.window.close();
        let outcome = heard.join().map_err(|_| Failure::Failed("the broadcast has panicked".to_owned()))?;
        Ok::<_, Failure>((outcome?, took?))
    })?;
    let tally = storm.tally()?;
    let result = json!({
        "clients": args.load.clients, "served_s": took.as_secs_f64(),
        "connects_per_s": args.load.clients as f64 / took.as_secs_f64(), "closed": tally.closed,
        "refused": tally.refused, "refused_without_time": tally.refused_without_time,
        "stayed": outcome.json(&messages),
    });
    let text = format!(
        "served   {} clients within {:.2} s, {} closed, {} refused ({} without a time to come back)\n\
         meanwhile {} clients heard {} messages, {} missing\n{}",
        args.load.clients,
        took.as_secs_f64(),
        tally.closed,
        tally.refused,
        tally.refused_without_time,
        args.stay,
        outcome.sent,
        outcome.missing(),
        crate::load::latency_text(&outcome.tally.latency),
    );
    tell(args.load.json, &result, &text)?;
    outcome.check()
}

/// All come at once; or are there, and lose their gateway. How long until all are served?
fn weather(args: &StormArgs, storm: &mut Engine) -> Result<Duration, Failure> {
    let took = storm.connect()?;
    let Some(pid) = args.kill else { return Ok(took) };
    let pid = Pid::from_raw(pid).ok_or_else(|| Failure::usage("--kill: give a process"))?;
    let plan = std::sync::Arc::clone(&storm.plan);
    storm.during(|| {
        let began = Instant::now();
        kill_process(pid, Signal::KILL).map_err(std::io::Error::from)?;
        let mut not_all = Instant::now();
        while not_all.elapsed() < CALM {
            if plan.live.load(Ordering::Acquire) < args.load.clients {
                not_all = Instant::now();
            }
            if began.elapsed() > SERVED_TIME_MAX {
                let live = plan.live.load(Ordering::Acquire);
                return Err(Failure::Failed(format!("{live} were served within {SERVED_TIME_MAX:?}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(not_all - began)
    })
}
