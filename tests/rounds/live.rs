//! Who is connected now, and who has joined: what clients and their joiner tell each other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use crate::{ground::Place, record::Joined};

#[derive(Default)]
pub struct Live(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u32,
    connections: HashMap<u32, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    client: u16,
    place: Place,
    /// The client's own address, as the gateway lists it.
    local: String,
    joining: bool,
    id: String,
    joined: Option<Joined>,
    stalled: bool,
}

/// A connection that waits to be joined to its groups.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub number: u32,
    pub client: u16,
    pub local: String,
}

impl Live {
    pub fn opened(&self, client: u16, place: &Place, local: String) -> u32 {
        let mut table = self.0.lock().unwrap();
        table.next += 1;
        let number = table.next;
        let place = place.clone();
        let (id, joined) = (String::new(), None);
        let entry = Entry { client, place, local, joining: false, id, joined, stalled: false };
        table.connections.insert(number, entry);
        number
    }

    pub fn ended(&self, number: u32) -> Option<Joined> {
        self.0.lock().unwrap().connections.remove(&number)?.joined
    }

    pub fn stalled(&self, number: u32) {
        self.with(number, |entry| entry.stalled = true);
    }

    pub fn found(&self, number: u32, id: &str) {
        self.with(number, |entry| id.clone_into(&mut entry.id));
    }

    pub fn joined(&self, number: u32, joined: Joined) {
        self.with(number, |entry| entry.joined = Some(joined));
    }

    /// It is looked for another time.
    pub fn not_found(&self, number: u32) {
        self.with(number, |entry| entry.joining = false);
    }

    pub fn is_there(&self, number: u32) -> bool {
        self.0.lock().unwrap().connections.contains_key(&number)
    }

    fn with(&self, number: u32, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.0.lock().unwrap().connections.get_mut(&number) {
            change(entry);
        }
    }

    /// Takes on those whom nobody has taken on, by the process that they are connected to.
    pub fn take_waiting(&self) -> BTreeMap<u32, (Place, Vec<Waiting>)> {
        let mut by_process = BTreeMap::new();
        for (number, entry) in &mut self.0.lock().unwrap().connections {
            if !std::mem::replace(&mut entry.joining, true) {
                let (_, waiting) =
                    by_process.entry(entry.place.pid).or_insert_with(|| (entry.place.clone(), Vec::new()));
                let local = entry.local.clone();
                waiting.push(Waiting { number: *number, client: entry.client, local });
            }
        }
        by_process
    }

    /// The id of the client that has stalled, once it is known.
    pub fn stalled_id(&self) -> Option<String> {
        let table = self.0.lock().unwrap();
        table
            .connections
            .values()
            .find(|entry| entry.stalled && !entry.id.is_empty())
            .map(|entry| entry.id.clone())
    }

    /// Reading clients: how many there are, and who of them has joined.
    pub fn reading(&self) -> (usize, Vec<u16>) {
        let table = self.0.lock().unwrap();
        let reading = || table.connections.values().filter(|entry| !entry.stalled);
        let joined = reading().filter(|entry| entry.joined.is_some()).map(|entry| entry.client);
        (reading().count(), joined.collect())
    }
}
