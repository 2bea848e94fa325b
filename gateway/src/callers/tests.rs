//! The table of rights against the contract, call by call and role by role.

use std::sync::{Arc, Mutex};

use broadgate_port::{Admit as _, ShownCredential};
use broadgate_proto::{DESCRIPTORS, v1};
use http::{Extensions, HeaderMap};
use prost_reflect::DescriptorPool;
use tonic::Code;

use crate::callers::{
    AccessToken, Caller, RefusedToken, TokenCheck, TokenRole, Tokens,
    command_rights::of_command,
    rights::{CALLS, Concerned, Least, Payloads, of_path},
};

fn token(name: &str, role: TokenRole, apps: &[&str], sees_payloads: bool) -> AccessToken {
    AccessToken {
        name: name.to_owned(),
        role,
        apps: apps.iter().map(|&app| app.to_owned()).collect(),
        sees_payloads,
        sha256: AccessToken::hash(name),
        expires_at_ms: None,
    }
}

/// Its text is its name.
fn tokens() -> Tokens {
    let tokens = Tokens::default();
    let all = vec![
        token("reader", TokenRole::Reader, &["*"], false),
        token("operator", TokenRole::Operator, &["*"], false),
        token("admin", TokenRole::Admin, &["*"], false),
        token("eyes", TokenRole::Reader, &["*"], true),
        token("shop", TokenRole::Admin, &["shop"], true),
        AccessToken { expires_at_ms: Some(1), ..token("late", TokenRole::Admin, &["*"], true) },
    ];
    tokens.replace(all).unwrap();
    tokens
}

fn admitted(tokens: &Tokens, shown: ShownCredential<'_>, path: &str) -> Result<Caller, &'static str> {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    let refused = Box::new(move |refused: RefusedToken<'_>| {
        notes.lock().unwrap().push((refused.caller.who().into_owned(), refused.reason));
    });
    let (check, mut extensions) = (TokenCheck { tokens: tokens.clone(), refused }, Extensions::new());
    let admitted = check.admit(shown, path, &HeaderMap::new(), None, &mut extensions);
    let noted: Vec<_> = noted.lock().unwrap().drain(..).collect();
    if let Err(refused) = &admitted {
        let who = noted.iter().map(|(who, _)| who.as_str()).collect::<Vec<_>>();
        assert_eq!(who.len(), 1, "each refused token is noted");
        assert!(noted[0].1 == refused.reason && who[0].starts_with("token:"), "{noted:?}");
    } else {
        assert!(noted.is_empty());
    }
    admitted.map_err(|refused| refused.reason)?;
    Ok(Caller::of(&extensions))
}

fn by(tokens: &Tokens, text: &str, path: &str) -> Result<Caller, &'static str> {
    admitted(tokens, ShownCredential::Token(text), path)
}

/// Every method of the contract, as its path.
fn methods() -> Vec<(String, String)> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let methods = pool.services().flat_map(|service| {
        let name = service.name().to_owned();
        service.methods().map(move |method| (name.clone(), method.name().to_owned())).collect::<Vec<_>>()
    });
    methods.collect()
}

#[test]
fn every_call_of_the_contract_is_in_the_table_once_and_nothing_else_is() {
    let mut contract = methods();
    let mut table: Vec<_> = CALLS.iter().map(|row| (row.service.to_owned(), row.call.to_owned())).collect();
    contract.sort();
    table.sort();
    assert_eq!(table, contract);
}

#[test]
fn what_the_table_does_not_name_is_refused() {
    let tokens = tokens();
    for path in [
        "/broadgate.v1.Gateway/Nothing",
        "/broadgate.v1.Nothing/Send",
        "/v1/Nothing",
        "/v1/",
        "/",
        "/v1/Link",
    ] {
        assert_eq!(by(&tokens, "admin", path).unwrap_err(), "not_allowed", "{path}");
        assert!(
            admitted(&tokens, ShownCredential::Secret, path).is_ok(),
            "the router says that it is unknown"
        );
    }
}

/// Of every call by every role: the head of the request alone, before a byte of its body is read.
#[test]
fn heads_are_admitted_by_role() {
    let tokens = tokens();
    for (service, call) in methods() {
        let grpc = format!("/broadgate.v1.{service}/{call}");
        let row = of_path(&grpc).unwrap();
        for (text, role) in
            [("reader", TokenRole::Reader), ("operator", TokenRole::Operator), ("admin", TokenRole::Admin)]
        {
            let has_role = matches!(row.least, Least::Role(least) if least <= role);
            let allowed = has_role && row.payloads != Payloads::Needed;
            assert_eq!(by(&tokens, text, &grpc).is_ok(), allowed, "{call} by {text}");
            if ["Gateway", "Observe"].contains(&&*service) {
                assert_eq!(by(&tokens, text, &format!("/v1/{call}")).is_ok(), allowed, "{call} by {text}");
            }
        }
        for (text, reason) in [("late", "token"), ("unknown", "token"), ("", "token")] {
            assert_eq!(by(&tokens, text, &grpc).unwrap_err(), reason, "{call} by {text}");
        }
        for shown in [ShownCredential::Secret, ShownCredential::Certificate, ShownCredential::Nothing] {
            assert!(admitted(&tokens, shown, &grpc).is_ok(), "{call} by {shown:?}");
        }
    }
}

