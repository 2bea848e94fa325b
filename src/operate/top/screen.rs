//! What `top` shows: lines for a screen, text for a pipe, JSON for a script. Pure.

use std::time::Duration;

use broadgate_business::v1::{TopApp, TopCaller, TopClient, TopGroup, TopReply};
use ratatui::{
    Frame,
    style::{Modifier, Style},
    text::{Line, Text},
};
use serde_json::{Value, json};

use crate::{
    failure::Failure,
    operate::{
        status::epoch,
        stream::time_of_day,
        top::{
            rates::{GatewayLoad, GatewayRates, TopPicture, WorkerLoad},
            state::TopState,
            table::{self, TopColumn, TopRow, cut, size, whole},
            view::{TopOrder, TopView},
        },
    },
    output::{json as message_json, rate},
    terminal_text::one_line,
};

/// So many shards are listed one by one; of more, the busiest and the mean.
const SHARDS_LISTED: usize = 8;
/// Below the gateways remain so many lines at least.
const ROWS_LEAST: usize = 6;

const GATEWAYS: &[TopColumn] = &[
    TopColumn::text("GATEWAY", 0),
    TopColumn::text("STATE", 4),
    TopColumn::number("CLIENTS", 0),
    TopColumn::number("IN/S", 2),
    TopColumn::number("OUT/S", 0),
    TopColumn::number("SLOW", 5),
    TopColumn::number("HOMES", 6),
    TopColumn::text("SHARDS BUSY %", 1),
    TopColumn::number("QUEUED", 7),
    TopColumn::number("OUTBOX", 3),
];

/// How a line is drawn. Nothing is said by that alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineKind {
    Plain,
    Strong,
    Head,
}

/// The lines of a screen of this size.
pub(super) fn lines(state: &TopState, now: Duration, width: usize, height: usize) -> Vec<(LineKind, String)> {
    let mut lines = vec![(LineKind::Strong, first_line(state, now, width))];
    lines.extend(notes(state, now).into_iter().map(|note| (LineKind::Strong, cut(&note, width))));
    let foot = foot(state, width);
    let room = height.saturating_sub(lines.len() + foot.len());
    let mut gateways = gateways(state, now);
    let most = room.saturating_sub(ROWS_LEAST + 2).max((room / 2).saturating_sub(1));
    let hidden = gateways.len().saturating_sub(most);
    if hidden > 0 {
        // Those that do not answer are seen in any case.
        gateways.sort_by_key(|row| matches!(row, TopRow::Cells(_)));
    }
    let shown = if hidden > 0 { &gateways[..most.saturating_sub(1)] } else { &gateways[..] };
    let mut tables = headed(table::lines(GATEWAYS, None, shown, width));
    if hidden > 0 {
        tables
            .push((LineKind::Plain, cut(&format!("{} more gateways", gateways.len() - shown.len()), width)));
    }
    tables.push((LineKind::Plain, String::new()));
    let rows = rows(state);
    let left = room.saturating_sub(tables.len() + 1);
    let scrolled = state.scrolled.min(rows.len().saturating_sub(left.max(1)));
    let seen = &rows[scrolled..(scrolled + left).min(rows.len())];
    let column = state.view.column(state.order);
    tables.extend(headed(table::lines(state.view.columns(), column, seen, width)));
    tables.truncate(room);
    tables.resize(room, (LineKind::Plain, String::new()));
    lines.extend(tables);
    lines.extend(foot);
    lines.truncate(height);
    lines
}

fn headed(lines: Vec<String>) -> Vec<(LineKind, String)> {
    let kinds = std::iter::once(LineKind::Head).chain(std::iter::repeat(LineKind::Plain));
    kinds.zip(lines).collect()
}

/// Draws the screen.
pub(super) fn render(frame: &mut Frame<'_>, state: &TopState, now: Duration) {
    let area = frame.area();
    let styled = |(kind, line): (LineKind, String)| {
        let style = match kind {
            LineKind::Plain => Style::new(),
            LineKind::Strong => Style::new().add_modifier(Modifier::BOLD),
            LineKind::Head => Style::new().add_modifier(Modifier::REVERSED),
        };
        Line::styled(line, style)
    };
    let lines = lines(state, now, area.width.into(), area.height.into());
    frame.render_widget(Text::from(lines.into_iter().map(styled).collect::<Vec<_>>()), area);
}

