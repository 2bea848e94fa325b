//! `broadgate why`.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_business::{Cluster, cluster::Refusal};
use broadgate_proto::v1::{
    Cause, Coverage, EndedClient, EndedReply, EndedRequest, RemovedMember, SilentPeer, ended_request::Of,
    sends_request,
};
use clap::Args;

use crate::{
    failure::Failure,
    operate::{
        target::{ClusterTarget, ReachedCluster, complete},
        why_send::{CommandQuestion, why_command},
        why_text::{Also, as_text, clock, remembered},
    },
    output::{age, json, print, print_json},
    setting_errors,
};

/// Ends of other clients count as of the same moment within this time before and after.
const SAME_MOMENT: Duration = Duration::from_secs(30);
/// For how many ends others from the same network are counted: each is a question of its own.
const COUNTED_ALSO_MAX: usize = 5;
/// As many refusals as one answer has.
const ROWS: u32 = 1000;
/// From how many addresses refusals are looked for that followed a client's end.
const ADDRESSES_MAX: usize = 3;

const EXAMPLES: &str = "\
Examples:
  broadgate why --uid 42 --app shop --since 1h          why her connections ended
  broadgate why --address 10.1.7.0/24                   who was refused from there, and why
  broadgate why --uid 42 --app shop --command order-991 whether she got that message, and why not
  broadgate why --command order-991                     who sent it, to what, and how many got it

Exit code 3 means that a gateway did not answer, 4 that nothing is remembered.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// Of clients that had this uid
    #[arg(long, conflicts_with_all = ["client", "address"])]
    uid: Option<String>,
    /// Of the client with this id
    #[arg(long, conflicts_with = "address")]
    client: Option<String>,
    /// Not why connections ended, but what became of the message that this command sent: alone, what each gateway
    /// placed and dropped; with --uid or --client, whether they got it, and why not. Of an order that sent nothing, such
    /// as a close: what it was, and whom it closed
    #[arg(long, value_name = "ID", conflicts_with = "address")]
    command: Option<String>,
    /// Of clients at this IP address, or in a network such as 10.1.7.0/24
    #[arg(long)]
    address: Option<String>,
    /// Only what happened within this time until now
    #[arg(long, value_name = "TIME", value_parser = setting_errors::duration)]
    since: Option<Duration>,
    /// Ends and refusals at most, the newest
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

impl WhyArgs {
    fn of(&self) -> Option<Of> {
        let uid = self.uid.clone().map(Of::Uid);
        uid.or_else(|| self.client.clone().map(Of::ClientId))
            .or_else(|| self.address.clone().map(Of::Address))
    }

    /// What is asked about, in words.
    fn whose(&self) -> String {
        let whose = match self.of() {
            Some(Of::Uid(uid)) => format!("uid {uid:?}"),
            Some(Of::ClientId(id)) => format!("client {id}"),
            Some(Of::Address(address)) => format!("address {address}"),
            None => return format!("app {:?}", self.target.app.as_deref().unwrap_or_default()),
        };
        self.target.app.as_ref().map_or(whose.clone(), |app| format!("{whose} of app {app:?}"))
    }

    fn since_ms(&self) -> u64 {
        self.since.map_or(0, |since| ms(now().saturating_sub(since)))
    }

    /// What is asked about a command, if one is named.
    fn about_command(&self) -> Option<CommandQuestion> {
        let of = match self.of() {
            Some(Of::Uid(uid)) => Some(sends_request::Of::OfUid(uid)),
            Some(Of::ClientId(id)) => Some(sends_request::Of::OfClientId(id)),
            Some(Of::Address(_)) | None => None,
        };
        Some(CommandQuestion {
            command: self.command.clone()?,
            app: self.target.app.clone(),
            whose: of.is_some().then(|| self.whose()),
            of,
            since_ms: self.since_ms(),
            json: self.target.json,
        })
    }