/// One command of each kind, for this app.
fn commands(app: &str) -> Vec<v1::command::Command> {
    use v1::command::Command as C;
    let app = || app.to_owned();
    let to = || Some(v1::Audience { app: app(), ..v1::Audience::default() });
    vec![
        C::Send(v1::SendRequest { to: to(), ..v1::SendRequest::default() }),
        C::Close(v1::CloseRequest { to: to(), ..v1::CloseRequest::default() }),
        C::Bind(v1::BindRequest { app: app(), ..v1::BindRequest::default() }),
        C::Unbind(v1::UnbindRequest { app: app(), ..v1::UnbindRequest::default() }),
        C::Join(v1::JoinGroupsRequest { app: app(), ..v1::JoinGroupsRequest::default() }),
        C::Leave(v1::LeaveGroupsRequest { app: app(), ..v1::LeaveGroupsRequest::default() }),
        C::Dissolve(v1::DissolveRequest { app: app(), ..v1::DissolveRequest::default() }),
        C::SetSession(v1::SetSessionRequest { app: app(), ..v1::SetSessionRequest::default() }),
        C::MergeSession(v1::MergeSessionRequest { app: app(), ..v1::MergeSessionRequest::default() }),
        C::GetSession(v1::GetSessionRequest { app: app(), ..v1::GetSessionRequest::default() }),
        C::Roster(v1::RosterRequest { app: app(), ..v1::RosterRequest::default() }),
        C::History(v1::HistoryRequest { app: app(), ..v1::HistoryRequest::default() }),
        C::LastValue(v1::LastValueRequest { app: app(), ..v1::LastValueRequest::default() }),
        C::Online(v1::OnlineRequest { app: app(), ..v1::OnlineRequest::default() }),
        C::Count(v1::CountRequest { app: app(), ..v1::CountRequest::default() }),
        C::GetClient(v1::GetClientRequest { app: app(), ..v1::GetClientRequest::default() }),
        C::ListClients(v1::ListClientsRequest { of: to(), ..v1::ListClientsRequest::default() }),
        C::ListUids(v1::ListUidsRequest { app: app(), ..v1::ListUidsRequest::default() }),
        C::ListGroups(v1::ListGroupsRequest { app: app(), ..v1::ListGroupsRequest::default() }),
        C::Status(v1::StatusRequest::default()),
        C::Inspect(v1::InspectRequest { app: app(), ..v1::InspectRequest::default() }),
        C::Events(v1::EventsRequest::default()),
        C::Ended(v1::EndedRequest { app: app(), ..v1::EndedRequest::default() }),
        C::Sends(v1::SendsRequest { app: app(), ..v1::SendsRequest::default() }),
        C::Top(v1::TopRequest { app: app(), ..v1::TopRequest::default() }),
    ]
}

/// The commands of a stream, which is opened by whom may give any.
#[test]
fn commands_are_allowed_by_role_and_app() {
    let tokens = tokens();
    let caller = |text| by(&tokens, text, "/broadgate.v1.Gateway/Commands").unwrap();
    let code = |caller: &Caller, command: &_| {
        caller.may_command(command).map_or_else(|error| Code::from_i32(error.code), |()| Code::Ok)
    };
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let kinds =
        pool.get_message_by_name("broadgate.v1.Command").unwrap().oneofs().next().unwrap().fields().len();
    assert_eq!(commands("").len(), kinds, "a kind of command is missing in this test");
    for (named, app) in [("", "default"), ("default", "default"), ("shop", "shop"), ("other", "other")] {
        for command in commands(named) {
            let row = of_command(&command).row.unwrap();
            for (text, role, payload) in [
                ("reader", TokenRole::Reader, false),
                ("operator", TokenRole::Operator, false),
                ("admin", TokenRole::Admin, false),
                ("eyes", TokenRole::Reader, true),
            ] {
                let has_role = matches!(row.least, Least::Role(least) if least <= role);
                let allowed = has_role && (payload || row.payloads != Payloads::Needed);
                let wanted = if allowed { Code::Ok } else { Code::PermissionDenied };
                assert_eq!(code(&caller(text), &command), wanted, "{} by {text}", row.call);
            }
            // In its own app only; questions about all apps are not for it.
            let is_all = row.concerned == Concerned::All
                || (["Ended", "Sends", "Top"].contains(&row.call) && named.is_empty());
            let wanted = if app == "shop" && !is_all { Code::Ok } else { Code::PermissionDenied };
            assert_eq!(code(&caller("shop"), &command), wanted, "{} in {named:?}", row.call);
            let nobody = Caller::of(&Extensions::new());
            assert_eq!(code(&nobody, &command), Code::Unauthenticated, "who is unknown may nothing");
        }
    }
}

