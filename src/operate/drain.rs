//! `broadgate drain`.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use broadgate_business::Credentials;
use broadgate_port::connect_lazy;
use broadgate_proto::{
    LEADER_HEADER, name,
    secret::SendSecret,
    v1::{DrainReply, DrainRequest, WatchRequest, register_client::RegisterClient},
};
use clap::Args;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tonic::{
    Code, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::{
    failure::Failure,
    operate::{
        confirm::{Confirmation, OrderNote},
        drain_by_gateway,
        drain_check::may_restart,
        drain_progress::{SeenState, show_clients},
        probe::{self, WantedRole},
        target::{At, ChosenCluster, ClusterTarget},
    },
    options::registers_of_environment,
    output::{json, print, print_json},
    setting_errors,
};

/// Between two tries at following the register while a gateway drains.
const WATCH_AGAIN: Duration = Duration::from_millis(500);
/// Between two looks at whether a process that has left still listens, and how long a look may take.
const LISTENS_AGAIN: Duration = Duration::from_millis(100);
const LISTENS_TIME_MAX: Duration = Duration::from_secs(1);
/// A gateway that has left the cluster ends within some seconds; what listens at its address for longer is
/// another process, such as a proxy.
const END_TIME_MAX: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The gateway's name or incarnation
    gateway: String,
    #[command(flatten)]
    at: At,
    /// The register's address [env: BROADGATE_REGISTER] [default: a gateway of the cluster passes the order on]
    #[arg(long, value_name = "HOST:PORT")]
    register: Option<String>,
    /// Wait, at most for this time, until the gateway has left the cluster and closed its ports [default: 10m]
    #[arg(
        long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "10m",
        value_parser = setting_errors::duration
    )]
    wait: Option<Duration>,
    /// Only check whether the gateway may be restarted now: exit code 0 if it may, 1 if not
    #[arg(long, conflicts_with_all = ["wait", "register"])]
    check: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    note: OrderNote,
    /// Time limit for the answer
    #[arg(long, default_value = "5s", value_parser = setting_errors::duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn drain(args: DrainArgs) -> Result<(), Failure> {
    let chosen = args.note.on(args.at.open()?);
    if args.check {
        return may_restart(&chosen, &args.gateway, args.timeout, args.json).await;
    }
    args.confirmation.ask(&chosen, None)?;
    let credentials = &chosen.credentials;
    let by_gateway = match args.registers(&chosen)? {
        Some(_) => None,
        None => drain_by_gateway::ask(&chosen, &args.gateway, args.timeout).await?,
    };
    let (registers, reply) = match by_gateway {
        // The views of gateways are followed.
        Some(reply) => (None, reply),
        None => {
            let registers = match args.registers(&chosen)? {
                Some(registers) => registers,
                None => args.registers_of_gateway(&chosen).await?,
            };
            let (register, reply) = ask(registers.clone(), credentials, &args.gateway, args.timeout).await?;
            let registers: VecDeque<String> = std::iter::once(register).chain(registers).collect();
            (Some(registers), reply)
        }
    };
    let tls = credentials.tls.as_ref();
    let gateway = &named(&args.gateway, &reply.incarnation);
    if args.json {
        print_json(&json("DrainReply", &reply)?)?;
    } else {
        print(&format!("gateway {gateway} is draining\n"))?;
    }
    let Some(wait) = args.wait else { return Ok(()) };
    // The call to drain has a time of its own; a watch goes on.
    let watcher = |register: &str| {
        let endpoint = Endpoint::from_shared(format!("http://{register}")).ok()?;
        Some(RegisterClient::with_interceptor(connect_lazy(&endpoint, tls), credentials.sender()))
    };
    let (seen, known) = watch::channel(SeenState::default());
    let following = async {
        match registers {
            Some(registers) => follow(registers, watcher, &reply.incarnation, &seen).await,
            None => drain_by_gateway::follow(&chosen, &reply.incarnation, &seen).await,
        }
    };
    let ended = tokio::select! {
        never = following => match never {},
        never = show_clients(credentials, (gateway, &reply.incarnation), known.clone()) => match never {},
        ended = timeout(wait, end(known.clone())) => ended,
    };
    let within = humantime::format_duration(wait);
    let address = known.borrow().address.clone();
    match ended {
        Ok(_) if args.json && !matches!(ended, Ok(DrainEnd::Listens)) => Ok(()),
        Ok(DrainEnd::Closed) if address.is_empty() => print(&format!("gateway {gateway} has left\n")),
        Ok(DrainEnd::Closed) => print(&format!(
            "gateway {gateway} has left, and its process has released its ports: nothing listens on {address}\n"
        )),
        Ok(DrainEnd::Again) => print(&format!(
            "gateway {gateway} has left, and another process has joined from its address, {address}\n"
        )),
        Ok(DrainEnd::Listens) => Err(Failure::Incomplete(format!(
            "gateway {gateway} has left the cluster, and {address} still takes connections {} later: its \
             process hangs, or something else listens there",
            humantime::format_duration(END_TIME_MAX)
        ))),
        Err(_) if known.borrow().gone => Err(Failure::Incomplete(format!(
            "gateway {gateway} has left the cluster, and its process still listened on {address} after {within}"
        ))),
        Err(_) => Err(Failure::Incomplete(format!("gateway {gateway} has not left within {within}"))),
    }
}

