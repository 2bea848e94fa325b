//! What a register does in etcd, each in one transaction.

use std::{net::IpAddr, sync::Arc};

use broadgate_etcd::{
    CallError, EtcdClient, created_at, delete_range,
    etcd::{
        KeyValue, RangeRequest, RequestOp, ResponseOp, TxnRequest, request_op::Request, response_op::Response,
    },
    get,
    ledger::State,
    modified_at, put, range,
};
use broadgate_proto::{
    id::Incarnation,
    limits::LEDGER_LEASE,
    v1::{Epoch, View},
};
use prost::Message as _;

use super::keys::Keys;
use crate::server::{
    config::Etcd,
    step::{Guard, Write},
};

/// Views that are read at once: each has a megabyte at most.
const PAGE: i64 = 8;

/// A lead that was won.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead {
    pub guard: Guard,
    pub lease: i64,
}

/// The leader's key, as somebody has written it.
#[derive(Debug)]
pub(super) struct LeaderKey {
    pub address: String,
    /// It goes with a lease. Every register's does.
    pub has_lease: bool,
}

/// What became of a renewal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Done,
    /// Somebody had written the leader's key without this lease: the register has written its own again.
    Mended,
    /// This register does not lead any more.
    Lost,
}

/// What the ledger had at the election. Nobody else can write to it since.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub views: Vec<Arc<View>>,
    pub removed: Vec<Incarnation>,
    /// At which `state` was written; 0: it is not there.
    pub state_revision: i64,
}

/// What became of a write.
#[derive(Debug)]
pub(super) enum Written {
    At(i64),
    /// Why it will never be.
    Not(String),
}

/// The keys of a cluster, and a connection to etcd.
#[derive(Debug)]
pub(super) struct Store {
    client: EtcdClient,
    keys: Keys,
    /// Under which this register stood for election.
    address: String,
}

impl Store {
    pub fn new(etcd: &Etcd) -> Self {
        let (client, keys) = (EtcdClient::new(etcd.settings.clone()), Keys::below(&etcd.prefix));
        Self { client, keys, address: String::new() }
    }

    pub fn local_address(&self) -> Option<IpAddr> {
        self.client.local_address()
    }

    /// Asks for what a register does, and does nothing: etcd checks permissions before it compares.
    pub async fn check(&mut self) -> Result<(), CallError> {
        let (first, end) = self.keys.views();
        let never = TxnRequest {
            compare: vec![created_at(&self.keys.leader, i64::MAX)],
            success: vec![
                put(&self.keys.leader, Vec::new(), 0),
                put(&self.keys.state, Vec::new(), 0),
                delete_range(&first, &end),
            ],
            failure: vec![read(get(&self.keys.leader))],
        };
        self.client.txn(never).await.map(drop)
    }

    /// The key that names the leader.
    pub fn leader_key(&self) -> &str {
        &self.keys.leader
    }

    /// The register that leads.
    pub async fn leader(&mut self) -> Result<Option<LeaderKey>, CallError> {
        let found = self.client.range(get(&self.keys.leader)).await?;
        Ok(found.kvs.first().map(|leader| LeaderKey {
            address: String::from_utf8_lossy(&leader.value).into_owned(),
            has_lease: leader.lease != 0,
        }))
    }

    /// Becomes the leader, if there is none.
    pub async fn elect(&mut self, address: &str) -> Result<Option<Lead>, CallError> {
        let lease = self.client.grant(LEDGER_LEASE.as_secs().cast_signed()).await?;
        address.clone_into(&mut self.address);
        let leader = &self.keys.leader;
        let request = TxnRequest {
            compare: vec![created_at(leader, 0)],
            success: vec![put(leader, address.as_bytes().to_vec(), lease), read(get(leader))],
            failure: vec![read(get(leader))],
        };
        let answer = self.client.txn(request).await?;
        // Also where an earlier try was applied, and its answer lost.
        let leader = answer.responses.into_iter().find_map(|response| found(response).into_iter().next());
        Ok(leader
            .filter(|leader| leader.lease == lease)
            .map(|leader| Lead { guard: leader.create_revision, lease }))
    }

    /// Renews the lease. A lease alone is not believed, since etcd before 3.4.38 renews some that it has revoked; and
    /// a key that does not go with it would stay when this register has ended, so that none could lead again.
    pub async fn renew(&mut self, lead: Lead) -> Result<Renewal, CallError> {
        if !self.client.keep_alive(lead.lease).await? {
            return Ok(Renewal::Lost);
        }
        let leader = self.client.range(get(&self.keys.leader)).await?;
        match leader.kvs.first() {
            Some(leader) if leader.create_revision != lead.guard => Ok(Renewal::Lost),
            Some(leader) if leader.lease == lead.lease => Ok(Renewal::Done),
            Some(_) => self.mend(lead).await,
            None => Ok(Renewal::Lost),
        }
    }