#[test]
fn dry_runs_and_traces_need_what_a_send_needs() {
    let tokens = tokens();
    let caller = |text| by(&tokens, text, "/broadgate.v1.Gateway/Commands").unwrap();
    for (dry, trace) in [(true, false), (false, true), (true, true)] {
        let to = Some(v1::Audience { app: "shop".to_owned(), ..v1::Audience::default() });
        let send =
            v1::command::Command::Send(v1::SendRequest { to, dry, trace, ..v1::SendRequest::default() });
        assert!(caller("reader").may_command(&send).is_err() && caller("eyes").may_command(&send).is_err());
        assert!(caller("operator").may_command(&send).is_ok() && caller("shop").may_command(&send).is_ok());
    }
}

#[test]
fn closing_all_or_at_once_is_for_admins() {
    use v1::command::Command::Close;
    let tokens = tokens();
    let close = |all, at_once| {
        let to = Some(v1::Audience { app: "shop".to_owned(), all, ..v1::Audience::default() });
        Close(v1::CloseRequest { to, at_once, ..v1::CloseRequest::default() })
    };
    for (text, few) in [("reader", false), ("operator", true), ("admin", true), ("shop", true)] {
        let Ok(caller) = by(&tokens, text, "/broadgate.v1.Gateway/Commands") else { panic!("{text}") };
        assert_eq!(caller.may_command(&close(false, false)).is_ok(), few, "{text}");
        let is_admin = ["admin", "shop"].contains(&text);
        for command in [close(true, false), close(false, true), close(true, true)] {
            assert_eq!(caller.may_command(&command).is_ok(), is_admin, "{text} {command:?}");
        }
    }
}

/// A token counts as long as it is in the file, and as the file says now: also on a stream that is open.
#[test]
fn a_token_that_is_changed_or_removed_does_not_count_any_more() {
    let tokens = tokens();
    let caller = by(&tokens, "operator", "/broadgate.v1.Gateway/Commands").unwrap();
    let send = &commands("shop")[0];
    assert!(caller.may_command(send).is_ok());
    tokens.replace(vec![token("operator", TokenRole::Reader, &["*"], false)]).unwrap();
    assert!(caller.may_command(send).unwrap_err().message.contains("needs the role operator"));
    tokens.replace(vec![token("other", TokenRole::Admin, &["*"], true)]).unwrap();
    assert_eq!(caller.may_command(send).unwrap_err().code, i32::from(Code::Unauthenticated));
    assert!(!caller.sees_payloads() && caller.may_call("GetApp", Some("")).is_err());
    assert!(caller.describe("gw-1").is_err());
    tokens.replace(Vec::new()).unwrap();
    assert!(caller.may_command(send).unwrap_err().message.contains("knows no tokens"));
}

#[test]
fn tokens_that_cannot_be_told_apart_are_refused_and_the_former_stay() {
    let tokens = tokens();
    let one = token("one", TokenRole::Reader, &["*"], false);
    let same = AccessToken { name: "two".to_owned(), ..one.clone() };
    for (wrong, said) in [
        (vec![one.clone(), one.clone()], "two tokens are named"),
        (vec![one.clone(), same], "are the same token"),
        (vec![token("a b", TokenRole::Reader, &["*"], false)], "a name has 1 to"),
        (vec![token("x", TokenRole::Reader, &[], false)], "apps is empty"),
    ] {
        let error = tokens.replace(wrong).unwrap_err();
        assert!(error.contains(said), "{error}");
        assert_eq!(tokens.count(), 6);
    }
}

#[test]
fn callers_are_described_as_they_are_now() {
    let tokens = tokens();
    let shop = by(&tokens, "shop", "/v1/WhoAmI").unwrap().describe("gw-1").unwrap();
    assert_eq!((&*shop.who, &*shop.role, &shop.apps[..]), ("token:shop", "admin", &["shop".to_owned()][..]));
    assert_eq!((&shop.rights[..], &*shop.gateway), (&["payload".to_owned()][..], "gw-1"));
    for (shown, who) in [
        (ShownCredential::Secret, "secret"),
        (ShownCredential::Certificate, "certificate"),
        (ShownCredential::Nothing, "local"),
    ] {
        let caller = admitted(&tokens, shown, "/v1/WhoAmI").unwrap();
        let reply = caller.describe("gw-1").unwrap();
        assert_eq!((&*reply.who, &*reply.role, caller.sees_payloads()), (who, "admin", true));
        assert!(!caller.has_token() && Arc::new(caller).role() == Some(TokenRole::Admin));
    }
}