    fn request(&self) -> EndedRequest {
        let since = self.since_ms();
        EndedRequest {
            app: self.target.app.clone().unwrap_or_default(),
            of: self.of(),
            since_ms: since,
            limit: self.limit,
            ..EndedRequest::default()
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) async fn why(mut args: WhyArgs) -> Result<(), Failure> {
    if args.of().is_none() && args.target.app.is_none() && args.command.is_none() {
        return Err(Failure::usage(
            "say whom you mean: --uid, --client, --address or --app, or which --command",
        ));
    }
    // An app that was removed is still remembered.
    let chosen = args.target.at.open()?;
    args.target.app = args.target.app.or_else(|| chosen.app.clone());
    let ReachedCluster { cluster, known, .. } = args.target.reach(&chosen).await?;
    if let Some(asked) = args.about_command() {
        return why_command(&cluster, &asked, now()).await;
    }
    let mut reply = cluster.ended(args.request()).await?;
    if matches!(args.of(), Some(Of::Uid(_) | Of::ClientId(_))) {
        add_refusals_since(&cluster, &args, &mut reply).await?;
    }
    let found = !reply.ended.is_empty() || !reply.refused.is_empty();
    if args.target.json {
        print_json(&json("EndedReply", &reply)?)?;
    } else if found {
        print(&as_text(&reply, &also(&cluster, &reply).await?, now()))?;
    }
    if let Some(coverage) = reply.coverage.as_ref().filter(|coverage| !coverage.complete) {
        return Err(silent_gateways(&cluster, &args, coverage).await);
    }
    if found {
        return Ok(());
    }
    let nothing = format!("nothing is remembered of {} ({})", args.whose(), remembered(&reply, now()));
    Err(match (args.of(), known) {
        (Some(Of::ClientId(id)), _) if !is_here(&cluster, &id).await? => {
            let run = id.get(..10).unwrap_or(&id);
            let over = removed_run(&cluster, run).await.unwrap_or_else(|| {
                format!(
                    "the gateway run that had it ({run}) is over, and its memory with it: its id begins with that \
                     run's"
                )
            });
            Failure::NotFound(format!("{nothing}; {over}"))
        }
        (_, Err(Failure::NotFound(unknown))) if args.target.app.is_some() => {
            Failure::NotFound(format!("{nothing}; {unknown}"))
        }
        _ => Failure::NotFound(nothing),
    })
}

/// Whether the gateway run that gave out a client's id is a member.
async fn is_here(cluster: &Cluster, client: &str) -> Result<bool, Failure> {
    let status = match cluster.status().await {
        // A token for some apps does not say who the members are.
        Err(error) if error.refusal() == Some(Refusal::Denied) => return Ok(true),
        status => status?,
    };
    let members = status.view.unwrap_or_default().members;
    Ok(members.iter().any(|member| client.starts_with(&member.incarnation)))
}

/// What is known of the gateways that did not answer: of one of them the client may be, or what is remembered of it.
async fn silent_gateways(cluster: &Cluster, args: &WhyArgs, coverage: &Coverage) -> Failure {
    let Err(incomplete) = complete(Some(coverage)) else { return Failure::Failed("complete".to_owned()) };
    // A token for some apps does not say who the members are.
    let Ok(status) = cluster.status().await else { return incomplete };
    let mut longest: BTreeMap<&str, &SilentPeer> = BTreeMap::new();
    for peer in status.gateways.iter().flat_map(|gateway| &gateway.silent_peers) {
        let known = longest.entry(&peer.incarnation).or_insert(peer);
        if peer.silent_ms > known.silent_ms {
            *known = peer;
        }
    }
    let about: Vec<String> =
        longest.values().map(|peer| silent_in_words(peer, args.client.as_deref())).collect();
    if about.is_empty() {
        incomplete
    } else {
        Failure::Incomplete(format!("{incomplete}; {}", about.join("; ")))
    }
}

/// "gw-2 has not answered for 3 s: it hangs or is cut off"
fn silent_in_words(peer: &SilentPeer, client: Option<&str>) -> String {
    let has_it = client.is_some_and(|client| client.starts_with(&peer.incarnation));
    let who = if has_it { format!("{}, which has this client,", peer.name) } else { peer.name.clone() };
    let silent = age(Duration::from_millis(peer.silent_ms));
    let lost = if has_it { ", and its clients with it" } else { "" };
    format!(
        "{who} has not answered for {silent}: it hangs or is cut off; the register removes it when its lease ends{lost}"
    )
}

/// Which gateway had these clients, and that it was removed, if a gateway remembers it.
async fn removed_run(cluster: &Cluster, run: &str) -> Option<String> {
    let status = cluster.status_with_evidence().await.ok()?;
    let mut removed = status.gateways.iter().filter_map(|gateway| gateway.evidence.as_ref());
    let removed = removed.find_map(|evidence| evidence.removed.iter().find(|one| one.incarnation == run))?;
    let RemovedMember { name, age_ms, .. } = removed;
    let at = clock(ms(now()).saturating_sub(*age_ms), now());
    Some(format!(
        "{name}, which had it, was removed at {at} ({} ago) because it did not beat: it hangs, has ended or is cut off. If \
         it comes back, it closes its clients with 1012; look at its process and its host",
        age(Duration::from_millis(*age_ms))
    ))
}

/// Refusals have no uid: those that came from the addresses of the clients, after their first end.
async fn add_refusals_since(
    cluster: &Cluster,
    args: &WhyArgs,
    reply: &mut EndedReply,
) -> Result<(), Failure> {
    let Some(first) = reply.ended.iter().map(|end| end.ended_at_ms).min() else { return Ok(()) };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in reply.ended.iter().filter_map(ip) {
        if !addresses.contains(&ip) && addresses.len() < ADDRESSES_MAX {
            addresses.push(ip);
        }
    }
    let apps: Vec<String> = reply.ended.iter().map(|end| end.app.clone()).collect();
    for ip in addresses {
        let of = Some(Of::Address(ip.to_string()));
        // Those of other apps are left out here, after the newest were taken.
        let request = EndedRequest { of, since_ms: first, limit: ROWS, ..args.request() };
        let theirs = cluster.ended(request).await?.refused;
        reply.refused.extend(theirs.into_iter().filter(|refused| may_be_of(&refused.app, &apps)));
    }
    reply.refused.sort_by_key(|refused| Reverse(refused.last_at_ms));
    reply.refused_total = reply.refused.iter().map(|refused| refused.count).sum();
    reply.refused.truncate(args.limit as usize);
    Ok(())
}

/// Whether a refusal can be of a client of these apps: many come from one address. "" is not known.
fn may_be_of(app: &str, apps: &[String]) -> bool {
    app.is_empty() || apps.iter().any(|own| own == app)
}

fn ip(end: &EndedClient) -> Option<IpAddr> {
    end.address.parse::<SocketAddr>().ok().map(|address| address.ip())
}

/// Of how many other clients the connection ended alike at the same moment, for the newest ends.
async fn also(cluster: &Cluster, reply: &EndedReply) -> Result<Vec<Also>, Failure> {
    let mut all = Vec::new();
    let alone = |end: &&EndedClient| !matches!(end.cause(), Cause::Client | Cause::Command);
    for end in reply.ended.iter().filter(alone).take(COUNTED_ALSO_MAX) {
        let Some(network) = ip(end).map(network) else { continue };
        let request = EndedRequest {
            of: Some(Of::Address(network.clone())),
            since_ms: end.ended_at_ms.saturating_sub(ms(SAME_MOMENT)),
            until_ms: end.ended_at_ms + ms(SAME_MOMENT),
            cause: end.cause,
            limit: 1,
            ..EndedRequest::default()
        };
        let total = cluster.ended(request).await?.ended_total;
        all.push(Also { client_id: end.client_id.clone(), network, others: total.saturating_sub(1) });
    }
    Ok(all)
}

/// The network that an address is in, as far as neighbours share it.
fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_other_apps_are_no_clients_of_this_one() {
        let apps = ["shop".to_owned()];
        assert!(may_be_of("shop", &apps) && may_be_of("", &apps) && !may_be_of("blog", &apps));
    }

    #[test]
    fn neighbours_share_a_network() {
        assert_eq!(network("10.1.7.9".parse().unwrap()), "10.1.7.0/24");
        assert_eq!(network("2001:db8:1:2:3::4".parse().unwrap()), "2001:db8:1:2::/64");
    }
}
