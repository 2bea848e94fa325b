//! `broadgate tap`.

use std::{collections::BTreeSet, time::Duration};

use broadgate_business::{
    Cluster, CommandError,
    cluster::{Refusal, TapStream},
    v1::{MemberState, Role, TapEvents, TapKind, TapRequest, TopBy, TopReply, TopRequest, tap_request::Of},
};
use clap::{Args, ValueEnum};
use tokio::time::{Instant, timeout_at};

use crate::{
    failure::Failure,
    operate::{
        stream::until_interrupted,
        tap_text::{Opening, lines},
        target::ClusterTarget,
    },
    output::{json, print, print_json_line},
    setting_errors,
    terminal_text::one_line,
};

/// How long the first line waits for gateways that have not answered.
const OPENING_TIME: Duration = Duration::from_secs(2);
/// The same where the gateway does not list the others.
const OPENING_TIME_UNLISTED: Duration = Duration::from_millis(500);

/// As many callers as one answer has.
const CALLERS_MAX: u32 = 256;
/// Callers of the same kind that are named where one is not known.
const CALLERS_NAMED: usize = 8;

const AFTER_HELP: &str = "\
Examples:
  broadgate tap --uid 42 --app shop
  broadgate tap --group orders.eu --kind placed --payload
  broadgate tap --whole-app --kind opened --kind closed --json
  broadgate tap --caller token:ann --app shop

Nobody waits for a tap. Each gateway shows at most --per-second events a second, and what is not read in time is
missed: \"N not shown\" stands where events are missing. Of a uid or a client each message is shown at each client;
of a group, a caller or an app once for each shard of a gateway, with the count of clients. Of a caller it shows
messages that its commands place or drop, and clients that they close. For users who have signed in by
the Pusher protocol, --uid is their id. Times are UTC.

It ends after --for, by Ctrl-C, or when the gateway that was asked ends: exit code 0, or 3 if a gateway could not
be tapped, 5 if the connection broke, or 6 if the token does not allow it any more.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    target: ClusterTarget,
    #[command(flatten)]
    whose: WhoseArgs,
    /// Only this kind of events; repeat for several
    #[arg(long, value_name = "KIND")]
    kind: Vec<Kind>,
    /// Also show what messages say
    #[arg(long)]
    payload: bool,
    /// How much of each is shown
    #[arg(long, value_name = "BYTES", default_value_t = 256, requires = "payload",
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    payload_bytes: u32,
    /// Events of each gateway in a second at most
    #[arg(long, value_name = "EVENTS", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    per_second: u32,
    /// How long, 10 minutes at most
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = setting_errors::duration)]
    time: Duration,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct WhoseArgs {
    /// The clients of this uid, also those that come
    #[arg(long)]
    uid: Option<String>,
    /// The client with this id
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// The clients in this group, and what is sent to it
    #[arg(long)]
    group: Option<String>,
    /// What the commands of a caller do, such as token:ann, worker:chat-1 or app:1/b6e2; not sends to named clients
    /// that want no receipt, as workers answer, which carry no caller
    #[arg(long)]
    caller: Option<String>,
    /// All clients of the app, and what is sent to them
    #[arg(long)]
    whole_app: bool,
}

impl WhoseArgs {
    fn of(&self) -> Of {
        let Self { uid, client, group, caller, whole_app } = self.clone();
        let named = uid.map(Of::Uid).or(client.map(Of::ClientId)).or(group.map(Of::Group));
        named.or(caller.map(Of::Caller)).unwrap_or(Of::WholeApp(whole_app))
    }

    /// Says that nothing can be shown yet.
    fn tell_nobody(&self) {
        match self.of() {
            Of::ClientId(id) => say!(
                "no client with this id is connected, and no id is given twice: `broadgate why --client {}` says how it \
                 ended",
                one_line(&id)
            ),
            Of::Uid(_) => say!("no client with this uid is connected: the tap waits for one"),
            Of::Group(_) => say!("no client is in this group: the tap waits for one"),
            Of::WholeApp(_) => say!("no client of this app is connected: the tap waits for one"),
            // A caller has no clients.
            Of::Caller(_) => {}
        }
    }

