//! Prints what happens in groups, wherever their members are: one line for each change.
//!
//! Run: `cargo run --release -p broadgate-business --example group_watch -- 'room-*' lobby`
//!
//! First everything that is there is printed, as if it happened now. Users are those in whose names
//! clients have joined (`join_as`, or `member` in a Join). Arguments are names of groups, or how they
//! begin and a `*`; without one, all groups are watched. `BROADGATE_REGISTER` names the register
//! (127.0.0.1:7100), `BROADGATE_SECRET` its secret. Ctrl-C ends it.

use broadgate_business::{
    Cluster, ClusterConfig,
    cluster::{ChangeKind, GroupChange},
    shutdown_signal,
};

fn print(GroupChange { group, kind }: GroupChange) {
    match kind {
        ChangeKind::Occupied => println!("{group}: occupied"),
        ChangeKind::Joined { user_id, info } => println!("{group}: {user_id} joined {info}"),
        ChangeKind::Left { user_id } => println!("{group}: {user_id} left"),
        ChangeKind::Vacated => println!("{group}: vacated"),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut patterns: Vec<String> = std::env::args().skip(1).collect();
    if patterns.is_empty() {
        patterns.push("*".to_owned());
    }
    let cluster = Cluster::connect(ClusterConfig::from_env()?).await?;
    let mut watch = cluster.watch_groups(patterns)?;
    let watching = async {
        loop {
            print(watch.next().await?);
        }
    };
    tokio::select! {
        ended = watching => ended,
        () = shutdown_signal() => Ok(()),
    }
}
