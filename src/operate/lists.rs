//! `broadgate clients`, `client`, `groups`, `roster` and `uids`.

use broadgate_business::{
    Audience, Cluster,
    cluster::Page,
    v1::{ClientField, ClientInfo, ClientState, ListNamesReply, WorkerStatus},
};
use broadgate_proto::{fields, limits::WORKER_SILENT_S};
use clap::Args;

use crate::{
    failure::Failure,
    operate::{
        hidden::{HIDDEN, are_hidden, tell_if_hidden},
        target::{ClusterTarget, complete},
    },
    output::{age_since_ms, bytes, counted, fitted, json, print, print_json, screen},
    terminal_text::one_line,
};

#[derive(Debug, Args)]
struct PageArgs {
    /// Maximum number of rows
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Cursor of the next page, as the previous page printed it
    #[arg(long, default_value = "")]
    cursor: String,
}

impl PageArgs {
    fn page(&self) -> Page {
        Page { limit: self.limit, cursor: self.cursor.clone() }
    }

    /// Says that a list is empty: a header alone looks like an answer that was cut off.
    fn tell_if_empty(&self, is_empty: bool, next_cursor: &str, what: &str, cluster: &Cluster) {
        if is_empty && next_cursor.is_empty() {
            let more = if self.cursor.is_empty() { "no" } else { "no other" };
            say!("{more} {what}, in app {:?}", cluster.app());
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ClientsArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// Only members of this group; repeat for several
    #[arg(long)]
    group: Vec<String>,
    /// Only clients of this uid; repeat for several. For signed-in Pusher users use --group '#signed-in-ID'
    #[arg(long)]
    uid: Vec<String>,
    /// Only those that connected from this address or network, such as 10.1.7.0/24
    #[arg(long, conflicts_with_all = ["slow", "held", "paused"])]
    address: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    page: PageArgs,
}

/// Such a list costs what it shows, however many clients there are.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct StateArgs {
    /// Only those that do not read what is sent to them: much waits in their outboxes
    #[arg(long)]
    slow: bool,
    /// Only those whose events wait for a worker: none takes their service
    #[arg(long)]
    held: bool,
    /// Only those that are not read, because their worker has not answered what they said before
    #[arg(long)]
    paused: bool,
}

impl StateArgs {
    fn state(&self) -> Option<ClientState> {
        let all = [
            (self.slow, ClientState::Slow),
            (self.held, ClientState::Held),
            (self.paused, ClientState::Paused),
        ];
        all.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, state)| state)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// The client's id
    id: String,
}

#[derive(Debug, Args)]
pub(crate) struct GroupsArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// Only names with this prefix
    #[arg(long, default_value = "")]
    prefix: String,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UidsArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// Only uids of members of this group; repeat for several
    #[arg(long)]
    group: Vec<String>,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RosterArgs {
    #[command(flatten)]
    target: ClusterTarget,
    /// The group
    group: String,
    #[command(flatten)]
    page: PageArgs,
}

pub(crate) async fn roster(args: RosterArgs) -> Result<(), Failure> {
    let cluster = args.target.cluster().await?;
    let reply = cluster.roster(&args.group, args.page.page()).await?;
    if args.target.json {
        print_json(&json("RosterReply", &reply)?)?;
    } else {
        let rows = reply.members.iter().map(|member| [member.user_id.clone(), member.info.clone()]);
        print(&fitted(screen(), ["USER", "INFO"], &[], rows))?;
        let who = format!("user is present in group {:?}", args.group);
        args.page.tell_if_empty(reply.members.is_empty(), &reply.next_cursor, &who, &cluster);
        more(&reply.next_cursor)?;
    }
    let is_without = reply.members.iter().all(|member| member.info.is_empty());
    tell_if_hidden(&cluster, is_without && !reply.members.is_empty()).await;
    complete(reply.coverage.as_ref())
}

pub(crate) async fn clients(args: ClientsArgs) -> Result<(), Failure> {
    let mut of =
        if args.group.is_empty() && args.uid.is_empty() { Audience::all() } else { Audience::default() };
    of = args.group.iter().fold(of, |of, group| of.and_group(group));
    of = args.uid.iter().fold(of, |of, uid| of.and_uid(uid));
    let mut fields = vec![ClientField::Uid, ClientField::Groups, ClientField::Connection];
    let state = args.state.state();
    if args.target.json || state.is_some() {
        fields.push(ClientField::Traffic);
    }
    let is_filtered =
        args.address.is_some() || state.is_some() || !args.group.is_empty() || !args.uid.is_empty();
    let who = if is_filtered { "connected client fits that" } else { "client is connected" };
    let cluster = args.target.cluster().await?;
    let reply = match (state, &args.address) {
        (Some(state), _) => cluster.list_clients_in(state, of, &fields, args.page.page()).await?,
        (None, Some(address)) => cluster.list_clients_from(address, of, &fields, args.page.page()).await?,
        (None, None) => cluster.list_clients(of, &fields, args.page.page()).await?,
    };
    if args.target.json {
        let mut value = json("ListClientsReply", &reply)?;
        let clients = value["clients"].as_array_mut();
        for client in clients.into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
            fields::absent(&fields).for_each(|field| drop(client.remove(field)));
        }
        print_json(&value)?;
    } else if let Some(state) = state {
        print(&held_up(&reply.clients))?;
        args.page.tell_if_empty(reply.clients.is_empty(), &reply.next_cursor, who, &cluster);
        more(&reply.next_cursor)?;
        if state == ClientState::Paused {
            // A token for some apps does not see workers.
            let status = cluster.status().await;
            status.map_or(Ok(()), |status| print(&unanswered_by(&status.workers)))?;
        }
    } else {
        let rows = reply.clients.iter().map(|client| {
            [
                client.client_id.clone(),
                client.uid.clone(),
                client.gateway.clone(),
                client.address.clone(),
                age_since_ms(client.opened_at_ms),
                client.groups.join(" "),
            ]
        });
        let header = ["CLIENT", "UID", "GATEWAY", "ADDRESS", "AGE", "GROUPS"];
        print(&fitted(screen(), header, &["AGE", "GATEWAY", "ADDRESS"], rows))?;
        args.page.tell_if_empty(reply.clients.is_empty(), &reply.next_cursor, who, &cluster);
        more(&reply.next_cursor)?;
    }
    complete(reply.coverage.as_ref())
}

