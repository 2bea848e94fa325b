//! `broadgate bench hop`: what the way over a topic's home costs.

use std::time::Instant;

use broadgate::{
    failure::Failure,
    operate::{At, ClusterTarget},
};
use broadgate_business::{Audience, Cluster, Who, v1::View};
use broadgate_proto::{ring::Ring, view};
use broadgate_topics::Topic;
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;

use crate::{
    load::{histogram, ids_of, latency_json, latency_text, progress, tell},
    socket::{self, Socket},
};

/// So many groups have their homes at all gateways.
const GROUPS: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct HopArgs {
    /// URL to which the one client connects
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    url: String,
    #[command(flatten)]
    at: At,
    /// The app of the client
    #[arg(long, default_value = "default")]
    app: String,
    /// Number of sends of each kind
    #[arg(long, default_value_t = 5000)]
    messages: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was sent, and how long its receipt took.
struct Kind {
    name: &'static str,
    groups: Vec<String>,
    latency: Histogram<u64>,
}

pub(super) async fn run(args: &HopArgs) -> Result<(), Failure> {
    let target = ClusterTarget {
        at: args.at.clone(),
        app: Some(args.app.clone()),
        timeout: std::time::Duration::from_secs(10),
        json: args.json,
    };
    let (cluster, address) = target.cluster_for_load().await?;
    let url = socket::Target::parse(&args.url).await.map_err(Failure::Usage)?;
    let socket = Socket::connect(&url, 0).await.map_err(Failure::Unreachable)?;
    let ids = ids_of(&cluster, &[(socket.local, 0)]).await?;
    let Some((client, _)) = ids.first() else {
        return Err(Failure::Failed("the client is gone".to_owned()));
    };
    let reading = tokio::spawn(async move {
        let mut socket = socket;
        while socket.next(|_| true).await.is_ok() {}
    });
    let status = cluster.status().await?;
    let mut kinds = kinds(&status.view.unwrap_or_default(), args, &address, client)?;
    for kind in &kinds {
        if !kind.groups.is_empty() {
            cluster.join(Who::client(client), kind.groups.iter().cloned()).await?;
        }
    }
    measure(&cluster, client, &mut kinds, args.messages).await?;
    reading.abort();
    let mut result = json!({});
    let mut text = String::new();
    for kind in kinds.iter().filter(|kind| !kind.latency.is_empty()) {
        result[kind.name] = latency_json(&kind.latency);
        text.push_str(&format!("{:<28} {}", kind.name, latency_text(&kind.latency)));
    }
    tell(args.json, &result, &text)
}

/// To the client itself; and to groups by where their home is.
fn kinds(view: &View, args: &HopArgs, address: &str, client: &str) -> Result<Vec<Kind>, Failure> {
    let asked = view::gateways(view).find(|gateway| gateway.address == address);
    let Some(asked) = asked.map(|gateway| gateway.incarnation.clone()) else {
        return Err(Failure::usage(format!("no gateway of the view has the address {address}")));
    };
    let (ring, holder) = (Ring::of_view(view), &client[..10]);
    let mut kinds = vec![Kind { name: "client", groups: Vec::new(), latency: histogram()? }];
    for name in ["group, home is asked", "group, home holds the client", "group, home is a third"] {
        kinds.push(Kind { name, groups: Vec::new(), latency: histogram()? });
    }
    for number in 0..GROUPS {
        let group = format!("broadgate-bench-hop-{number}");
        let home = ring.pick(Topic::group(&args.app, &group).key()).map(|home| home.to_string());
        let index = match home {
            Some(home) if home == asked => 1,
            Some(home) if home == holder => 2,
            _ => 3,
        };
        kinds[index].groups.push(group);
    }
    Ok(kinds)
}

/// One after the other, each kind in turn, so that all see the same machine.
async fn measure(cluster: &Cluster, client: &str, kinds: &mut [Kind], messages: u64) -> Result<(), Failure> {
    let bar = progress(messages, "sending");
    for number in 0..messages {
        for kind in kinds.iter_mut() {
            let to = match kind.groups.len() {
                0 if kind.name == "client" => Audience::client(client),
                0 => continue,
                count => {
                    let turn = usize::try_from(number).unwrap_or_default() % count;
                    Audience::group(&kind.groups[turn])
                }
            };
            let began = Instant::now();
            let receipt = cluster.send(to, "hop").await?;
            kind.latency.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if receipt.clients != 1 {
                return Err(Failure::Failed(format!("a send reached {} clients, not one", receipt.clients)));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
