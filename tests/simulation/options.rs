//! The command line.

use std::time::Duration;

use super::bugs::Bug;

pub struct Options {
    pub from: u64,
    pub seeds: u64,
    /// No new seed is begun after this.
    pub time: Duration,
    pub seed: Option<u64>,
    /// Only lives in which one thing goes wrong at a time.
    pub calm: bool,
    /// Only calm lives in which gateways drain and start.
    pub rolling: bool,
    /// Only lives in which two registers run.
    pub two_registers: bool,
    /// Only lives in which registers keep their list in a ledger.
    pub ledger: bool,
    pub trace: bool,
    pub shrink: bool,
    pub shrink_time: Duration,
    pub bug: Option<Bug>,
    pub by_rule: bool,
    pub own_tests: bool,
    pub list: bool,
    /// Planted bugs are searched for, not only looked at where they were found.
    pub search: bool,
}

impl Options {
    pub fn of(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            from: 1,
            seeds: 120,
            time: Duration::from_secs(8),
            seed: None,
            calm: false,
            rolling: false,
            two_registers: false,
            ledger: false,
            trace: false,
            shrink: true,
            shrink_time: Duration::from_secs(20),
            bug: None,
            by_rule: false,
            own_tests: true,
            list: false,
            search: false,
        };
        while let Some(arg) = args.next() {
            let mut number = || {
                let text = args.next().unwrap_or_default();
                text.parse::<u64>().map_err(|_| format!("{arg} needs a number, not {text:?}"))
            };
            match arg.as_str() {
                "--from" => options.from = number()?,
                "--seeds" => {
                    options.seeds = number()?;
                    options.search = true;
                    options.time = Duration::from_secs(24 * 3600);
                }
                "--seconds" => options.time = Duration::from_secs(number()?),
                "--shrink-seconds" => options.shrink_time = Duration::from_secs(number()?),
                "--seed" => options.seed = Some(number()?),
                "--calm" => options.calm = true,
                "--rolling" => options.rolling = true,
                "--two-registers" => options.two_registers = true,
                "--ledger" => options.ledger = true,
                "--trace" => options.trace = true,
                "--shrink" => options.shrink = true,
                "--no-shrink" => options.shrink = false,
                "--only-seeds" => options.own_tests = false,
                "--failures" => options.by_rule = true,
                "--list" => options.list = true,
                "--bug" => {
                    let name = args.next().unwrap_or_default();
                    let found = Bug::ALL.into_iter().find(|bug| bug.name() == name);
                    options.bug = Some(found.ok_or_else(|| {
                        let names: Vec<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
                        format!("no bug {name:?}: there are {}", names.join(", "))
                    })?);
                }
                // What `cargo test` passes to every test program.
                _ => {}
            }
        }
        Ok(options)
    }
}
