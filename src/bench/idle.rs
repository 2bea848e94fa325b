//! `broadgate bench idle`.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Load, connect, report};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(super) load: Load,
    /// How long they are held after they are connected
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    hold: Duration,
    /// A gateway's process, to tell its memory per client (Linux); repeat for several
    #[arg(long)]
    pid: Vec<u32>,
}

pub(super) async fn run(args: IdleArgs) -> Result<(), Failure> {
    let before = memory(&args.pid)?;
    let (sockets, took) = connect(&args.load).await?;
    let clients = sockets.len();
    // They go on answering pings.
    let mut holding = JoinSet::new();
    for mut socket in sockets {
        holding.spawn(async move { while socket.next(|_| ()).await.is_ok() {} });
    }
    let ended = tokio::time::timeout(args.hold, holding.join_next()).await;
    if ended.is_ok() {
        return Err(Failure::Failed("a client was closed while it was held".to_owned()));
    }
    let after = memory(&args.pid)?;
    let rate = clients as f64 / took.as_secs_f64();
    let per_client = (after as f64 - before as f64) * 1024.0 / clients as f64;
    let mut result = json!({ "clients": clients, "connects_per_s": rate });
    let mut text = format!("clients  {clients}\nconnects {rate:.0}/s\n");
    if !args.pid.is_empty() {
        result["bytes_per_client"] = json!(per_client);
        result["kib_before"] = json!(before);
        result["kib_after"] = json!(after);
        text += &format!(
            "memory   {per_client:.0} bytes/client (anonymous, {before} KiB before, {after} KiB after)\n"
        );
    }
    report(&args.load, &result, &text)
}

/// Anonymous memory of processes in KiB, which is what they allocated.
fn memory(pids: &[u32]) -> Result<u64, Failure> {
    let mut sum = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("--pid {pid}: {error}")))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        sum += kib.ok_or_else(|| Failure::Failed(format!("{path} does not tell RssAnon")))?;
    }
    Ok(sum)
}
