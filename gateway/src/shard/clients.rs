//! The clients of one shard, and their ids.

use broadgate_proto::id::{ClientId, Incarnation};

use crate::shard::{
    client::{Client, ClientStage},
    pusher::client::PusherClient,
    slots::{Slot, Slots},
};

pub(crate) struct ShardClients {
    slots: Slots<Client>,
    /// The number of the shard, and the gateway's incarnation: parts of each client's id.
    pub(crate) shard: u8,
    pub(crate) incarnation: Incarnation,
}

impl ShardClients {
    pub(crate) fn new(shard: u8, incarnation: Incarnation) -> Self {
        Self { slots: Slots::default(), shard, incarnation }
    }

    /// None if every place is taken.
    pub(crate) fn insert(&mut self, client: Client) -> Option<Slot> {
        self.slots.insert(client, ClientId::SLOTS_MAX)
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        self.slots.remove(slot);
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Client> {
        self.slots.get(slot)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.slots.get_mut(slot)
    }

    pub(crate) fn pusher(&mut self, slot: Slot) -> Option<&mut PusherClient> {
        self.slots.get_mut(slot)?.pusher.as_deref_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every client's place is below this one.
    pub(crate) fn places(&self) -> Slot {
        self.slots.places()
    }

    /// Every taken place, in order.
    pub(crate) fn taken(&self) -> Vec<Slot> {
        self.slots.taken()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Client)> {
        self.slots.iter()
    }

    pub(crate) fn id_of(&self, slot: Slot) -> ClientId {
        let key = self.slots.get(slot).map_or(0, |client| client.key);
        ClientId { incarnation: self.incarnation, shard: self.shard, slot, key }
    }

    pub(crate) fn is_mine(&self, id: &ClientId) -> bool {
        id.incarnation == self.incarnation && id.shard == self.shard
    }

    /// The slot of an open client of this shard.
    pub(crate) fn find(&self, id: ClientId) -> Option<Slot> {
        let client = self.slots.get(id.slot).filter(|_| self.is_mine(&id))?;
        (client.key == id.key && client.is_open()).then_some(id.slot)
    }

    /// A client of this shard and app, also one that is going: until its worker has answered what it did,
    /// the worker may still change its session.
    pub(crate) fn find_also_going(&self, id: ClientId, app: &str) -> Option<Slot> {
        let client = self.slots.get(id.slot).filter(|client| self.is_mine(&id) && client.key == id.key)?;
        (&*client.app == app && !matches!(client.stage, ClientStage::Handshake(_))).then_some(id.slot)
    }

    /// Is anything still to be answered by workers or peers? Events that wait for any worker will not be: the
    /// gateway is stopping.
    pub(crate) fn has_unanswered(&self) -> bool {
        self.iter().any(|(_, client)| {
            !client.events.is_empty() && client.worker.is_some()
                || matches!(client.stage, ClientStage::Closing(_))
        })
    }
}