/// A gateway as it was typed, and its incarnation.
fn named(typed: &str, incarnation: &str) -> String {
    if typed == incarnation { typed.to_owned() } else { format!("{typed} ({incarnation})") }
}

/// Asks the register that leads: those that stand by name it, or are passed over.
async fn ask(
    registers: Vec<String>,
    credentials: &Credentials,
    gateway: &str,
    within: Duration,
) -> Result<(String, DrainReply), Failure> {
    let mut last = Failure::usage("no register is configured: name one with --register");
    let (mut registers, mut was_named) = (VecDeque::from(registers), false);
    while let Some(register) = registers.pop_front() {
        let channel =
            match probe::channel(&register, credentials.tls.as_ref(), WantedRole::Register, within).await {
                Ok(channel) => channel,
                Err(failure) => {
                    last = failure;
                    continue;
                }
            };
        let mut client = RegisterClient::with_interceptor(channel, credentials.sender());
        let status = match client.drain(DrainRequest { gateway: gateway.to_owned(), by: None }).await {
            Ok(reply) => return Ok((register, reply.into_inner())),
            Err(status) => status,
        };
        last = probe::refused(&register, WantedRole::Register, &status);
        let leader = status.metadata().get(LEADER_HEADER).and_then(|leader| leader.to_str().ok());
        match leader {
            Some(leader) if !was_named => {
                was_named = true;
                registers.push_front(leader.to_owned());
            }
            _ if status.code() == Code::Unavailable => {}
            _ => return Err(last),
        }
    }
    Err(last)
}

type DrainWatcher = RegisterClient<InterceptedService<Channel, SendSecret>>;

/// How a wait has ended.
enum DrainEnd {
    /// Nothing listens at its address any more.
    Closed,
    /// It was started again meanwhile.
    Again,
    /// Something listens there all the same.
    Listens,
}

/// Follows an incarnation through the views, for ever. A register that is restarted is asked again, and another one
/// if that leads now.
async fn follow(
    mut registers: VecDeque<String>,
    watcher: impl Fn(&str) -> Option<DrainWatcher>,
    incarnation: &str,
    seen: &watch::Sender<SeenState>,
) -> Infallible {
    // As a register that stands by has named it.
    let mut leader: Option<String> = None;
    loop {
        let register = leader.take().or_else(|| registers.front().cloned()).unwrap_or_default();
        let views = match watcher(&register) {
            Some(mut client) => client.watch(WatchRequest::default()).await,
            None => Err(Status::unavailable("no address")),
        };
        if let Err(status) = &views {
            leader = status.metadata().get(LEADER_HEADER).and_then(|at| at.to_str().ok()).map(str::to_owned);
            registers.rotate_left(1);
        }
        if let Ok(views) = views {
            let mut views = views.into_inner();
            while let Ok(Some(view)) = views.message().await {
                seen.send_modify(|seen| seen.note(&view, incarnation));
            }
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}

/// Returns when a gateway has left the cluster and its process no longer listens: its internal port is the
/// last that it closes.
async fn end(mut seen: watch::Receiver<SeenState>) -> DrainEnd {
    let Ok(gone) = seen.wait_for(|seen| seen.gone).await.map(|seen| seen.clone()) else {
        return std::future::pending().await;
    };
    // It was gone before this looked: where it was is not known.
    if gone.address.is_empty() {
        return DrainEnd::Closed;
    }
    let closed = async {
        loop {
            let tried = timeout(LISTENS_TIME_MAX, TcpStream::connect(&gone.address)).await;
            if !matches!(tried, Ok(Ok(_))) {
                return DrainEnd::Closed;
            }
            if seen.borrow().again {
                return DrainEnd::Again;
            }
            tokio::time::sleep(LISTENS_AGAIN).await;
        }
    };
    timeout(END_TIME_MAX, closed).await.unwrap_or(DrainEnd::Listens)
}

impl DrainArgs {
    fn target(&self) -> ClusterTarget {
        ClusterTarget { at: self.at.clone(), app: None, timeout: self.timeout, json: self.json }
    }

    /// The registers to try: as named, or as configured; none if gateways alone are known.
    fn registers(&self, chosen: &ChosenCluster) -> Result<Option<Vec<String>>, Failure> {
        if let Some(register) = &self.register {
            name::check_address(register).map_err(|error| Failure::usage(format!("--register: {error}")))?;
            return Ok(Some(vec![register.clone()]));
        }
        // Registers do not know tokens.
        if chosen.credentials.secret.is_token() {
            return Ok(None);
        }
        if !self.at.is_named() && chosen.name.is_none() {
            if let Some(registers) = registers_of_environment()? {
                return Ok(Some(registers));
            }
            return Ok(chosen.registers.clone());
        }
        Ok(None)
    }

    /// The register that a gateway of the cluster follows.
    async fn registers_of_gateway(&self, chosen: &ChosenCluster) -> Result<Vec<String>, Failure> {
        let reached = self.target().reach(chosen).await?;
        let register = reached.cluster.status().await?.register;
        if register.is_empty() {
            let address = reached.address;
            let sentence = format!("the gateway at {address} hears no register: name it with --register");
            return Err(Failure::Unreachable(sentence));
        }
        Ok(vec![register])
    }
}
