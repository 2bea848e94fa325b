//! What a tap shows, in lines for people. Pure.

use std::{collections::BTreeSet, time::Duration};

use broadgate_business::v1::{TapEvent, TapEvents, TapKind, tap_event::Payload};

use crate::{
    operate::stream::{short_id, short_time, time_of_day},
    output::{age, bytes, counted},
    terminal_text::{one_line, whole_line},
};

/// What the gateways say when a tap opens.
#[derive(Default)]
pub(super) struct Opening {
    clients: u64,
    /// Gateways that have such clients.
    at: BTreeSet<String>,
    seconds: u32,
}

impl Opening {
    pub(super) fn add(&mut self, events: &TapEvents) {
        let Some(start) = events.start else { return };
        self.clients += start.clients;
        self.seconds = self.seconds.max(start.seconds);
        if start.clients > 0 {
            self.at.insert(events.gateway.clone());
        }
    }

    /// Did no gateway have such a client?
    pub(super) fn has_nobody(&self) -> bool {
        self.clients == 0
    }

    /// "uid 42: 2 clients on gw-1, gw-3; payloads hidden; ends in 10 min"
    pub(super) fn text(&self, whose: &str, payload: bool, silent: &BTreeSet<&str>) -> String {
        let at: Vec<&str> = self.at.iter().map(String::as_str).collect();
        let on = if at.is_empty() { String::new() } else { format!(" on {}", at.join(", ")) };
        let payloads = if payload { "payloads shown" } else { "payloads hidden" };
        let ends = age(Duration::from_secs(self.seconds.into()));
        let clients = counted(self.clients, "client");
        let mut text = format!("{}: {clients}{on}; {payloads}; ends in {ends}\n", one_line(whose));
        for gateway in silent {
            text += &format!("{} does not answer\n", one_line(gateway));
        }
        text
    }
}

/// A line for each event, and for what is missing.
pub(super) fn lines(events: &TapEvents, per_second: u32) -> String {
    let gateway = one_line(&events.gateway);
    let mut text = String::new();
    if let Some(start) = events.start {
        text += &format!("{gateway} is tapped: {}\n", counted(start.clients, "client"));
    }
    if events.missed > 0 {
        let at = events.events.first().map_or("            ".to_owned(), |event| time_of_day(event.at_ms));
        text += &format!("{at} {gateway} {} not shown ({per_second}/s, or read too late)\n", events.missed);
    }
    for event in &events.events {
        text += &line(&gateway, event);
    }
    if !events.unreachable.is_empty() {
        text += &format!("{gateway} NOTHING is shown: {}\n", one_line(&events.unreachable));
    }
    text
}

fn line(gateway: &str, event: &TapEvent) -> String {
    let kind = event.kind();
    let word = kind.as_str_name().trim_start_matches("TAP_KIND_").to_ascii_lowercase();
    let client = if event.client_id.is_empty() { "*".to_owned() } else { short_id(&event.client_id) };
    let mut text = format!(
        "{} {gateway} {} {word:8} {}",
        time_of_day(event.at_ms),
        one_line(&client),
        one_line(&details(kind, event))
    );
    match &event.payload {
        None => {}
        Some(Payload::Text(said)) => text += &format!("  {}", whole_line(said)),
        Some(Payload::Binary(said)) => text += &format!("  {}", data_encoding::HEXLOWER.encode(said)),
    }
    text.trim_end().to_owned() + "\n"
}

