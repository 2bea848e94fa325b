//! What a person sees while a drain is waited for.

use std::{convert::Infallible, time::Duration};

use broadgate_business::Credentials;
use broadgate_port::connect_lazy;
use broadgate_proto::v1::{StatusRequest, View, gateway_client::GatewayClient};
use tokio::{sync::watch, time::timeout};
use tonic::transport::Endpoint;

use crate::output::counted;

/// Between two looks at how many clients are left, and how long one may take.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the register's views say of the gateway that drains.
#[derive(Debug, Clone, Default)]
pub(super) struct SeenState {
    /// Where others reach it.
    pub(super) address: String,
    pub(super) gone: bool,
    /// Another incarnation is found at its address.
    pub(super) again: bool,
}

impl SeenState {
    /// What a view says of an incarnation.
    pub(super) fn note(&mut self, view: &View, incarnation: &str) {
        let found = view.members.iter().find(|member| member.incarnation == incarnation);
        if let Some(member) = found {
            self.address.clone_from(&member.address);
        }
        let here = |address: &str| !address.is_empty() && address == self.address;
        self.again =
            view.members.iter().any(|member| here(&member.address) && member.incarnation != incarnation);
        // One without an epoch knows nobody yet.
        self.gone |= view.epoch.is_some() && found.is_none();
    }
}

/// Says on standard error how many clients the gateway still has, whenever that has changed, for ever.
pub(super) async fn show_clients(
    credentials: &Credentials,
    (name, incarnation): (&str, &str),
    mut seen: watch::Receiver<SeenState>,
) -> Infallible {
    let mut shown = None;
    // Its address comes with the first view.
    let _ = seen.wait_for(|seen| !seen.address.is_empty()).await;
    loop {
        let SeenState { address, gone, .. } = seen.borrow().clone();
        if !gone {
            let left = timeout(LOOK_AGAIN, clients(credentials, incarnation, &address)).await.ok().flatten();
            if let Some(left) = left
                && shown != Some(left)
            {
                shown = Some(left);
                say!("{name} drains: {} left", counted(left, "client"));
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What the gateway itself says; none if it does not answer.
async fn clients(credentials: &Credentials, incarnation: &str, address: &str) -> Option<u64> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let channel = connect_lazy(&endpoint, credentials.tls.as_ref());
    let mut client = GatewayClient::with_interceptor(channel, credentials.sender());
    let status = client.status(StatusRequest::default()).await.ok()?.into_inner();
    let own = status.gateways.into_iter().find(|gateway| gateway.incarnation == incarnation);
    own.map(|gateway| gateway.clients)
}
