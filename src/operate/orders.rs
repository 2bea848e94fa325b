//! `broadgate send`, `kick` and `drain`.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    time::Duration,
};

use broadgate_business::{Audience, Close, Payload, Secret, v1::Receipt};
use broadgate_proto::{
    name,
    secret::SendSecret,
    v1::{DrainRequest, WatchRequest, register_client::RegisterClient},
};
use clap::Args;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use super::{
    At, Target, complete,
    output::{counted, json, print, print_json, table},
    probe::{self, Wanted},
};
use crate::{environment, failure::Failure, options::registers_of_environment, plain};

/// Between two tries at following the register while a gateway drains.
const WATCH_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[group(id = "whom", required = true, multiple = true, args = ["client", "uid", "group", "all"])]
struct AudienceArgs {
    /// A client id; repeat for several
    #[arg(long)]
    client: Vec<String>,
    /// A uid; repeat for several
    #[arg(long)]
    uid: Vec<String>,
    /// A group; repeat for several
    #[arg(long)]
    group: Vec<String>,
    /// Every client of the app
    #[arg(long)]
    all: bool,
    /// Not this client; repeat for several
    #[arg(long, value_name = "CLIENT")]
    except_client: Vec<String>,
    /// Not the clients of this uid; repeat for several
    #[arg(long, value_name = "UID")]
    except_uid: Vec<String>,
    /// Not the members of this group; repeat for several
    #[arg(long, value_name = "GROUP")]
    except_group: Vec<String>,
}

impl AudienceArgs {
    fn audience(&self) -> Result<Audience, Failure> {
        let is_named = [&self.client, &self.uid, &self.group].iter().any(|named| !named.is_empty());
        if !is_named && !self.all {
            return Err(Failure::usage(
                "--except-client, --except-uid and --except-group only leave clients out, and nobody is named: \
                 add --all, or --client, --uid or --group",
            ));
        }
        let mut audience = if self.all { Audience::all() } else { Audience::default() };
        audience = self.client.iter().fold(audience, |audience, client| audience.and_client(client));
        audience = self.uid.iter().fold(audience, |audience, uid| audience.and_uid(uid));
        audience = self.group.iter().fold(audience, |audience, group| audience.and_group(group));
        audience =
            self.except_client.iter().fold(audience, |audience, client| audience.except_client(client));
        audience = self.except_uid.iter().fold(audience, |audience, uid| audience.except_uid(uid));
        Ok(self.except_group.iter().fold(audience, |audience, group| audience.except_group(group)))
    }

    /// Only clients are named, and none of them is connected.
    fn found_nobody(&self, receipt: &Receipt) -> bool {
        let only_clients = self.uid.is_empty() && self.group.is_empty() && !self.all;
        only_clients && receipt.unknown_clients.len() == self.client.len()
    }
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    to: AudienceArgs,
    /// Send it as a binary message
    #[arg(long)]
    binary: bool,
    /// Send it as an event of this name, which Pusher clients bind to
    #[arg(long, value_name = "NAME", conflicts_with = "binary")]
    event: Option<String>,
    /// The message; - reads it from standard input
    #[arg(value_name = "TEXT|-", allow_hyphen_values = true)]
    text: String,
}

#[derive(Debug, Args)]
pub(crate) struct KickArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    of: AudienceArgs,
    /// The close code: 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999
    #[arg(long, default_value_t = 1000)]
    code: u16,
    /// The close reason, at most 123 bytes
    #[arg(long, default_value = "")]
    reason: String,
    /// Cut the connections without a close message
    #[arg(long)]
    at_once: bool,
    /// Do not ask before closing all
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The gateway's name or incarnation
    gateway: String,
    #[command(flatten)]
    at: At,
    /// Where the register is [env: BROADGATE_REGISTER] [default: where the gateway at --addr says]
    #[arg(long, value_name = "HOST:PORT")]
    register: Option<String>,
    /// Wait until the gateway has left the cluster, for so long at most [default: 10m]
    #[arg(
        long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "10m",
        value_parser = plain::duration
    )]
    wait: Option<Duration>,
    /// How long an answer may take
    #[arg(long, default_value = "5s", value_parser = plain::duration)]
    timeout: Duration,
    /// For scripts
    #[arg(long)]
    json: bool,
}

pub(crate) async fn send(args: SendArgs) -> Result<(), Failure> {
    let to = args.to.audience()?;
    let bytes = if args.text == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        bytes
    } else {
        args.text.into_bytes()
    };
    let payload = if args.binary {
        Payload::from(bytes)
    } else {
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::usage("the message is not UTF-8: add --binary to send it as it is"))?;
        match args.event {
            Some(name) => Payload::event(name, text),
            None => Payload::from(text),
        }
    };
    let receipt = args.target.cluster().await?.send(to, payload).await?;
    report(&args.target, &args.to, &receipt, "sent to")
}

