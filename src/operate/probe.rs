//! What answers at an address: why a command cannot be given there, before it is tried.

use std::time::Duration;

use broadgate_business::{ClusterTls, Credentials};
use broadgate_port::{FoundListener, connect, look};
use broadgate_proto::v1::{GetAppRequest, gateway_client::GatewayClient};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{failure::Failure, terminal_text::one_line};

/// Whose port is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WantedRole {
    Gateway,
    Register,
}

impl WantedRole {
    /// Which port that is, and how it is named.
    fn hint(self) -> &'static str {
        match self {
            Self::Gateway => {
                "commands go to the internal port of a gateway (gateway.internal.bind, 7200 by default): \
                 name it with --addr"
            }
            Self::Register => {
                "name the register's port (register.bind, 7100 by default) with --register, or any \
                 gateway's internal port with --addr"
            }
        }
    }
}

/// Refuses an address at which nothing speaks HTTP/2, plain or inside TLS as this command does.
pub(super) async fn check(
    address: &str,
    tls: Option<&ClusterTls>,
    wanted: WantedRole,
    within: Duration,
) -> Result<(), Failure> {
    match look(address, within, tls).await {
        Ok(FoundListener::Http2) => Ok(()),
        Ok(found) if found.is_of_the_cluster() => {
            Err(Failure::Unreachable(format!("{address} {}", found.sentence())))
        }
        Ok(FoundListener::Other) => Err(Failure::Unreachable(format!(
            "{address} {}, or needs longer than {} (--timeout); {}",
            FoundListener::Other.sentence(),
            humantime::format_duration(within),
            wanted.hint()
        ))),
        Ok(found) => Err(Failure::Unreachable(format!("{address} {}; {}", found.sentence(), wanted.hint()))),
        Err(why) => {
            Err(Failure::Unreachable(format!("{address} cannot be reached: {why}; {}", wanted.hint())))
        }
    }
}

/// A gateway's answer about an app, which shows that commands can be given there.
pub(super) async fn gateway(
    address: &str,
    credentials: &Credentials,
    app: &str,
    within: Duration,
) -> Result<(), Failure> {
    let channel = channel(address, credentials.tls.as_ref(), WantedRole::Gateway, within).await?;
    let mut client = GatewayClient::with_interceptor(channel, credentials.sender());
    let asked = client.get_app(GetAppRequest { app: app.to_owned() }).await;
    asked.map(drop).map_err(|status| refused(address, WantedRole::Gateway, &status))
}

/// A connection for commands.
pub(super) async fn channel(
    address: &str,
    tls: Option<&ClusterTls>,
    wanted: WantedRole,
    within: Duration,
) -> Result<Channel, Failure> {
    check(address, tls, wanted, within).await?;
    let wrong = |error: tonic::transport::Error| Failure::Unreachable(format!("{address}: {error}"));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(wrong)?;
    connect(endpoint.connect_timeout(within).timeout(within), tls).await.map_err(wrong)
}

/// Why a call was not carried out there.
pub(super) fn refused(address: &str, wanted: WantedRole, status: &Status) -> Failure {
    let message = one_line(status.message());
    match (status.code(), wanted) {
        (Code::NotFound, _) => Failure::NotFound(message),
        (Code::InvalidArgument, _) => Failure::usage(message),
        (Code::PermissionDenied, _) => Failure::NotAllowed(format!("{address}: {message}")),
        (Code::Unauthenticated, _) => Failure::usage(format!("{address}: {message}")),
        (Code::Unimplemented, WantedRole::Gateway) => {
            Failure::Unreachable(format!("{address} is the register's port; {}", wanted.hint()))
        }
        (Code::Unimplemented, WantedRole::Register) => {
            Failure::Unreachable(format!("{address} is a gateway's internal port; {}", wanted.hint()))
        }
        (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled, _) => {
            let message =
                if message == "Timeout expired" { "not in time (--timeout)".to_owned() } else { message };
            Failure::Unreachable(format!("{address} does not answer: {message}"))
        }
        // An answer of HTTP, and none of gRPC.
        _ if message.contains("while receiving response with status: 404") => Failure::Unreachable(format!(
            "{address} is an HTTP server, such as a metrics port, and no internal port; {}",
            wanted.hint()
        )),
        _ => Failure::Failed(format!("{address}: {message}")),
    }
}
