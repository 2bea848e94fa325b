//! `broadgate why --command`: what became of a message, and why a client did not get it.

use std::time::Duration;

use broadgate_business::{
    Cluster,
    v1::{SendsMemory, SendsReply, SendsRequest, SentClient, SentCommand, sends_request::About},
};
use broadgate_proto::{limits::SENT_ASKED_MAX, v1::Audience};
use serde_json::{Value, json as object};

use crate::{
    failure::Failure,
    operate::{
        target::complete,
        why_order::FoundOrder,
        why_text::{clock, short},
        why_verdict::{Judged, SentFate, fates, judge},
    },
    output::{self, counted, print, print_json},
    terminal_text::one_line,
};

/// Connections that ended this long before a send are not shown if there are others.
const LONG_BEFORE: Duration = Duration::from_secs(600);
/// Sends and clients that are asked for.
const ROWS: u32 = 1000;

/// What is asked.
pub(super) struct CommandQuestion {
    pub(super) command: String,
    pub(super) app: Option<String>,
    pub(super) of: Option<broadgate_business::v1::sends_request::Of>,
    /// "uid 42", if anybody is asked about.
    pub(super) whose: Option<String>,
    pub(super) since_ms: u64,
    pub(super) json: bool,
}

pub(super) async fn why_command(
    cluster: &Cluster,
    asked: &CommandQuestion,
    now: Duration,
) -> Result<(), Failure> {
    let request = SendsRequest {
        app: asked.app.clone().unwrap_or_default(),
        about: Some(About::CommandId(asked.command.clone())),
        of: asked.of.clone(),
        since_ms: asked.since_ms,
        limit: ROWS,
        ..SendsRequest::default()
    };
    let mut reply = cluster.sends(request.clone()).await?;
    // Threads that have not carried it out do not know to what it was sent.
    if asked.of.is_some() && !reply.sends.is_empty() {
        let (in_groups, in_uids) = names(&reply);
        reply = cluster.sends(SendsRequest { in_groups, in_uids, ..request }).await?;
    }
    let fates = fates(&reply);
    let judged = judged(&reply, &fates);
    let order = match &fates[..] {
        [] => FoundOrder::ask(cluster, &asked.command, asked.app.as_deref(), asked.since_ms).await?,
        _ => FoundOrder::default(),
    };
    if asked.json {
        let mut value = as_json(&reply, &judged)?;
        if order.is_known() {
            value["order"] = order.as_json()?;
        }
        print_json(&value)?;
    } else if order.is_known() {
        print(&order.as_text(&asked.command, now))?;
    } else if !fates.is_empty() {
        print(&as_text(&reply, &fates, &judged, asked, now))?;
    }
    complete(reply.coverage.as_ref())?;
    if order.is_known() {
        return Ok(());
    }
    if fates.is_empty() {
        let app = asked.app.as_ref().map_or_else(String::new, |app| format!(" of app {app:?}"));
        return Err(Failure::NotFound(format!(
            "nothing is remembered of command {:?}{app}: of no send ({}; one that names only clients, wants no receipt \
             and has no id is not), {}",
            asked.command,
            remembered(&reply.memories, now),
            order.limits()
        )));
    }
    match &asked.whose {
        Some(whose) if reply.clients.is_empty() => Err(Failure::NotFound(format!(
            "no client is connected or remembered of {whose}: `broadgate why` without --command says how far back ends \
             are remembered"
        ))),
        _ => Ok(()),
    }
}

/// The groups and uids to which it was sent, and those it left out.
fn names(reply: &SendsReply) -> (Vec<String>, Vec<String>) {
    let (mut groups, mut uids): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for to in reply.sends.iter().filter_map(|sent| sent.to.as_ref()) {
        let except = to.except.clone().unwrap_or_default();
        groups.extend(to.groups.iter().cloned().chain(except.groups));
        uids.extend(to.uids.iter().cloned().chain(except.uids));
    }
    for names in [&mut groups, &mut uids] {
        names.sort_unstable();
        names.dedup();
        names.truncate(SENT_ASKED_MAX);
    }
    (groups, uids)
}

/// Each client of an app in which there is the command, with what became of it there.
fn judged<'a>(reply: &'a SendsReply, fates: &[SentFate<'_>]) -> Vec<(&'a SentClient, Judged)> {
    let none = SendsMemory::default();
    let mut all = Vec::new();
    for client in &reply.clients {
        let memory = reply.memories.iter().find(|memory| memory.gateway == client.gateway).unwrap_or(&none);
        if let Some(fate) = fates.iter().find(|fate| fate.parts[0].app == client.app) {
            all.push((client, judge(fate, client, memory)));
        }
    }
    all
}

fn as_json(reply: &SendsReply, judged: &[(&SentClient, Judged)]) -> Result<Value, Failure> {
    let mut value = output::json("SendsReply", reply)?;
    let verdicts = judged.iter().map(|(client, judged)| {
        let word = judged.verdict.word().to_lowercase().replace(' ', "_");
        object!({ "client_id": client.client_id, "gateway": client.gateway, "verdict": word, "because": judged.because })
    });
    value["verdicts"] = verdicts.collect();
    Ok(value)
}