    /// Writes the leader's key again. It was only overwritten: a register that was elected meanwhile would have made it
    /// at another revision.
    async fn mend(&mut self, lead: Lead) -> Result<Renewal, CallError> {
        let leader = &self.keys.leader;
        let request = TxnRequest {
            compare: vec![created_at(leader, lead.guard)],
            success: vec![put(leader, self.address.as_bytes().to_vec(), lead.lease)],
            failure: Vec::new(),
        };
        let mended = self.client.txn(request).await?.succeeded;
        Ok(if mended { Renewal::Mended } else { Renewal::Lost })
    }

    pub async fn revoke(&mut self, lease: i64) -> Result<(), CallError> {
        self.client.revoke(lease).await
    }

    /// What the former leader has left.
    pub async fn load(&mut self) -> Result<Loaded, CallError> {
        let stored = self.client.range(get(&self.keys.state)).await?;
        let Some(stored) = stored.kvs.into_iter().next() else { return Ok(Loaded::default()) };
        let State { term, count, removed } =
            State::decode(stored.value).map_err(|error| damaged(&self.keys.state, &error.to_string()))?;
        let newest = Epoch::new(term, count);
        let mut views: Vec<Arc<View>> = Vec::new();
        let (mut from, end) = self.keys.views();
        loop {
            let page = self.client.range(range(&from, &end, PAGE)).await?;
            let Some(last) = page.kvs.last() else { break };
            // The first key behind the last one.
            from = format!("{}\0", String::from_utf8_lossy(&last.key));
            for stored in page.kvs {
                let key = String::from_utf8_lossy(&stored.key).into_owned();
                let view = View::decode(stored.value).map_err(|error| damaged(&key, &error.to_string()))?;
                views.push(Arc::new(view));
            }
            if !page.more {
                break;
            }
        }
        if views.last().and_then(|view| view.epoch) != Some(newest) {
            return Err(damaged(&self.keys.view(newest), "it is not the newest view, as the state says"));
        }
        let removed = removed.into_iter().map(Incarnation::from_bits).collect();
        Ok(Loaded { views, removed, state_revision: stored.mod_revision })
    }

    /// Writes, if this register still leads and the ledger is as it left it. What an earlier try has written
    /// counts as written.
    pub async fn write(&mut self, write: &Write, state_revision: i64) -> Result<Written, CallError> {
        let Epoch { term, count } = write.epoch();
        let removed = write.removed.iter().map(|one| one.bits()).collect();
        let state = State { term, count, removed }.encode_to_vec();
        let (first, _) = self.keys.views();
        let mut success = vec![
            put(&self.keys.state, state.clone(), 0),
            delete_range(&first, &self.keys.view(write.oldest)),
        ];
        for view in &write.views {
            let key = self.keys.view(view.epoch.unwrap_or_default());
            success.push(put(&key, view.encode_to_vec(), 0));
        }
        let request = TxnRequest {
            compare: vec![
                created_at(&self.keys.leader, write.guard),
                modified_at(&self.keys.state, state_revision),
            ],
            success,
            failure: vec![read(get(&self.keys.leader)), read(get(&self.keys.state))],
        };
        let answer = self.client.txn(request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.succeeded {
            return Ok(Written::At(revision));
        }
        let mut read = answer.responses.into_iter().map(found);
        let leader = read.next().unwrap_or_default().into_iter().next();
        if leader.is_none_or(|leader| leader.create_revision != write.guard) {
            return Ok(Written::Not("another register was elected".to_owned()));
        }
        let there = read.next().unwrap_or_default().into_iter().next();
        Ok(match there {
            Some(there) if there.value == state => Written::At(there.mod_revision),
            _ => Written::Not(
                "the ledger is not as this register left it: etcd was restored from a backup, or somebody else \
                 writes below its prefix"
                    .to_owned(),
            ),
        })
    }
}

fn read(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(request)) }
}

fn found(response: ResponseOp) -> Vec<KeyValue> {
    match response.response {
        Some(Response::ResponseRange(range)) => range.kvs,
        _ => Vec::new(),
    }
}

fn damaged(key: &str, why: &str) -> CallError {
    CallError::Refused(format!(
        "the ledger is damaged at {key:?}: {why}; restore etcd from a backup, or delete all keys below \
         register.etcd.prefix, upon which the members report what they know"
    ))
}
