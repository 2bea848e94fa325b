//! The hops of traced sends. Pure.

use std::time::Duration;

use broadgate_proto::{
    limits::TRACE_HOPS_MAX,
    v1::{self, answer::Answer, hop::Step},
};

pub(crate) fn hop(gateway: String, at: Duration, step: Step) -> v1::Hop {
    v1::Hop { gateway, at_us: micros(at), step: Some(step) }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the shards of this gateway have answered, after this time. [`sign_hops`] says whose it is.
pub(crate) fn placed_hop(at: Duration, shards: Vec<v1::HopShard>) -> v1::SendTrace {
    let hops = vec![hop(String::new(), at, Step::Placed(v1::HopPlaced { shards }))];
    v1::SendTrace { hops, ..v1::SendTrace::default() }
}

/// Appends the hops of another part, as far as there is room.
pub(crate) fn add_hops(all: &mut v1::SendTrace, part: v1::SendTrace) {
    let room = TRACE_HOPS_MAX.saturating_sub(all.hops.len());
    let beyond = u32::try_from(part.hops.len().saturating_sub(room)).unwrap_or(u32::MAX);
    all.hops.extend(part.hops.into_iter().take(room));
    all.hops_left_out = all.hops_left_out.saturating_add(part.hops_left_out).saturating_add(beyond);
}

/// Names the gateway whose hops these are, where none is named.
pub(crate) fn sign_hops(answer: &mut Answer, name: impl Fn() -> String) {
    name_hops(answer, |gateway| gateway.is_empty().then(&name));
}

/// Replaces the names of the gateways of hops, where there is another name.
pub(crate) fn name_hops(answer: &mut Answer, name: impl Fn(&str) -> Option<String>) {
    let Answer::Receipt(v1::Receipt { trace: Some(trace), .. }) = answer else { return };
    for hop in &mut trace.hops {
        if let Some(name) = name(&hop.gateway) {
            hop.gateway = name;
        }
    }
}

/// Every hop in one line, for the log: its gateway, its own microseconds, and what it did.
pub(crate) fn hops_in_line(trace: &v1::SendTrace) -> String {
    let one = |hop: &v1::Hop| {
        let what = match &hop.step {
            Some(Step::Taken(taken)) => format!("took {} B from {}", taken.bytes, taken.caller),
            Some(Step::Asked(asked)) => format!("asked {} (link {})", asked.home, asked.link_us),
            Some(Step::Ordered(ordered)) => {
                format!("parked {}, ordered {}, all {}", ordered.parked_us, ordered.position, ordered.took_us)
            }
            Some(Step::Placed(placed)) => {
                let clients: u64 = placed.shards.iter().map(|shard| shard.clients).sum();
                let drops: u64 = placed.shards.iter().flat_map(|shard| shard.drops.values()).sum();
                format!("placed {clients}, dropped {drops}")
            }
            Some(Step::Failed(failed)) => format!("failed {}", failed.trouble().as_str_name()),
            None => "unknown".to_owned(),
        };
        format!("{}@{} {what}", hop.gateway, hop.at_us)
    };
    trace.hops.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::merge;

    fn part(count: usize, drops: u64) -> Answer {
        let shards = vec![v1::HopShard { shard: 1, clients: 2, ..v1::HopShard::default() }];
        let trace = placed_hop(Duration::from_micros(84), shards);
        let hops = vec![trace.hops[0].clone(); count];
        let trace = Some(v1::SendTrace { hops, ..v1::SendTrace::default() });
        let drops = [("slow".to_owned(), drops)].into();
        Answer::Receipt(v1::Receipt { clients: 2, drops, trace, ..v1::Receipt::default() })
    }

    fn trace(answer: &Answer) -> &v1::SendTrace {
        let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
        receipt.trace.as_ref().unwrap()
    }

    #[test]
    fn hops_of_all_parts_are_kept_with_the_names_of_their_gateways() {
        let mut all = None;
        for name in ["gw-1", "gw-2"] {
            let mut part = part(1, 0);
            sign_hops(&mut part, || name.to_owned());
            sign_hops(&mut part, || "other".to_owned());
            merge(&mut all, part);
        }
        let mut all = all.unwrap();
        assert_eq!(hops_in_line(trace(&all)), "gw-1@84 placed 2, dropped 0; gw-2@84 placed 2, dropped 0");
        name_hops(&mut all, |name| (name == "gw-2").then(|| "gw-3".to_owned()));
        let names: Vec<_> = trace(&all).hops.iter().map(|hop| (&*hop.gateway, hop.at_us)).collect();
        assert_eq!(names, [("gw-1", 84), ("gw-3", 84)]);
    }

    #[test]
    fn hops_beyond_the_limit_are_counted() {
        let mut all = None;
        for count in [TRACE_HOPS_MAX - 1, 3, 4] {
            merge(&mut all, part(count, 1));
        }
        let all = all.unwrap();
        assert_eq!((trace(&all).hops.len(), trace(&all).hops_left_out), (TRACE_HOPS_MAX, 6));
        let untraced = Answer::Receipt(v1::Receipt::default());
        let mut both = Some(untraced.clone());
        merge(&mut both, untraced);
        assert!(matches!(both, Some(Answer::Receipt(receipt)) if receipt.trace.is_none()));
    }
}
