//! Merges partial answers into one. Pure.

use std::collections::{BTreeMap, HashSet};

use broadgate_proto::{
    limits::{PAGE_BYTES_MAX, PAGE_MAX},
    v1::{self, answer::Answer},
};

use crate::command::{
    hops::add_hops,
    parsed::ParsedCommand,
    top::{add_worker, cut_top, merge_top, tidy_top},
};

/// Merges another shard's or gateway's answer to the same command.
pub(crate) fn merge(all: &mut Option<Answer>, part: Answer) {
    let Some(so_far) = all else {
        *all = Some(part);
        return;
    };
    match (so_far, part) {
        (Answer::Receipt(all), Answer::Receipt(part)) => {
            all.clients += part.clients;
            all.gateways += part.gateways;
            for (reason, count) in part.drops {
                *all.drops.entry(reason).or_default() += count;
            }
            all.unknown_clients.extend(part.unknown_clients);
            all.ordered |= part.ordered;
            all.repeated |= part.repeated;
            if let Some(trace) = part.trace {
                add_hops(all.trace.get_or_insert_default(), trace);
            }
        }
        (Answer::Online(all), Answer::Online(part)) => {
            for (client, online) in part.clients {
                *all.clients.entry(client).or_default() |= online;
            }
            for (uid, count) in part.uids {
                *all.uids.entry(uid).or_default() += count;
            }
        }
        (Answer::Count(all), Answer::Count(part)) => {
            if let Some(counts) = part.app {
                add_counts(all.app.get_or_insert_default(), &counts);
            }
            for (group, counts) in part.groups {
                add_counts(all.groups.entry(group).or_default(), &counts);
            }
        }
        (Answer::Clients(all), Answer::Clients(part)) => all.clients.extend(part.clients),
        (Answer::Names(all), Answer::Names(part)) => all.names.extend(part.names),
        (Answer::Status(all), Answer::Status(part)) => {
            all.gateways.extend(part.gateways);
            all.workers.extend(part.workers);
        }
        (Answer::Ended(all), Answer::Ended(part)) => merge_ended(all, part),
        (Answer::Sends(all), Answer::Sends(part)) => merge_sends(all, part),
        (Answer::Events(all), Answer::Events(part)) => merge_events(all, part),
        (Answer::Top(all), Answer::Top(part)) => merge_top(all, part),
        // A command to one client is answered by its shard alone; a refusal is final.
        (so_far, part @ Answer::Error(_)) => *so_far = part,
        _ => {}
    }
}

/// The newest of both: so many that a page has enough, whatever was asked for.
fn merge_ended(all: &mut v1::EndedReply, part: v1::EndedReply) {
    all.ended.extend(part.ended);
    all.ended.sort_by_key(|end| std::cmp::Reverse(end.ended_at_ms));
    all.ended.truncate(PAGE_MAX as usize);
    all.refused.extend(part.refused);
    all.refused.sort_by_key(|refused| std::cmp::Reverse(refused.last_at_ms));
    all.refused.truncate(PAGE_MAX as usize);
    all.ended_total += part.ended_total;
    all.refused_total += part.refused_total;
    for memory in part.memories {
        let Some(known) = all.memories.iter_mut().find(|known| known.gateway == memory.gateway) else {
            all.memories.push(memory);
            continue;
        };
        // Of a gateway's shards, that counts which remembers least. Refusals are remembered by one of them.
        known.caused_since_ms = known.caused_since_ms.max(memory.caused_since_ms);
        known.own_since_ms = known.own_since_ms.max(memory.own_since_ms);
        known.refused_since_ms = known.refused_since_ms.max(memory.refused_since_ms);
        known.refused_left_out += memory.refused_left_out;
    }
}

