//! The operator's commands: questions to a running cluster, and orders.

mod clusters;
mod completions;
mod confirm;
mod doctor;
mod drain;
mod drain_by_gateway;
mod drain_check;
mod drain_progress;
mod events;
mod group;
mod health;
mod hidden;
mod history;
mod lists;
mod orders;
mod probe;
mod profiles;
mod send_text;
mod status;
mod stream;
mod tap;
mod tap_text;
mod target;
mod token_source;
mod top;
mod watch;
mod whoami;
mod why;
mod why_order;
mod why_send;
mod why_text;
mod why_verdict;

pub use self::completions::answer_shell;
pub use self::target::{At, ChosenCluster, ClusterTarget, ReachedCluster};
pub(crate) use self::{
    doctor::findings_of as doctor_findings, send_text::lines as trace_lines,
    target::reached as reached_gateway, why_text::in_words as end_in_words,
};

pub(crate) use self::{
    clusters::{ClusterArgs, cluster},
    doctor::{DoctorArgs, doctor},
    drain::{DrainArgs, drain},
    events::{EventsArgs, events},
    group::{GroupArgs, group},
    health::{HealthArgs, health},
    history::{HistoryArgs, history},
    lists::{
        ClientArgs, ClientsArgs, GroupsArgs, RosterArgs, UidsArgs, client, clients, groups, roster, uids,
    },
    orders::{KickArgs, SendArgs, kick, send},
    status::status,
    tap::{TapArgs, tap},
    top::{TopArgs, top},
    watch::{WatchArgs, watch},
    whoami::{WhoAmIArgs, whoami},
    why::{WhyArgs, why},
};
use crate::failure::Failure;

/// Prints a fresh secret.
pub(crate) fn secret() -> Result<(), Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Failed(format!("the system has no random numbers: {error}")))?;
    crate::output::print(&format!("{}\n", data_encoding::BASE32_DNSSEC.encode(&bytes)))
}
