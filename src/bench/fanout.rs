//! `broadgate bench fanout`.

use broadgate::failure::Failure;
use clap::Args;

use crate::{
    broadcast,
    engine::Engine,
    load::{Load, Sender, block, tell},
    publish,
};

#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) sender: Sender,
    #[command(flatten)]
    messages: broadcast::Messages,
}

pub(super) fn run(args: &FanoutArgs) -> Result<(), Failure> {
    let mut engine = Engine::new(&args.load, 1, args.messages.in_flight)?;
    engine.connect()?;
    block(publish::join(&args.sender, &engine))?;
    let outcome = broadcast::run(&mut engine, &args.load, &args.sender, &args.messages)?;
    tell(args.load.json, &outcome.json(&args.messages), &outcome.text(&args.messages))?;
    outcome.check()
}
