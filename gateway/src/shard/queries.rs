//! Questions about the clients of one shard.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
};

use broadgate_proto::{
    id::Incarnation,
    v1::{self, ClientField, answer::Answer},
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{
    directory::Slot,
    execute::{Outcome, Part},
    state::Shard,
};
use crate::orders::{Audience, Order};

/// What a shard says of itself. Names are hashed: the gateway counts distinct ones over its shards.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) clients: u64,
    pub(crate) groups: HashSet<u64>,
    pub(crate) uids: HashSet<u64>,
    pub(crate) messages_in_per_s: u64,
    pub(crate) messages_out_per_s: u64,
    pub(crate) workers: BTreeMap<Incarnation, v1::WorkerStatus>,
}

impl Shard {
    pub(crate) fn query(&mut self, order: &Order) -> Part {
        Part::Answer(match order {
            Order::Online { app, clients, uids } => {
                let clients = clients
                    .iter()
                    .filter(|client| self.is_mine(client))
                    .map(|&client| (client.to_string(), self.find_in(client, app).is_some()))
                    .collect();
                let uids = uids
                    .iter()
                    .map(|uid| (uid.to_string(), self.directory.uid_members(app, uid).len() as u64))
                    .collect();
                Answer::Online(v1::OnlineReply { coverage: None, clients, uids })
            }
            Order::Count { app, groups, uids } => Answer::Count(self.count(app, groups, *uids)),
            Order::GetClient { app, client } => {
                let Some(slot) = self.find_in(*client, app) else {
                    return super::execute::error(crate::orders::not_found(*client));
                };
                let every = [
                    ClientField::Uid,
                    ClientField::Groups,
                    ClientField::Session,
                    ClientField::Connection,
                    ClientField::Traffic,
                ];
                Answer::Client(v1::ClientReply { coverage: None, client: Some(self.info(slot, &every)) })
            }
            Order::ListClients { of, fields, limit, after } => {
                Answer::Clients(self.list_clients(of, fields, *limit, *after))
            }
            Order::ListUids { app, groups, limit, after } => {
                Answer::Names(self.list_uids(app, groups, *limit, after))
            }
            Order::ListGroups { app, prefix, limit, after } => {
                let names = self
                    .directory
                    .groups_of(app)
                    .filter(|(name, _)| ***name > **after && name.starts_with(&**prefix))
                    .map(|(name, count)| (&**name, count as u64));
                Answer::Names(first_names(names, *limit))
            }
            Order::Status => return Part::Stats(self.stats()),
            // Everything that changes something was handled before.
            _ => return Part::Elsewhere,
        })
    }

    fn count(&self, app: &str, groups: &[Box<str>], uids: bool) -> v1::CountReply {
        let counts = |slots: &[Slot]| v1::Counts {
            clients: slots.len() as u64,
            uids: 0,
            uid_hashes: if uids { self.uid_hashes(slots) } else { Vec::new() }.into(),
        };
        v1::CountReply {
            coverage: None,
            app: Some(counts(self.directory.all_of(app))),
            groups: groups
                .iter()
                .map(|group| (group.to_string(), counts(self.directory.group_members(app, group))))
                .collect(),
        }
    }

    fn uid_hashes(&self, slots: &[Slot]) -> Vec<u8> {
        let distinct: HashSet<&Rc<str>> = slots.iter().filter_map(|&slot| self.directory.uid(slot)).collect();
        distinct.into_iter().flat_map(|uid| xxh3_128(uid.as_bytes()).to_be_bytes()).collect()
    }

    fn list_clients(
        &mut self,
        of: &Audience,
        fields: &[ClientField],
        limit: usize,
        after: Option<(u8, u32)>,
    ) -> v1::ListClientsReply {
        let from = match after {
            Some((shard, _)) if shard > self.index => return v1::ListClientsReply::default(),
            Some((shard, slot)) if shard == self.index => slot + 1,
            _ => 0,
        };
        let mut slots = self.select(of, &mut Outcome::default());
        slots.retain(|&slot| slot >= from);
        slots.sort_unstable();
        // One more than asked for tells the gateway that there is a next page.
        slots.truncate(limit + 1);
        let clients = slots.iter().map(|&slot| self.info(slot, fields)).collect();
        self.selected = slots;
        v1::ListClientsReply { clients, ..v1::ListClientsReply::default() }
    }

