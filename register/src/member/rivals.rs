//! Whether another register is active: a member asks every address that it was given, not only the one that
//! took it in. Two registers that both have members are a cluster in two halves, of which neither knows.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    limits::BEAT,
    secret::Secret,
    v1::{Epoch, StepDownRequest, View, WatchRequest},
    view::{epoch, find, gateways},
};
use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    dial::{connect, resolve},
    link::random,
};

/// How often the other addresses are asked.
const LOOK_INTERVAL: Duration = BEAT;
/// How long one may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// An active register: it has members.
#[derive(Debug, Clone)]
pub(super) struct Rival {
    pub register: String,
    pub address: SocketAddr,
    pub view: Arc<View>,
}

impl Rival {
    pub fn term(&self) -> u64 {
        epoch(&self.view).term
    }
}

/// What a look at the other registers means to a member that follows one of this view. Pure.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Seen by the last look, and so not only because one register was quicker to tell.
    before: Vec<(SocketAddr, u64)>,
}

/// What to do about other registers.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// It is of a higher term: to be followed.
    pub higher: Option<Rival>,
    /// These are of lower terms: to step down.
    pub lower: Vec<Rival>,
    /// Gateways that only they know: what concerns their clients is incomplete.
    pub outside: Vec<String>,
}

impl Looks {
    pub fn take(&mut self, seen: Vec<Rival>, known: &View) -> Found {
        let now: Vec<_> = seen.iter().map(|rival| (rival.address, rival.term())).collect();
        let before = std::mem::replace(&mut self.before, now);
        let own = epoch(known).term;
        let mut found = Found::default();
        for rival in seen {
            let again = before.iter().any(|(address, term)| *address == rival.address && *term != own);
            if rival.term() == own || !again {
                continue;
            }
            let strange = gateways(&rival.view).filter(|gateway| {
                let incarnation = gateway.incarnation.parse::<Incarnation>();
                incarnation.is_ok_and(|incarnation| find(known, incarnation).is_none())
            });
            found.outside.extend(strange.map(|gateway| gateway.name.clone()));
            if rival.term() < own {
                found.lower.push(rival);
            } else if found.higher.as_ref().is_none_or(|higher| higher.term() < rival.term()) {
                found.higher = Some(rival);
            }
        }
        found
    }
}

/// A task that looks from time to time. It ends when this is dropped.
pub(super) struct Looking {
    pub seen: mpsc::Receiver<Vec<Rival>>,
    task: JoinHandle<()>,
}

impl Looking {
    /// At every address but the one that is followed.
    pub fn start(registers: Vec<String>, secret: Secret, followed: SocketAddr) -> Self {
        let (out, seen) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            loop {
                sleep(LOOK_INTERVAL / 2 + LOOK_INTERVAL * (random().unwrap_or(500) % 1000) as u32 / 1000)
                    .await;
                let rivals = look(&registers, &secret, Some(followed)).await;
                if out.send(rivals).await.is_err() {
                    return;
                }
            }
        });
        Self { seen, task }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The active registers among these, but for one.
pub(super) async fn look(registers: &[String], secret: &Secret, but: Option<SocketAddr>) -> Vec<Rival> {
    let resolved = join_all(registers.iter().map(|register| async move {
        let addresses = resolve(register).await.unwrap_or_default();
        addresses.into_iter().map(|address| (register.clone(), address)).collect::<Vec<_>>()
    }));
    let mut addresses: Vec<_> = resolved.await.into_iter().flatten().collect();
    addresses.sort_by_key(|(_, address)| *address);
    addresses.dedup_by_key(|(_, address)| *address);
    let asked = addresses.into_iter().filter(|(_, address)| Some(*address) != but).map(
        |(register, address)| async move {
            let view = timeout(ANSWER_TIME_MAX, newest(address, secret)).await.ok()??;
            let active = epoch(&view).term > 0 && !view.members.is_empty();
            active.then(|| Rival { register, address, view: Arc::new(view) })
        },
    );
    join_all(asked).await.into_iter().flatten().collect()
}

async fn newest(address: SocketAddr, secret: &Secret) -> Option<View> {
    let mut client = connect(address, secret).await.ok()?.client;
    client.watch(WatchRequest {}).await.ok()?.into_inner().message().await.ok()?
}

/// Tells a register of a lower term that there is one of a higher. If it does not hear, it is told again
/// after the next look.
pub(super) async fn tell(rival: Rival, secret: Secret, higher: Epoch) {
    let told = async {
        let mut client = connect(rival.address, &secret).await.ok()?.client;
        client.step_down(StepDownRequest { epoch: Some(higher) }).await.ok()
    };
    let _ = timeout(ANSWER_TIME_MAX, told).await;
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{Member, Role};

    use super::*;

    fn view(term: u64, members: &[u64]) -> View {
        let member = |bits: &u64| Member {
            incarnation: Incarnation::from_bits(*bits).to_string(),
            role: Role::Gateway.into(),
            name: format!("g{bits}"),
            ..Member::default()
        };
        let members = members.iter().map(member).collect();
        View { epoch: Some(Epoch::new(term, 1)), members, before: None }
    }

    fn rival(port: u16, term: u64, members: &[u64]) -> Rival {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Rival { register: address.to_string(), address, view: Arc::new(view(term, members)) }
    }

    #[test]
    fn higher_term_is_followed_and_lower_one_told_when_seen_twice() {
        let known = view(5, &[1, 2]);
        let seen = || vec![rival(1, 4, &[1, 3]), rival(2, 7, &[4]), rival(3, 6, &[5]), rival(4, 5, &[1, 2])];
        let mut looks = Looks::default();
        let first = looks.take(seen(), &known);
        assert!(first.higher.is_none() && first.lower.is_empty() && first.outside.is_empty());
        let second = looks.take(seen(), &known);
        assert_eq!(second.higher.map(|rival| rival.address.port()), Some(2));
        assert_eq!(second.lower.iter().map(|rival| rival.address.port()).collect::<Vec<_>>(), [1]);
        assert_eq!(second.outside, ["g3", "g4", "g5"]);
        let third = looks.take(Vec::new(), &known);
        assert!(third.higher.is_none() && third.outside.is_empty());
    }
}
