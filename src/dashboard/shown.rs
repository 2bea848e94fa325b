//! What a page is shown: the questions behind each page, and how often they are asked.

use std::{collections::BTreeMap, time::Duration};

use broadgate_proto::v1::{
    self, Audience, ClientField, ClientState, EndedReply, EndedRequest, GetAppRequest, GetClientRequest,
    HistoryRequest, InspectRequest, ListClientsRequest, ListGroupsRequest, RosterRequest, TopBy, TopRequest,
    ended_request::Of, inspect_request,
};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    dashboard::asker::{Asker, GatewayAnswer, UnansweredQuestion},
    failure::Failure,
    operate::{self, ChosenCluster},
    output,
};

/// Rows of a list.
const ROWS: u32 = 100;
/// Rows of what is busy.
const BUSIEST: u32 = 8;
/// Members of a group that are shown with it.
const MEMBERS: u32 = 50;
/// Apps that are listed.
const APPS: u32 = 256;
/// Apps of a token that are asked for one by one.
const APPS_ASKED_MAX: usize = 20;
/// How long the doctor waits for one gateway.
const DOCTOR_TIME: Duration = Duration::from_secs(3);

/// The page that a visitor looks at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "page", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ShownPage {
    Overview {
        /// Of which app the busiest are shown; of all if none is named.
        #[serde(default)]
        app: String,
    },
    Clients {
        app: String,
        /// `group`, `uid`, `address`, `slow`, `held`, `paused`, or `all`.
        by: ClientsBy,
        #[serde(default)]
        value: String,
        #[serde(default)]
        cursor: String,
    },
    Client {
        app: String,
        id: String,
    },
    Groups {
        app: String,
        #[serde(default)]
        prefix: String,
        #[serde(default)]
        cursor: String,
    },
    Group {
        app: String,
        group: String,
    },
    Apps {
        /// For somebody who may see some apps alone: these.
        #[serde(default)]
        only: Vec<String>,
    },
    App {
        app: String,
    },
    Workers,
    Events {
        #[serde(default)]
        app: String,
        #[serde(default)]
        address: String,
        #[serde(default)]
        uid: String,
    },
    Doctor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientsBy {
    All,
    Group,
    Uid,
    /// An address or a network.
    Address,
    Slow,
    Held,
    Paused,
}

impl ShownPage {
    /// From one snapshot to the next. What costs the gateways more is asked for less often.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs(match self {
            Self::Client { .. } | Self::Workers => 2,
            Self::Overview { .. } => 4,
            // Every client of the app is looked at.
            Self::Clients { by: ClientsBy::Address, .. } => 10,
            Self::Clients { .. } | Self::Group { .. } | Self::App { .. } | Self::Events { .. } => 5,
            Self::Groups { .. } | Self::Apps { .. } | Self::Doctor => 10,
        })
    }

    /// What the page shows besides the head. `apps` are those that the head knows.
    pub(super) async fn body(&self, asker: &Asker, chosen: &ChosenCluster) -> Result<Value, Failure> {
        match self {
            Self::Workers => Ok(Value::Null),
            Self::Overview { app } => overview(asker, app).await,
            Self::Clients { app, by, value, cursor } => clients(asker, app, *by, value, cursor).await,
            Self::Client { app, id } => client(asker, app, id).await,
            Self::Groups { app, prefix, cursor } => groups(asker, app, prefix, cursor).await,
            Self::Group { app, group } => one_group(asker, app, group).await,
            Self::Apps { only } => apps(asker, only).await,
            Self::App { app } => one_app(asker, app).await,
            Self::Events { app, address, uid } => events(asker, app, address, uid).await,
            Self::Doctor => operate::doctor_findings(chosen, DOCTOR_TIME).await,
        }
    }
}

async fn ended(asker: &Asker, request: EndedRequest) -> Result<EndedReply, Failure> {
    let ask = |mut calls: super::asker::GatewayCalls| {
        let request = request.clone();
        async move { calls.observe.ended(request).await }
    };
    Ok(asker.ask(ask).await?.reply)
}

/// Ends and refusals, each end with what `broadgate why` says of it.
fn told(reply: &EndedReply) -> Result<Value, Failure> {
    let mut value = output::json("EndedReply", reply)?;
    let rows = value.get_mut("ended").and_then(Value::as_array_mut);
    for (row, end) in rows.into_iter().flatten().zip(&reply.ended) {
        row["why"] = operate::end_in_words(end);
    }
    Ok(value)
}

