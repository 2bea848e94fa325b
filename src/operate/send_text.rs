//! The trace of a send, in lines for people. Pure.

use std::collections::HashMap;

use broadgate_business::v1::{Hop, HopShard, HopTrouble, Receipt, SendTrace, hop::Step};

use crate::{
    output::{bytes, counted},
    terminal_text::one_line,
};

/// Of a home that was asked in vain.
const SILENT_HOME: &str = "NO ANSWER as the home: all gateways were asked, out of order";
/// Shards that are listed one by one.
const SHARDS_LISTED_MAX: usize = 8;

/// A line for each hop, and one for the receipt.
pub(crate) fn lines(trace: &SendTrace, receipt: &Receipt, is_dry: bool) -> String {
    let mut text = String::new();
    let mut silent = receipt.gateways;
    for hop in &trace.hops {
        text += &line(hop, is_dry);
        if let Some(Step::Placed(_)) = hop.step {
            silent = silent.saturating_sub(1);
        }
    }
    if trace.hops_left_out > 0 {
        text += &own("", &format!("{} not shown", counted(trace.hops_left_out.into(), "hop")));
    } else if silent > 0 {
        let which = counted(silent.into(), "gateway");
        text += &own("", &format!("{which} of an earlier version answered, without a hop"));
    }
    if let Some(home) = silent_home(trace) {
        let what =
            if receipt.ordered { "answered without its hops: an earlier version" } else { SILENT_HOME };
        text += &own("", &format!("{} {what}", one_line(home)));
    }
    text + &at(trace.took_us, &receipt_words(receipt, is_dry))
}

/// A home that was asked, and is heard of no more. An earlier version does not say so itself.
fn silent_home(trace: &SendTrace) -> Option<&str> {
    let steps = trace.hops.iter().filter_map(|hop| hop.step.as_ref());
    let is_said = |step: &Step| match step {
        Step::Ordered(_) => true,
        Step::Failed(failed) => failed.trouble() == HopTrouble::HomeSilent,
        _ => false,
    };
    if steps.clone().any(is_said) {
        return None;
    }
    steps.into_iter().find_map(|step| if let Step::Asked(asked) = step { Some(&*asked.home) } else { None })
}

/// A line with a time of the gateway that took the command.
fn at(micros: u64, what: &str) -> String {
    format!("{:<8}{what}\n", time(micros))
}

/// A line with a time of its own gateway.
fn own(time: &str, what: &str) -> String {
    format!("{time:>7} {what}\n")
}

fn line(hop: &Hop, is_dry: bool) -> String {
    let gateway = one_line(&hop.gateway);
    match &hop.step {
        Some(Step::Taken(taken)) => {
            let caller = one_line(&taken.caller);
            at(hop.at_us, &format!("{gateway} took it from {caller}, {}", bytes(taken.bytes)))
        }
        Some(Step::Asked(asked)) => {
            let home = one_line(&asked.home);
            let link = if asked.link_us == 0 {
                String::new()
            } else {
                format!(" (link {} there and back)", time(asked.link_us))
            };
            let what = if asked.home == hop.gateway {
                format!("{gateway} is the home")
            } else {
                format!("{gateway} home is {home}: asked{link}")
            };
            at(hop.at_us, &what)
        }
        Some(Step::Ordered(ordered)) => {
            let parked = match ordered.parked_us {
                0 => "not parked".to_owned(),
                parked => format!("PARKED for {}", time(parked)),
            };
            let mut what = match &*ordered.position {
                "" if is_dry => format!("{gateway} {parked}; nothing is placed"),
                position => format!("{gateway} {parked}; placed at {}", one_line(position)),
            };
            if ordered.history_offset > 0 {
                what += &format!(", history {}", ordered.history_offset);
            }
            what += &format!("; all answers after {}", time(ordered.took_us));
            own(&time(hop.at_us), &what)
        }
        Some(Step::Placed(placed)) => {
            own(&time(hop.at_us), &format!("{gateway} {}", shards(&placed.shards, is_dry)))
        }
        Some(Step::Failed(failed)) if failed.trouble() == HopTrouble::HomeSilent => {
            at(hop.at_us, &format!("{gateway} {}", trouble(failed.trouble())))
        }
        Some(Step::Failed(failed)) => own("", &format!("{gateway} {}", trouble(failed.trouble()))),
        None => own("", &format!("{gateway} did what this version does not know")),
    }
}

