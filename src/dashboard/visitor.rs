//! Somebody who is logged in, with what the cluster is asked by.

use broadgate_proto::{
    said,
    v1::{StatusRequest, WhoAmIReply, WhoAmIRequest},
};
use tonic::{Code, Response};

use crate::{
    dashboard::{
        asker::{Asker, GatewayCalls},
        head::ClusterHead,
    },
    failure::Failure,
    operate::ChosenCluster,
};

/// A visitor.
pub(super) struct Visitor {
    pub(super) asker: Asker,
    pub(super) head: ClusterHead,
    /// The cluster, with the visitor's credentials.
    pub(super) chosen: ChosenCluster,
    /// Who that is to the cluster; unknown to gateways of earlier versions, and while none answers.
    pub(super) who: WhoAmIReply,
}

impl Visitor {
    pub(super) fn new(mut chosen: ChosenCluster) -> Self {
        chosen.credentials.secret = chosen.credentials.secret.of_program(said::DASHBOARD);
        let asker = Asker::new(chosen.addresses.clone(), chosen.credentials.clone());
        Self { asker, head: ClusterHead::default(), chosen, who: WhoAmIReply::default() }
    }

    /// Asks the cluster who that is, which shows whether it accepts the credentials.
    pub(super) async fn introduce(&mut self) -> Result<(), Failure> {
        let ask = |mut calls: GatewayCalls| async move {
            match calls.observe.who_am_i(WhoAmIRequest::default()).await {
                // It is of an earlier version, and knows nobody but processes with the secret.
                Err(status) if status.code() == Code::Unimplemented => {
                    let status = calls.gateway.status(StatusRequest::default()).await;
                    status.map(|_| Response::new(WhoAmIReply::default()))
                }
                answered => answered,
            }
        };
        self.who = self.asker.ask(ask).await?.reply;
        Ok(())
    }

    /// Whether it may see the cluster as a whole, and not some apps alone.
    pub(super) fn sees_all(&self) -> bool {
        self.who.who.is_empty() || self.who.apps.iter().any(|app| app == "*")
    }
}
