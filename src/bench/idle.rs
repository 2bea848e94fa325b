//! `broadgate bench idle`.

use std::time::Duration;

use broadgate::failure::Failure;
use clap::Args;
use serde_json::json;

use crate::{
    engine::Engine,
    load::{Load, Sender, block, tell},
    meter::{Meter, memory_kib},
    publish,
};

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) sender: Sender,
    /// Join raw clients to a group; Pusher clients always subscribe to a channel
    #[arg(long)]
    join: bool,
    /// How long to keep the clients after they have connected
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    hold: Duration,
}

pub(super) fn run(args: &IdleArgs) -> Result<(), Failure> {
    let pids = &args.load.pid;
    let before = memory_kib(pids)?;
    let mut engine = Engine::new(&args.load, 1, 1)?;
    let connecting = Meter::start(pids, Vec::new())?;
    let took = engine.connect()?;
    let connecting = connecting.read()?;
    if args.join {
        block(publish::join(&args.sender, &engine))?;
    }
    // They go on answering pings.
    let holding = Meter::start(pids, Vec::new())?;
    engine.during(|| {
        std::thread::sleep(args.hold);
        Ok(())
    })?;
    let held = holding.read()?;
    let after = memory_kib(pids)?;
    if engine.tally()?.closed > 0 {
        return Err(Failure::Failed("a client was closed while it was held".to_owned()));
    }
    let clients = args.load.clients;
    let rate = clients as f64 / took.as_secs_f64();
    let per_client = (after as f64 - before as f64) * 1024.0 / clients as f64;
    let mut result = json!({ "clients": clients, "connects_per_s": rate });
    let mut text = format!("clients  {clients}\nconnects {rate:.0}/s\n");
    if let Some((connecting, held)) = connecting.server_cpu_s.zip(held.server_cpu_s) {
        let at_rest = held / args.hold.as_secs_f64();
        result["bytes_per_client"] = json!(per_client);
        result["kib_before"] = json!(before);
        result["kib_after"] = json!(after);
        result["server_cpu_us_per_connect"] = json!(connecting * 1e6 / clients as f64);
        result["server_cpu_at_rest"] = json!(at_rest);
        text += &format!(
            "memory   {per_client:.0} bytes/client (anonymous, {before} KiB before, {after} KiB after)\n\
             cpu      {:.1} µs/connect, {:.2} % of a core at rest\n",
            connecting * 1e6 / clients as f64,
            at_rest * 100.0
        );
    }
    tell(args.load.json, &result, &text)
}
