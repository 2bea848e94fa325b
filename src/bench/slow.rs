//! `broadgate bench slow`.

use broadgate::failure::Failure;
use clap::Args;
use serde_json::json;

use crate::{
    broadcast,
    engine::Engine,
    load::{Load, Sender, block, tell},
    publish,
};

#[derive(Debug, Args)]
pub(crate) struct SlowArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) sender: Sender,
    /// Number of clients that stop reading in the second half
    #[arg(long, default_value_t = 100)]
    slow: usize,
    #[command(flatten)]
    messages: broadcast::Messages,
}

/// The same broadcast twice, with all reading and with some not: others must notice nothing.
pub(super) fn run(args: &SlowArgs) -> Result<(), Failure> {
    if args.slow >= args.load.clients {
        return Err(Failure::usage(format!("--slow {}: some of the clients must read", args.slow)));
    }
    let mut result = json!({ "slow": args.slow });
    let mut texts = String::new();
    let mut outcomes = Vec::new();
    for (key, slow) in [("without", 0), ("with", args.slow)] {
        let mut engine = Engine::new(&args.load, 1, args.messages.in_flight)?;
        engine.connect()?;
        block(publish::join(&args.sender, &engine))?;
        engine.deafen(slow);
        let outcome = broadcast::run(&mut engine, &args.load, &args.sender, &args.messages)?;
        result[key] = outcome.json(&args.messages);
        texts += &format!("{slow} clients do not read\n{}", outcome.text(&args.messages));
        outcomes.push(outcome);
    }
    tell(args.load.json, &result, &texts)?;
    outcomes.iter().try_for_each(broadcast::Outcome::check)
}