    /// In words.
    fn text(&self) -> String {
        match self.of() {
            Of::Uid(uid) => format!("uid {uid}"),
            Of::ClientId(id) => format!("client {id}"),
            Of::Group(group) => format!("group {group}"),
            Of::Caller(caller) => format!("commands of {caller}"),
            Of::WholeApp(_) => "the whole app".to_owned(),
        }
    }
}

/// The kinds of events, as they are typed and shown.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Opened,
    In,
    Event,
    Answered,
    Placed,
    Written,
    Held,
    Dropped,
    Joined,
    Left,
    Bound,
    Subscribing,
    Ping,
    Closed,
}

impl From<Kind> for TapKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Opened => Self::Opened,
            Kind::In => Self::In,
            Kind::Event => Self::Event,
            Kind::Answered => Self::Answered,
            Kind::Placed => Self::Placed,
            Kind::Written => Self::Written,
            Kind::Held => Self::Held,
            Kind::Dropped => Self::Dropped,
            Kind::Joined => Self::Joined,
            Kind::Left => Self::Left,
            Kind::Bound => Self::Bound,
            Kind::Subscribing => Self::Subscribing,
            Kind::Ping => Self::Ping,
            Kind::Closed => Self::Closed,
        }
    }
}

impl TapArgs {
    fn request(&self) -> Result<TapRequest, Failure> {
        let seconds = u32::try_from(self.time.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX);
        if seconds == 0 || seconds > broadgate_proto::limits::TAP_SECONDS_MAX {
            return Err(Failure::usage("--for must be more than 0 and at most 10m"));
        }
        Ok(TapRequest {
            of: Some(self.whose.of()),
            kinds: self.kind.iter().map(|&kind| TapKind::from(kind).into()).collect(),
            payload: self.payload,
            payload_bytes_max: if self.payload { self.payload_bytes } else { 0 },
            per_second_max: self.per_second,
            seconds,
            ..TapRequest::default()
        })
    }
}

/// Says that no such caller is known: a mistyped name is waited for in vain. What cannot be found out is not said.
async fn tell_unknown_caller(cluster: &Cluster, caller: &str) {
    let request = TopRequest {
        by: TopBy::Callers.into(),
        app: cluster.app().to_owned(),
        limit: CALLERS_MAX,
        ..TopRequest::default()
    };
    if let Ok(reply) = cluster.top(request).await
        && let Some(sentence) = unknown_caller(caller, cluster.app(), &reply)
    {
        say!("{sentence}");
    }
}

/// What to say if a caller is not among those that are counted.
fn unknown_caller(caller: &str, app: &str, reply: &TopReply) -> Option<String> {
    let known: Vec<&str> = reply.callers.iter().map(|row| &*row.caller).collect();
    let is_complete = reply.coverage.as_ref().is_some_and(|coverage| coverage.complete);
    // It may be one of the others.
    if known.contains(&caller)
        || known.contains(&"others")
        || known.len() >= CALLERS_MAX as usize
        || !is_complete
    {
        return None;
    }
    let kind = caller.split_once(':').map_or(caller, |(kind, _)| kind);
    let mut likely: Vec<&str> = known.iter().copied().filter(|known| known.starts_with(kind)).collect();
    likely.sort_unstable();
    likely.truncate(CALLERS_NAMED);
    let likely: Vec<String> = likely.into_iter().map(one_line).collect();
    let hint = match &likely[..] {
        [] => "`broadgate top callers` lists who has".to_owned(),
        names => format!("{} have, see `broadgate top callers`", names.join(", ")),
    };
    Some(format!(
        "no caller {} has given a command in app {app:?} since the gateways started: the tap waits; {hint}",
        one_line(caller)
    ))
}

/// Gateways from which nothing comes.
#[derive(Default)]
struct Silent(BTreeSet<String>);

impl Silent {
    fn note(&mut self, events: &TapEvents) {
        if events.unreachable.is_empty() {
            self.0.remove(&events.gateway);
        } else {
            self.0.insert(events.gateway.clone());
        }
    }
}

pub(crate) async fn tap(args: TapArgs) -> Result<(), Failure> {
    let request = args.request()?;
    let cluster = args.target.cluster().await?;
    let stream = cluster.tap(request).await?;
    if let Some(caller) = &args.whose.caller {
        tell_unknown_caller(&cluster, caller).await;
    }
    until_interrupted(show(&args, &cluster, stream)).await
}