/// The same once, without keys, for people.
pub(super) fn text(state: &TopState, now: Duration, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX);
    let mut lines = vec![format!("{}  {} old", summary(state), age(state, now))];
    lines.extend(notes(state, now));
    lines.extend(table::lines(GATEWAYS, None, &gateways(state, now), width));
    lines.push(String::new());
    let column = state.view.column(state.order);
    lines.extend(table::lines(state.view.columns(), column, &rows(state), width));
    lines.join("\n") + "\n"
}

/// The cluster in one line. It ends with the age of what is shown, however narrow the screen is.
fn first_line(state: &TopState, now: Duration, width: usize) -> String {
    let (summary, age) = (summary(state), age(state, now));
    let room = width.saturating_sub(age.len() + 1);
    let summary = cut(&summary, room);
    let gap = " ".repeat(width.saturating_sub(table::wide(&summary) + age.len()));
    cut(&(summary + &gap + &age), width)
}

fn age(state: &TopState, now: Duration) -> String {
    let at = state.now.as_ref().map(|picture| picture.at);
    at.map_or_else(String::new, |at| format!("{} s", now.saturating_sub(at).as_secs()))
}

fn summary(state: &TopState) -> String {
    let Some(picture) = &state.now else { return format!("{}  no answer yet", one_line(&state.cluster)) };
    let gateways = picture.gateways(state.before.as_ref());
    let sum = |of: fn(&GatewayLoad) -> u64| gateways.iter().map(of).sum::<u64>();
    let rates: Vec<&GatewayRates> = gateways.iter().filter_map(|gateway| gateway.rates.as_ref()).collect();
    let per_second = |of: fn(&GatewayRates) -> f64| {
        if rates.is_empty() { "?".to_owned() } else { rate(rates.iter().map(|rates| of(rates)).sum()) }
    };
    format!(
        "{}  epoch {}  {} clients  in {}/s  out {}/s  drops {}/s  slow {}",
        one_line(&state.cluster),
        epoch(&picture.status),
        whole(sum(|gateway| gateway.clients)),
        per_second(|rates| rates.messages_in),
        per_second(|rates| rates.messages_out),
        per_second(|rates| rates.drops),
        sum(|gateway| gateway.slow),
    )
}

/// What must be known about what is shown.
fn notes(state: &TopState, now: Duration) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((why, since)) = &state.trouble {
        notes.push(format!("NO ANSWER for {} s: {}", now.saturating_sub(*since).as_secs(), one_line(why)));
    }
    if state.paused {
        notes.push("PAUSED: space goes on".to_owned());
    }
    let is_measured = state.now.as_ref().and_then(|now| now.top.as_ref()).map(|top| top.measured_ms > 0);
    if state.now.is_some() && (state.before.is_none() || is_measured == Some(false)) {
        notes.push("Measuring: rates follow with the next answers.".to_owned());
    }
    let missing = state.now.as_ref().and_then(|now| now.top.as_ref()?.coverage.as_ref());
    if let Some(coverage) = missing.filter(|coverage| !coverage.complete && !coverage.missing.is_empty()) {
        let missing: Vec<String> = coverage.missing.iter().map(|name| one_line(name)).collect();
        notes.push(format!("Without {}: the list below is incomplete.", missing.join(", ")));
    }
    if !state.filter.is_empty() || state.typing {
        let cursor = if state.typing { "_" } else { "" };
        notes.push(format!("filter: {}{cursor}", one_line(&state.filter)));
    }
    notes
}

/// The keys, or the command that prints what is shown.
fn foot(state: &TopState, width: usize) -> Vec<(LineKind, String)> {
    let text = if state.command_shown {
        one_line(&state.command())
    } else if state.typing {
        "enter keeps the filter  esc clears it".to_owned()
    } else {
        "g c a w l views  s sort  / filter  space pause  y print the command  q quit".to_owned()
    };
    vec![(LineKind::Strong, cut(&text, width))]
}