fn as_text(
    reply: &SendsReply,
    fates: &[SentFate<'_>],
    judged: &[(&SentClient, Judged)],
    asked: &CommandQuestion,
    now: Duration,
) -> String {
    let mut text = format!("{}\n", remembered(&reply.memories, now));
    for fate in fates {
        text += &(one_line(&heading(fate, now)) + "\n");
        if asked.of.is_none() {
            text += &by_gateway(fate);
            continue;
        }
        let app = &fate.parts[0].app;
        let own = judged.iter().filter(|(client, _)| client.app == *app);
        let long_ago = u64::try_from(LONG_BEFORE.as_millis()).unwrap_or(u64::MAX);
        let is_old = |client: &SentClient| {
            client.ended.as_ref().is_some_and(|end| end.ended_at_ms.saturating_add(long_ago) < fate.at_ms)
        };
        let (old, shown): (Vec<_>, Vec<_>) = own.partition(|(client, _)| is_old(client));
        let (old, shown) = if shown.is_empty() { (0, old) } else { (old.len() as u64, shown) };
        for (client, judged) in shown {
            let word = judged.verdict.word();
            let line =
                format!("{} {} {word:<13} {}", short(&client.client_id), client.gateway, judged.because);
            text += &(one_line(&line) + "\n");
        }
        if old > 0 {
            text += &format!("{} had ended long before\n", counted(old, "other connection"));
        }
    }
    for gateway in reply.coverage.iter().flat_map(|coverage| &coverage.missing) {
        text +=
            &(one_line(&format!("{gateway} NO ANSWER: what it has sent, and its clients, are not known"))
                + "\n");
    }
    text
}

/// "order-991 to shop/orders.eu by app:shop/b6e2, placed 11:59:58.201 at 7.41/90188".
fn heading(fate: &SentFate<'_>, now: Duration) -> String {
    let part = fate.parts[0];
    let by = if part.by.is_empty() { String::new() } else { format!(" by {}", part.by) };
    let at = format!("{}.{:03}", clock(fate.at_ms, now), fate.at_ms % 1000);
    let position = fate.parts.iter().find(|part| !part.position.is_empty());
    let at = position.map_or(at.clone(), |part| format!("{at} at {}", part.position));
    format!("{} to {}{by}, placed {at}", part.command_id, audience(part))
}

/// Whom a command addresses.
fn audience(part: &SentCommand) -> String {
    let empty = Audience::default();
    let to = part.to.as_ref().unwrap_or(&empty);
    let mut named: Vec<String> = Vec::new();
    if to.all {
        named.push(format!("everybody of {}", part.app));
    }
    named.extend(to.groups.iter().map(|group| format!("{}/{group}", part.app)));
    named.extend(to.uids.iter().map(|uid| format!("uid {uid} of {}", part.app)));
    named.extend(to.clients.iter().map(|client| format!("client {}", short(client))));
    if part.names_left_out > 0 {
        named.push(format!("{} more", part.names_left_out));
    }
    let except = to.except.as_ref().map(|except| {
        let clients = except.clients.iter().map(|client| format!("client {}", short(client)));
        let uids = except.uids.iter().map(|uid| format!("uid {uid}"));
        clients.chain(uids).chain(except.groups.iter().cloned()).collect::<Vec<_>>().join(", ")
    });
    let except = except.map_or_else(String::new, |except| format!(" except {except}"));
    named.join(", ") + &except
}

/// What each gateway has placed and dropped.
fn by_gateway(fate: &SentFate<'_>) -> String {
    if let Some(home) = fate.parts.iter().find(|part| part.unheard) {
        let home = one_line(&home.gateway);
        return format!("  placed for nobody: its home, {home}, knew no client in it. Is the name right?\n");
    }
    let mut gateways: Vec<&str> = fate.parts.iter().map(|part| &*part.gateway).collect();
    gateways.sort_unstable();
    gateways.dedup();
    let mut text = String::new();
    let mut clients = 0;
    for gateway in gateways {
        let own = || fate.parts.iter().filter(|part| part.gateway == gateway);
        let placed: u64 = own().map(|part| part.clients).sum();
        clients += placed;
        let mut drops: Vec<(&str, u64)> = Vec::new();
        for (reason, count) in own().flat_map(|part| &part.drops) {
            match drops.iter_mut().find(|(known, _)| known == reason) {
                Some((_, all)) => *all += count,
                None => drops.push((reason, *count)),
            }
        }
        drops.sort_unstable();
        let drops: String =
            drops.iter().map(|(reason, count)| format!(", {count} dropped: {reason}")).collect();
        text += &(one_line(&format!("  {gateway} placed for {}{drops}", counted(placed, "client"))) + "\n");
    }
    if clients == 0 {
        text += "  Nobody got it. Is the name right, and were they in it at that time?\n";
    }
    text
}

/// How far back the gateways remember sends; a gateway that remembers less is named.
fn remembered(memories: &[SendsMemory], now: Duration) -> String {
    let least = |memory: &SendsMemory| memory.sends_since_ms.max(memory.joins_since_ms);
    let is_on = |memory: &SendsMemory| memory.sends_since_ms > 0 && memory.joins_since_ms > 0;
    let most = memories.iter().filter(|memory| is_on(memory)).map(least).min();
    let odd = memories.iter().filter_map(|memory| match most {
        _ if !is_on(memory) => Some(format!("{}: not everything, by its [gateway.recorder]", memory.gateway)),
        Some(most) if least(memory) > most + 60_000 => {
            Some(format!("{}: {}", memory.gateway, clock(least(memory), now)))
        }
        _ => None,
    });
    let odd: Vec<String> = odd.collect();
    let since = most.map_or_else(|| "nothing".to_owned(), |most| format!("since {}", clock(most, now)));
    let odd = if odd.is_empty() { String::new() } else { format!(" ({})", odd.join(", ")) };
    format!("sends remembered {since}{odd}, times are UTC")
}
