//! Rates of gateways and workers: the differences between two pictures of the cluster. Pure.

use std::time::Duration;

use broadgate_business::v1::{
    GatewayCounters, GatewayStatus, Member, Role, StatusReply, TopReply, WorkerStatus,
};

use crate::operate::status::state;

/// The cluster at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct TopPicture {
    /// By the clock of this program.
    pub(super) at: Duration,
    pub(super) status: StatusReply,
    /// What was asked for besides; none for workers.
    pub(super) top: Option<TopReply>,
}

/// A gateway of the view.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct GatewayLoad {
    pub(super) incarnation: String,
    pub(super) name: String,
    pub(super) state: &'static str,
    /// False if it did not answer: then nothing else is known.
    pub(super) answered: bool,
    pub(super) clients: u64,
    pub(super) slow: u64,
    pub(super) outboxes_bytes: u64,
    /// What waits in the mailboxes of its shards.
    pub(super) mailboxes: u64,
    /// None until it has answered twice.
    pub(super) rates: Option<GatewayRates>,
}

/// Per second, and in per cent of the time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct GatewayRates {
    pub(super) messages_in: f64,
    pub(super) messages_out: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) drops: f64,
    pub(super) closes: f64,
    pub(super) homes_busy: u32,
    pub(super) shards_busy: Vec<u32>,
}

/// A worker of the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct WorkerLoad {
    pub(super) name: String,
    pub(super) incarnation: String,
    pub(super) services: Vec<String>,
    pub(super) clients: u64,
    pub(super) unanswered: u64,
    /// For how many seconds the oldest of these has waited.
    pub(super) oldest_s: u32,
    pub(super) gateways: u32,
    /// None until it was seen twice.
    pub(super) events: Option<f64>,
    /// The mean of the answers that were timed between two pictures, in milliseconds.
    pub(super) answer_ms: Option<f64>,
}

impl TopPicture {
    fn gateway(&self, incarnation: &str) -> Option<&GatewayStatus> {
        self.status.gateways.iter().find(|gateway| gateway.incarnation == incarnation)
    }

    /// The gateways of the view, by name.
    pub(super) fn gateways(&self, before: Option<&Self>) -> Vec<GatewayLoad> {
        let members = self.status.view.as_ref().map(|view| &view.members[..]).unwrap_or_default();
        let mut rows: Vec<GatewayLoad> = members
            .iter()
            .filter(|member| member.role() == Role::Gateway)
            .map(|member| self.gateway_load(member, before))
            .collect();
        rows.sort_by(|a, b| (&a.name, &a.incarnation).cmp(&(&b.name, &b.incarnation)));
        rows
    }

    fn gateway_load(&self, member: &Member, before: Option<&Self>) -> GatewayLoad {
        let row = GatewayLoad {
            incarnation: member.incarnation.clone(),
            name: member.name.clone(),
            state: state(member),
            ..GatewayLoad::default()
        };
        let Some(known) = self.gateway(&member.incarnation) else { return row };
        let counters = known.counters.clone().unwrap_or_default();
        let former = before.and_then(|before| before.gateway(&member.incarnation)?.counters.as_ref());
        GatewayLoad {
            answered: true,
            clients: known.clients,
            slow: counters.slow,
            outboxes_bytes: counters.outboxes_bytes,
            mailboxes: counters.shards.iter().map(|shard| u64::from(shard.mailbox)).sum(),
            rates: former.and_then(|former| gateway_rates(&counters, former)),
            ..row
        }
    }

    /// The workers that gateways know, by name.
    pub(super) fn workers(&self, before: Option<&Self>) -> Vec<WorkerLoad> {
        let load = |worker: &WorkerStatus| {
            let former = before.and_then(|before| {
                let found =
                    before.status.workers.iter().find(|other| other.incarnation == worker.incarnation)?;
                Some((self.at.saturating_sub(before.at).as_secs_f64(), found))
            });
            WorkerLoad {
                name: worker.name.clone(),
                incarnation: worker.incarnation.clone(),
                services: worker.services.clone(),
                clients: worker.clients,
                unanswered: worker.events_unanswered,
                oldest_s: worker.oldest_unanswered_s,
                gateways: worker.gateways,
                events: former.and_then(|(seconds, former)| {
                    // It has attached to a gateway again if it is less.
                    let events = worker.events_sent.checked_sub(former.events_sent)?;
                    (seconds > 0.0).then(|| events as f64 / seconds)
                }),
                answer_ms: former.and_then(|(_, former)| {
                    let timed = worker.answers_timed.checked_sub(former.answers_timed)?;
                    let us = worker.answers_us.checked_sub(former.answers_us)?;
                    (timed > 0).then(|| us as f64 / timed as f64 / 1000.0)
                }),
            }
        };
        let mut rows: Vec<WorkerLoad> = self.status.workers.iter().map(load).collect();
        rows.sort_by(|a, b| (&a.name, &a.incarnation).cmp(&(&b.name, &b.incarnation)));
        rows
    }
}

