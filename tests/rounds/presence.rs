//! In the end, with every fault mended: what the gateways count is who is really there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broadgate_proto::v1;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    ground::{Ground, Place},
    harness::Caller,
    live::Live,
    wires::group_name,
};

/// One lease and two link timeouts after a crash counts are right (DESIGN section 5); the last crash is
/// longer ago than that when this begins.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(15);

pub struct Presence {
    pub ground: Arc<Ground>,
    pub live: Arc<Live>,
    /// By client.
    pub groups_of: Vec<Vec<u16>>,
    pub groups: usize,
    /// Clients that are meant to be there.
    pub expected: usize,
}

impl Presence {
    /// Waits until all clients are back and joined, then until all counts agree; says what differs in
    /// the end.
    pub async fn errors(&self) -> Vec<String> {
        let began = Instant::now();
        while self.live.reading().1.len() < self.expected && began.elapsed() < SETTLE_TIME_MAX {
            sleep(Duration::from_millis(100)).await;
        }
        let (connected, joined) = self.live.reading();
        let counted = Instant::now();
        println!(
            "{connected} clients are connected and {} joined, {:.1?} after the traffic",
            joined.len(),
            began.elapsed()
        );
        loop {
            let errors = self.compare().await;
            if errors.is_empty() || counted.elapsed() > SETTLE_TIME_MAX {
                println!("counts were compared until {:.1?} after that", counted.elapsed());
                return errors;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Once there is a call that lists a group's members with their presence (a roster), it is compared
    /// here as well, member by member.
    async fn compare(&self) -> Vec<String> {
        let mut there = vec![0; self.groups];
        for client in self.live.reading().1 {
            for group in &self.groups_of[usize::from(client)] {
                there[usize::from(*group)] += 1;
            }
        }
        let names = (0..self.groups).map(|group| group_name(u16::try_from(group).unwrap()));
        let there: BTreeMap<String, u64> = names.zip(there).collect();
        let mut errors = Vec::new();
        for place in self.ground.gateways() {
            match timeout(Duration::from_secs(5), count(&place, there.keys().cloned().collect())).await {
                Ok(Some(reply)) => differences(&place, &there, &reply, &mut errors),
                _ => errors.push(format!("{} does not count", place.name)),
            }
        }
        errors
    }
}

fn differences(
    place: &Place,
    there: &BTreeMap<String, u64>,
    reply: &v1::CountReply,
    errors: &mut Vec<String>,
) {
    let coverage = reply.coverage.clone().unwrap_or_default();
    if !coverage.complete {
        errors.push(format!("{} misses {:?}", place.name, coverage.missing));
    }
    for (group, there) in there {
        let counted = reply.groups.get(group).map_or(0, |counts| counts.clients);
        if counted != *there {
            errors.push(format!("{} counts {counted} in {group}, {there} are there", place.name));
        }
    }
}

async fn count(place: &Place, groups: Vec<String>) -> Option<v1::CountReply> {
    let mut caller = Caller::connect(format!("http://{}", place.internal)).await.ok()?;
    let request = v1::CountRequest { groups, ..Default::default() };
    Some(caller.count(request).await.ok()?.into_inner())
}
