//! Workers: those that are needed, and those that do not answer. Pure.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_business::v1::MemberState;
use broadgate_proto::limits::{WORKER_ANSWER_ODD_S, WORKER_SILENT_S};

use crate::{
    operate::doctor::{
        findings::{Checked, some},
        membership::ago,
        seen::SeenCluster,
    },
    output::counted,
};

/// Without a worker for its service, what a client sends waits, and then the client is closed.
pub(super) fn services(seen: &SeenCluster, checked: &mut Checked) {
    let mut wanted: BTreeMap<&str, (BTreeSet<String>, BTreeSet<&str>)> = BTreeMap::new();
    // Workers of gateways that did not answer, or are in no view, are not known here.
    for (gateway, service, who) in seen.wanted_services() {
        let (whose, gateways) = wanted.entry(service).or_default();
        whose.insert(who);
        gateways.insert(gateway);
    }
    let held: u64 = seen.known().map(|(_, evidence)| evidence.held).sum();
    let mut held = (held > 0).then(|| format!(", {} wait", counted(held, "client")));
    for (service, (whose, gateways)) in wanted.iter().filter(|(service, _)| !seen.takes(service)) {
        let lost = seen.removed.iter().filter(|removed| removed.services.iter().any(|one| one == service));
        let lost = lost.min_by_key(|removed| removed.age_ms);
        let lost = lost.map(|lost| format!("; {} was removed {} ago: it did not beat", lost.name, ago(lost)));
        checked.fail(
            format!(
                "no worker takes service {service:?} of {} at {}{}{}",
                some(whose),
                some(gateways),
                // Those of all services, said once.
                held.take().unwrap_or_default(),
                lost.unwrap_or_default(),
            ),
            "start a worker for it, or set service = \"\" where clients send nothing: they are closed after \
             hold_time_max",
        );
    }
    let taken: Vec<&str> = wanted.into_keys().filter(|service| seen.takes(service)).collect();
    checked.well = match &taken[..] {
        [] => "no listener needs a worker".to_owned(),
        taken => format!("workers take {}", taken.join(", ")),
    };
}

pub(super) fn workers(seen: &SeenCluster, checked: &mut Checked) {
    let mut silent: BTreeMap<&str, (u32, u64)> = BTreeMap::new();
    for worker in seen.known().flat_map(|(_, evidence)| &evidence.silent_workers) {
        let all = silent.entry(&worker.name).or_default();
        *all = (all.0.max(worker.seconds), all.1 + worker.events_unanswered);
    }
    for (name, (seconds, events)) in &silent {
        checked.warn(
            format!("{name} has answered none of {} for {seconds} s", counted(*events, "event")),
            "look at its log: does a handler hang? `broadgate clients --paused` lists who waits",
        );
    }
    let slow = seen.workers.iter().filter(|worker| worker.oldest_unanswered_s >= WORKER_ANSWER_ODD_S);
    for worker in slow.filter(|worker| !silent.contains_key(&*worker.name)) {
        let (name, seconds, unanswered) =
            (&worker.name, worker.oldest_unanswered_s, worker.events_unanswered);
        checked.warn(
            format!("{name} answers others, and one of {} not for {seconds} s", counted(unanswered, "event")),
            "does the handler of one client hang? `broadgate clients --paused` lists who waits",
        );
    }
    let ready = seen.gateways.iter().filter(|gateway| gateway.member.state() == MemberState::Ready);
    let ready = u32::try_from(ready.count()).unwrap_or(u32::MAX);
    // Sums over gateways that answered the one that was asked.
    for worker in seen.workers.iter().filter(|worker| seen.complete && worker.gateways < ready) {
        checked.warn(
            format!("{} is attached to {} of {ready} gateways", worker.name, worker.gateways),
            "can it reach the internal port of every gateway? Its log names those that it cannot",
        );
    }
    checked.well = counted(seen.workers.len() as u64, "worker");
    let oldest = seen.workers.iter().max_by_key(|worker| worker.oldest_unanswered_s);
    if let Some(worker) = oldest.filter(|worker| worker.oldest_unanswered_s > 0) {
        checked.well += &format!(
            "; the oldest unanswered event is {} s old, at {}: from {WORKER_SILENT_S} s on it is warned of one that answers \
             none, from {WORKER_ANSWER_ODD_S} s on of others",
            worker.oldest_unanswered_s, worker.name
        );
    }
}

impl SeenCluster {
    /// Each gateway's name, a service that clients of it need, and which clients.
    fn wanted_services(&self) -> impl Iterator<Item = (&str, &str, String)> {
        let listeners = self.inside().flat_map(|(gateway, status)| {
            let services = status.listener_services.iter();
            services.map(|(name, service)| (gateway.name(), &**service, format!("listener {name:?}")))
        });
        let known = self.known().filter(|(_, evidence)| evidence.inside);
        let apps = known.flat_map(|(gateway, evidence)| {
            let apps = evidence.apps.iter().filter(|app| !app.service.is_empty());
            apps.map(|app| (gateway.name(), &*app.service, format!("app {:?}", app.id)))
        });
        listeners.chain(apps)
    }

    pub(super) fn needs(&self, service: &str) -> bool {
        self.wanted_services().any(|(_, wanted, _)| wanted == service)
    }

    pub(super) fn takes(&self, service: &str) -> bool {
        self.workers.iter().any(|worker| worker.services.iter().any(|taken| taken == service))
    }
}