/// "shards 201 + 190 clients, slow 1"
fn shards(shards: &[HopShard], is_dry: bool) -> String {
    let total: u64 = shards.iter().map(|shard| shard.clients).sum();
    let mut text = if shards.len() > SHARDS_LISTED_MAX {
        format!("{} shards, {}", shards.len(), counted(total, "client"))
    } else {
        let each: Vec<String> = shards.iter().map(|shard| shard.clients.to_string()).collect();
        let clients = if total == 1 { "client" } else { "clients" };
        format!("shards {} {clients}", each.join(" + "))
    };
    let mut drops: HashMap<&str, u64> = HashMap::new();
    for (reason, count) in shards.iter().flat_map(|shard| &shard.drops) {
        *drops.entry(reason).or_default() += count;
    }
    let mut drops: Vec<_> = drops.into_iter().collect();
    drops.sort_unstable();
    for (reason, count) in drops {
        text += &format!(", {} {count}", one_line(reason));
    }
    if is_dry { text + " would get it" } else { text }
}

const fn trouble(trouble: HopTrouble) -> &'static str {
    match trouble {
        HopTrouble::NoAnswer => "NO ANSWER in time",
        HopTrouble::Unreachable => "UNREACHABLE: the home has no link to it, or one that accepts no more",
        HopTrouble::NotSynced => "NOT SYNCED: it may have clients that the home does not know of",
        HopTrouble::HomeSilent => SILENT_HOME,
        HopTrouble::Outside => "OUTSIDE: it is registered at another register",
        HopTrouble::Unspecified => "failed, in a way that this version does not know",
    }
}

fn receipt_words(receipt: &Receipt, is_dry: bool) -> String {
    let mut words = vec![counted(receipt.clients, "client")];
    words.extend(is_dry.then(|| "nothing sent".to_owned()));
    words.extend(receipt.ordered.then(|| "ordered".to_owned()));
    words.extend(receipt.repeated.then(|| "a repeat".to_owned()));
    let missing = receipt.coverage.iter().flat_map(|coverage| &coverage.missing);
    let missing: Vec<String> = missing.map(|name| one_line(name)).collect();
    if !missing.is_empty() {
        words.push(format!("missing {}", missing.join(", ")));
    }
    format!("receipt: {}", words.join(", "))
}

