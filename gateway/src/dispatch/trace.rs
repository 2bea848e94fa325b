//! The traces of sends, as the gateway that took them puts them together.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use broadgate_proto::{
    id::Incarnation,
    v1::{self, HopTrouble, answer::Answer, hop::Step},
};
use broadgate_topics::{HomeTrace, Topic};

use crate::{
    command::{add_hops, hop, name_hops},
    dispatch::{
        dispatcher::Dispatcher,
        in_flight::{AskedHome, Placing, Tracing},
    },
};

impl Dispatcher {
    /// Notes that a topic's home is asked now.
    pub(super) fn asks_home(&self, topic: &Topic) -> AskedHome {
        AskedHome { at: Instant::now(), home: self.home_name(topic).unwrap_or_default() }
    }

    /// The name of a topic's home, if there is one.
    pub(super) fn home_name(&self, topic: &Topic) -> Option<String> {
        let ring = self.installed.borrow().ring.clone()?;
        Some(self.peers.name(ring.pick(topic.key())?))
    }

    /// What a home has noted becomes hops before those of the gateways that it has asked.
    pub(super) fn note_home(&self, receipt: &mut v1::Receipt, trace: Option<Box<HomeTrace>>) {
        let name = |gateway: Incarnation| self.peers.name(gateway);
        let offset = receipt.position.as_ref().map_or(0, |position| position.offset);
        let mut all = trace.map(|trace| home_hops(*trace, offset, name)).unwrap_or_default();
        let Some(placed) = receipt.trace.take() else {
            receipt.trace = Some(all).filter(|all| !all.hops.is_empty());
            return;
        };
        let mut placed = Answer::Receipt(v1::Receipt { trace: Some(placed), ..v1::Receipt::default() });
        name_hops(&mut placed, |gateway| gateway.parse().ok().map(name));
        if let Answer::Receipt(v1::Receipt { trace: Some(placed), .. }) = placed {
            // Who did not answer comes last.
            let at = all.hops.iter().position(|hop| matches!(hop.step, Some(Step::Failed(_))));
            let failed = at.map(|at| all.hops.split_off(at)).unwrap_or_default();
            add_hops(&mut all, placed);
            add_hops(&mut all, v1::SendTrace { hops: failed, ..v1::SendTrace::default() });
        }
        receipt.trace = Some(all);
    }

    /// Notes that a home was asked, now that it has answered, or, if `given_up`, was waited for until then.
    pub(super) fn note_asked(
        &self,
        answer: &mut Answer,
        asked: Option<AskedHome>,
        placing: &Placing,
        given_up: Option<Instant>,
    ) {
        let (Some(asked), Some(tracing), Answer::Receipt(receipt)) = (asked, &placing.tracing, answer) else {
            return;
        };
        let me = self.me.load();
        let since = |at: Instant| at.saturating_duration_since(tracing.since);
        let mut rest = receipt.trace.take().unwrap_or_default();
        if given_up.is_some() {
            rest.hops.retain(|hop| hop.gateway != asked.home || !matches!(hop.step, Some(Step::Failed(_))));
        }
        let step = asked_step(&me.name, asked.home.clone(), asked.at.elapsed(), &rest);
        let mut hops = vec![hop(me.name.clone(), since(asked.at), Step::Asked(step))];
        // It comes where the message stopped, and not among those that did not answer later.
        hops.extend(given_up.map(|until| {
            let failed = v1::HopFailed { trouble: HopTrouble::HomeSilent.into() };
            hop(asked.home, since(until), Step::Failed(failed))
        }));
        let trace = receipt.trace.insert(v1::SendTrace { hops, ..v1::SendTrace::default() });
        add_hops(trace, rest);
    }

    /// The whole trace, of which these hops are known, and these gateways are missing.
    pub(super) fn whole_trace(
        &self,
        tracing: &Tracing,
        hops: Option<v1::SendTrace>,
        missing: &BTreeSet<String>,
    ) -> v1::SendTrace {
        // Its caller is filled in where it is known.
        let taken = v1::HopTaken { caller: String::new(), bytes: tracing.bytes as u64 };
        let taken = hop(self.me.load().name.clone(), Duration::ZERO, Step::Taken(taken));
        let took = tracing.since.elapsed();
        let mut all = v1::SendTrace {
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            hops: vec![taken],
            ..v1::SendTrace::default()
        };
        add_hops(&mut all, hops.unwrap_or_default());
        let failed = failed_hops(&all, missing, &self.outside.load());
        add_hops(&mut all, v1::SendTrace { hops: failed, ..v1::SendTrace::default() });
        all
    }
}

/// The home's own hop, and those of gateways that it could not ask, or that may have clients it does not know of.
fn home_hops(trace: HomeTrace, history_offset: u64, name: impl Fn(Incarnation) -> String) -> v1::SendTrace {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let ordered = v1::HopOrdered {
        parked_us: micros(trace.parked),
        position: trace.at.map(|at| format!("{}/{}", at.tenure, at.number)).unwrap_or_default(),
        history_offset,
        took_us: micros(trace.took),
    };
    let mut hops = vec![hop(name(trace.home), trace.parked, Step::Ordered(ordered))];
    let is_reachable = |gateway: &Incarnation| !trace.unreachable.contains(gateway);
    let unsynced = trace.unsynced.iter().copied().filter(is_reachable).collect();
    for (gateways, trouble) in
        [(trace.unreachable.clone(), HopTrouble::Unreachable), (unsynced, HopTrouble::NotSynced)]
    {
        hops.extend(gateways.into_iter().map(|gateway: Incarnation| failed_hop(name(gateway), trouble)));
    }
    let mut all = v1::SendTrace::default();
    add_hops(&mut all, v1::SendTrace { hops, ..v1::SendTrace::default() });
    all
}

