//! The Admin service: orders that a gateway passes on to the register.

use std::{sync::Arc, time::Duration};

use broadgate_port::connect;
use broadgate_proto::{
    LEADER_HEADER,
    v1::{DrainReply, DrainRequest, admin_server::Admin, register_client::RegisterClient},
};
use broadgate_tls::Credentials;
use serde_json::json;
use tonic::{Request, Response, Status, transport::Endpoint};

use crate::{
    api::{denials, headers::patience},
    audit::{AuditLine, fit},
    callers::Caller,
    dispatch::Dispatcher,
};

/// How long a register may take for a caller who does not say how long it waits.
const REGISTER_TIME_MAX: Duration = Duration::from_secs(5);

pub(crate) struct AdminService {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) credentials: Credentials,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        let caller = Caller::of(request.extensions());
        denials::may_drain(&self.dispatcher, &caller, &request.get_ref().gateway)?;
        let within = patience(request.metadata()).unwrap_or(REGISTER_TIME_MAX);
        let register = (self.dispatcher.register)().address;
        if register.is_empty() {
            return Err(Status::unavailable("this gateway follows no register"));
        }
        // What its caller says of that does not count.
        let request = DrainRequest { by: Some(caller.giver()), ..request.into_inner() };
        let on = json!({ "gateway": fit(&request.gateway) });
        let line = AuditLine::new(&self.dispatcher.me.load().name, &caller, "drain", on);
        let asking = self.ask(&register, request);
        let answered = tokio::time::timeout(within, asking).await.unwrap_or_else(|_| {
            Err(Status::unavailable(format!("the register {register} has not answered within {within:?}")))
        });
        let line = match &answered {
            Ok(_) => line,
            Err(status) => line.refused(status.message()),
        };
        self.dispatcher.audit.note(&caller, line).await;
        answered
    }
}

impl AdminService {
    /// One that stands by names the one that leads.
    async fn ask(&self, register: &str, request: DrainRequest) -> Result<Response<DrainReply>, Status> {
        let refused = match self.ask_one(register, request.clone()).await {
            Err(refused) => refused,
            reply => return reply,
        };
        let leader = refused.metadata().get(LEADER_HEADER).and_then(|leader| leader.to_str().ok());
        match leader {
            Some(leader) => self.ask_one(leader, request).await,
            None => Err(refused),
        }
    }

    async fn ask_one(&self, register: &str, request: DrainRequest) -> Result<Response<DrainReply>, Status> {
        let unreachable =
            |error: tonic::transport::Error| Status::unavailable(format!("the register {register}: {error}"));
        let endpoint = Endpoint::from_shared(format!("http://{register}")).map_err(unreachable)?;
        let channel = connect(endpoint, self.credentials.tls.as_ref()).await.map_err(unreachable)?;
        RegisterClient::with_interceptor(channel, self.credentials.sender()).drain(request).await
    }
}
