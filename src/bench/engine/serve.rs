//! A process that holds a part of the clients.

use std::io::Read as _;

use broadgate::failure::Failure;

use crate::{
    engine::{Engine, part::Live, report_lines::say},
    load::Load,
};

/// Is a part, until the standard input ends.
pub(crate) fn serve(load: &Load, groups: u32) -> Result<(), Failure> {
    let mut engine = Engine::with(load, groups, 1, |plan| plan.reports = true)?;
    engine.connect()?;
    say("live", &Live { receivers: engine.receivers(), locals: engine.locals() })?;
    engine.during(|| {
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    })?;
    say("tally", &engine.tally()?)
}
