//! Whether another register is active: a member asks every address that it knows, also the one at which it was
//! taken in, since several registers may be behind it. Two registers that both have members are a cluster in
//! two halves, of which neither knows.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    limits::BEAT,
    v1::{Epoch, StepDownRequest, View, WatchRequest},
    view::{epoch, find, gateways},
};
use broadgate_tasks::contain;
use broadgate_tls::Credentials;
use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::member::{
    dial::{connect, resolve},
    random::random,
};

/// How often the other addresses are asked.
const LOOK_INTERVAL: Duration = BEAT;
/// How long one may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// How often a message to a register is repeated at once, if another one answers at its address.
const STEP_DOWNS_MAX: u32 = 4;
/// Behind the followed address a balancer may show the followed register or another: another one counts
/// until so many looks have not met it.
const LOOKS_REMEMBERED: u8 = 4;

/// An active register: it has members.
#[derive(Debug, Clone)]
pub struct Rival {
    /// As it was configured or learned.
    pub register: String,
    /// What that was resolved to.
    pub address: SocketAddr,
    /// Its newest view.
    pub view: Arc<View>,
}

impl Rival {
    /// Of its view.
    #[must_use]
    pub fn term(&self) -> u64 {
        epoch(&self.view).term
    }
}

/// A register other than the followed one, as it was seen last.
#[derive(Debug)]
struct Sight {
    rival: Rival,
    /// By two looks, and so not only because one register was quicker to tell.
    again: bool,
    /// By the last look.
    now: bool,
    /// Looks without it until it is forgotten.
    looks_left: u8,
}

/// What looks at the registers mean to a member that follows the one at this address. Pure.
#[derive(Debug)]
pub struct Looks {
    followed: SocketAddr,
    sights: Vec<Sight>,
}

/// What to do about other registers.
#[derive(Debug, Default)]
pub struct RivalAction {
    /// It is of a higher term: to be followed.
    pub higher: Option<Rival>,
    /// These are of lower terms: to step down.
    pub lower: Vec<Rival>,
    /// One that is active.
    pub active: Option<SocketAddr>,
    /// Gateways that only they know: what concerns their clients is incomplete.
    pub outside: Vec<String>,
}

impl Looks {
    /// Nothing was seen yet.
    #[must_use]
    pub const fn new(followed: SocketAddr) -> Self {
        Self { followed, sights: Vec::new() }
    }

    /// The address at which this member was taken in.
    #[must_use]
    pub const fn followed(&self) -> SocketAddr {
        self.followed
    }

    /// A look has seen these.
    pub fn take(&mut self, seen: Vec<Rival>, known: &View) -> RivalAction {
        let own = epoch(known).term;
        let mut before = std::mem::take(&mut self.sights);
        for rival in seen.into_iter().filter(|rival| rival.term() != own) {
            let same = before.iter().position(|sight| sight.rival.address == rival.address);
            let again = same.map(|at| before.swap_remove(at)).is_some();
            let looks_left = if rival.address == self.followed { LOOKS_REMEMBERED } else { 1 };
            self.sights.push(Sight { rival, again, now: true, looks_left });
        }
        for sight in before.into_iter().filter(|sight| sight.looks_left > 1 && sight.rival.term() != own) {
            self.sights.push(Sight { now: false, looks_left: sight.looks_left - 1, ..sight });
        }
        self.found(known)
    }

    fn found(&self, known: &View) -> RivalAction {
        let own = epoch(known).term;
        let mut found = RivalAction::default();
        for Sight { rival, now, .. } in self.sights.iter().filter(|sight| sight.again) {
            found.active.get_or_insert(rival.address);
            let strange = gateways(&rival.view).filter(|gateway| {
                let incarnation = gateway.incarnation.parse::<Incarnation>();
                incarnation.is_ok_and(|incarnation| find(known, incarnation).is_none())
            });
            found.outside.extend(strange.map(|gateway| gateway.name.clone()));
            if !now {
                continue;
            }
            if rival.term() < own {
                found.lower.push(rival.clone());
            } else if found.higher.as_ref().is_none_or(|higher| higher.term() < rival.term()) {
                found.higher = Some(rival.clone());
            }
        }
        found
    }
}

/// A task that looks from time to time. It ends when this is dropped.
pub(super) struct Looking {
    pub seen: mpsc::Receiver<Vec<Rival>>,
    task: AbortHandle,
}