fn gateways(state: &TopState, now: Duration) -> Vec<TopRow> {
    let Some(picture) = &state.now else { return Vec::new() };
    let row = |gateway: GatewayLoad| {
        let name = one_line(&gateway.name);
        if !gateway.answered {
            let since = state.silent.get(&gateway.incarnation).copied().unwrap_or(picture.at);
            let seconds = now.saturating_sub(since).as_secs();
            return TopRow::Sentence(name, format!("NO ANSWER for {seconds} s ({})", gateway.state));
        }
        let with =
            |of: &dyn Fn(&GatewayRates) -> String| gateway.rates.as_ref().map_or_else(|| "?".to_owned(), of);
        TopRow::Cells(vec![
            name,
            gateway.state.to_owned(),
            whole(gateway.clients),
            with(&|rates| rate(rates.messages_in)),
            with(&|rates| rate(rates.messages_out)),
            gateway.slow.to_string(),
            with(&|rates| format!("{} %", rates.homes_busy)),
            with(&|rates| shards(&rates.shards_busy)),
            gateway.mailboxes.to_string(),
            size(gateway.outboxes_bytes as f64),
        ])
    };
    picture.gateways(state.before.as_ref()).into_iter().map(row).collect()
}

/// "62 48 51 60", or "max 71, mean 40 of 32".
fn shards(busy: &[u32]) -> String {
    if busy.len() <= SHARDS_LISTED {
        return busy.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    }
    let max = busy.iter().max().copied().unwrap_or_default();
    let mean = busy.iter().sum::<u32>() / u32::try_from(busy.len()).unwrap_or(1);
    format!("max {max}, mean {mean} of {}", busy.len())
}

/// The rows of the view that the filter names, in the order of the answer.
fn rows(state: &TopState) -> Vec<TopRow> {
    let Some(picture) = &state.now else { return Vec::new() };
    let cells: Vec<Vec<String>> = match state.view {
        TopView::Workers => workers(picture, state).iter().map(worker).collect(),
        _ => picture.top.as_ref().map(listed).unwrap_or_default(),
    };
    let names = state.view.columns().iter().position(|column| column.right).unwrap_or_default();
    let filter = one_line(&state.filter).to_lowercase();
    let is_meant = |cells: &Vec<String>| {
        let texts = if state.view == TopView::Clients { &cells[..4] } else { &cells[..names] };
        texts.iter().any(|text| text.to_lowercase().contains(&filter))
    };
    cells.into_iter().filter(is_meant).map(TopRow::Cells).collect()
}

fn workers(picture: &TopPicture, state: &TopState) -> Vec<WorkerLoad> {
    let mut workers = picture.workers(state.before.as_ref());
    let value = |worker: &WorkerLoad| match state.order {
        TopOrder::Waiting => worker.unanswered as f64,
        TopOrder::Clients => worker.clients as f64,
        _ => worker.events.unwrap_or_default(),
    };
    workers.sort_by(|a, b| value(b).total_cmp(&value(a)));
    workers
}

/// Only one of the lists has rows.
fn listed(top: &TopReply) -> Vec<Vec<String>> {
    let unmeasured = top.measured_ms == 0;
    let rate = |value: f64| if unmeasured { "?".to_owned() } else { rate(value) };
    let size = |value: f64| if unmeasured { "?".to_owned() } else { size(value) };
    let group = |row: &TopGroup| {
        vec![
            one_line(&format!("{}/{}", row.app, row.group)),
            one_line(&row.home),
            whole(row.clients),
            rate(row.messages_per_s),
            rate(row.deliveries_per_s),
            size(row.bytes_per_s),
            rate(row.drops_per_s),
        ]
    };
    let client = |row: &TopClient| {
        vec![
            row.client_id.clone(),
            one_line(&format!("{}/{}", row.app, row.uid)),
            one_line(&row.gateway),
            row.address.clone(),
            rate(row.messages_in_per_s),
            rate(row.messages_out_per_s),
            size(row.bytes_out_per_s),
            table::size(row.outbox_bytes as f64),
        ]
    };
    let app = |row: &TopApp| {
        vec![
            one_line(&row.app),
            whole(row.clients),
            limit(row),
            rate(row.messages_in_per_s),
            rate(row.messages_out_per_s),
            size(row.bytes_out_per_s),
            whole(row.refused),
        ]
    };
    let caller = |row: &TopCaller| {
        vec![
            one_line(&row.caller),
            rate(row.commands_per_s),
            rate(row.sends_per_s),
            size(row.bytes_per_s),
            rate(row.refused_per_s),
            whole(row.commands),
            time_of_day(row.last_at_ms),
            one_line(&row.gateways.join(",")),
        ]
    };
    let groups = top.groups.iter().map(group);
    let rows = groups.chain(top.clients.iter().map(client)).chain(top.apps.iter().map(app));
    rows.chain(top.callers.iter().map(caller)).collect()
}

