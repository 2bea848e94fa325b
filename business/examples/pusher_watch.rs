//! Prints what the Pusher clients of an app do, wherever they are: one line for each event.
//!
//! Run: `cargo run --release -p broadgate-business --example pusher_watch -- 1`
//!
//! The argument is the app's id; under `cargo run --release` that is 1. With a second argument, all who are
//! started with the same one share the clients among themselves. `BROADGATE_REGISTER` names the register
//! (127.0.0.1:7100), `BROADGATE_SECRET` its secret. Ctrl-C ends it.

use broadgate_business::{
    Cluster, ClusterConfig, PusherEvent, PusherEventKind as Kind, cluster::PusherNews, shutdown_signal,
};

fn print(PusherEvent { socket_id, user_id, kind, .. }: PusherEvent) {
    let who = user_id.map_or(socket_id.clone(), |user| format!("{socket_id} ({user})"));
    match kind {
        Kind::Opened { address } => println!("{who}: came from {address}"),
        Kind::SignedIn { user_data } => println!("{who}: signed in as {user_data}"),
        Kind::Subscribed { channel, user_id: Some(user), .. } => println!("{who}: in {channel} as {user}"),
        Kind::Subscribed { channel, .. } => println!("{who}: in {channel}"),
        Kind::Unsubscribed { channel } => println!("{who}: left {channel}"),
        Kind::ClientEvent { channel, event, data, .. } => println!("{who}: {event} to {channel}: {data}"),
        Kind::Closed { code, reason, channels, .. } => {
            println!("{who}: gone, {code} {reason}; was in {channels:?}");
        }
        // Later versions may tell more.
        _ => {}
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let app = args.next().unwrap_or_else(|| "1".to_owned());
    let cluster = Cluster::connect(ClusterConfig::from_env()?).await?.in_app(&app);
    let mut watch = match args.next() {
        Some(share) => cluster.share_pusher(&share)?,
        None => cluster.watch_pusher()?,
    };
    let watching = async {
        loop {
            match watch.next().await? {
                PusherNews::Event(event) => print(event),
                PusherNews::Missed { gateway, events: Some(events) } => {
                    println!("{events} events of clients at {gateway} were missed");
                }
                PusherNews::Missed { gateway, events: None } => {
                    println!("what happened at {gateway} for a while was missed");
                }
                PusherNews::GatewayLeft { gateway } => {
                    println!("{gateway} has left: so have its clients");
                }
            }
        }
    };
    tokio::select! {
        ended = watching => ended,
        () = shutdown_signal() => Ok(()),
    }
}