impl Looking {
    /// At every address. The known views say of which term the followed register is.
    pub fn start(
        registers: Vec<String>,
        credentials: Credentials,
        known: watch::Receiver<Arc<View>>,
    ) -> Self {
        let (out, seen) = mpsc::channel(1);
        let task = broadgate_tasks::spawn("look at other registers", async move {
            loop {
                sleep(LOOK_INTERVAL / 2 + LOOK_INTERVAL * (random().unwrap_or(500) % 1000) as u32 / 1000)
                    .await;
                let known_term = epoch(&known.borrow()).term;
                // After a panic the next look is taken all the same.
                let look = look(&registers, &credentials, known_term);
                let looked = contain("look at other registers", look).await;
                let rivals = looked.unwrap_or_default();
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

/// The active registers among these, but for those of the known term: these are no rivals, and their members are
/// not asked for, since every member looks every second.
pub(super) async fn look(registers: &[String], credentials: &Credentials, known_term: u64) -> Vec<Rival> {
    let resolved = join_all(registers.iter().map(|register| async move {
        let addresses = resolve(register).await.unwrap_or_default();
        addresses.into_iter().map(|address| (register.clone(), address)).collect::<Vec<_>>()
    }));
    let mut addresses: Vec<_> = resolved.await.into_iter().flatten().collect();
    addresses.sort_by_key(|(_, address)| *address);
    addresses.dedup_by_key(|(_, address)| *address);
    let looks = addresses.into_iter().map(|(register, address)| async move {
        let view = timeout(ANSWER_TIME_MAX, newest(address, credentials, known_term)).await.ok()??;
        let active = epoch(&view).term > 0 && !view.members.is_empty();
        active.then(|| Rival { register, address, view: Arc::new(view) })
    });
    join_all(looks).await.into_iter().flatten().collect()
}

async fn newest(address: SocketAddr, credentials: &Credentials, known_term: u64) -> Option<View> {
    let mut client = connect(address, credentials).await.ok()?.client;
    client.watch(WatchRequest { known_term }).await.ok()?.into_inner().message().await.ok()?
}

/// Tells a register of a lower term that there is one of a higher, and where. If that does not arrive, the
/// next look repeats it.
pub(super) async fn step_down(rival: Rival, credentials: Credentials, higher: Epoch, followed: SocketAddr) {
    let register = address_for(rival.address, followed);
    let call = async || {
        let mut client = connect(rival.address, &credentials).await.ok()?.client;
        let request = StepDownRequest { epoch: Some(higher), register: register.clone() };
        client.step_down(request).await.ok()?.into_inner().epoch
    };
    for _ in 0..STEP_DOWNS_MAX {
        match timeout(ANSWER_TIME_MAX, call()).await {
            // Behind one address a balancer has shown the followed register, not the other one.
            Ok(Some(reached)) if reached.term >= higher.term => {}
            _ => return,
        }
    }
}

/// Where the members of that register find the followed one, as far as this process can say: not by a
/// loopback address that may be of another host.
fn address_for(rival: SocketAddr, followed: SocketAddr) -> String {
    let elsewhere = followed.ip().is_loopback() && !rival.ip().is_loopback();
    if elsewhere || rival == followed { String::new() } else { followed.to_string() }
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
        let mut looks = Looks::new(SocketAddr::from(([127, 0, 0, 1], 9)));
        let first = looks.take(seen(), &known);
        assert!(first.higher.is_none() && first.lower.is_empty() && first.outside.is_empty());
        let second = looks.take(seen(), &known);
        assert_eq!(second.higher.map(|rival| rival.address.port()), Some(2));
        assert_eq!(second.lower.iter().map(|rival| rival.address.port()).collect::<Vec<_>>(), [1]);
        assert_eq!(second.outside, ["g3", "g4", "g5"]);
        let third = looks.take(Vec::new(), &known);
        assert!(third.higher.is_none() && third.outside.is_empty());
    }

    #[test]
    fn register_behind_the_followed_address_counts_although_only_some_looks_meet_it() {
        let known = view(5, &[1, 2]);
        let (own, other) = (|| vec![rival(1, 5, &[1, 2])], || vec![rival(1, 4, &[3])]);
        let mut looks = Looks::new(rival(1, 5, &[]).address);
        assert!(looks.take(other(), &known).active.is_none());
        assert!(looks.take(own(), &known).active.is_none(), "seen once");
        let second = looks.take(other(), &known);
        assert_eq!((second.lower.len(), &second.outside[..]), (1, &["g3".to_owned()][..]));
        let between = looks.take(own(), &known);
        assert_eq!((between.lower.len(), &between.outside[..]), (0, &["g3".to_owned()][..]));
        for _ in 0..LOOKS_REMEMBERED {
            looks.take(own(), &known);
        }
        assert!(looks.take(own(), &known).active.is_none(), "it is gone");
    }

    #[test]
    fn loopback_address_is_named_only_on_the_same_host() {
        let at = |address: &str| address.parse::<SocketAddr>().unwrap();
        assert_eq!(address_for(at("127.0.0.1:1"), at("127.0.0.1:2")), "127.0.0.1:2");
        assert_eq!(address_for(at("10.0.0.1:1"), at("127.0.0.1:2")), "");
        assert_eq!(address_for(at("10.0.0.1:1"), at("10.0.0.2:1")), "10.0.0.2:1");
        assert_eq!(address_for(at("10.0.0.1:1"), at("10.0.0.1:1")), "");
    }
}
