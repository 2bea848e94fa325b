//! In the end, with every fault mended: what the gateways count is who is really there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use broadgate_proto::v1;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    ground::{Ground, Place},
    harness::Caller,
    joiner::user,
    live::Live,
    wires::group_name,
};

/// One lease and two link timeouts after a crash counts are right (DESIGN section 5); the last crash is
/// longer ago than that when this begins.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(15);

const ANSWERS_TIME_MAX: Duration = Duration::from_secs(10);

/// Who is really there, by group.
type There = BTreeMap<String, BTreeSet<String>>;

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

    /// Counts and rosters of every group, as every gateway answers them.
    async fn compare(&self) -> Vec<String> {
        let names = (0..self.groups).map(|group| group_name(u16::try_from(group).unwrap()));
        let mut there: There = names.map(|name| (name, BTreeSet::new())).collect();
        for client in self.live.reading().1 {
            for group in &self.groups_of[usize::from(client)] {
                there.get_mut(&group_name(*group)).unwrap().insert(user(client));
            }
        }
        let mut errors = Vec::new();
        for place in self.ground.gateways() {
            let asked = timeout(ANSWERS_TIME_MAX, self.compare_at(&place, &there)).await;
            match asked {
                Ok(Some(found)) => errors.extend(found),
                _ => errors.push(format!("{} does not answer", place.name)),
            }
        }
        errors
    }

    async fn compare_at(&self, place: &Place, there: &There) -> Option<Vec<String>> {
        let mut caller = Caller::connect(format!("http://{}", place.internal)).await.ok()?;
        let groups = there.keys().cloned().collect();
        let request = self.ground.request(v1::CountRequest { groups, ..Default::default() });
        let counts = caller.count(request).await.ok()?.into_inner();
        let mut errors = differences(place, there, &counts);
        for (group, users) in there {
            let request = v1::RosterRequest { group: group.clone(), limit: 1000, ..Default::default() };
            let roster = caller.roster(self.ground.request(request)).await.ok()?.into_inner();
            let complete = roster.coverage.is_some_and(|coverage| coverage.complete);
            let found: BTreeSet<String> = roster.members.into_iter().map(|member| member.user_id).collect();
            if !complete || found != *users {
                let (more, less) = (found.difference(users), users.difference(&found));
                let (more, less): (Vec<_>, Vec<_>) = (more.collect(), less.collect());
                errors.push(format!(
                    "{}: the roster of {group} (complete: {complete}) has {more:?} too much and not {less:?}",
                    place.name
                ));
            }
        }
        Some(errors)
    }
}

fn differences(place: &Place, there: &There, reply: &v1::CountReply) -> Vec<String> {
    let mut errors = Vec::new();
    let coverage = reply.coverage.clone().unwrap_or_default();
    if !coverage.complete {
        errors.push(format!("{} misses {:?}", place.name, coverage.missing));
    }
    for (group, there) in there {
        let counted = reply.groups.get(group).map_or(0, |counts| counts.clients);
        if counted != there.len() as u64 {
            errors.push(format!("{} counts {counted} in {group}, {} are there", place.name, there.len()));
        }
    }
    errors
}
