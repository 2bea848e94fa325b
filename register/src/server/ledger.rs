//! The task that keeps the list in etcd: stands for election, renews the lease, and writes. It decides nothing
//! that `replica.rs` could.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broadgate_etcd::CallError;
use broadgate_proto::limits::{LEDGER_LEASE, LEDGER_LOOK, LEDGER_RENEW};
use metrics::counter;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    config::Etcd,
    step::{CommitOutcome, Elected, Guard, Write},
};

mod keys;
mod orphan;
mod store;

use orphan::Orphan;
use store::{Lead, LeaderKey, Renewal, Store, Written};

/// Orders that may wait: one write at a time, and the end of a lead.
pub(super) const ORDERS_MAX: usize = 16;
/// Between two tries of a write or a renewal.
const AGAIN: Duration = Duration::from_millis(100);
/// How long giving up a lease may hold a stopping register up.
const REVOKE_TIME_MAX: Duration = Duration::from_millis(300);

/// Requests of the hub to its ledger.
#[derive(Debug)]
pub(super) enum LedgerRequest {
    /// Write this.
    Write(Arc<Write>),
    /// Give up the lead that was won at this revision.
    Resign(Guard),
}

/// Replies of the ledger to the hub. Points in time are of this process.
#[derive(Debug)]
pub(super) enum LedgerReply {
    Leader(Option<String>),
    /// `until` of the election is not set yet.
    Elected(Box<Elected>, Instant),
    Renewed(Guard, Instant),
    Written(Guard, u64, CommitOutcome),
    Lost(Guard, String),
}

/// Tries the user, the password and the permissions once.
///
/// # Errors
/// A sentence, if etcd refuses. That nobody answers is no error: that may pass.
pub async fn check(etcd: &Etcd) -> Result<(), String> {
    match Store::new(etcd).check().await {
        Ok(()) => Ok(()),
        Err(CallError::Refused(sentence)) => Err(format!("register.etcd: {sentence}")),
        Err(CallError::Unknown(sentence)) => {
            tracing::warn!(
                "register.etcd: no endpoint answers ({sentence}): this register tries on and serves nobody until \
                 then; start etcd, or correct register.etcd.endpoints"
            );
            Ok(())
        }
    }
}

/// Runs until `stop`, or until the hub is gone; then gives the lead up, so that another register need not wait
/// for the lease to end.
pub(super) async fn run(
    etcd: Etcd,
    bind: SocketAddr,
    hub: mpsc::Sender<LedgerReply>,
    mut orders: mpsc::Receiver<LedgerRequest>,
    stop: CancellationToken,
) {
    let (store, writer) = (Store::new(&etcd), Store::new(&etcd));
    let (orphan, logged) = (Orphan::default(), String::new());
    let mut task = Task { store, writer, etcd, bind, hub, orphan, logged };
    loop {
        let looked = tokio::select! {
            looked = task.look() => looked,
            () = stop.cancelled() => return,
        };
        match looked {
            Err(HubEnded) => return,
            Ok(None) => tokio::select! {
                () = sleep(LEDGER_LOOK) => {}
                () = stop.cancelled() => return,
            },
            Ok(Some((lead, until))) => {
                let ended = tokio::select! {
                    ended = task.lead(lead, until, &mut orders) => ended,
                    () = stop.cancelled() => Err(HubEnded),
                };
                // A lease that is left behind would keep the others waiting.
                let _ = timeout(REVOKE_TIME_MAX, task.store.revoke(lead.lease)).await;
                if ended.is_err() {
                    return;
                }
            }
        }
    }
}

/// The hub has ended.
struct HubEnded;

struct Task {
    etcd: Etcd,
    bind: SocketAddr,
    hub: mpsc::Sender<LedgerReply>,
    /// Looks, elections and renewals.
    store: Store,
    writer: Store,
    orphan: Orphan,
    /// The trouble that was logged last.
    logged: String,
}

impl Task {
    async fn reply(&self, reply: LedgerReply) -> Result<(), HubEnded> {
        self.hub.send(reply).await.map_err(|_| HubEnded)
    }

    /// Looks for the leader, and stands for election if there is none.
    async fn look(&mut self) -> Result<Option<(Lead, Instant)>, HubEnded> {
        let leader = match self.store.leader().await {
            Ok(leader) => leader,
            Err(trouble) => {
                self.log(&trouble);
                self.reply(LedgerReply::Leader(None)).await?;
                return Ok(None);
            }
        };
        if leader.is_some() || self.hub.is_closed() {
            self.well();
            let leads = leader.filter(|leader| self.is_register(leader));
            self.reply(LedgerReply::Leader(leads.map(|leader| leader.address))).await?;
            return Ok(None);
        }
        self.orphan.gone();
        self.reply(LedgerReply::Leader(None)).await?;
        let requested_at = Instant::now();
        let address = self.etcd.address(self.bind, self.store.local_address());
        match self.store.elect(&address).await {
            Ok(Some(lead)) => Ok(Some((lead, requested_at + LEDGER_LEASE))),
            Ok(None) => Ok(None),
            Err(trouble) => {
                self.log(&trouble);
                Ok(None)
            }
        }
    }