/// The newest sends of both, and their clients: the connected ones first.
fn merge_sends(all: &mut v1::SendsReply, part: v1::SendsReply) {
    all.sends.extend(part.sends);
    all.sends.sort_by_key(|sent| std::cmp::Reverse(sent.at_ms));
    cut_page(&mut all.sends, PAGE_MAX as usize);
    all.clients.extend(part.clients);
    let ended_at = |client: &v1::SentClient| client.ended.as_ref().map_or(u64::MAX, |end| end.ended_at_ms);
    all.clients.sort_by_key(|client| std::cmp::Reverse(ended_at(client)));
    cut_page(&mut all.clients, PAGE_MAX as usize);
    all.sends_total += part.sends_total;
    all.clients_total += part.clients_total;
    for memory in part.memories {
        let Some(known) = all.memories.iter_mut().find(|known| known.gateway == memory.gateway) else {
            all.memories.push(memory);
            continue;
        };
        known.sends_since_ms = known.sends_since_ms.max(memory.sends_since_ms);
        known.joins_since_ms = known.joins_since_ms.max(memory.joins_since_ms);
        known.drops_since_ms = known.drops_since_ms.max(memory.drops_since_ms);
    }
}

/// The newest of both, by time.
fn merge_events(all: &mut v1::EventsReply, part: v1::EventsReply) {
    all.events.extend(part.events);
    all.events.sort_by(|a, b| (a.at_ms, &a.gateway, a.number).cmp(&(b.at_ms, &b.gateway, b.number)));
    keep_newest(&mut all.events, PAGE_MAX as usize);
    all.newest.extend(part.newest);
    all.forgotten_ms.extend(part.forgotten_ms);
}

fn keep_newest(events: &mut Vec<v1::OperatorEvent>, count: usize) {
    events.drain(..events.len().saturating_sub(count));
}

/// The first names in byte order; one more than the limit shows that there is a next page.
pub(crate) fn first_names<'a>(
    names: impl Iterator<Item = (&'a str, u64)>,
    limit: usize,
) -> v1::ListNamesReply {
    let mut first: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, clients) in names {
        if first.len() > limit && first.last_key_value().is_some_and(|(last, _)| name > *last) {
            continue;
        }
        first.insert(name, clients);
        if first.len() > limit + 1 {
            first.pop_last();
        }
    }
    let names =
        first.into_iter().map(|(name, clients)| v1::NamedCount { name: name.to_owned(), clients }).collect();
    v1::ListNamesReply { names, ..v1::ListNamesReply::default() }
}

fn add_counts(all: &mut v1::Counts, part: &v1::Counts) {
    all.clients += part.clients;
    if all.uid_hashes.is_empty() {
        all.uid_hashes = part.uid_hashes.clone();
    } else if !part.uid_hashes.is_empty() {
        all.uid_hashes = [&all.uid_hashes[..], &part.uid_hashes[..]].concat().into();
    }
}

/// Normalizes a merged answer: each name once, each hash once, at most a page's length
/// plus one.
pub(crate) fn tidy(parsed: &ParsedCommand, answer: &mut Answer) {
    match (parsed, answer) {
        (
            ParsedCommand::ListUids { limit, .. } | ParsedCommand::ListGroups { limit, .. },
            Answer::Names(reply),
        ) => {
            let mut sums: BTreeMap<String, u64> = BTreeMap::new();
            for named in std::mem::take(&mut reply.names) {
                *sums.entry(named.name).or_default() += named.clients;
            }
            reply.names =
                first_names(sums.iter().map(|(name, &clients)| (name.as_str(), clients)), *limit).names;
        }
        (ParsedCommand::ListClients { limit, .. }, Answer::Clients(reply)) => {
            reply.clients.truncate(limit + 1)
        }
        (ParsedCommand::Count { .. }, Answer::Count(reply)) => {
            for counts in reply.app.iter_mut().chain(reply.groups.values_mut()) {
                let distinct: HashSet<&[u8]> = counts.uid_hashes.chunks(16).collect();
                counts.uids = distinct.len() as u64;
                counts.uid_hashes = distinct.into_iter().collect::<Vec<_>>().concat().into();
            }
        }
        (ParsedCommand::Status { .. }, Answer::Status(reply)) => {
            let mut workers: BTreeMap<String, v1::WorkerStatus> = BTreeMap::new();
            for part in std::mem::take(&mut reply.workers) {
                match workers.entry(part.incarnation.clone()) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(part);
                    }
                    std::collections::btree_map::Entry::Occupied(mut entry) => {
                        let all = entry.get_mut();
                        add_worker(all, &part);
                        all.gateways += part.gateways;
                    }
                }
            }
            reply.workers = workers.into_values().collect();
            reply
                .gateways
                .sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.incarnation.cmp(&b.incarnation)));
        }
        (ParsedCommand::Top(question), Answer::Top(reply)) => tidy_top(reply, question.sort),
        _ => {}
    }
}

