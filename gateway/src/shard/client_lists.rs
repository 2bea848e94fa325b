//! Questions for which every client of something has to be looked at. They are answered in slices, between
//! which the shard does everything else: nobody waits longer than a slice takes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use broadgate_proto::v1::{self, ClientField, ClientState, answer::Answer};
use ipnet::IpNet;
use tokio::{sync::oneshot, task::yield_now};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    command::{ClientFilter, ParsedCommand},
    shard::{
        outcome::{PartialAnswer, ShardOutcome},
        slots::Slot,
        state::{Shard, ShardHandle},
    },
};

/// Clients that are looked at in one slice: some 200 µs.
const LOOKS_PER_SLICE: usize = 2048;
/// Rows that are written in one slice: each may name a thousand groups.
const ROWS_PER_SLICE: usize = 32;

/// What was found so far.
enum ListedClients<'a> {
    /// The first clients by their slots.
    Clients {
        of: &'a ClientFilter,
        address: Option<IpNet>,
        from: Slot,
        limit: usize,
        except: HashSet<Slot>,
        slots: BTreeSet<Slot>,
    },
    /// The first uids by name, of clients of these groups.
    Uids {
        app: &'a str,
        groups: &'a [Box<str>],
        limit: usize,
        after: &'a str,
        counts: BTreeMap<Box<str>, u64>,
    },
    /// The different uids of each list, as hashes.
    Hashes { app: &'a str, groups: &'a [Box<str>], hashes: Vec<HashSet<u128>> },
}

impl Shard {
    /// Whom a question is about: one list for each name.
    pub(super) fn lists(&self, order: &ParsedCommand, app: &str) -> Vec<Vec<Slot>> {
        let directory = &self.directory;
        match order {
            ParsedCommand::ListClients { of, state: Some(state), .. } => {
                let set = match state {
                    ClientState::Unspecified => return Vec::new(),
                    ClientState::Slow => &self.outboxes.backlogged,
                    ClientState::Held => &self.unsent.unassigned,
                    ClientState::Paused => &self.reads.paused,
                };
                vec![set.iter().copied().filter(|&slot| self.is_named(of, slot)).collect()]
            }
            ParsedCommand::ListClients { of, .. } => {
                let mut lists = vec![of.clients.iter().filter_map(|&id| self.find_in(id, app)).collect()];
                lists.extend(of.uids.iter().map(|uid| directory.uid_members(app, uid).to_vec()));
                lists.extend(of.groups.iter().map(|group| directory.group_members(app, group).to_vec()));
                lists.extend(of.all.then(|| directory.all_of(app).to_vec()));
                lists
            }
            ParsedCommand::ListUids { groups, .. } => {
                groups.iter().map(|group| directory.group_members(app, group).to_vec()).collect()
            }
            ParsedCommand::Count { groups, .. } => {
                let mut lists = vec![directory.all_of(app).to_vec()];
                lists.extend(groups.iter().map(|group| directory.group_members(app, group).to_vec()));
                lists
            }
            _ => Vec::new(),
        }
    }

    /// Does an audience name this client, whatever it excepts?
    fn is_named(&self, of: &ClientFilter, slot: Slot) -> bool {
        let directory = &self.directory;
        of.all
            || of.clients.iter().any(|&id| self.clients.find(id) == Some(slot))
            || directory.uid(slot).is_some_and(|uid| of.uids.iter().any(|named| **named == **uid))
            || of.groups.iter().any(|group| directory.is_member(slot, group))
    }

    /// Answers at once where there is little to look at; else [`finish`] has to.
    pub(super) fn look_now(&self, order: &ParsedCommand, lists: Vec<Vec<Slot>>) -> PartialAnswer {
        let looks: usize = lists.iter().map(Vec::len).sum();
        let few_rows = !matches!(order, ParsedCommand::ListClients { .. }) || looks <= ROWS_PER_SLICE;
        if looks > LOOKS_PER_SLICE || !few_rows {
            return PartialAnswer::Walk(lists);
        }
        let Some(mut found) = ListedClients::new(self, order, lists.len()) else {
            return PartialAnswer::Elsewhere;
        };
        for (index, list) in lists.iter().enumerate() {
            list.iter().for_each(|&slot| found.look(self, index, slot));
        }
        let rows = found.rows().into_iter().filter_map(|slot| found.row(self, order, slot)).collect();
        PartialAnswer::Answer(found.answer(&lists, rows))
    }
}

/// Answers what was not answered at once, and then all.
pub(super) async fn finish(
    shard: ShardHandle,
    orders: Vec<Arc<ParsedCommand>>,
    mut done: Vec<ShardOutcome>,
    reply: oneshot::Sender<Vec<ShardOutcome>>,
) {
    for (order, done) in orders.iter().zip(&mut done) {
        if let PartialAnswer::Walk(lists) = &mut done.part {
            let lists = std::mem::take(lists);
            done.part = walk(&shard, order.inner(), lists).await;
        }
    }
    // The caller may have given up.
    let _ = reply.send(done);
}

async fn walk(shard: &ShardHandle, order: &ParsedCommand, lists: Vec<Vec<Slot>>) -> PartialAnswer {
    let Some(mut found) = ListedClients::new(&shard.borrow(), order, lists.len()) else {
        return PartialAnswer::Elsewhere;
    };
    let mut looks = 0;
    for (index, list) in lists.iter().enumerate() {
        for some in list.chunks(LOOKS_PER_SLICE) {
            if looks + some.len() > LOOKS_PER_SLICE {
                looks = 0;
                yield_now().await;
            }
            looks += some.len();
            let shard = shard.borrow();
            some.iter().for_each(|&slot| found.look(&shard, index, slot));
        }
    }
    let mut rows = Vec::new();
    for some in found.rows().chunks(ROWS_PER_SLICE) {
        yield_now().await;
        let shard = shard.borrow();
        rows.extend(some.iter().filter_map(|&slot| found.row(&shard, order, slot)));
    }
    PartialAnswer::Answer(found.answer(&lists, rows))
}

