//! One gateway and three are the same to their users: random commands, the same traces.

use broadgate_proto::v1;

use crate::harness::*;

const CLIENTS: usize = 7;
const STEPS: usize = 120;
const SEEDS: [u64; 3] = [1, 2, 3];

/// splitmix64: the same numbers for both clusters.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % count as u64).unwrap()
    }

    fn group(&mut self) -> String {
        format!("group-{}", self.below(4))
    }

    fn uid(&mut self) -> String {
        format!("uid-{}", self.below(3))
    }
}

/// What one step did, as its caller sees it.
fn seen(answer: Result<v1::Receipt, tonic::Status>) -> String {
    match answer {
        Ok(receipt) => {
            assert!(receipt.coverage.unwrap().complete);
            let drops: std::collections::BTreeMap<_, _> = receipt.drops.into_iter().collect();
            format!("{} {drops:?}", receipt.clients)
        }
        Err(status) => format!("{:?}", status.code()),
    }
}

struct Run {
    cluster: Cluster,
    clients: Vec<Client>,
    random: Random,
}

impl Run {
    async fn of(gateways: usize, seed: u64) -> Self {
        let cluster = Cluster::quiet(gateways).start().await;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(cluster.client(number % gateways).await);
        }
        Self { cluster, clients, random: Random(seed) }
    }

    fn some_client(&mut self) -> String {
        let client = self.random.below(CLIENTS);
        self.clients[client].id.clone()
    }

    fn audience(&mut self) -> v1::Audience {
        let mut to = match self.random.below(6) {
            0 => all(),
            1 => groups(&[&self.random.group()]),
            2 => uids(&[&self.random.uid()]),
            3 => groups(&[&self.random.group(), &self.random.group()]),
            4 => v1::Audience { uids: vec![self.random.uid()], ..groups(&[&self.random.group()]) },
            _ => clients(&[&self.some_client(), &self.some_client()]),
        };
        if self.random.below(3) == 0 {
            let except = v1::Except {
                clients: vec![self.some_client()],
                uids: vec![self.random.uid()],
                groups: vec![self.random.group()],
            };
            to.except = Some(except);
        }
        to
    }

    async fn step(&mut self, number: usize) -> String {
        // Both clusters draw the same numbers, whichever gateways they have.
        let any = self.random.below(6);
        let mut caller = self.cluster.caller(any % self.cluster.gateways.len()).await;
        let (client, group, uid) = (self.some_client(), self.random.group(), self.random.uid());
        match self.random.below(12) {
            0 | 1 => {
                let member = v1::PresenceMember { user_id: uid, info: String::new() };
                let join = v1::JoinGroupsRequest { member: Some(member), ..join(&[&client], &[&group]) };
                seen(caller.join(join).await.map(tonic::Response::into_inner))
            }
            2 => {
                let join =
                    v1::JoinGroupsRequest { uids: vec![uid], groups: vec![group], ..Default::default() };
                seen(caller.join(join).await.map(tonic::Response::into_inner))
            }
            3 => {
                let leave = v1::LeaveGroupsRequest {
                    clients: vec![client],
                    groups: vec![group],
                    ..Default::default()
                };
                seen(caller.leave(leave).await.map(tonic::Response::into_inner))
            }
            4 => seen(caller.bind(bind(&client, &uid)).await.map(tonic::Response::into_inner)),
            5 => {
                let unbind = v1::UnbindRequest { client_id: client, ..Default::default() };
                seen(caller.unbind(unbind).await.map(tonic::Response::into_inner))
            }
            6 if number.is_multiple_of(4) => {
                let dissolve = v1::DissolveRequest { groups: vec![group], ..Default::default() };
                seen(caller.dissolve(dissolve).await.map(tonic::Response::into_inner))
            }
            7 if number == STEPS / 2 => {
                let close = v1::CloseRequest { to: Some(uids(&[&uid])), ..Default::default() };
                seen(caller.close(close).await.map(tonic::Response::into_inner))
            }
            8 => {
                let count = v1::CountRequest {
                    groups: vec![group.clone()],
                    uids: number.is_multiple_of(2),
                    ..Default::default()
                };
                let reply = caller.count(count).await.unwrap().into_inner();
                assert!(reply.coverage.unwrap().complete);
                format!("{:?} {:?}", reply.app, reply.groups[&group])
            }
            9 => {
                let online = v1::OnlineRequest { uids: vec![uid.clone()], ..Default::default() };
                format!("{}", caller.online(online).await.unwrap().into_inner().uids[&uid])
            }
            10 => {
                let roster = v1::RosterRequest { group, ..Default::default() };
                let reply = caller.roster(roster).await.unwrap().into_inner();
                format!("{:?}", reply.members)
            }
            _ => {
                let send = text(self.audience(), &format!("message {number}"));
                seen(caller.send(send).await.map(tonic::Response::into_inner))
            }
        }
    }

    /// What every step answered, and what every client got.
    async fn trace(mut self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut steps = Vec::new();
        for number in 0..STEPS {
            steps.push(self.step(number).await);
        }
        let mut caller = self.cluster.caller(0).await;
        let close = v1::CloseRequest { to: Some(all()), code: 4000, ..Default::default() };
        caller.close(close).await.unwrap();
        let mut heard = Vec::new();
        for client in &mut self.clients {
            heard.push(client.closed().await.before);
        }
        (steps, heard)
    }
}

#[tokio::test]
async fn one_gateway_and_three_behave_alike() {
    for seed in SEEDS {
        let one = Run::of(1, seed).await.trace().await;
        let three = Run::of(3, seed).await.trace().await;
        for (number, (one, three)) in one.0.iter().zip(&three.0).enumerate() {
            assert_eq!(one, three, "seed {seed}, step {number}");
        }
        assert_eq!(one.1, three.1, "seed {seed}: what the clients got");
        let messages: usize = one.1.iter().map(Vec::len).sum();
        assert!(messages > 20, "seed {seed} sent next to nothing: {messages}");
    }
}
