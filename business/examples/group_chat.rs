//! What one says everybody in the room hears, whichever gateway they are on.
//!
//! Run: `cargo run --release -p broadgate-business --example group_chat`
//!
//! Then connect with any WebSocket client to two gateways (`/ws?room=tea`) and type.
//! `BROADGATE_REGISTER` names the register (127.0.0.1:7100), `BROADGATE_SECRET` its secret. Ctrl-C
//! ends it. [`broadgate_business::chat`] is the larger one behind the demo's page.

use broadgate_business::{
    Audience, Client, Handler, Message, Worker, shutdown_signal,
    worker::{Closed, Handshake},
};
use serde_json::json;

struct GroupChat;

fn room_of(client: &Client) -> String {
    client.session()["room"].as_str().unwrap_or("lobby").to_owned()
}

impl Handler for GroupChat {
    async fn opened(&self, client: &Client, handshake: Handshake) -> anyhow::Result<()> {
        let asked = handshake.query.split('&').find_map(|pair| pair.strip_prefix("room="));
        let room = asked.filter(|room| !room.is_empty()).unwrap_or("lobby");
        client.merge_session(&json!({ "room": room })).await?;
        client.join(room).await?;
        let text = format!("somebody from {} joined", handshake.address);
        client.cluster().send(Audience::group(room).except_client(client.id()), text).await?;
        client.send(format!("welcome to {room}")).await?;
        Ok(())
    }

    async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
        client.cluster().send(Audience::group(room_of(client)), message).await?;
        Ok(())
    }

    async fn closed(&self, client: &Client, _: Closed) -> anyhow::Result<()> {
        client.cluster().send(Audience::group(room_of(client)), "somebody left").await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    Worker::from_env()?.run(GroupChat, shutdown_signal()).await
}