/// What an event says, by its kind.
fn details(kind: TapKind, event: &TapEvent) -> String {
    let TapEvent { place, command_id, caller, reason, count, position, .. } = event;
    let at = if position.is_empty() { String::new() } else { format!(" {position}") };
    // Its id is what one looks for elsewhere.
    let trace = event.traceparent.split('-').nth(1).map(|id| format!(", trace {id}")).unwrap_or_default();
    let size = bytes(event.bytes);
    let by = match (&**caller, &**command_id) {
        ("", "") => String::new(),
        ("", id) => format!(" by command {id}"),
        (caller, "") => format!(" by {caller}"),
        (caller, id) => format!(" by {caller}, command {id}"),
    };
    match kind {
        TapKind::Opened => format!("at {place}, from {reason}"),
        TapKind::In => format!("{size}, window {count}/{}", event.max),
        TapKind::Event => format!("{reason} to {place}, {count}"),
        TapKind::Answered => format!("by {place}, {count}; after {}", short_time(event.took_us)),
        TapKind::Placed if event.client_id.is_empty() => {
            format!("{place}{at} {size}{by}, {}{trace}", counted(*count, "client"))
        }
        TapKind::Placed => format!("{place}{at} {size}{by}, outbox {count}{trace}").trim_start().to_owned(),
        TapKind::Written => format!("{size}, {}", counted(*count, "message")),
        TapKind::Held => format!("{} wait: the client does not read", bytes(event.outbox_bytes)),
        TapKind::Dropped => format!("{place} {size}{by}: {reason}").trim_start().to_owned(),
        TapKind::Joined | TapKind::Left | TapKind::Subscribing => place.clone(),
        TapKind::Bound if place.is_empty() => "no uid any more".to_owned(),
        TapKind::Bound => format!("uid {place}"),
        TapKind::Ping => "it was silent".to_owned(),
        TapKind::Closed => {
            let unsent =
                if *count > 0 { format!(", {} unsent", counted(*count, "message")) } else { String::new() };
            format!("{} {reason}{by}{unsent}", event.code)
        }
        TapKind::Unspecified => {
            format!("an event of a kind that this program does not know ({})", event.kind)
        }
    }
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1::TapStart;

    use super::*;

    fn event(kind: TapKind) -> TapEvent {
        TapEvent {
            at_ms: 43_447_113,
            kind: kind.into(),
            client_id: "4uaa000000000001k0im".to_owned(),
            ..TapEvent::default()
        }
    }

    fn shows(event: TapEvent, expected: &str) {
        assert_eq!(line("gw-1", &event), format!("12:04:07.113 gw-1 {expected}\n"));
    }

    #[test]
    fn each_kind_has_its_line() {
        let seen = |kind, place: &str, bytes, count| TapEvent {
            place: place.to_owned(),
            bytes,
            count,
            ..event(kind)
        };
        shows(TapEvent { max: 32, ..seen(TapKind::In, "", 84, 1) }, "..k0im in       84 B, window 1/32");
        let went = TapEvent { reason: "message".to_owned(), ..seen(TapKind::Event, "chat-1", 0, 88_121) };
        shows(went, "..k0im event    message to chat-1, 88121");
        let answered = TapEvent { took_us: 18_000, ..seen(TapKind::Answered, "chat-1", 0, 88_121) };
        shows(answered, "..k0im answered by chat-1, 88121; after 18 ms");
        let placed =
            TapEvent { command_id: "order-991".to_owned(), ..seen(TapKind::Placed, "orders.eu", 212, 1) };
        shows(placed.clone(), "..k0im placed   orders.eu 212 B by command order-991, outbox 1");
        let ordered = TapEvent { position: "7.41/90213".to_owned(), ..placed.clone() };
        shows(ordered, "..k0im placed   orders.eu 7.41/90213 212 B by command order-991, outbox 1");
        let said = TapEvent { payload: Some(Payload::Text("a\u{1b}[2J".to_owned())), ..placed.clone() };
        let words = "..k0im placed   orders.eu 212 B by command order-991, outbox 1  a\\u{1b}[2J";
        shows(said, words);
        let many = TapEvent { client_id: String::new(), count: 9180, ..placed };
        shows(many, "* placed   orders.eu 212 B by command order-991, 9180 clients");
        let held = TapEvent { outbox_bytes: 72_704, ..event(TapKind::Held) };
        shows(held, "..k0im held     71.0 KiB wait: the client does not read");
        let closed =
            TapEvent { code: 4100, reason: "slow: too slow".to_owned(), ..seen(TapKind::Closed, "", 0, 214) };
        shows(closed, "..k0im closed   4100 slow: too slow, 214 messages unsent");
        shows(seen(TapKind::Joined, "a\nb", 0, 0), "..k0im joined   a\\nb");
        shows(event(TapKind::Bound), "..k0im bound    no uid any more");
        let opened = TapEvent { reason: "10.1.7.9:4000".to_owned(), ..seen(TapKind::Opened, "web", 0, 0) };
        shows(opened, "..k0im opened   at web, from 10.1.7.9:4000");
        let dropped = TapEvent { reason: "slow".to_owned(), ..seen(TapKind::Dropped, "orders.eu", 3, 0) };
        shows(dropped, "..k0im dropped  orders.eu 3 B: slow");
    }

    #[test]
    fn what_is_missing_stands_at_its_place() {
        let events = TapEvents {
            gateway: "gw-1".to_owned(),
            missed: 3210,
            events: vec![event(TapKind::Ping)],
            ..TapEvents::default()
        };
        let text = lines(&events, 1000);
        assert!(text.starts_with("12:04:07.113 gw-1 3210 not shown (1000/s"), "{text}");
        assert!(text.ends_with("..k0im ping     it was silent\n"), "{text}");
        let gone = TapEvents { unreachable: "no answer within 2s".to_owned(), ..TapEvents::default() };
        assert!(lines(&gone, 1000).contains("NOTHING is shown: no answer within 2s"));
    }

    #[test]
    fn the_first_line_says_who_is_shown() {
        let mut opening = Opening::default();
        for (gateway, clients) in [("gw-1", 1), ("gw-2", 0), ("gw-3", 1)] {
            let start = Some(TapStart { clients, seconds: 600 });
            opening.add(&TapEvents { gateway: gateway.to_owned(), start, ..TapEvents::default() });
        }
        let text = opening.text("uid 42", false, &BTreeSet::from(["gw-4"]));
        let expected =
            "uid 42: 2 clients on gw-1, gw-3; payloads hidden; ends in 10 min\ngw-4 does not answer\n";
        assert_eq!(text, expected);
    }
}
