//! Taps: what clients do and are sent, from now on.

use broadgate_proto::{
    limits,
    v1::{TapEvents, TapRequest, observe_client::ObserveClient},
};
use tonic::{Code, Streaming};

use crate::cluster::{
    error::CommandError,
    handle::{Cluster, not_reachable},
    table::GatewayChoice,
};

/// An open tap: see [`Cluster::tap`]. Dropping it ends it.
#[derive(Debug)]
#[must_use]
pub struct TapStream {
    events: Streaming<TapEvents>,
    gateway: String,
}

impl TapStream {
    /// The next events of one gateway; none when the tap's time is over. Cancel safe.
    ///
    /// # Errors
    /// If the gateway that was called has ended, or cannot be reached any more, or the token does not allow the tap
    /// any more.
    pub async fn next(&mut self) -> Result<Option<TapEvents>, CommandError> {
        self.events.message().await.map_err(|status| {
            if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) {
                return CommandError::from_status(&status);
            }
            let why = format!("the tap by way of gateway {} broke: {}", self.gateway, status.message());
            not_reachable(&why)
        })
    }
}

impl Cluster {
    /// Opens a tap by way of one gateway: what the clients that fit do and are sent, at all gateways, from now on.
    /// Nobody waits for it: what is not read in time is missed, and counted at its place.
    ///
    /// # Errors
    /// If the request is malformed, the gateway has too many taps, or none answers in time.
    pub async fn tap(&self, request: TapRequest) -> Result<TapStream, CommandError> {
        let link = self.choose(&GatewayChoice::Any).await;
        let request = TapRequest {
            app: if request.app.is_empty() { self.app.to_string() } else { request.app },
            ..request
        };
        let mut client = ObserveClient::with_interceptor(link.channel(), self.inner.credentials.sender())
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
        match tokio::time::timeout(self.inner.timeout, client.tap(request)).await {
            Ok(Ok(response)) => Ok(TapStream { events: response.into_inner(), gateway: link.name.clone() }),
            Ok(Err(status)) => Err(CommandError::from_status(&status)),
            Err(_) => Err(not_reachable(&format!("gateway {} does not answer in time", link.name))),
        }
    }
}
