//! Finds the ids of clients that have come, a batch at a time, and joins them to their groups.

use std::{collections::HashMap, sync::Arc, time::Duration};

use broadgate_proto::{id::Incarnation, v1};
use futures_util::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};

use crate::{
    ground::{Ground, Place},
    harness::{self, Caller},
    live::{Live, Waiting},
    record::Joined,
    seed::Seed,
};

/// A gateway that cannot reach a peer answers after the link timeout, 2 s.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Joins of one batch that are unanswered at a time.
const JOINS_MAX: usize = 16;
/// Characters of a client id that name its gateway's incarnation.
const INCARNATION_CHARS: usize = 10;

pub struct Joiner {
    pub ground: Arc<Ground>,
    pub live: Arc<Live>,
    /// By client.
    pub groups: Arc<Vec<Vec<String>>>,
}

impl Joiner {
    pub async fn run(self: Arc<Self>) {
        while !self.ground.over.is_cancelled() {
            for (place, waiting) in self.live.take_waiting().into_values() {
                tokio::spawn(Arc::clone(&self).serve(place, waiting));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn serve(self: Arc<Self>, place: Place, waiting: Vec<Waiting>) {
        let ids =
            timeout(ANSWER_TIME_MAX, list(&self.ground, &place)).await.ok().flatten().unwrap_or_default();
        stream::iter(waiting)
            .for_each_concurrent(JOINS_MAX, |waiting| {
                let (joiner, id) = (Arc::clone(&self), ids.get(&waiting.local).cloned());
                async move {
                    match id {
                        Some(id) => joiner.join(waiting, &id).await,
                        None => joiner.live.not_found(waiting.number),
                    }
                }
            })
            .await;
    }

    /// Until it is completely answered or the connection is gone. A client is a member from then on.
    async fn join(&self, waiting: Waiting, id: &str) {
        self.live.found(waiting.number, id);
        let mut seed = Seed::of(self.ground.seed, 2_000_000 + u64::from(waiting.number));
        let request = v1::JoinGroupsRequest {
            command_id: format!("join-{}", waiting.number),
            clients: vec![id.to_owned()],
            groups: self.groups[usize::from(waiting.client)].clone(),
            member: Some(v1::PresenceMember { user_id: user(waiting.client), info: String::new() }),
            ..Default::default()
        };
        while self.live.is_there(waiting.number) && !self.ground.over.is_cancelled() {
            let gateway = self.ground.up_from(seed.below(self.ground.gateways().len()));
            let place = gateway.and_then(|gateway| self.ground.place(gateway));
            let asked = async { self.ask(&place?, request.clone()).await };
            if let Ok(Some(receipt)) = timeout(ANSWER_TIME_MAX, asked).await {
                let coverage = receipt.coverage.unwrap_or_default();
                let epoch = self.ground.see(Some(&coverage));
                if coverage.complete && receipt.clients == 1 && receipt.drops.is_empty() {
                    let incarnation = id[..INCARNATION_CHARS].to_owned();
                    debug_assert!(incarnation.parse::<Incarnation>().is_ok());
                    self.live.joined(waiting.number, Joined { at: self.ground.now(), epoch, incarnation });
                    return;
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ask(&self, place: &Place, request: v1::JoinGroupsRequest) -> Option<v1::Receipt> {
        let mut caller = Caller::connect(format!("http://{}", place.internal)).await.ok()?;
        Some(caller.join(self.ground.request(request)).await.ok()?.into_inner())
    }
}

/// In whose name a client is in the rosters of its groups, over all its connections.
pub fn user(client: u16) -> String {
    format!("user-{client}")
}

/// The ids of a gateway's clients, by address.
async fn list(ground: &Ground, place: &Place) -> Option<HashMap<String, String>> {
    let mut caller = Caller::connect(format!("http://{}", place.internal)).await.ok()?;
    let mut ids = HashMap::new();
    let mut cursor = String::new();
    loop {
        let fields = vec![v1::ClientField::Connection.into()];
        let of = Some(harness::all());
        let list = v1::ListClientsRequest { of, fields, limit: 1000, cursor, ..Default::default() };
        let page = caller.list_clients(ground.request(list)).await.ok()?.into_inner();
        let here = page.clients.into_iter().filter(|client| client.gateway == place.name);
        ids.extend(here.map(|client| (client.address, client.client_id)));
        if page.next_cursor.is_empty() {
            return Some(ids);
        }
        cursor = page.next_cursor;
    }
}
