//! The Observe service: what operators ask of the whole cluster.

use std::{pin::Pin, sync::Arc};

use broadgate_proto::v1::{self, answer::Answer, command::Command, observe_server::Observe};
use broadgate_tls::Credentials;
use futures_util::Stream;
use tonic::{Request, Response, Status};

use crate::{
    api::{
        headers::{after, patience, status},
        tap,
    },
    dispatch::Dispatcher,
    observers::Taps,
};

pub(crate) struct ObserveService {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) taps: Taps,
    /// For the taps of other gateways.
    pub(crate) credentials: Credentials,
}

#[tonic::async_trait]
impl Observe for ObserveService {
    async fn ended(&self, request: Request<v1::EndedRequest>) -> Result<Response<v1::EndedReply>, Status> {
        let after = after(request.metadata())?;
        let patience = patience(request.metadata());
        match self.dispatcher.run_within(Command::Ended(request.into_inner()), after, patience).await {
            Answer::Ended(reply) => Ok(Response::new(reply)),
            Answer::Error(error) => Err(status(error)),
            _ => Err(Status::internal("the answer does not fit the command")),
        }
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectRequest>,
    ) -> Result<Response<v1::InspectReply>, Status> {
        let after = after(request.metadata())?;
        let patience = patience(request.metadata());
        match self.dispatcher.run_within(Command::Inspect(request.into_inner()), after, patience).await {
            Answer::Inspected(reply) => Ok(Response::new(reply)),
            Answer::Error(error) => Err(status(error)),
            _ => Err(Status::internal("the answer does not fit the command")),
        }
    }

    type TapStream = Pin<Box<dyn Stream<Item = Result<v1::TapEvents, Status>> + Send>>;

    async fn tap(&self, request: Request<v1::TapRequest>) -> Result<Response<Self::TapStream>, Status> {
        let request = request.into_inner();
        tap::open(&self.dispatcher, &self.taps, &self.credentials, request).await.map(Response::new)
    }
}