/// None if no time has passed by the gateway's clock, or if it counts from another start.
fn gateway_rates(now: &GatewayCounters, before: &GatewayCounters) -> Option<GatewayRates> {
    let us = now.at_us.checked_sub(before.at_us).filter(|us| *us > 0)?;
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 * 1e6 / us as f64;
    let busy = |now: u64, before: u64| {
        let percent = now.saturating_sub(before).saturating_mul(100) / us;
        u32::try_from(percent.min(100)).unwrap_or(100)
    };
    Some(GatewayRates {
        messages_in: rate(now.messages_in, before.messages_in),
        messages_out: rate(now.messages_out, before.messages_out),
        bytes_in: rate(now.bytes_in, before.bytes_in),
        bytes_out: rate(now.bytes_out, before.bytes_out),
        drops: rate(now.drops.values().sum(), before.drops.values().sum()),
        closes: rate(now.closes.values().sum(), before.closes.values().sum()),
        homes_busy: busy(now.homes_busy_us, before.homes_busy_us),
        shards_busy: (now.shards.iter().zip(&before.shards))
            .map(|(now, before)| busy(now.cpu_us, before.cpu_us))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1::{ShardStatus, View};

    use super::*;

    fn counters(seconds: u64, out: u64) -> GatewayCounters {
        GatewayCounters {
            at_us: seconds * 1_000_000,
            messages_out: out,
            drops: [("slow".to_owned(), out / 10)].into(),
            shards: vec![ShardStatus { cpu_us: out * 1000, ..ShardStatus::default() }],
            homes_busy_us: seconds * 250_000,
            ..GatewayCounters::default()
        }
    }

    fn picture(at: u64, counters: Option<GatewayCounters>) -> TopPicture {
        let mut member = Member { incarnation: "g".into(), name: "gw-1".into(), ..Member::default() };
        member.set_role(Role::Gateway);
        let gateways = counters.into_iter().map(|counters| GatewayStatus {
            incarnation: "g".into(),
            counters: Some(counters),
            ..GatewayStatus::default()
        });
        let status = StatusReply {
            view: Some(View { members: vec![member], ..View::default() }),
            gateways: gateways.collect(),
            ..StatusReply::default()
        };
        TopPicture { at: Duration::from_secs(at), status, top: None }
    }

    #[test]
    fn rates_are_differences_by_the_gateways_clock() {
        let (before, now) = (picture(1, Some(counters(10, 100))), picture(99, Some(counters(12, 500))));
        let row = now.gateways(Some(&before)).remove(0);
        let rates = row.rates.unwrap();
        assert_eq!((rates.messages_out, rates.drops, rates.homes_busy), (200.0, 20.0, 25));
        assert_eq!(rates.shards_busy, [20]);
        assert!(row.answered);
    }

    #[test]
    fn without_two_answers_there_are_no_rates() {
        let now = picture(3, Some(counters(12, 500)));
        assert_eq!(now.gateways(None)[0].rates, None);
        assert_eq!(now.gateways(Some(&picture(1, None)))[0].rates, None);
        assert_eq!(now.gateways(Some(&now))[0].rates, None, "no time has passed");
        assert_eq!(
            now.gateways(Some(&picture(1, Some(counters(13, 1)))))[0].rates,
            None,
            "it counts from another start"
        );
        let silent = picture(5, None).gateways(Some(&now)).remove(0);
        assert!(!silent.answered && silent.rates.is_none() && silent.name == "gw-1");
    }

    #[test]
    fn a_workers_answers_are_averaged_between_two_pictures() {
        let worker = |events_sent, answers_timed, answers_us| WorkerStatus {
            incarnation: "w".into(),
            events_sent,
            answers_timed,
            answers_us,
            ..WorkerStatus::default()
        };
        let mut before = picture(1, None);
        before.status.workers = vec![worker(100, 2, 1_000_000)];
        let mut now = picture(3, None);
        now.status.workers = vec![worker(164, 4, 1_006_000)];
        let row = now.workers(Some(&before)).remove(0);
        assert_eq!((row.events, row.answer_ms), (Some(32.0), Some(3.0)));
        let again = before.workers(Some(&now)).remove(0);
        assert_eq!((again.events, again.answer_ms), (None, None), "it has attached again");
    }
}
