//! The calls of laravel-echo-server's HTTP API, carried out.

use broadgate_pusher::{
    api::{ApiRefusal, echo_server as echo, params::Params, route::Call},
    member::ChannelMember,
};
use http::StatusCode;

use crate::ingress::pusher_api::calls::Backend;

impl Backend {
    pub(super) async fn carry_out_as_echo_server(
        &self,
        call: Call,
        params: &Params,
        body: &[u8],
    ) -> Result<String, ApiRefusal> {
        let limits = &self.app.limits;
        match call {
            Call::Events => {
                let event = echo::event(body, limits)?;
                self.publish(&[event]).await?;
                Ok(echo::PUBLISHED.to_owned())
            }
            Call::Status => {
                let uptime = self.dispatcher.started.elapsed().as_secs_f64();
                Ok(echo::status_answer(self.connections().await?, uptime))
            }
            Call::Channels => {
                let names = self.occupied(params.get("filter_by_prefix").unwrap_or_default()).await?;
                Ok(echo::channels_answer(names.iter().map(|(name, clients)| (&**name, *clients))))
            }
            Call::Channel { channel } => {
                let has_users = echo::channel(&channel, limits)?;
                let clients = self.subscriptions(&channel).await?;
                let users = if has_users { Some(self.users_in(&channel).await?) } else { None };
                Ok(echo::channel_answer(clients, users))
            }
            Call::Users { channel } => {
                echo::users(&channel, limits)?;
                let all = self.members(&channel).await?;
                let members: Vec<_> =
                    all.iter().map(|member| ChannelMember::of_seat(&member.user_id, &member.info)).collect();
                Ok(echo::users_answer(&members))
            }
            Call::BatchEvents
            | Call::ChannelEvents { .. }
            | Call::TerminateConnections { .. }
            | Call::Connections => Err(ApiRefusal::new(
                StatusCode::NOT_FOUND,
                "this call is not one of laravel-echo-server's: sign the request with a key and its secret, as \
                 Pusher's libraries do",
            )),
        }
    }
}
