//! What is known of a cluster at one moment: the evidence of its gateways, each relayed by the one that is asked,
//! or asked for directly where that one got no answer.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_business::{
    Credentials,
    v1::{Epoch, GatewayEvidence, GatewayStatus, Member, Role, StatusReply, WorkerStatus},
};
use broadgate_proto::{
    limits::GRPC_MESSAGE_BYTES_HIGHEST,
    v1::{RefusedMember, RemovedMember, StatusRequest, gateway_client::GatewayClient},
    view::goes,
};
use futures_util::future::join_all;
use tonic::Request;

use crate::{
    failure::Failure,
    operate::{
        probe::{self, WantedRole},
        target::ChosenCluster,
    },
};

/// A cluster at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenCluster {
    /// The internal port that was asked.
    pub(crate) address: String,
    pub(crate) epoch: Epoch,
    /// The gateways of its view, by name.
    pub(crate) gateways: Vec<SeenGateway>,
    pub(crate) workers: Vec<WorkerStatus>,
    /// Everybody in its view.
    pub(crate) members: Vec<Member>,
    /// Members that are in it no more, and have not left.
    pub(crate) removed: Vec<RemovedMember>,
    /// Whom the register has refused lately.
    pub(crate) refused: Vec<RefusedMember>,
    /// Did the gateway that was asked get everybody's answer?
    pub(crate) complete: bool,
}

/// One gateway of the view.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenGateway {
    pub(crate) member: Member,
    /// Its answer.
    pub(crate) status: Option<GatewayStatus>,
    /// Why there is none.
    pub(crate) why: String,
    /// Between these moments of this machine's clock, in milliseconds, it has answered.
    pub(crate) asked_ms: (u64, u64),
}

impl SeenGateway {
    pub(crate) fn name(&self) -> &str {
        &self.member.name
    }

    pub(crate) fn evidence(&self) -> Option<&GatewayEvidence> {
        self.status.as_ref()?.evidence.as_ref()
    }

    /// Does the gateway of this name refuse its secret?
    pub(crate) fn is_refused_by(&self, other: &str) -> bool {
        self.evidence().is_some_and(|evidence| evidence.refused_by.iter().any(|name| name == other))
    }
}

/// A question, and how long its answer may take.
#[derive(Debug, Clone)]
pub(crate) struct DoctorQuestion<'a> {
    pub(crate) chosen: &'a ChosenCluster,
    pub(crate) within: Duration,
    /// For the hashes of all answers, so that they can be compared.
    pub(crate) salt: u64,
    /// Apps whose settings are compared one by one.
    pub(crate) apps: Vec<String>,
}

impl<'a> DoctorQuestion<'a> {
    /// One with a salt of its own.
    pub(crate) fn new(chosen: &'a ChosenCluster, within: Duration) -> Result<Self, Failure> {
        let salt = getrandom::u64().map_err(|error| Failure::Failed(format!("no random number: {error}")))?;
        Ok(Self { chosen, within, salt, apps: Vec::new() })
    }
}

impl SeenCluster {
    /// Asks the first gateway that answers, and then those that did not answer it.
    pub(crate) async fn look(question: &DoctorQuestion<'_>) -> Result<Self, Failure> {
        let DoctorQuestion { chosen, within, .. } = question;
        let ask = |address: String, within| async move { question.ask(&address, within).await };
        let (address, (reply, asked_ms)) = chosen.first(*within, ask).await?;
        let complete = reply.coverage.as_ref().is_some_and(|coverage| coverage.complete);
        let mut seen = Self::of(reply, address, asked_ms);
        seen.complete = complete;
        let silent = seen.gateways.iter_mut().filter(|gateway| gateway.status.is_none());
        join_all(silent.map(|gateway| gateway.ask_directly(question))).await;
        seen.add_removed();
        Ok(seen)
    }

    /// Those that did not answer before, and are in no view now.
    pub(crate) fn add_lost(&mut self, before: &Self) {
        let is_lost = |gateway: &&SeenGateway| {
            let Member { incarnation, .. } = &gateway.member;
            gateway.status.is_none()
                && !goes(&gateway.member)
                && !self.members.iter().any(|member| member.incarnation == *incarnation)
                && !self.removed.iter().any(|removed| removed.incarnation == *incarnation)
        };
        let lost: Vec<RemovedMember> = before.gateways.iter().filter(is_lost).map(removed).collect();
        self.removed.extend(lost);
    }

