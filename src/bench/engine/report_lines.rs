//! Lines by which a part tells its figures.

use std::io::Write as _;

use broadgate::failure::Failure;
use serde::Serialize;

pub(crate) fn say(what: &str, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::Failed(error.to_string()))?;
    writeln!(std::io::stdout().lock(), "{what} {text}")?;
    Ok(())
}

/// Tells that all clients of a thread have these messages.
pub(crate) fn done(numbers: &mut Vec<u64>) -> Result<(), Failure> {
    let lines: String = numbers.drain(..).map(|number| format!("done {number}\n")).collect();
    std::io::stdout().lock().write_all(lines.as_bytes())?;
    Ok(())
}
