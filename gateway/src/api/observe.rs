//! The Observe service: what operators ask of the whole cluster.

use std::{pin::Pin, sync::Arc};

use broadgate_proto::v1::{self, answer::Answer, command::Command, observe_server::Observe};
use broadgate_tls::Credentials;
use futures_util::Stream;
use tonic::{Request, Response, Status};

use crate::{
    api::{
        calls::{gateways, note_tap, run, watched_tap, who_am_i},
        denials,
        headers::{after, patience, status},
        tap,
    },
    callers::Caller,
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
        let caller = Caller::of(request.extensions());
        match run(&self.dispatcher, &caller, Command::Ended(request.into_inner()), after, patience).await {
            Answer::Ended(reply) => Ok(Response::new(reply)),
            Answer::Error(error) => Err(status(error)),
            _ => Err(Status::internal("the answer does not fit the command")),
        }
    }

    async fn sends(&self, request: Request<v1::SendsRequest>) -> Result<Response<v1::SendsReply>, Status> {
        let after = after(request.metadata())?;
        let patience = patience(request.metadata());
        let caller = Caller::of(request.extensions());
        match run(&self.dispatcher, &caller, Command::Sends(request.into_inner()), after, patience).await {
            Answer::Sends(reply) => Ok(Response::new(reply)),
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
        let caller = Caller::of(request.extensions());
        match run(&self.dispatcher, &caller, Command::Inspect(request.into_inner()), after, patience).await {
            Answer::Inspected(reply) => Ok(Response::new(reply)),
            Answer::Error(error) => Err(status(error)),
            _ => Err(Status::internal("the answer does not fit the command")),
        }
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<v1::EventsReply>, Status> {
        let after = after(request.metadata())?;
        let patience = patience(request.metadata());
        let caller = Caller::of(request.extensions());
        match run(&self.dispatcher, &caller, Command::Events(request.into_inner()), after, patience).await {
            Answer::Events(reply) => Ok(Response::new(reply)),
            Answer::Error(error) => Err(status(error)),
            _ => Err(Status::internal("the answer does not fit the command")),
        }
    }

    async fn top(&self, request: Request<v1::TopRequest>) -> Result<Response<v1::TopReply>, Status> {
        let after = after(request.metadata())?;
        let patience = patience(request.metadata());
        let caller = Caller::of(request.extensions());
        match run(&self.dispatcher, &caller, Command::Top(request.into_inner()), after, patience).await {
            Answer::Top(reply) => Ok(Response::new(reply)),
            Answer::Error(error) => Err(status(error)),
            _ => Err(Status::internal("the answer does not fit the command")),
        }
    }

    type TapStream = Pin<Box<dyn Stream<Item = Result<v1::TapEvents, Status>> + Send>>;

    async fn tap(&self, request: Request<v1::TapRequest>) -> Result<Response<Self::TapStream>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        denials::may_tap(&self.dispatcher, &caller, &request)?;
        note_tap(&self.dispatcher, &caller, &request).await;
        let asked = request.clone();
        let events = tap::open(&self.dispatcher, &self.taps, &self.credentials, &caller, request).await?;
        Ok(Response::new(watched_tap(Arc::downgrade(&self.dispatcher), caller, asked, events)))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIReply>, Status> {
        let caller = Caller::of(request.extensions());
        who_am_i(&self.dispatcher, &caller).await.map(Response::new).map_err(status)
    }

    async fn gateways(
        &self,
        request: Request<v1::GatewaysRequest>,
    ) -> Result<Response<v1::GatewaysReply>, Status> {
        let caller = Caller::of(request.extensions());
        let reply = gateways(&self.dispatcher, &caller, request.get_ref()).map_err(status)?;
        Ok(Response::new(reply))
    }
}
