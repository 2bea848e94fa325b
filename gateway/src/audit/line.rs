//! A line of the audit.

use std::time::SystemTime;

use broadgate_proto::{
    limits::{AUDIT_NAMES_MAX, NAME_BYTES_MAX},
    name, said,
    v1::{
        self, answer::Answer, command::Command, ended_request, inspect_request, sends_request, tap_request,
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::callers::{Caller, call_and_app};

/// What a caller did, and what came of it. It never holds a payload, a session, or what a caller has shown.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AuditLine {
    at: String,
    gateway: String,
    who: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    how: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    what: &'static str,
    on: Value,
    #[serde(skip_serializing_if = "String::is_empty")]
    command_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

impl AuditLine {
    /// A line about what a caller does.
    pub(crate) fn new(gateway: &str, caller: &Caller, what: &'static str, on: Value) -> Self {
        Self {
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            gateway: gateway.to_owned(),
            who: caller.who().into_owned(),
            role: caller.role().map(crate::callers::TokenRole::name),
            how: caller.how,
            from: caller.from.map(|from| from.ip().to_string()),
            what,
            on,
            command_id: String::new(),
            note: caller.note.clone(),
            traceparent: caller.traceparent.map(|parent| parent.to_string()),
            clients: None,
            complete: None,
            error: String::new(),
        }
    }

    /// The line of a command, if it has one: it closes clients or dissolves groups, it shows payloads to the holder of
    /// a token, or it changes or sends something and has a note.
    pub(crate) fn of_command(
        gateway: impl FnOnce() -> String,
        caller: &Caller,
        command: &Command,
    ) -> Option<Self> {
        let (what, on, id) = described(caller, command).or_else(|| noted(caller, command))?;
        Some(Self { command_id: fit(id), ..Self::new(&gateway(), caller, what, on) })
    }

    /// The line of a gateway that drains, about who has ordered that; the register may have been asked directly.
    pub(crate) fn drained(gateway: &str, by: &v1::OrderGiver) -> Self {
        let known = |text: &str| Some(fit(text)).filter(|text| !text.is_empty());
        Self {
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            gateway: gateway.to_owned(),
            who: known(&by.who).unwrap_or_else(|| "?".to_owned()),
            role: None,
            how: said::program(&by.how).unwrap_or(if by.how == "json" { "json" } else { "grpc" }),
            from: known(&by.from),
            what: "drained",
            on: json!({ "gateway": gateway }),
            command_id: String::new(),
            note: Some(&*by.note)
                .filter(|note| !note.is_empty() && said::check_note(note).is_ok())
                .map(Into::into),
            traceparent: None,
            clients: None,
            complete: None,
            error: String::new(),
        }
    }

    /// With what was answered.
    pub(crate) fn answered(mut self, answer: &Answer) -> Self {
        let coverage = match answer {
            Answer::Error(error) => {
                self.error = fit(&error.message);
                return self;
            }
            Answer::Receipt(receipt) => {
                self.clients = Some(receipt.clients);
                receipt.coverage.as_ref()
            }
            Answer::Session(reply) => reply.coverage.as_ref(),
            Answer::History(reply) => reply.coverage.as_ref(),
            Answer::LastValue(reply) => reply.coverage.as_ref(),
            Answer::Roster(reply) => reply.coverage.as_ref(),
            Answer::Client(reply) => reply.coverage.as_ref(),
            Answer::Clients(reply) => reply.coverage.as_ref(),
            _ => None,
        };
        self.complete = coverage.map(|coverage| coverage.complete);
        self
    }

    /// The same, refused with this sentence.
    pub(crate) fn refused(self, why: &str) -> Self {
        Self { error: fit(why), ..self }
    }

    pub(crate) const fn what(&self) -> &'static str {
        self.what
    }

    /// As it is written, in one line.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub(crate) fn sentence(&self) -> String {
        let on = if self.on.is_null() { String::new() } else { format!(" {}", self.on) };
        let clients = self
            .clients
            .map(|count| format!(", {count} client{}", if count == 1 { "" } else { "s" }))
            .unwrap_or_default();
        let incomplete = if self.complete == Some(false) { ", incomplete" } else { "" };
        let error = if self.error.is_empty() { String::new() } else { format!(": {}", self.error) };
        let note = self.note.as_ref().map(|note| format!(" (note: {note})")).unwrap_or_default();
        format!("{}: {}{on}{clients}{incomplete}{error}{note}", self.who, self.what)
    }
}

