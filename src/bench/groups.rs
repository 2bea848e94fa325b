//! `broadgate bench groups`.

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
pub(crate) struct GroupsArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) sender: Sender,
    /// Number of groups; each client is in one, each message goes to one
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) groups: u32,
    #[command(flatten)]
    messages: broadcast::Messages,
}

pub(super) fn run(args: &GroupsArgs) -> Result<(), Failure> {
    let mut engine = Engine::new(&args.load, args.groups, args.messages.in_flight)?;
    engine.connect()?;
    block(publish::join(&args.sender, &engine))?;
    let outcome = broadcast::run(&mut engine, &args.load, &args.sender, &args.messages)?;
    let mut result = outcome.json(&args.messages);
    result["groups"] = json!(args.groups);
    let text = format!("groups   {}\n{}", args.groups, outcome.text(&args.messages));
    tell(args.load.json, &result, &text)?;
    outcome.check()
}
