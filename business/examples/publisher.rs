//! A program that is no worker: sends one message to a group and prints the receipt.
//!
//! Run: `cargo run --release -p broadgate-business --example publisher -- lobby 'hello, all'`
//!
//! `BROADGATE_REGISTER` names the register (127.0.0.1:7100), `BROADGATE_SECRET` its secret.

use broadgate_business::{Audience, Cluster, ClusterConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let group = words.next().unwrap_or_else(|| "lobby".to_owned());
    let text = words.next().unwrap_or_else(|| "hello from the publisher".to_owned());

    let cluster = Cluster::connect(ClusterConfig::from_env()?).await?;
    let receipt = cluster.send(Audience::group(group), text).await?;

    println!("clients reached: {}, gateways: {}", receipt.clients, receipt.gateways);
    for (reason, clients) in &receipt.drops {
        println!("not reached: {clients} ({reason})");
    }
    let coverage = receipt.coverage.unwrap_or_default();
    if !coverage.complete {
        println!("incomplete: no answer from {}", coverage.missing.join(", "));
    }
    Ok(())
}