/// "0", "84 us", "1.9 ms", "2.01 s"
fn time(micros: u64) -> String {
    let ms = micros as f64 / 1000.0;
    match micros {
        0 => "0".to_owned(),
        1..1000 => format!("{micros} us"),
        1000..100_000 => format!("{ms:.1} ms"),
        100_000..1_000_000 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1::Coverage;
    use broadgate_proto::v1::{HopAsked, HopFailed, HopOrdered, HopPlaced, HopTaken};

    use super::*;

    fn hop(gateway: &str, at_us: u64, step: Step) -> Hop {
        Hop { gateway: gateway.to_owned(), at_us, step: Some(step) }
    }

    fn placed(clients: &[u64], slow: u64) -> Step {
        let shards = clients.iter().zip(0..).map(|(&clients, shard)| {
            let drops = (slow > 0 && shard == 0).then(|| ("slow".to_owned(), slow)).into_iter().collect();
            HopShard { shard, clients, drops }
        });
        Step::Placed(HopPlaced { shards: shards.collect() })
    }

    fn failed(trouble: HopTrouble) -> Step {
        Step::Failed(HopFailed { trouble: trouble.into() })
    }

    fn receipt(gateways: u32) -> Receipt {
        let coverage = Some(Coverage { missing: vec!["gw-3".to_owned()], ..Coverage::default() });
        Receipt { clients: 9180, gateways, ordered: true, coverage, ..Receipt::default() }
    }

    fn trace() -> SendTrace {
        let asked = HopAsked { home: "gw-2".to_owned(), link_us: 200 };
        let position = "7.41/90214".to_owned();
        let ordered = HopOrdered { parked_us: 0, position, history_offset: 5012, took_us: 2_009_000 };
        let hops = vec![
            hop("gw-1", 0, Step::Taken(HopTaken { caller: "token:ann".to_owned(), bytes: 2 })),
            hop("gw-1", 40, Step::Asked(asked)),
            hop("gw-2", 0, Step::Ordered(ordered)),
            hop("gw-2", 84, placed(&[201, 190], 0)),
            hop("gw-1", 1900, placed(&[4410, 4379], 1)),
            hop("gw-3", 0, failed(HopTrouble::NoAnswer)),
        ];
        SendTrace { took_us: 2_010_000, hops, ..SendTrace::default() }
    }

    #[test]
    fn a_trace_reads_from_the_caller_to_the_receipt() {
        let wanted = "\
0       gw-1 took it from token:ann, 2 B
40 us   gw-1 home is gw-2: asked (link 200 us there and back)
      0 gw-2 not parked; placed at 7.41/90214, history 5012; all answers after 2.01 s
  84 us gw-2 shards 201 + 190 clients
 1.9 ms gw-1 shards 4410 + 4379 clients, slow 1
        gw-3 NO ANSWER in time
2.01 s  receipt: 9180 clients, ordered, missing gw-3
";
        assert_eq!(lines(&trace(), &receipt(2), false), wanted);
    }

    #[test]
    fn a_dry_run_says_that_nothing_is_placed() {
        let mut dry = trace();
        let Some(Step::Ordered(ordered)) = &mut dry.hops[2].step else { panic!() };
        (ordered.position, ordered.history_offset, ordered.parked_us) = (String::new(), 0, 1_200_000);
        dry.hops[3].step = Some(placed(&[1; 9], 0));
        let text = lines(&dry, &receipt(2), true);
        assert!(text.contains(" gw-2 PARKED for 1.20 s; nothing is placed; all"), "{text}");
        assert!(text.contains(" gw-2 9 shards, 9 clients would get it\n"), "{text}");
        assert!(text.ends_with("receipt: 9180 clients, nothing sent, ordered, missing gw-3\n"), "{text}");
    }

    #[test]
    fn gateways_without_hops_are_said() {
        let mut old = trace();
        old.hops.truncate(2);
        let text = lines(&old, &receipt(2), false);
        assert!(text.contains("2 gateways of an earlier version answered, without a hop"), "{text}");
        assert!(text.contains("gw-2 answered without its hops: an earlier version"), "{text}");
        let text = lines(&old, &Receipt { ordered: false, ..receipt(0) }, false);
        assert!(text.contains("gw-2 NO ANSWER as the home"), "{text}");
        let many = SendTrace { hops_left_out: 3, ..trace() };
        assert!(lines(&many, &receipt(5), false).contains("        3 hops not shown\n"));
        let own_home = HopAsked { home: "gw-1".to_owned(), link_us: 0 };
        assert_eq!(line(&hop("gw-1", 7, Step::Asked(own_home)), false), "7 us    gw-1 is the home\n");
    }

    #[test]
    fn silent_home_stands_where_the_message_stopped() {
        let mut stopped = trace();
        stopped.hops[2] = hop("gw-2", 4_000_000, failed(HopTrouble::HomeSilent));
        stopped.hops.truncate(3);
        let text = lines(&stopped, &Receipt { ordered: false, ..receipt(0) }, false);
        let wanted =
            "4.00 s  gw-2 NO ANSWER as the home: all gateways were asked, out of order\n2.01 s  receipt";
        assert!(text.contains(wanted) && text.matches("NO ANSWER").count() == 1, "{text}");
    }

    #[test]
    fn what_strangers_name_does_nothing_to_a_terminal() {
        let evil = hop("gw\u{1b}[2J", 0, failed(HopTrouble::Outside));
        assert!(!line(&evil, false).contains('\u{1b}'));
    }
}
