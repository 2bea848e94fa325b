//! `broadgate send` and `kick`.

use std::io::Read as _;

use broadgate_business::{Audience, Close, Payload, SendOptions, v1::Receipt};
use clap::Args;

use crate::{
    failure::Failure,
    operate::{
        confirm::{Confirmation, OrderNote},
        send_text,
        target::{ClusterTarget, complete},
    },
    output::{counted, json, print, print_json, table},
};

#[derive(Debug, Args)]
#[group(id = "whom", required = true, multiple = true, args = ["client", "uid", "group", "all"])]
struct AudienceArgs {
    /// A client id; repeat for several
    #[arg(long)]
    client: Vec<String>,
    /// A uid; repeat for several. For signed-in Pusher users use --group '#signed-in-ID'
    #[arg(long)]
    uid: Vec<String>,
    /// A group; repeat for several
    #[arg(long)]
    group: Vec<String>,
    /// Every client of the app
    #[arg(long)]
    all: bool,
    /// Except this client; repeat for several
    #[arg(long, value_name = "CLIENT")]
    except_client: Vec<String>,
    /// Except clients of this uid; repeat for several
    #[arg(long, value_name = "UID")]
    except_uid: Vec<String>,
    /// Except members of this group; repeat for several
    #[arg(long, value_name = "GROUP")]
    except_group: Vec<String>,
}

const SEND_EXAMPLES: &str = "\
Examples:
  broadgate send --group lobby 'hello, lobby'
  broadgate send --uid ann --dry-run 'for ann alone'     whom would it reach?
  broadgate send --trace --group lobby 'hello'           where does a message get lost?
  broadgate send --dry-run --trace --all 'x'             the same, and nobody gets it

A trace has a line for each step. A time at the beginning of a line is since the gateway that took the message
has it; an indented one is since that line's gateway has it, by its own clock: us are microseconds, ms milliseconds.";

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
#[command(after_help = SEND_EXAMPLES)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    target: ClusterTarget,
    #[command(flatten)]
    to: AudienceArgs,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    note: OrderNote,
    /// Send a binary message
    #[arg(long)]
    binary: bool,
    /// Send an event with this name, which Pusher clients bind to
    #[arg(long, value_name = "NAME", conflicts_with = "binary")]
    event: Option<String>,
    /// Show the message's way: which gateways took, ordered and placed it, and how long that took
    #[arg(long)]
    trace: bool,
    /// Find the clients that the message would reach, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// The message; - reads it from standard input. One that begins with a dash goes after --
    #[arg(value_name = "TEXT|-")]
    text: String,
}

#[derive(Debug, Args)]
pub(crate) struct KickArgs {
    #[command(flatten)]
    target: ClusterTarget,
    #[command(flatten)]
    of: AudienceArgs,
    /// The close code: 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999
    #[arg(long, default_value_t = 1000)]
    code: u16,
    /// The close reason, at most 123 bytes
    #[arg(long, default_value = "")]
    reason: String,
    /// Drop the connections without a close frame
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    note: OrderNote,
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
    let chosen = args.note.on(args.target.at.open()?);
    let options = SendOptions { trace: args.trace, dry: args.dry_run };
    if !options.dry {
        args.confirmation.ask(&chosen, None)?;
    }
    let receipt = args.target.reach(&chosen).await?.of_app()?.send_with(to, payload, options).await?;
    if let Some(trace) = receipt.trace.as_ref().filter(|_| !args.target.json) {
        print(&send_text::lines(trace, &receipt, options.dry))?;
    }
    report(&args.target, &args.to, &receipt, if options.dry { "would be sent to" } else { "sent to" })
}

pub(crate) async fn kick(args: KickArgs) -> Result<(), Failure> {
    let of = args.of.audience()?;
    let chosen = args.note.on(args.target.at.open()?);
    args.confirmation.ask(&chosen, args.of.all.then_some("Close every client of the app?"))?;
    let mut close = Close::with(args.code, args.reason.as_str());
    if args.at_once {
        close = close.at_once();
    }
    let receipt = args.target.reach(&chosen).await?.of_app()?.close(of, close).await?;
    report(&args.target, &args.of, &receipt, "closed")
}

fn report(target: &ClusterTarget, whom: &AudienceArgs, receipt: &Receipt, done: &str) -> Result<(), Failure> {
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
        // Where all are, the sentence of the failure names them.
        if !whom.found_nobody(receipt) && !receipt.unknown_clients.is_empty() {
            text += &format!("not connected: {}\n", receipt.unknown_clients.join(", "));
        }
        print(&text)?;
    }
    // A gateway that did not answer may hold them.
    let answered_by_all = receipt.coverage.as_ref().is_none_or(|coverage| coverage.complete);
    if !target.json && answered_by_all && receipt.clients == 0 && !whom.found_nobody(receipt) {
        say!("no connected client is meant: check --app and the names");
    }
    complete(receipt.coverage.as_ref())?;
    if whom.found_nobody(receipt) {
        return Err(Failure::NotFound(format!("not connected: {}", receipt.unknown_clients.join(", "))));
    }
    Ok(())
}