/// What a command does, to what, and its id.
fn described<'a>(caller: &Caller, command: &'a Command) -> Option<(&'static str, Value, &'a str)> {
    let named = |app: &str, group: &str| json!({ "app": app_name(app), "group": fit(group) });
    Some(match command {
        Command::Close(request) => ("close", of_audience(request.to.as_ref()), &request.command_id),
        Command::Bind(request) if request.exclusive => {
            let on = json!({ "app": app_name(&request.app), "client": fit(&request.client_id), "uid": fit(&request.uid) });
            ("exclusive_bind", on, &request.command_id)
        }
        Command::Dissolve(request) => {
            let mut on = Map::new();
            on.insert("app".to_owned(), json!(app_name(&request.app)));
            put(&mut on, "groups", &request.groups);
            ("dissolve", Value::Object(on), &request.command_id)
        }
        // Looks. Those of the cluster's own processes are their work, and too many.
        _ if !caller.has_token() || !caller.sees_payloads() => return None,
        Command::GetSession(request) => {
            ("session", json!({ "app": app_name(&request.app), "client": fit(&request.client_id) }), "")
        }
        Command::GetClient(request) => {
            ("session", json!({ "app": app_name(&request.app), "client": fit(&request.client_id) }), "")
        }
        Command::ListClients(request) if request.fields().any(|field| field == v1::ClientField::Session) => {
            ("session", of_audience(request.of.as_ref()), "")
        }
        Command::History(request) => ("history", named(&request.app, &request.group), ""),
        Command::LastValue(request) => ("last_value", named(&request.app, &request.group), ""),
        Command::Roster(request) => ("roster", named(&request.app, &request.group), ""),
        _ => return None,
    })
}

/// The same of a command that has a line only because its caller leaves a note.
fn noted<'a>(caller: &Caller, command: &'a Command) -> Option<(&'static str, Value, &'a str)> {
    caller.note.as_ref()?;
    let (what, id) = match command {
        Command::Send(request) => ("send", &request.command_id),
        Command::Bind(request) => ("bind", &request.command_id),
        Command::Unbind(request) => ("unbind", &request.command_id),
        Command::Join(request) => ("join", &request.command_id),
        Command::Leave(request) => ("leave", &request.command_id),
        Command::SetSession(request) => ("set_session", &request.command_id),
        Command::MergeSession(request) => ("merge_session", &request.command_id),
        _ => return None,
    };
    let mut on = asked(command);
    if let Value::Object(on) = &mut on {
        on.remove("call");
    }
    Some((what, on, id))
}

/// What a refused command was about: its call, its app, and what it names.
pub(crate) fn asked(command: &Command) -> Value {
    let (call, app) = call_and_app(command);
    let mut on = Map::new();
    on.insert("call".to_owned(), json!(call));
    if let Some(app) = app {
        on.insert("app".to_owned(), json!(app_name(app)));
    }
    match command {
        Command::Send(request) => put_audience(&mut on, request.to.as_ref()),
        Command::Close(request) => put_audience(&mut on, request.to.as_ref()),
        Command::ListClients(request) => put_audience(&mut on, request.of.as_ref()),
        Command::Bind(v1::BindRequest { client_id, uid, .. })
        | Command::Unbind(v1::UnbindRequest { client_id, uid, .. }) => {
            put_one(&mut on, "client", client_id);
            put_one(&mut on, "uid", uid);
        }
        Command::Join(v1::JoinGroupsRequest { clients, uids, groups, .. })
        | Command::Leave(v1::LeaveGroupsRequest { clients, uids, groups, .. }) => {
            put(&mut on, "clients", clients);
            put(&mut on, "uids", uids);
            put(&mut on, "groups", groups);
        }
        Command::Online(request) => {
            put(&mut on, "clients", &request.clients);
            put(&mut on, "uids", &request.uids);
        }
        Command::Dissolve(v1::DissolveRequest { groups, .. })
        | Command::Count(v1::CountRequest { groups, .. })
        | Command::ListUids(v1::ListUidsRequest { groups, .. }) => put(&mut on, "groups", groups),
        Command::SetSession(v1::SetSessionRequest { client_id, .. })
        | Command::MergeSession(v1::MergeSessionRequest { client_id, .. })
        | Command::GetSession(v1::GetSessionRequest { client_id, .. })
        | Command::GetClient(v1::GetClientRequest { client_id, .. }) => put_one(&mut on, "client", client_id),
        Command::Roster(v1::RosterRequest { group, .. })
        | Command::History(v1::HistoryRequest { group, .. })
        | Command::LastValue(v1::LastValueRequest { group, .. }) => put_one(&mut on, "group", group),
        Command::Inspect(request) => match &request.of {
            Some(inspect_request::Of::Group(group)) => put_one(&mut on, "group", group),
            Some(inspect_request::Of::Uid(uid)) => put_one(&mut on, "uid", uid),
            None => {}
        },
        Command::Ended(request) => match &request.of {
            Some(ended_request::Of::Uid(uid)) => put_one(&mut on, "uid", uid),
            Some(ended_request::Of::ClientId(client)) => put_one(&mut on, "client", client),
            Some(ended_request::Of::Address(address)) => put_one(&mut on, "address", address),
            None => {}
        },
        Command::Sends(request) => match &request.about {
            Some(sends_request::About::CommandId(id)) => put_one(&mut on, "command", id),
            Some(sends_request::About::Group(group)) => put_one(&mut on, "group", group),
            Some(sends_request::About::Uid(uid)) => put_one(&mut on, "uid", uid),
            None => {}
        },
        Command::ListGroups(_) | Command::Status(_) | Command::Events(_) | Command::Top(_) => {}
    }
    Value::Object(on)
}