/// Cuts rows to a page and to the size of one message, but keeps at least one. True if rows are left
/// for the next page.
pub(crate) fn cut_page<R: prost::Message>(rows: &mut Vec<R>, limit: usize) -> bool {
    let mut bytes = 0;
    let fits = rows.iter().take(limit).take_while(|row| {
        bytes += row.encoded_len();
        bytes <= PAGE_BYTES_MAX
    });
    let fits = fits.count().max(1);
    let more = rows.len() > fits;
    rows.truncate(fits);
    more
}

/// Finishes the caller's answer: cuts it to the page, drops fields meant for gateways, adds the coverage.
pub(crate) fn finish(parsed: &ParsedCommand, answer: &mut Answer, coverage: v1::Coverage) {
    match answer {
        Answer::Receipt(receipt) => receipt.coverage = Some(coverage),
        Answer::Session(reply) => reply.coverage = Some(coverage),
        Answer::Online(reply) => reply.coverage = Some(coverage),
        Answer::Client(reply) => reply.coverage = Some(coverage),
        Answer::Count(reply) => {
            for counts in reply.app.iter_mut().chain(reply.groups.values_mut()) {
                counts.uid_hashes = bytes::Bytes::new();
            }
            reply.coverage = Some(coverage);
        }
        Answer::Clients(reply) => {
            if let ParsedCommand::ListClients { limit, .. } = parsed
                && cut_page(&mut reply.clients, *limit)
            {
                reply.next_cursor =
                    reply.clients.last().map(|last| last.client_id.clone()).unwrap_or_default();
            }
            reply.coverage = Some(coverage);
        }
        Answer::Names(reply) => {
            if let ParsedCommand::ListUids { limit, .. } | ParsedCommand::ListGroups { limit, .. } = parsed
                && reply.names.len() > *limit
            {
                reply.names.truncate(*limit);
                reply.next_cursor = reply.names.last().map(|last| last.name.clone()).unwrap_or_default();
            }
            reply.coverage = Some(coverage);
        }
        Answer::Status(reply) => reply.coverage = Some(coverage),
        Answer::Ended(reply) => {
            if let ParsedCommand::Ended(question) = parsed {
                cut_page(&mut reply.ended, question.limit);
                cut_page(&mut reply.refused, question.limit);
            }
            reply.memories.sort_by(|a, b| a.gateway.cmp(&b.gateway));
            reply.coverage = Some(coverage);
        }
        Answer::Sends(reply) => {
            if let ParsedCommand::Sends(question) = parsed {
                cut_page(&mut reply.sends, question.limit);
                cut_page(&mut reply.clients, question.limit);
            }
            reply.memories.sort_by(|a, b| a.gateway.cmp(&b.gateway));
            reply.coverage = Some(coverage);
        }
        Answer::Events(reply) => {
            if let ParsedCommand::Events(question) = parsed {
                keep_newest(&mut reply.events, question.limit);
            }
            reply.coverage = Some(coverage);
        }
        Answer::Top(reply) => {
            if let ParsedCommand::Top(question) = parsed {
                cut_top(reply, question.sort, question.limit);
            }
            reply.coverage = Some(coverage);
        }
        Answer::History(reply) => reply.coverage = Some(coverage),
        Answer::LastValue(reply) => reply.coverage = Some(coverage),
        Answer::Inspected(reply) => reply.coverage = Some(coverage),
        Answer::Roster(reply) => {
            if let ParsedCommand::Roster { limit, .. } = parsed
                && cut_page(&mut reply.members, *limit)
            {
                reply.next_cursor = reply.members.last().map(|last| last.user_id.clone()).unwrap_or_default();
            }
            reply.coverage = Some(coverage);
        }
        Answer::Error(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn page_of_large_rows_ends_before_its_message_is_too_large() {
        let row = |number: usize| v1::PresenceMember { user_id: format!("{number}"), info: "i".repeat(4096) };
        let mut rows: Vec<_> = (0..1000).map(row).collect();
        assert!(cut_page(&mut rows, 1000));
        let bytes: usize = rows.iter().map(prost::Message::encoded_len).sum();
        assert!(bytes <= PAGE_BYTES_MAX && bytes > PAGE_BYTES_MAX - 5000);
        let mut huge = vec![v1::PresenceMember { info: "i".repeat(PAGE_BYTES_MAX), ..row(1) }; 2];
        assert!(cut_page(&mut huge, 1000) && huge.len() == 1, "a page that is empty would be the last");
        let mut few: Vec<_> = (0..3).map(row).collect();
        assert!(!cut_page(&mut few, 3) && cut_page(&mut few, 2) && few.len() == 2);
    }

    fn names(limit: usize, after: &str) -> ParsedCommand {
        ParsedCommand::ListGroups { app: "default".into(), prefix: "".into(), limit, after: after.into() }
    }

    proptest! {
        /// However the groups are spread over gateways, the pages name each once, in order, with the
        /// sum of its members.
        #[test]
        fn pages_of_names_are_whole(
            gateways in prop::collection::vec(prop::collection::btree_map("[a-c]{1,3}", 1..9u64, 0..12), 1..4),
            limit in 1..6usize,
        ) {
            let mut expected: BTreeMap<String, u64> = BTreeMap::new();
            for (name, count) in gateways.iter().flatten() {
                *expected.entry(name.clone()).or_default() += count;
            }
            let mut got = Vec::new();
            let mut after = String::new();
            loop {
                let parsed = names(limit, &after);
                let mut all = None;
                for groups in &gateways {
                    let later = groups.iter().filter(|(name, _)| **name > after);
                    merge(&mut all, Answer::Names(first_names(later.map(|(name, &c)| (name.as_str(), c)), limit)));
                }
                let mut answer = all.unwrap();
                tidy(&parsed, &mut answer);
                finish(&parsed, &mut answer, v1::Coverage::default());
                let Answer::Names(page) = answer else { unreachable!() };
                prop_assert!(page.names.len() <= limit);
                got.extend(page.names.into_iter().map(|named| (named.name, named.clients)));
                after = page.next_cursor;
                if after.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn distinct_uids_are_counted_once() {
        let part = |uids: &[u8]| {
            let uid_hashes: Vec<u8> = uids.iter().flat_map(|&uid| [uid; 16]).collect();
            let app = v1::Counts { clients: uids.len() as u64, uids: 0, uid_hashes: uid_hashes.into() };
            Answer::Count(v1::CountReply { app: Some(app), ..v1::CountReply::default() })
        };
        let parsed = ParsedCommand::Count { app: "default".into(), groups: Vec::new(), uids: true };
        let mut all = None;
        merge(&mut all, part(&[1, 2]));
        merge(&mut all, part(&[2, 3]));
        let mut answer = all.unwrap();
        tidy(&parsed, &mut answer);
        let Answer::Count(reply) = &answer else { unreachable!() };
        assert_eq!(reply.app.as_ref().map(|counts| (counts.clients, counts.uids)), Some((4, 3)));
    }
}