    /// What the gateways say of members that were removed; each may have been there for another time.
    fn add_removed(&mut self) {
        let mut all: BTreeMap<String, RemovedMember> = BTreeMap::new();
        for one in self.known().flat_map(|(_, evidence)| &evidence.removed) {
            let known = all.entry(one.incarnation.clone()).or_insert_with(|| one.clone());
            known.age_ms = known.age_ms.max(one.age_ms);
        }
        // Some gateway may be behind.
        all.retain(|incarnation, _| !self.members.iter().any(|member| member.incarnation == *incarnation));
        self.removed = all.into_values().collect();
    }

    /// The gateway that was asked, if it has never been in a view.
    pub(crate) fn is_of_no_cluster(&self) -> Option<&str> {
        self.gateways.first().map(SeenGateway::name).filter(|_| self.members.is_empty())
    }

    /// Does the gateway of this name refuse the secret of another one?
    pub(crate) fn refuses_some(&self, name: &str) -> bool {
        self.gateways.iter().any(|other| other.is_refused_by(name))
    }

    /// Gateways that answered and are in the view.
    pub(crate) fn inside(&self) -> impl Iterator<Item = (&SeenGateway, &GatewayStatus)> {
        self.answered().filter(|(gateway, _)| gateway.evidence().is_none_or(|evidence| evidence.inside))
    }

    /// Gateways that answered.
    pub(crate) fn answered(&self) -> impl Iterator<Item = (&SeenGateway, &GatewayStatus)> {
        self.gateways.iter().filter_map(|gateway| Some((gateway, gateway.status.as_ref()?)))
    }

    /// Those with evidence: of this version.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&SeenGateway, &GatewayEvidence)> {
        self.gateways.iter().filter_map(|gateway| Some((gateway, gateway.evidence()?)))
    }

    /// What one answer says.
    fn of(reply: StatusReply, address: String, asked_ms: (u64, u64)) -> Self {
        let view = reply.view.unwrap_or_default();
        let gateways = view.members.iter().filter(|member| member.role() == Role::Gateway).cloned();
        let mut gateways: Vec<SeenGateway> = gateways
            .map(|member| {
                let status = reply.gateways.iter().find(|status| status.incarnation == member.incarnation);
                SeenGateway { status: status.cloned(), member, why: String::new(), asked_ms }
            })
            .collect();
        // One that is in no view answers for itself alone.
        let is_seen = |status: &&GatewayStatus| {
            view.members.iter().any(|member| member.incarnation == status.incarnation)
        };
        for status in reply.gateways.iter().filter(|status| !is_seen(status)) {
            let (incarnation, name) = (status.incarnation.clone(), status.name.clone());
            let member = Member { incarnation, name, address: address.clone(), ..Member::default() };
            gateways.push(SeenGateway { status: Some(status.clone()), member, why: String::new(), asked_ms });
        }
        gateways.sort_by(|a, b| a.name().cmp(b.name()));
        let epoch = view.epoch.unwrap_or_default();
        let refused = reply.refused;
        Self {
            refused,
            address,
            epoch,
            gateways,
            workers: reply.workers,
            members: view.members,
            ..Self::default()
        }
    }
}

/// One that has only just gone.
fn removed(SeenGateway { member, .. }: &SeenGateway) -> RemovedMember {
    RemovedMember {
        incarnation: member.incarnation.clone(),
        role: member.role,
        name: member.name.clone(),
        address: member.address.clone(),
        ..RemovedMember::default()
    }
}

impl SeenGateway {
    async fn ask_directly(&mut self, question: &DoctorQuestion<'_>) {
        match question.ask(&self.member.address, question.within).await {
            Ok((reply, asked_ms)) => {
                let own = reply.gateways.into_iter();
                self.status = own.into_iter().find(|status| status.incarnation == self.member.incarnation);
                self.asked_ms = asked_ms;
                if self.status.is_none() {
                    self.why = format!("another gateway is at its address, {}", self.member.address);
                }
            }
            Err(failure) => self.why = failure.to_string(),
        }
    }
}

type TimedReply = (StatusReply, (u64, u64));

impl DoctorQuestion<'_> {
    async fn ask(&self, address: &str, within: Duration) -> Result<TimedReply, Failure> {
        let Credentials { tls, .. } = &self.chosen.credentials;
        let channel = probe::channel(address, tls.as_ref(), WantedRole::Gateway, within).await?;
        let mut client = GatewayClient::with_interceptor(channel, self.chosen.credentials.sender())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_HIGHEST);
        let request = StatusRequest { evidence: true, salt: self.salt, apps: self.apps.clone() };
        let mut request = Request::new(request);
        // The gateway then names those that do not answer, before this gives up.
        request.set_timeout(within);
        let before = now_ms();
        let reply = client.status(request).await;
        let reply = reply.map_err(|status| probe::refused(address, WantedRole::Gateway, &status))?;
        Ok((reply.into_inner(), (before, now_ms())))
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