pub(crate) async fn kick(args: KickArgs) -> Result<(), Failure> {
    let of = args.of.audience()?;
    if args.of.all && !args.yes && !confirm("Close every client of the app?")? {
        return Err(Failure::Failed("nothing was closed".to_owned()));
    }
    let mut close = Close::with(args.code, args.reason.as_str());
    if args.at_once {
        close = close.at_once();
    }
    let receipt = args.target.cluster().await?.close(of, close).await?;
    report(&args.target, &args.of, &receipt, "closed")
}

fn confirm(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("kick --all asks first, and nobody is there to answer: add --yes"));
    }
    let mut asked = std::io::stderr();
    write!(asked, "{question} [y/N] ")?;
    asked.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn report(target: &Target, whom: &AudienceArgs, receipt: &Receipt, done: &str) -> Result<(), Failure> {
    if target.json {
        print_json(&json("Receipt", receipt)?)?;
    } else {
        let (clients, gateways) =
            (counted(receipt.clients, "client"), counted(receipt.gateways.into(), "gateway"));
        let mut text = format!("{done} {clients} on {gateways}\n");
        if !receipt.drops.is_empty() {
            let mut drops: Vec<_> = receipt.drops.iter().collect();
            drops.sort();
            text += &table(
                ["NOT SERVED", "CLIENTS"],
                drops.into_iter().map(|(why, n)| [why.clone(), n.to_string()]),
            );
        }
        print(&text)?;
    }
    complete(receipt.coverage.as_ref())?;
    if whom.found_nobody(receipt) {
        return Err(Failure::NotFound(format!("not connected: {}", receipt.unknown_clients.join(", "))));
    }
    Ok(())
}

pub(crate) async fn drain(args: DrainArgs) -> Result<(), Failure> {
    let (secret, registers) = args.registers().await?;
    let mut connected = Err(Failure::usage("no register is configured: name one with --register"));
    for register in &registers {
        connected = probe::channel(register, Wanted::Register, args.timeout).await.map(|it| (register, it));
        if connected.is_ok() {
            break;
        }
    }
    let (register, channel) = connected?;
    let mut client = RegisterClient::with_interceptor(channel, secret.sender());
    let asked = client.drain(DrainRequest { gateway: args.gateway.clone() }).await;
    let reply = asked.map_err(|status| probe::refused(register, Wanted::Register, &status))?.into_inner();
    if args.json {
        print_json(&json("DrainReply", &reply)?)?;
    } else {
        print(&format!("gateway {} is draining\n", reply.incarnation))?;
    }
    let Some(wait) = args.wait else { return Ok(()) };
    // The call to drain has a time of its own; a watch goes on.
    let endpoint = Endpoint::from_shared(format!("http://{register}")).map_err(anyhow::Error::from)?;
    let watcher = RegisterClient::with_interceptor(endpoint.connect_lazy(), secret.sender());
    if tokio::time::timeout(wait, gone(watcher, &reply.incarnation)).await.is_err() {
        let within = humantime::format_duration(wait);
        return Err(Failure::Incomplete(format!("gateway {} has not left within {within}", args.gateway)));
    }
    if args.json { Ok(()) } else { print(&format!("gateway {} has left\n", reply.incarnation)) }
}

type Watcher = RegisterClient<InterceptedService<Channel, SendSecret>>;

/// Returns when an incarnation is in the view no longer. A register that is restarted is asked again.
async fn gone(mut register: Watcher, incarnation: &str) {
    loop {
        if let Ok(views) = register.watch(WatchRequest {}).await {
            let mut views = views.into_inner();
            while let Ok(Some(view)) = views.message().await {
                // One without an epoch knows nobody yet.
                let is_in = view.members.iter().any(|member| member.incarnation == incarnation);
                if view.epoch.is_some() && !is_in {
                    return;
                }
            }
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}

impl DrainArgs {
    /// The secret, and the registers to try: as named, or as a gateway says that is named, or as configured.
    async fn registers(&self) -> Result<(Secret, Vec<String>), Failure> {
        let (config, address) = self.at.open()?;
        let secret = config.secret()?;
        if let Some(register) = &self.register {
            name::check_address(register).map_err(|error| Failure::usage(format!("--register: {error}")))?;
            return Ok((secret, vec![register.clone()]));
        }
        if !self.at.is_named() {
            if let Some(registers) = registers_of_environment()? {
                return Ok((secret, registers));
            }
            if environment::text("ADDR")?.is_none() {
                return Ok((secret, config.cluster.register));
            }
        }
        let target = Target { at: self.at.clone(), app: None, timeout: self.timeout, json: false };
        let register = target.any_app().await?.status().await?.register;
        if register.is_empty() {
            let sentence = format!("the gateway at {address} hears no register: name it with --register");
            return Err(Failure::Unreachable(sentence));
        }
        Ok((secret, vec![register]))
    }
}