/// The workers that leave events unanswered: a client is paused only when as many of its events are as may be.
fn unanswered_by(workers: &[WorkerStatus]) -> String {
    let mut text = String::new();
    for worker in workers.iter().filter(|worker| worker.oldest_unanswered_s > 0) {
        let WorkerStatus { name, events_unanswered, oldest_unanswered_s: oldest, .. } = worker;
        let events = counted(*events_unanswered, "event");
        let warns = if *oldest >= WORKER_SILENT_S { " (`broadgate doctor --only workers`)" } else { "" };
        text +=
            &format!("worker {}: {events} unanswered, the oldest for {oldest} s{warns}\n", one_line(name));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// What holds each of them up.
fn held_up(clients: &[ClientInfo]) -> String {
    let rows = clients.iter().map(|client| {
        [
            client.client_id.clone(),
            client.uid.clone(),
            client.gateway.clone(),
            client.address.clone(),
            age_since_ms(client.opened_at_ms),
            format!("{}, {}", counted(client.outbox_messages, "message"), bytes(client.outbox_bytes)),
            client.worker.clone(),
            client.events_unanswered.to_string(),
        ]
    });
    let header = ["CLIENT", "UID", "GATEWAY", "ADDRESS", "AGE", "OUTBOX", "WORKER", "UNANSWERED"];
    fitted(screen(), header, &["AGE", "UID", "GATEWAY"], rows)
}

pub(crate) async fn client(args: ClientArgs) -> Result<(), Failure> {
    let cluster = args.target.cluster().await?;
    let reply = cluster.client(args.id).await?;
    let client = reply.client.clone().unwrap_or_default();
    let is_hidden = client.session.is_none() && are_hidden(&cluster).await;
    if args.target.json {
        if is_hidden {
            say!("{HIDDEN}");
        }
        print_json(&json("ClientInfo", &client)?)
    } else {
        print(&details(&client, is_hidden))
    }
}

fn details(client: &ClientInfo, is_hidden: bool) -> String {
    let session = client.session.clone().filter(|session| session.version > 0);
    let session = session.map(|session| format!("{} (version {})", session.json, session.version));
    let none = if is_hidden { HIDDEN } else { "never set" };
    let messages = |count| counted(count, "message");
    let row = |name: &str, value: String| [name.to_owned(), value];
    fitted(
        screen(),
        ["", ""],
        &[],
        [
            row("client", client.client_id.clone()),
            row("app", client.app.clone()),
            row("uid", client.uid.clone()),
            row("groups", client.groups.join(" ")),
            row("session", session.unwrap_or_else(|| none.to_owned())),
            row("gateway", format!("{}, listener {} ({})", client.gateway, client.listener, client.protocol)),
            row("address", client.address.clone()),
            row("connected for", age_since_ms(client.opened_at_ms)),
            row("in", format!("{}, {}", messages(client.messages_in), bytes(client.bytes_in))),
            row("out", format!("{}, {}", messages(client.messages_out), bytes(client.bytes_out))),
            row("outbox", format!("{}, {}", messages(client.outbox_messages), bytes(client.outbox_bytes))),
            row(
                "worker",
                format!(
                    "{}, {} unanswered",
                    client.worker,
                    counted(client.events_unanswered.into(), "event")
                ),
            ),
        ],
    )
    .trim_start_matches('\n')
    .to_owned()
}

pub(crate) async fn groups(args: GroupsArgs) -> Result<(), Failure> {
    let cluster = args.target.cluster().await?;
    let reply = cluster.list_groups(&args.prefix, args.page.page()).await?;
    let what =
        if args.prefix.is_empty() { "group has clients" } else { "group with this prefix has clients" };
    if !args.target.json {
        args.page.tell_if_empty(reply.names.is_empty(), &reply.next_cursor, what, &cluster);
    }
    names("GROUP", &args.target, &reply)
}

pub(crate) async fn uids(args: UidsArgs) -> Result<(), Failure> {
    let cluster = args.target.cluster().await?;
    let what = if args.group.is_empty() { "connected client has a uid" } else { "member of that has a uid" };
    let reply = cluster.list_uids(args.group, args.page.page()).await?;
    if !args.target.json {
        args.page.tell_if_empty(reply.names.is_empty(), &reply.next_cursor, what, &cluster);
    }
    names("UID", &args.target, &reply)
}

fn names(header: &str, target: &ClusterTarget, reply: &ListNamesReply) -> Result<(), Failure> {
    if target.json {
        print_json(&json("ListNamesReply", reply)?)?;
    } else {
        let rows = reply.names.iter().map(|named| [named.name.clone(), named.clients.to_string()]);
        print(&fitted(screen(), [header, "CLIENTS"], &[], rows))?;
        more(&reply.next_cursor)?;
    }
    complete(reply.coverage.as_ref())
}

fn more(cursor: &str) -> Result<(), Failure> {
    if cursor.is_empty() {
        return Ok(());
    }
    print(&format!("\nThere are more: add --cursor '{}'\n", one_line(cursor)))
}