impl<'a> ListedClients<'a> {
    fn new(shard: &Shard, order: &'a ParsedCommand, lists: usize) -> Option<Self> {
        Some(match order {
            ParsedCommand::ListClients { of, address, limit, after, .. } => {
                let from = match after {
                    Some((index, _)) if *index > shard.clients.shard => Slot::MAX,
                    Some((index, slot)) if *index == shard.clients.shard => slot + 1,
                    _ => 0,
                };
                let except = of.except_clients.iter().filter_map(|&id| shard.clients.find(id)).collect();
                Self::Clients { of, address: *address, from, limit: *limit, except, slots: BTreeSet::new() }
            }
            ParsedCommand::ListUids { app, groups, limit, after } => {
                Self::Uids { app, groups, limit: *limit, after, counts: BTreeMap::new() }
            }
            ParsedCommand::Count { app, groups, .. } => {
                Self::Hashes { app, groups, hashes: vec![HashSet::new(); lists] }
            }
            _ => return None,
        })
    }

    /// Looks at a client of one of the lists, which may have gone since the list was made.
    fn look(&mut self, shard: &Shard, list: usize, slot: Slot) {
        let directory = &shard.directory;
        match self {
            Self::Clients { of, address, from, limit, except, slots } => {
                let is_late = slots.len() > *limit && slots.last().is_some_and(|last| slot > *last);
                if slot < *from
                    || is_late
                    || !is_meant(shard, of, except, slot)
                    || !is_from(shard, *address, slot)
                {
                    return;
                }
                slots.insert(slot);
                // One more than asked for tells the gateway that there is a next page.
                if slots.len() > *limit + 1 {
                    slots.pop_last();
                }
            }
            Self::Uids { app, groups, limit, after, counts } => {
                // Who is in several groups is counted in the first of them.
                let is_counted = groups[..list].iter().any(|group| directory.is_member(slot, group));
                if is_counted || !directory.is_in_app(slot, app) {
                    return;
                }
                let Some(uid) = directory.uid(slot).filter(|uid| ***uid > **after) else { return };
                if let Some(count) = counts.get_mut(&**uid) {
                    *count += 1;
                } else if counts.len() <= *limit
                    || counts.last_key_value().is_some_and(|(last, _)| **uid < **last)
                {
                    counts.insert((&**uid).into(), 1);
                    if counts.len() > *limit + 1 {
                        counts.pop_last();
                    }
                }
            }
            Self::Hashes { app, hashes, .. } => {
                if directory.is_in_app(slot, app)
                    && let Some(uid) = directory.uid(slot)
                {
                    hashes[list].insert(xxh3_128(uid.as_bytes()));
                }
            }
        }
    }

    /// Clients of which a row is to be written.
    fn rows(&self) -> Vec<Slot> {
        match self {
            Self::Clients { slots, .. } => slots.iter().copied().collect(),
            _ => Vec::new(),
        }
    }

    fn row(&self, shard: &Shard, order: &ParsedCommand, slot: Slot) -> Option<v1::ClientInfo> {
        let (Self::Clients { of, address, except, .. }, ParsedCommand::ListClients { fields, .. }) =
            (self, order)
        else {
            return None;
        };
        let fields: &[ClientField] = fields;
        (is_meant(shard, of, except, slot) && is_from(shard, *address, slot))
            .then(|| shard.info(slot, fields))
    }

    fn answer(self, lists: &[Vec<Slot>], rows: Vec<v1::ClientInfo>) -> Answer {
        match self {
            Self::Clients { .. } => {
                Answer::Clients(v1::ListClientsReply { clients: rows, ..v1::ListClientsReply::default() })
            }
            Self::Uids { counts, .. } => {
                let named =
                    counts.into_iter().map(|(name, clients)| v1::NamedCount { name: name.into(), clients });
                Answer::Names(v1::ListNamesReply { names: named.collect(), ..v1::ListNamesReply::default() })
            }
            Self::Hashes { groups, hashes, .. } => {
                let mut counts = lists.iter().zip(hashes).map(|(list, hashes)| v1::Counts {
                    clients: list.len() as u64,
                    uids: 0,
                    uid_hashes: hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect::<Vec<_>>().into(),
                });
                let app = counts.next();
                let groups = groups.iter().map(ToString::to_string).zip(counts).collect();
                Answer::Count(v1::CountReply { coverage: None, app, groups })
            }
        }
    }
}

/// Has it connected from there?
fn is_from(shard: &Shard, address: Option<IpNet>, slot: Slot) -> bool {
    let Some(net) = address else { return true };
    shard.clients.get(slot).is_some_and(|client| net.contains(&client.address.ip().to_canonical()))
}

/// Is it still there, of this app, and not excepted? That it was in one of the lists is known.
fn is_meant(shard: &Shard, of: &ClientFilter, except: &HashSet<Slot>, slot: Slot) -> bool {
    let directory = &shard.directory;
    directory.is_in_app(slot, &of.app)
        && !except.contains(&slot)
        && !of.except_groups.iter().any(|group| directory.is_member(slot, group))
        && !directory.uid(slot).is_some_and(|uid| of.except_uids.iter().any(|except| **except == **uid))
}
