//! (15) Two registers run by mistake: members end up under one term, and until they do answers say that they
//! are incomplete.

use std::{collections::BTreeSet, time::Duration};

use broadgate_proto::{id::Incarnation, view};
use broadgate_register::server::simulation::Replica;

use super::{
    bugs::Bug,
    checker::Found,
    history::{CmdNo, Fact, Outcome, Record},
    world::{Event, World},
};

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_millis(200);
/// After this a member that could see another register must have seen it: two looks of at most 1.5 s each,
/// and their answers.
const SEEN_AFTER: Duration = Duration::from_millis(3300);

pub fn check(history: &[Record], found: &mut Found) {
    for record in history {
        match &record.fact {
            Fact::CompleteInHalves { by, cmd, since } => {
                let text = format!(
                    "{by} answers {cmd} as complete, but another register has members since {:.3} s",
                    since.as_secs_f64()
                );
                found.add(15, text);
            }
            Fact::Quiet { gateways } => {
                let terms: BTreeSet<u64> = gateways.iter().map(|(_, epoch, _)| epoch.term).collect();
                if terms.len() > 1 {
                    found.add(15, format!("there are members under the terms {terms:?}"));
                }
            }
            _ => {}
        }
    }
}

impl World {
    /// Notes which gateways could know that another register has gateways.
    pub fn look_for_halves(&mut self) {
        for host in self.live_hosts() {
            let halved = self.could_see_another(host);
            let now = self.now;
            let Some(gateway) = self.gateway(host) else { continue };
            gateway.halved_since = if halved { gateway.halved_since.or(Some(now)) } else { None };
        }
        self.after(INTERVAL, Event::Halves);
    }

    fn could_see_another(&self, host: usize) -> bool {
        let Some(gateway) = self.hosts[host].gateway.as_deref() else { return false };
        let follows = gateway.member.stream.is_some() && gateway.member.welcomed;
        if !follows || self.hosts[host].paused.is_some() {
            return false;
        }
        let known = gateway.member.life.known();
        let strange = |one: &Incarnation| view::find(known, *one).is_none();
        gateway.member.knows().filter(|no| self.answers(host, *no)).any(|no| {
            let Some(other) = self.registers[no].core.as_ref().and_then(Replica::view) else { return false };
            let gateways = view::gateways(other).filter_map(|one| one.incarnation.parse().ok());
            view::epoch(other).term != view::epoch(known).term
                && gateways.into_iter().any(|one| strange(&one))
        })
    }

    /// What a gateway says of its answer, which leaves out the clients of gateways that it does not know.
    pub fn complete_or_not(&mut self, host: usize, cmd: CmdNo, outcome: &mut Outcome) {
        let (now, bug) = (self.now, self.bug);
        let Some(gateway) = self.gateway(host) else { return };
        let Some(complete) = outcome.of_all() else { return };
        if gateway.member.outside && bug != Some(Bug::CompleteInHalves) {
            *complete = false;
        }
        let since = gateway.halved_since.filter(|since| now > *since + SEEN_AFTER);
        if let Some(since) = since.filter(|_| *complete) {
            let by = gateway.me;
            self.note(Fact::CompleteInHalves { by, cmd, since });
        }
    }
}