/// How much of its limits an app has used: of the one that is nearest.
fn limit(app: &TopApp) -> String {
    let used = |clients: u64, max: u64| (max > 0).then(|| (clients.saturating_mul(100) / max, clients, max));
    let all = used(app.clients, app.connections_max);
    let here = used(app.clients_at_a_gateway, app.connections_per_gateway_max);
    match (all, here) {
        (Some(all), here) if here.is_none_or(|here| here.0 <= all.0) => {
            format!("{} % of {}", all.0, whole(all.2))
        }
        (_, Some(here)) => format!("{} % of {} a gateway", here.0, whole(here.2)),
        _ => "none".to_owned(),
    }
}

fn worker(row: &WorkerLoad) -> Vec<String> {
    let unknown = || "?".to_owned();
    vec![
        one_line(&row.name),
        one_line(&row.services.join(",")),
        whole(row.clients),
        whole(row.unanswered),
        format!("{} s", row.oldest_s),
        row.events.map_or_else(unknown, rate),
        row.answer_ms.map_or_else(unknown, |ms| format!("{} ms", rate(ms))),
        row.gateways.to_string(),
    ]
}

/// Everything, for scripts: gateways with their rates, and the rows as the contract has them.
pub(super) fn json(state: &TopState) -> Result<Value, Failure> {
    let Some(picture) = &state.now else { return Ok(Value::Null) };
    let gateway = |row: &GatewayLoad| {
        let rates = row.rates.as_ref();
        json!({
            "name": row.name, "incarnation": row.incarnation, "state": row.state, "answered": row.answered,
            "clients": row.answered.then_some(row.clients), "slow": row.answered.then_some(row.slow),
            "mailboxes": row.answered.then_some(row.mailboxes),
            "outboxes_bytes": row.answered.then_some(row.outboxes_bytes),
            "messages_in_per_s": rates.map(|rates| rates.messages_in),
            "messages_out_per_s": rates.map(|rates| rates.messages_out),
            "bytes_in_per_s": rates.map(|rates| rates.bytes_in),
            "bytes_out_per_s": rates.map(|rates| rates.bytes_out),
            "drops_per_s": rates.map(|rates| rates.drops), "closes_per_s": rates.map(|rates| rates.closes),
            "homes_busy_percent": rates.map(|rates| rates.homes_busy),
            "shards_busy_percent": rates.map(|rates| rates.shards_busy.clone()),
        })
    };
    let worker = |row: &WorkerLoad| {
        json!({
            "name": row.name, "incarnation": row.incarnation, "services": row.services,
            "clients": row.clients, "events_unanswered": row.unanswered,
            "oldest_unanswered_s": row.oldest_s, "events_per_s": row.events,
            "answer_ms": row.answer_ms, "gateways": row.gateways,
        })
    };
    let gateways: Vec<Value> = picture.gateways(state.before.as_ref()).iter().map(gateway).collect();
    let coverage = picture.status.coverage.clone().unwrap_or_default();
    let mut all = json!({
        "epoch": epoch(&picture.status), "view": state.view.name(), "sort": state.order.name(),
        "gateways": gateways, "complete": coverage.complete, "missing": coverage.missing,
    });
    let rows = match (&picture.top, state.view) {
        (_, TopView::Workers) => {
            json!({ "workers": workers(picture, state).iter().map(worker).collect::<Vec<_>>() })
        }
        (Some(top), view) => {
            let top = message_json("TopReply", top)?;
            json!({ view.name(): top[view.name()], "measured_ms": top["measured_ms"] })
        }
        (None, _) => json!({}),
    };
    if let (Value::Object(all), Value::Object(rows)) = (&mut all, rows) {
        all.extend(rows);
    }
    Ok(all)
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
