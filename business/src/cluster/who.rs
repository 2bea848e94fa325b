//! Who is asking, as a gateway sees it.

use broadgate_proto::v1::{WhoAmIReply, WhoAmIRequest, observe_client::ObserveClient};

use crate::cluster::{
    error::CommandError,
    handle::{Cluster, not_reachable},
    table::GatewayChoice,
};

impl Cluster {
    /// Who this process is to the cluster, and what its secret or token allows.
    ///
    /// # Errors
    /// If the token does not count any more, or no gateway answers in time.
    pub async fn who_am_i(&self) -> Result<WhoAmIReply, CommandError> {
        let link = self.choose(&GatewayChoice::Any).await;
        let mut client = ObserveClient::with_interceptor(link.channel(), self.inner.credentials.sender());
        match tokio::time::timeout(self.inner.timeout, client.who_am_i(WhoAmIRequest::default())).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(CommandError::from_status(&status)),
            Err(_) => Err(not_reachable(&format!("gateway {} does not answer in time", link.name))),
        }
    }
}