    /// Whether a register has written this key. Where somebody else has, its value is nowhere to send members to; if it
    /// stays, that is reported once in a while.
    fn is_register(&mut self, leader: &LeaderKey) -> bool {
        if leader.has_lease {
            self.orphan.gone();
            return true;
        }
        let seen = self.orphan.seen(Instant::now());
        if seen.is_orphan {
            counter!("broadgate_register_ledger_errors_total", "reason" => "no_lease").increment(1);
        }
        if seen.is_news {
            let key = self.store.leader_key();
            tracing::error!(
                value = leader.address,
                "the key {key:?} in etcd has no lease, so it is no register's and never goes, and no register can lead \
                 while it is there: somebody else has written it; delete it with `etcdctl del {key}`"
            );
        }
        false
    }

    /// Leads until the lease is lost, a write is refused, or the hub resigns.
    async fn lead(
        &mut self,
        lead: Lead,
        until: Instant,
        orders: &mut mpsc::Receiver<LedgerRequest>,
    ) -> Result<(), HubEnded> {
        let loaded = match self.store.load().await {
            Ok(loaded) => loaded,
            Err(trouble) => {
                self.log(&trouble);
                sleep(LEDGER_LOOK).await;
                return Ok(());
            }
        };
        self.well();
        // What was ordered for a former lead.
        while orders.try_recv().is_ok() {}
        let salt = getrandom::u32().unwrap_or_default() as u16;
        let elected = Elected {
            guard: lead.guard,
            until: Duration::ZERO,
            salt,
            views: loaded.views,
            removed: loaded.removed,
        };
        self.reply(LedgerReply::Elected(Box::new(elected), until)).await?;
        let hub = self.hub.clone();
        let why = tokio::select! {
            why = renew(&mut self.store, &hub, lead) => why,
            why = write(&mut self.writer, &hub, lead, loaded.state_revision, orders) => why,
        };
        match why? {
            Some(why) => self.reply(LedgerReply::Lost(lead.guard, why)).await,
            None => Ok(()),
        }
    }

    /// Logs a trouble once, and counts it.
    fn log(&mut self, trouble: &CallError) {
        count(trouble);
        let sentence = trouble.to_string();
        if self.logged != sentence {
            tracing::error!(
                trouble = sentence,
                "the ledger in etcd cannot be used: nobody can join or leave until it can; trying on"
            );
            self.logged = sentence;
        }
    }

    fn well(&mut self) {
        if !std::mem::take(&mut self.logged).is_empty() {
            tracing::info!("the ledger in etcd answers again");
        }
    }
}

fn count(trouble: &CallError) {
    let reason = match trouble {
        CallError::Refused(_) => "refused",
        CallError::Unknown(_) => "unreachable",
    };
    counter!("broadgate_register_ledger_errors_total", "reason" => reason).increment(1);
}

/// Renews until that is not possible any more: a sentence.
async fn renew(
    store: &mut Store,
    hub: &mpsc::Sender<LedgerReply>,
    lead: Lead,
) -> Result<Option<String>, HubEnded> {
    let mut until = Instant::now() + LEDGER_LEASE;
    sleep(LEDGER_RENEW).await;
    loop {
        let requested_at = Instant::now();
        match store.renew(lead).await {
            Ok(renewed @ (Renewal::Done | Renewal::Mended)) => {
                if renewed == Renewal::Mended {
                    let key = store.leader_key();
                    tracing::error!(
                        "somebody has written the key {key:?} in etcd, which is the leader's alone: this register leads \
                         and has written it again; find out who writes below register.etcd.prefix"
                    );
                }
                until = requested_at + LEDGER_LEASE;
                hub.send(LedgerReply::Renewed(lead.guard, until)).await.map_err(|_| HubEnded)?;
                sleep((requested_at + LEDGER_RENEW).saturating_duration_since(Instant::now())).await;
            }
            Ok(Renewal::Lost) => return Ok(Some("its lease in etcd has ended".to_owned())),
            Err(trouble) => {
                count(&trouble);
                if Instant::now() >= until {
                    return Ok(Some(format!("its lease in etcd could not be renewed: {trouble}")));
                }
                sleep(AGAIN).await;
            }
        }
    }
}

/// Writes what the hub orders, one after the other, until it resigns.
async fn write(
    store: &mut Store,
    hub: &mpsc::Sender<LedgerReply>,
    lead: Lead,
    mut state_revision: i64,
    orders: &mut mpsc::Receiver<LedgerRequest>,
) -> Result<Option<String>, HubEnded> {
    while let Some(order) = orders.recv().await {
        let write = match order {
            LedgerRequest::Write(write) if write.guard == lead.guard => write,
            LedgerRequest::Resign(guard) if guard == lead.guard => return Ok(None),
            LedgerRequest::Write(_) | LedgerRequest::Resign(_) => continue,
        };
        let outcome = match store.write(&write, state_revision).await {
            Ok(Written::At(revision)) => {
                state_revision = revision;
                CommitOutcome::Done
            }
            Ok(Written::Not(why)) => {
                counter!("broadgate_register_ledger_errors_total", "reason" => "guard").increment(1);
                CommitOutcome::Refused(why)
            }
            Err(trouble) => {
                count(&trouble);
                sleep(AGAIN).await;
                CommitOutcome::Unknown(trouble.to_string())
            }
        };
        hub.send(LedgerReply::Written(lead.guard, write.number, outcome)).await.map_err(|_| HubEnded)?;
    }
    Err(HubEnded)
}
