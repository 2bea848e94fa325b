//! Who is asking, as a gateway sees it; and which gateways there are.

use broadgate_proto::{
    secret::SendSecret,
    v1::{GatewaysRequest, View, WhoAmIReply, WhoAmIRequest, observe_client::ObserveClient},
};
use tonic::{Code, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::cluster::{
    error::CommandError,
    handle::{Cluster, not_reachable},
    table::GatewayChoice,
};

type ObserveStub = ObserveClient<InterceptedService<Channel, SendSecret>>;

impl Cluster {
    /// Who this process is to the cluster, and what its secret or token allows.
    ///
    /// # Errors
    /// If the token does not count any more, or no gateway answers in time.
    pub async fn who_am_i(&self) -> Result<WhoAmIReply, CommandError> {
        let ask = |mut gateway: ObserveStub| async move { gateway.who_am_i(WhoAmIRequest::default()).await };
        self.ask_any(ask).await
    }

    /// The newest view as a gateway has it, with the gateways alone. A token of this app suffices.
    ///
    /// # Errors
    /// If the token is not for the app, no gateway answers in time, or the one that does is of an earlier version.
    pub async fn gateways(&self) -> Result<View, CommandError> {
        let request = GatewaysRequest { app: self.app.to_string(), ..GatewaysRequest::default() };
        let ask = |mut gateway: ObserveStub| {
            let request = request.clone();
            async move { gateway.gateways(request).await }
        };
        let reply = self.ask_any(ask).await?;
        Ok(reply.view.unwrap_or_default())
    }

    /// One question to any gateway, which answers for itself. One that cannot be reached is passed over.
    async fn ask_any<T, F>(&self, ask: impl Fn(ObserveStub) -> F) -> Result<T, CommandError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asking = async {
            self.choose(&GatewayChoice::Any).await;
            let links = self.inner.table.borrow().in_order();
            let mut answered = Err(Status::unavailable("no gateway is known"));
            for link in links {
                let sender = self.inner.credentials.sender();
                answered = ask(ObserveClient::with_interceptor(link.channel(), sender)).await;
                if !answered.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
                    break;
                }
            }
            answered
        };
        match tokio::time::timeout(self.inner.timeout, asking).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) if status.code() == Code::Unavailable => Err(not_reachable(status.message())),
            Ok(Err(status)) => Err(CommandError::from_status(&status)),
            Err(_) => Err(not_reachable("no gateway answered in time")),
        }
    }
}