/// What is busy, and the last ends; of one app, or of all.
async fn overview(asker: &Asker, app: &str) -> Result<Value, Failure> {
    let ends = EndedRequest { app: app.to_owned(), limit: 8, ..EndedRequest::default() };
    let (groups, clients, callers, ends) = futures_util::join!(
        top(asker, TopBy::Groups, app, BUSIEST),
        top(asker, TopBy::Clients, app, BUSIEST),
        top(asker, TopBy::Callers, app, BUSIEST),
        ended(asker, ends),
    );
    Ok(json!({
        "groups": or_why(groups)?, "clients": or_why(clients)?, "callers": or_why(callers)?,
        "recent": told(&ends?)?,
    }))
}

/// What is busiest. The shards measure a few questions at a time: one more is asked again with the next picture, and
/// until then the page says so.
async fn top(asker: &Asker, by: TopBy, app: &str, limit: u32) -> Result<Value, Failure> {
    let request = TopRequest { by: by.into(), app: app.to_owned(), limit, ..TopRequest::default() };
    let ask = |mut calls: super::asker::GatewayCalls| {
        let request = request.clone();
        async move { calls.observe.top(request).await }
    };
    match asker.ask_unless_busy(ask).await {
        Ok(answered) => output::json("TopReply", &answered.reply),
        Err(UnansweredQuestion::Busy(why)) => Ok(json!({ "busy": why, "apps": [] })),
        Err(UnansweredQuestion::Failed(failure)) => Err(failure),
    }
}

/// One part of a page: what a gateway of another version does not know must not take the page with it.
fn or_why(part: Result<Value, Failure>) -> Result<Value, Failure> {
    match part {
        Err(Failure::Failed(why)) => Ok(json!({ "why": why })),
        part => part,
    }
}

async fn events(asker: &Asker, app: &str, address: &str, uid: &str) -> Result<Value, Failure> {
    let of = match (address, uid) {
        ("", "") => None,
        ("", uid) => Some(Of::Uid(uid.to_owned())),
        (address, _) => Some(Of::Address(address.to_owned())),
    };
    let request = EndedRequest { app: app.to_owned(), of, limit: ROWS, ..EndedRequest::default() };
    let (ends, others) = futures_util::join!(ended(asker, request), operator_events(asker));
    let mut value = told(&ends?)?;
    value["others"] = others?;
    Ok(value)
}

/// Members that came and went, settings that were read again, alarms, and what callers did.
async fn operator_events(asker: &Asker) -> Result<Value, Failure> {
    let request = v1::EventsRequest { limit: ROWS, ..v1::EventsRequest::default() };
    let ask = |mut calls: super::asker::GatewayCalls| {
        let request = request.clone();
        async move { calls.observe.events(request).await }
    };
    match asker.ask(ask).await {
        Ok(answered) => output::json("EventsReply", &answered.reply),
        Err(Failure::NotAllowed(_)) => Ok(Value::Null),
        Err(failure) => Err(failure),
    }
}

fn audience(app: &str, by: ClientsBy, value: &str) -> Audience {
    let app = app.to_owned();
    match by {
        ClientsBy::Group => Audience { app, groups: vec![value.to_owned()], ..Audience::default() },
        ClientsBy::Uid => Audience { app, uids: vec![value.to_owned()], ..Audience::default() },
        ClientsBy::All | ClientsBy::Address | ClientsBy::Slow | ClientsBy::Held | ClientsBy::Paused => {
            Audience { app, all: true, ..Audience::default() }
        }
    }
}

fn list(app: &str, by: ClientsBy, value: &str, cursor: &str, limit: u32) -> ListClientsRequest {
    let state = match by {
        ClientsBy::Slow => ClientState::Slow,
        ClientsBy::Held => ClientState::Held,
        ClientsBy::Paused => ClientState::Paused,
        ClientsBy::All | ClientsBy::Group | ClientsBy::Uid | ClientsBy::Address => ClientState::Unspecified,
    };
    let required = match by {
        ClientsBy::Address => Some("address"),
        _ if state != ClientState::Unspecified => Some("state"),
        _ => None,
    };
    let address = if by == ClientsBy::Address { value.to_owned() } else { String::new() };
    let fields = [ClientField::Uid, ClientField::Connection, ClientField::Traffic];
    ListClientsRequest {
        of: Some(audience(app, by, value)),
        fields: fields.map(i32::from).to_vec(),
        limit,
        cursor: cursor.to_owned(),
        state: state.into(),
        address,
        requires: required.map(str::to_owned).into_iter().collect(),
    }
}