    fn list_uids(&self, app: &str, groups: &[Box<str>], limit: usize, after: &str) -> v1::ListNamesReply {
        if groups.is_empty() {
            let names = self.directory.uids_of(app).filter(|(name, _)| ***name > *after);
            return first_names(names.map(|(name, count)| (&**name, count as u64)), limit);
        }
        let mut members: Vec<Slot> =
            groups.iter().flat_map(|group| self.directory.group_members(app, group)).copied().collect();
        members.sort_unstable();
        members.dedup();
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for uid in members.iter().filter_map(|&slot| self.directory.uid(slot)).filter(|uid| ***uid > *after) {
            *counts.entry(uid).or_default() += 1;
        }
        first_names(counts.into_iter(), limit)
    }

    fn info(&self, slot: Slot, fields: &[ClientField]) -> v1::ClientInfo {
        let Some(client) = self.clients.get(slot) else { return v1::ClientInfo::default() };
        let mut info = v1::ClientInfo {
            client_id: self.id(slot, client.key).to_string(),
            app: client.app.to_string(),
            ..v1::ClientInfo::default()
        };
        for field in fields {
            match field {
                ClientField::Unspecified => {}
                ClientField::Uid => {
                    info.uid = self.directory.uid(slot).map(ToString::to_string).unwrap_or_default();
                }
                ClientField::Groups => {
                    info.groups = self.directory.groups(slot).map(ToString::to_string).collect();
                    info.groups.sort_unstable();
                }
                ClientField::Session => info.session = Some(client.session().unwrap_or_default()),
                ClientField::Connection => {
                    info.gateway = self.name.to_string();
                    info.listener.clone_from(&client.listener.name);
                    info.protocol = client.protocol.name().to_owned();
                    info.address = client.address.to_string();
                    info.opened_at_ms = client.opened_at_ms;
                }
                ClientField::Traffic => {
                    info.messages_in = client.received.messages;
                    info.messages_out = client.sent.messages;
                    info.bytes_in = client.received.bytes;
                    info.bytes_out = client.sent.bytes;
                    info.outbox_bytes = client.outbox.bytes() as u64;
                    info.outbox_messages = client.outbox.frames() as u64;
                    let worker = client.worker.and_then(|key| self.workers.get(key));
                    info.worker = worker.map(|link| link.name.to_string()).unwrap_or_default();
                    info.events_unanswered = u32::try_from(client.events.len()).unwrap_or(u32::MAX);
                }
            }
        }
        info
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats {
            clients: self.clients.iter().filter(|(_, client)| client.is_open()).count() as u64,
            messages_in_per_s: self.tally.last_second.0,
            messages_out_per_s: self.tally.last_second.1,
            ..Stats::default()
        };
        for app in self.directory.apps() {
            let name = |name: &str| xxh3_64(format!("{app}\0{name}").as_bytes());
            stats.groups.extend(self.directory.groups_of(app).map(|(group, _)| name(group)));
            stats.uids.extend(self.directory.uids_of(app).map(|(uid, _)| name(uid)));
        }
        for (_, link) in self.workers.iter() {
            let status = stats.workers.entry(link.incarnation).or_insert_with(|| v1::WorkerStatus {
                incarnation: link.incarnation.to_string(),
                name: link.name.to_string(),
                services: link.services.iter().map(ToString::to_string).collect(),
                gateways: 1,
                ..v1::WorkerStatus::default()
            });
            status.clients += link.clients as u64;
            status.events_unanswered += link.unanswered.len() as u64;
        }
        stats
    }
}

/// The first names in byte order; one more than asked for tells that there is a next page.
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