/// What a tap is about.
pub(crate) fn tapped(request: &v1::TapRequest) -> Value {
    let of = match &request.of {
        Some(tap_request::Of::ClientId(client)) => json!({ "client": fit(client) }),
        Some(tap_request::Of::Uid(uid)) => json!({ "uid": fit(uid) }),
        Some(tap_request::Of::Group(group)) => json!({ "group": fit(group) }),
        Some(tap_request::Of::Caller(caller)) => json!({ "caller": fit(caller) }),
        Some(tap_request::Of::WholeApp(_)) | None => Value::Null,
    };
    json!({ "app": app_name(&request.app), "of": of, "payload": request.payload })
}

/// A text of bounded length: a name that is too long is refused later, and its line is written all the same.
pub(crate) fn fit(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

/// The app that is meant; what is no name is refused later.
pub(crate) fn app_name(app: &str) -> &str {
    name::app(app).unwrap_or("?")
}

fn of_audience(audience: Option<&v1::Audience>) -> Value {
    let Some(audience) = audience else { return Value::Null };
    let mut on = Map::new();
    on.insert("app".to_owned(), json!(app_name(&audience.app)));
    put_audience(&mut on, Some(audience));
    Value::Object(on)
}

/// Whom an audience names.
fn put_audience(on: &mut Map<String, Value>, audience: Option<&v1::Audience>) {
    let Some(audience) = audience else { return };
    if audience.all {
        on.insert("all".to_owned(), json!(true));
    }
    put(on, "clients", &audience.clients);
    put(on, "uids", &audience.uids);
    put(on, "groups", &audience.groups);
    if let Some(except) = &audience.except {
        put(on, "except_clients", &except.clients);
        put(on, "except_uids", &except.uids);
        put(on, "except_groups", &except.groups);
    }
}

/// One name, if there is one.
fn put_one(on: &mut Map<String, Value>, key: &str, name: &str) {
    if !name.is_empty() {
        on.insert(key.to_owned(), json!(fit(name)));
    }
}

/// The first names, and how many there are if that is not all.
fn put(on: &mut Map<String, Value>, key: &str, names: &[String]) {
    if names.is_empty() {
        return;
    }
    on.insert(key.to_owned(), names.iter().take(AUDIT_NAMES_MAX).map(|name| fit(name)).collect());
    if names.len() > AUDIT_NAMES_MAX {
        on.insert(format!("{key}_total"), json!(names.len()));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::callers::CallerKind;

    pub(in super::super) fn secret() -> Caller {
        let from = Some("10.0.0.9:5000".parse().unwrap());
        Caller { kind: CallerKind::Secret, worker: None, how: "json", note: None, traceparent: None, from }
    }

    pub(in super::super) fn closing(caller: &Caller) -> AuditLine {
        AuditLine::of_command(|| "gw-1".to_owned(), caller, &close(&["42"])).unwrap()
    }

    fn close(uids: &[&str]) -> Command {
        let uids = uids.iter().map(|&uid| uid.to_owned()).collect();
        let to = Some(v1::Audience { app: "shop".to_owned(), uids, ..v1::Audience::default() });
        let last = Some(v1::close_request::Last::Text("hidden".to_owned()));
        Command::Close(v1::CloseRequest {
            to,
            last,
            command_id: "c-1".to_owned(),
            ..v1::CloseRequest::default()
        })
    }

    #[test]
    fn a_line_says_who_did_what_and_what_came_of_it() {
        let coverage = Some(v1::Coverage { complete: true, ..v1::Coverage::default() });
        let receipt = Answer::Receipt(v1::Receipt { clients: 2, coverage, ..v1::Receipt::default() });
        let line = closing(&secret()).answered(&receipt);
        let json = line.json();
        let rest = json.split_once("Z\",").unwrap().1;
        assert_eq!(
            rest,
            "\"gateway\":\"gw-1\",\"who\":\"secret\",\"role\":\"admin\",\"how\":\"json\",\"from\":\"10.0.0.9\",\
             \"what\":\"close\",\"on\":{\"app\":\"shop\",\"uids\":[\"42\"]},\"command_id\":\"c-1\",\"clients\":2,\
             \"complete\":true}"
        );
        assert_eq!(line.sentence(), "secret: close {\"app\":\"shop\",\"uids\":[\"42\"]}, 2 clients");
        let error = v1::Error { code: 7, message: "no".to_owned() };
        assert!(closing(&secret()).answered(&Answer::Error(error)).json().ends_with("\"error\":\"no\"}"));
    }

    #[test]
    fn a_line_is_bounded_and_is_one() {
        let names: Vec<String> = (0..1000).map(|number| format!("{number}\n{}", "x".repeat(500))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let json = AuditLine::of_command(|| "gw-1".to_owned(), &secret(), &close(&names)).unwrap().json();
        assert!(json.contains("\"uids_total\":1000") && !json.contains('\n') && json.len() < 1500, "{json}");
        let huge = v1::CloseRequest { command_id: "x".repeat(1 << 20), ..v1::CloseRequest::default() };
        let line = AuditLine::of_command(|| "gw-1".to_owned(), &secret(), &Command::Close(huge)).unwrap();
        assert!(line.json().len() < 600);
    }

    #[test]
    fn a_note_is_written_down_and_gives_a_send_its_line() {
        let send = Command::Send(v1::SendRequest {
            to: Some(v1::Audience { all: true, ..v1::Audience::default() }),
            payload: Some(v1::send_request::Payload::Text("hidden".to_owned())),
            command_id: "c-2".to_owned(),
            ..v1::SendRequest::default()
        });
        let line = |caller: &Caller, command| AuditLine::of_command(|| "gw-1".to_owned(), caller, command);
        assert!(line(&secret(), &send).is_none());
        let noting = Caller { note: Some("#4711".into()), how: "cli", ..secret() };
        let sent = line(&noting, &send).unwrap();
        let json = sent.json();
        let rest = json.split_once("\"how\":").unwrap().1;
        assert_eq!(
            rest,
            "\"cli\",\"from\":\"10.0.0.9\",\"what\":\"send\",\"on\":{\"all\":true,\"app\":\"default\"},\"command_id\":\"c-2\",\
             \"note\":\"#4711\"}"
        );
        assert!(sent.sentence().ends_with(" (note: #4711)") && !json.contains("hidden"));
        let closes = close(&["42"]);
        assert!(line(&noting, &closes).unwrap().json().contains("\"note\":\"#4711\""));
        let look = Command::GetSession(v1::GetSessionRequest::default());
        assert!(line(&noting, &look).is_none(), "a look is no order");
    }

    #[test]
    fn a_refusal_says_what_was_asked() {
        let close = asked(&close(&["42"]));
        assert_eq!(close, json!({ "call": "Close", "app": "shop", "uids": ["42"] }));
        let session = v1::GetSessionRequest { client_id: "c".to_owned(), ..Default::default() };
        let session = asked(&Command::GetSession(session));
        assert_eq!(session, json!({ "call": "GetSession", "app": "default", "client": "c" }));
        assert_eq!(asked(&Command::Status(v1::StatusRequest::default())), json!({ "call": "Status" }));
    }

    #[test]
    fn what_the_clusters_own_processes_look_at_has_no_line() {
        let look = Command::GetSession(v1::GetSessionRequest::default());
        assert!(AuditLine::of_command(|| "gw-1".to_owned(), &secret(), &look).is_none());
        let bind = |exclusive| Command::Bind(v1::BindRequest { exclusive, ..v1::BindRequest::default() });
        assert!(AuditLine::of_command(|| "gw-1".to_owned(), &secret(), &bind(false)).is_none());
        assert!(AuditLine::of_command(|| "gw-1".to_owned(), &secret(), &bind(true)).is_some());
    }
}