async fn clients(
    asker: &Asker,
    app: &str,
    by: ClientsBy,
    value: &str,
    cursor: &str,
) -> Result<Value, Failure> {
    let request = list(app, by, value, cursor, ROWS);
    let ask = |mut calls: super::asker::GatewayCalls| {
        let request = request.clone();
        async move { calls.gateway.list_clients(request).await }
    };
    output::json("ListClientsReply", &asker.ask(ask).await?.reply)
}

/// A client, if it is connected, and why it and others of its uid have ended.
async fn client(asker: &Asker, app: &str, id: &str) -> Result<Value, Failure> {
    let request = GetClientRequest { app: app.to_owned(), client_id: id.to_owned() };
    let ask = |mut calls: super::asker::GatewayCalls| {
        let request = request.clone();
        async move { calls.gateway.get_client(request).await }
    };
    let found = match asker.ask(ask).await {
        Ok(GatewayAnswer { reply, .. }) => Some(reply),
        Err(Failure::NotFound(_)) => None,
        Err(failure) => return Err(failure),
    };
    let of = |of| EndedRequest { app: app.to_owned(), of: Some(of), limit: 20, ..EndedRequest::default() };
    let info = found.as_ref().and_then(|reply| reply.client.as_ref());
    let ends = match info.map(|info| info.uid.clone()).filter(|uid| !uid.is_empty()) {
        Some(uid) => ended(asker, of(Of::Uid(uid))).await?,
        None => ended(asker, of(Of::ClientId(id.to_owned()))).await?,
    };
    let mut value = json!({ "client": null, "ends": told(&ends)? });
    if let Some(reply) = &found {
        let mut reply = output::json("ClientReply", reply)?;
        // What an application keeps there may be private; that there is one is not.
        if let Some(session) = reply["client"]["session"].as_object_mut() {
            session.remove("json");
        }
        value["client"] = reply["client"].take();
    }
    Ok(value)
}

async fn groups(asker: &Asker, app: &str, prefix: &str, cursor: &str) -> Result<Value, Failure> {
    let request = ListGroupsRequest {
        app: app.to_owned(),
        prefix: prefix.to_owned(),
        limit: ROWS,
        cursor: cursor.to_owned(),
        ..ListGroupsRequest::default()
    };
    let ask = |mut calls: super::asker::GatewayCalls| {
        let request = request.clone();
        async move { calls.gateway.list_groups(request).await }
    };
    output::json("ListNamesReply", &asker.ask(ask).await?.reply)
}

/// What the home of a group knows, who is in it, and its history; without what was sent, and without what its users
/// say of themselves.
async fn one_group(asker: &Asker, app: &str, group: &str) -> Result<Value, Failure> {
    let (app, group) = (app.to_owned(), group.to_owned());
    let inspect = InspectRequest {
        app: app.clone(),
        of: Some(inspect_request::Of::Group(group.clone())),
        ..InspectRequest::default()
    };
    let roster =
        RosterRequest { app: app.clone(), group: group.clone(), limit: MEMBERS, ..RosterRequest::default() };
    let history = HistoryRequest {
        app: app.clone(),
        group: group.clone(),
        limit: 20,
        without_payload: true,
        ..HistoryRequest::default()
    };
    let members = list(&app, ClientsBy::Group, &group, "", MEMBERS);
    let inspected = asker.ask(|mut calls| {
        let request = inspect.clone();
        async move { calls.observe.inspect(request).await }
    });
    let present = asker.ask(|mut calls| {
        let request = roster.clone();
        async move { calls.gateway.roster(request).await }
    });
    let kept = asker.ask(|mut calls| {
        let request = history.clone();
        async move { calls.gateway.history(request).await }
    });
    let listed = asker.ask(|mut calls| {
        let request = members.clone();
        async move { calls.gateway.list_clients(request).await }
    });
    let (inspected, present, kept, listed) = futures_util::join!(inspected, present, kept, listed);
    let present = present?.reply;
    Ok(json!({
        "home": output::json("InspectReply", &inspected?.reply)?,
        "users": present.members.iter().map(|member| &member.user_id).collect::<Vec<_>>(),
        "users_total": present.total,
        "history": bodiless(&kept?.reply),
        "members": output::json("ListClientsReply", &listed?.reply)?,
    }))
}