fn failed_hop(gateway: String, trouble: HopTrouble) -> v1::Hop {
    hop(gateway, Duration::ZERO, Step::Failed(v1::HopFailed { trouble: trouble.into() }))
}

/// Of those that are missing and have no such hop yet.
fn failed_hops(known: &v1::SendTrace, missing: &BTreeSet<String>, outside: &[String]) -> Vec<v1::Hop> {
    let is_known = |name: &str| {
        known.hops.iter().any(|hop| hop.gateway == name && matches!(hop.step, Some(Step::Failed(_))))
    };
    let new = missing.iter().filter(|name| !is_known(name));
    new.map(|name| {
        let is_outside = outside.contains(name);
        failed_hop(name.clone(), if is_outside { HopTrouble::Outside } else { HopTrouble::NoAnswer })
    })
    .collect()
}

/// Which home was asked, as far as its reply does not say it better, and how long the link took.
fn asked_step(me: &str, home: String, waited: Duration, reply: &v1::SendTrace) -> v1::HopAsked {
    let ordered = reply.hops.iter().find_map(|hop| match &hop.step {
        Some(Step::Ordered(ordered)) => Some((&hop.gateway, Duration::from_micros(ordered.took_us))),
        _ => None,
    });
    let Some((home, took)) = ordered else { return v1::HopAsked { home, link_us: 0 } };
    let link = if home == me { Duration::ZERO } else { waited.saturating_sub(took) };
    let link_us = u64::try_from(link.as_micros()).unwrap_or(u64::MAX);
    v1::HopAsked { home: home.clone(), link_us }
}

/// Of a command that was asked of every gateway because its home did not answer: it was taken once.
pub(super) fn take_taken(trace: &mut v1::SendTrace) {
    trace.hops.retain(|hop| !matches!(hop.step, Some(Step::Taken(_))));
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::Epoch;
    use broadgate_topics::TopicPosition;

    use super::*;

    fn trace() -> HomeTrace {
        let gateway = Incarnation::from_bits;
        HomeTrace {
            home: gateway(2),
            parked: Duration::from_micros(11),
            at: Some(TopicPosition { tenure: Epoch::new(7, 41), number: 90_214 }),
            took: Duration::from_micros(1900),
            unsynced: vec![gateway(3), gateway(4)],
            unreachable: vec![gateway(3)],
        }
    }

    /// `gw-N`, by the number.
    fn name(gateway: Incarnation) -> String {
        let number = (1..9).find(|number| Incarnation::from_bits(*number) == gateway).unwrap();
        format!("gw-{number}")
    }

    fn failed(trace: &v1::SendTrace) -> Vec<(String, HopTrouble)> {
        let trouble = |hop: &v1::Hop| match &hop.step {
            Some(Step::Failed(failed)) => Some((hop.gateway.clone(), failed.trouble())),
            _ => None,
        };
        trace.hops.iter().filter_map(trouble).collect()
    }

    #[test]
    fn a_home_says_where_it_placed_a_message_and_whom_it_could_not_ask() {
        let hops = home_hops(trace(), 5012, name);
        let Some(Step::Ordered(ordered)) = &hops.hops[0].step else { panic!("{hops:?}") };
        assert_eq!((&*hops.hops[0].gateway, hops.hops[0].at_us), ("gw-2", 11));
        assert_eq!((&*ordered.position, ordered.history_offset), ("7.41/90214", 5012));
        assert_eq!((ordered.parked_us, ordered.took_us), (11, 1900));
        let wanted = [("gw-3", HopTrouble::Unreachable), ("gw-4", HopTrouble::NotSynced)];
        assert_eq!(failed(&hops), wanted.map(|(name, trouble)| (name.to_owned(), trouble)));
        let dry = home_hops(HomeTrace { at: None, ..trace() }, 0, name);
        assert!(matches!(&dry.hops[0].step, Some(Step::Ordered(ordered)) if ordered.position.is_empty()));
    }

    #[test]
    fn the_link_took_what_the_home_did_not() {
        let reply = home_hops(trace(), 0, name);
        let step = |me, waited| asked_step(me, "gw-9".to_owned(), Duration::from_micros(waited), &reply);
        assert_eq!(step("gw-1", 2100), v1::HopAsked { home: "gw-2".to_owned(), link_us: 200 });
        assert_eq!(step("gw-1", 1800).link_us, 0, "clocks are coarse");
        assert_eq!(step("gw-2", 2100).link_us, 0, "the home asked itself");
        let silent = asked_step("gw-1", "gw-9".to_owned(), Duration::from_secs(2), &v1::SendTrace::default());
        assert_eq!(silent, v1::HopAsked { home: "gw-9".to_owned(), link_us: 0 });
    }

    #[test]
    fn each_missing_gateway_is_named_once_with_what_is_known_of_it() {
        let missing = ["gw-3", "gw-4", "gw-5", "gw-6"].map(str::to_owned).into();
        let hops = failed_hops(&home_hops(trace(), 0, name), &missing, &["gw-6".to_owned()]);
        let hops = v1::SendTrace { hops, ..v1::SendTrace::default() };
        let wanted = [("gw-5", HopTrouble::NoAnswer), ("gw-6", HopTrouble::Outside)];
        assert_eq!(failed(&hops), wanted.map(|(name, trouble)| (name.to_owned(), trouble)));
    }
}
