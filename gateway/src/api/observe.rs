//! The Observe service: what operators ask of the whole cluster.

use std::sync::Arc;

use broadgate_proto::v1::{self, answer::Answer, command::Command, observe_server::Observe};
use tonic::{Request, Response, Status};

use crate::{
    api::headers::{after, status},
    dispatch::Dispatcher,
};

pub(crate) struct ObserveService(pub(crate) Arc<Dispatcher>);

#[tonic::async_trait]
impl Observe for ObserveService {
    async fn ended(&self, request: Request<v1::EndedRequest>) -> Result<Response<v1::EndedReply>, Status> {
        let after = after(request.metadata())?;
        match self.0.run(Command::Ended(request.into_inner()), after).await {
            Answer::Ended(reply) => Ok(Response::new(reply)),
            Answer::Error(error) => Err(status(error)),
            _ => Err(Status::internal("the answer does not fit the command")),
        }
    }
}
