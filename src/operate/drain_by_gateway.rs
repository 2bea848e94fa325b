//! Draining for an operator who reaches gateways and no register: a gateway passes the order on, and the views of
//! gateways say when the one that drains has gone.

use std::{convert::Infallible, io::ErrorKind, time::Duration};

use broadgate_business::v1::{Epoch, Member, Role, View};
use broadgate_port::connect_lazy;
use broadgate_proto::{
    v1::{DrainReply, DrainRequest, StatusRequest, admin_client::AdminClient, gateway_client::GatewayClient},
    view,
};
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tonic::{Code, Request, transport::Endpoint};

use crate::{
    failure::Failure,
    operate::{
        drain_progress::SeenState,
        probe::{self, WantedRole},
        target::ChosenCluster,
    },
};

/// Between two looks at a view, and how long one may take.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOK_TIME_MAX: Duration = Duration::from_secs(3);

/// Gives the order to the first gateway that answers; none if that is of a version that cannot pass it on.
pub(super) async fn ask(
    chosen: &ChosenCluster,
    gateway: &str,
    within: Duration,
) -> Result<Option<DrainReply>, Failure> {
    let order = |address: String, within| async move {
        let credentials = &chosen.credentials;
        let channel = probe::channel(&address, credentials.tls.as_ref(), WantedRole::Gateway, within).await?;
        let mut request = Request::new(DrainRequest { gateway: gateway.to_owned(), by: None });
        request.set_timeout(within);
        match AdminClient::with_interceptor(channel, credentials.sender()).drain(request).await {
            Ok(reply) => Ok(Some(reply.into_inner())),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(probe::refused(&address, WantedRole::Gateway, &status)),
        }
    };
    let (address, reply) = chosen.first(within, order).await?;
    chosen.announce(&address);
    Ok(reply)
}

/// Follows an incarnation through the views of gateways, for ever.
pub(super) async fn follow(
    chosen: &ChosenCluster,
    incarnation: &str,
    seen: &watch::Sender<SeenState>,
) -> Infallible {
    // The gateways of the newest view: the one that drains may be the only one that was named.
    let (mut others, mut newest) = (Vec::new(), Epoch::default());
    loop {
        let mut found = None;
        for address in chosen.addresses.iter().chain(&others) {
            found = timeout(LOOK_TIME_MAX, look(chosen, address)).await.ok().flatten();
            if found.is_some() {
                break;
            }
        }
        match found {
            // One that is behind may not know it yet.
            Some(view) if view::epoch(&view) < newest => {}
            Some(view) => {
                newest = view::epoch(&view);
                let is_other =
                    |member: &&Member| member.role() == Role::Gateway && member.incarnation != incarnation;
                others = view.members.iter().filter(is_other).map(|member| member.address.clone()).collect();
                seen.send_modify(|seen| seen.note(&view, incarnation));
            }
            None => {
                let address = seen.borrow().address.clone();
                let is_closed = !address.is_empty() && is_refused(&address).await;
                seen.send_modify(|seen| seen.gone |= is_closed);
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A gateway's view.
async fn look(chosen: &ChosenCluster, address: &str) -> Option<View> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let channel = connect_lazy(&endpoint, chosen.credentials.tls.as_ref());
    let mut client = GatewayClient::with_interceptor(channel, chosen.credentials.sender());
    client.status(StatusRequest::default()).await.ok()?.into_inner().view
}

/// Nothing listens there: the last port of a gateway is closed when it has left.
async fn is_refused(address: &str) -> bool {
    let tried = timeout(LOOK_TIME_MAX, TcpStream::connect(address)).await;
    matches!(tried, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}