/// A gateway of an earlier version sends bodies, and no sizes.
fn bodiless(history: &v1::HistoryReply) -> Value {
    use v1::history_message::Payload;
    let messages = history.messages.iter().map(|message| {
        let bytes = match &message.payload {
            Some(Payload::Text(text)) => text.len() as u64,
            Some(Payload::Binary(bytes) | Payload::Framed(bytes)) => bytes.len() as u64,
            None => message.bytes,
        };
        json!({
            "offset": message.offset, "bytes": bytes, "command_id": message.command_id,
            "age_ms": message.age_ms, "event": message.event,
        })
    });
    let messages: Vec<Value> = messages.rev().collect();
    json!({
        "messages": messages,
        "position": history.position.as_ref().map(|position| position.offset),
    })
}

/// The apps with their limits, rates and refusals, as `top apps` has them; of somebody who may see some alone, these.
async fn apps(asker: &Asker, only: &[String]) -> Result<Value, Failure> {
    if only.is_empty() {
        return top(asker, TopBy::Apps, "", APPS).await;
    }
    let each = only.iter().take(APPS_ASKED_MAX).map(|app| top(asker, TopBy::Apps, app, 1));
    let mut all = json!({ "apps": [] });
    for reply in join_all(each).await {
        let mut reply = reply?;
        if let (Some(rows), Some(more)) = (all["apps"].as_array_mut(), reply["apps"].as_array_mut()) {
            rows.append(more);
        }
        for name in ["measured_ms", "busy"] {
            if !reply[name].is_null() {
                all[name] = reply[name].take();
            }
        }
    }
    Ok(all)
}

async fn one_app(asker: &Asker, app: &str) -> Result<Value, Failure> {
    let request = GetAppRequest { app: app.to_owned() };
    let ask = |mut calls: super::asker::GatewayCalls| {
        let request = request.clone();
        async move { calls.gateway.get_app(request).await }
    };
    let found = asker.ask(ask).await?.reply;
    let recent = EndedRequest { app: found.id.clone(), limit: ROWS, ..EndedRequest::default() };
    let (row, callers, recent) = futures_util::join!(
        top(asker, TopBy::Apps, &found.id, 1),
        top(asker, TopBy::Callers, &found.id, BUSIEST),
        ended(asker, recent),
    );
    let recent = recent?;
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for row in &recent.refused {
        *reasons.entry(&row.reason).or_default() += row.count;
    }
    let row = row?;
    let mut value = json!({
        "app": output::json("AppReply", &found)?, "now": row["apps"][0], "busy": row["busy"],
        "callers": or_why(callers)?,
        "reasons": reasons.into_iter().collect::<Vec<_>>(),
    });
    value["recent"] = told(&recent)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ShownPage, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn page_says_what_it_shows() {
        assert_eq!(parse(r#"{"page": "overview"}"#), Ok(ShownPage::Overview { app: String::new() }));
        let group = ShownPage::Group { app: "shop".into(), group: "orders".into() };
        assert_eq!(parse(r#"{"page": "group", "app": "shop", "group": "orders"}"#), Ok(group));
        let slow = parse(r#"{"page": "clients", "app": "shop", "by": "slow"}"#).unwrap();
        assert!(matches!(slow, ShownPage::Clients { by: ClientsBy::Slow, .. }));
        for wrong in [
            r#"{"page": "secrets"}"#,
            r#"{"page": "group", "app": "shop"}"#,
            r#"{"page": "clients", "app": "shop", "by": "everything"}"#,
            r#"{}"#,
            "null",
        ] {
            parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn state_of_listed_clients_is_required_to_be_understood() {
        let slow = list("shop", ClientsBy::Slow, "", "", 100);
        assert_eq!((slow.state(), &slow.requires[..]), (ClientState::Slow, &["state".to_owned()][..]));
        assert!(slow.of.unwrap().all);
        let from = list("shop", ClientsBy::Address, "10.1.7.0/24", "", 100);
        assert_eq!((&*from.address, &from.requires[..]), ("10.1.7.0/24", &["address".to_owned()][..]));
        assert!(from.of.unwrap().all);
        let group = list("shop", ClientsBy::Group, "orders", "", 100);
        assert!(group.requires.is_empty() && group.of.unwrap().groups == ["orders"]);
    }

    #[test]
    fn bodies_of_a_history_are_not_shown() {
        let message = v1::HistoryMessage {
            offset: 7,
            payload: Some(v1::history_message::Payload::Text("private".into())),
            ..v1::HistoryMessage::default()
        };
        let shown = bodiless(&v1::HistoryReply { messages: vec![message], ..v1::HistoryReply::default() });
        assert_eq!(shown["messages"][0]["bytes"], 7);
        assert!(!shown.to_string().contains("private"));
    }
}