async fn show(args: &TapArgs, cluster: &Cluster, mut stream: TapStream) -> Result<(), Failure> {
    let mut silent = Silent::default();
    // The gateway counts whole seconds.
    let least = Instant::now() + args.time.saturating_sub(Duration::from_secs(1));
    if !args.target.json {
        for events in open(args, cluster, &mut stream, &mut silent).await? {
            print(&lines(&events, args.per_second))?;
        }
    }
    while let Some(events) = stream.next().await.map_err(ended)? {
        silent.note(&events);
        if args.target.json {
            print_json_line(&json("TapEvents", &events)?)?;
        } else {
            print(&lines(&events, args.per_second))?;
        }
    }
    if Instant::now() < least {
        let sentence = "the tap has ended early: the gateway by which it went stops; start it again";
        return Err(Failure::Incomplete(sentence.to_owned()));
    }
    if silent.0.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = silent.0.into_iter().collect();
    Err(Failure::Incomplete(format!("nothing could be shown of {}", names.join(", "))))
}

/// Why it has ended. Nothing was to be sent.
fn ended(error: CommandError) -> Failure {
    match error {
        CommandError::NotReachable { why } => Failure::Unreachable(one_line(&why)),
        error => error.into(),
    }
}

/// Prints the first line when all gateways have answered, or some have not for too long. Returns what has come
/// meanwhile.
async fn open(
    args: &TapArgs,
    cluster: &Cluster,
    stream: &mut TapStream,
    silent: &mut Silent,
) -> Result<Vec<TapEvents>, Failure> {
    let view = match cluster.gateways().await {
        Ok(view) => Some(view),
        // The gateway is of an earlier version.
        Err(error) if error.refusal() == Some(Refusal::Unknown) => None,
        Err(error) => return Err(error.into()),
    };
    let until = Instant::now() + if view.is_some() { OPENING_TIME } else { OPENING_TIME_UNLISTED };
    let gateways = view
        .iter()
        .flat_map(|view| &view.members)
        .filter(|member| member.role() == Role::Gateway && member.state() != MemberState::Leaving);
    let mut expected: BTreeSet<&str> = gateways.map(|member| &*member.name).collect();
    let mut opening = Opening::default();
    let mut early = Vec::new();
    while view.is_none() || !expected.is_empty() {
        let Ok(next) = timeout_at(until, stream.next()).await else { break };
        let Some(mut events) = next.map_err(ended)? else { break };
        silent.note(&events);
        expected.remove(&*events.gateway);
        opening.add(&events);
        events.start = None;
        early.push(events);
    }
    for gateway in &expected {
        silent.0.insert((*gateway).to_owned());
    }
    print(&opening.text(&args.whose.text(), args.payload, &expected))?;
    if expected.is_empty() && opening.has_nobody() {
        args.whose.tell_nobody();
    }
    Ok(early)
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1::{Coverage, TopCaller};

    use super::*;

    #[test]
    fn a_caller_that_nobody_knows_is_named_with_those_that_are_known() {
        let row = |caller: &str| TopCaller { caller: caller.to_owned(), ..TopCaller::default() };
        let coverage = Some(Coverage { complete: true, ..Coverage::default() });
        let callers = ["token:ann", "app:shop/key", "token:b\u{1b}ob"].map(row).to_vec();
        let reply = TopReply { callers, coverage, ..TopReply::default() };
        assert_eq!(unknown_caller("token:ann", "shop", &reply), None);
        let said = unknown_caller("token:anne", "shop", &reply).unwrap();
        assert!(said.starts_with("no caller token:anne has given a command in app \"shop\""), "{said}");
        assert!(said.contains("; token:ann, token:b\\u{1b}ob have, see"), "{said}");
        let said = unknown_caller("worker:chat-1", "shop", &reply).unwrap();
        assert!(said.ends_with("`broadgate top callers` lists who has"), "{said}");
        // What is not known for sure is not claimed.
        let mut others = reply.clone();
        others.callers.push(row("others"));
        assert_eq!(unknown_caller("token:anne", "shop", &others), None);
        assert_eq!(unknown_caller("token:anne", "shop", &TopReply { coverage: None, ..reply }), None);
    }
}
