//! The HTTP API by which an app's backend publishes and asks, on the client port of any gateway.
//! `broadgate_pusher::api` says what a request means and what an answer looks like; here it is read, checked,
//! and carried out by commands as every caller gives them.
//!
//! | file | what |
//! |---|---|
//! | `exchange.rs` | what the APIs share: reading bodies, counting and finishing answers |
//! | `calls.rs` | Pusher's calls |
//! | `queries.rs` | what homes know of an app's channels |
//! | `echo_server.rs` | laravel-echo-server's, at the same paths |
//! | `ably.rs` | Ably's call that publishes |

pub(super) mod ably;
mod calls;
mod echo_server;
mod exchange;
mod queries;

use std::{
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_proto::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use broadgate_pusher::api::{
    ApiRefusal, answer,
    echo_server::{self as echo, Authorization},
    params::{Params, percent_decode},
    publish,
    route::{self, Call, Route},
    sign,
};
use http::{HeaderMap, Request, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    apps::AppTable,
    callers::TraceParent,
    ingress::{
        asked::{ParsedRequest, check_prefix},
        pusher_api::{calls::Backend, exchange::ApiAnswer},
        target::RequestTarget,
        visit::{HttpAnswer, Visit},
    },
};

/// The same for everybody who repeats a publish, so that nobody gets it twice.
const IDEMPOTENCY_HEADER: &str = "x-idempotency-key";

/// Whose forms an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerForm {
    Pusher,
    EchoServer,
}

/// Answers one request.
pub(super) async fn answer(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    request: Request<Incoming>,
) -> HttpAnswer {
    let key = known_key(
        &visit.connection.port.config.apps.load(),
        auth_key(request.uri().query().unwrap_or_default()),
    );
    let mut form = AnswerForm::Pusher;
    let answered = run(visit, asked, request, &mut form).await;
    if let Err(refusal) = &answered {
        let app = app_named(asked);
        // What laravel-echo-server's users call a key is a secret.
        let (key, why) = match form {
            AnswerForm::Pusher => (&*key, refusal.for_log()),
            AnswerForm::EchoServer if refusal.text == echo::UNAUTHORIZED => {
                ("", "neither the Bearer token nor auth_key is a secret of the app")
            }
            AnswerForm::EchoServer => ("", refusal.for_log()),
        };
        asked.log(&visit.connection, exchange::refused_reason(refusal), &app, key, why);
    }
    let (status, body, allow) = match answered {
        Ok((status, body)) => (status, body, None),
        Err(refusal) if form == AnswerForm::EchoServer => {
            (refusal.status, echo::error_answer(&refusal.text), refusal.allow)
        }
        Err(refusal) => (refusal.status, refusal.text, refusal.allow),
    };
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain; charset=utf-8" };
    exchange::finish(ApiAnswer { status, body: body.into(), content_type: kind, allow })
}

/// The app that a request's path names; "" if none.
fn app_named(asked: &ParsedRequest) -> String {
    let RequestTarget::Api(path) = &asked.target.place else { return String::new() };
    let mut segments = path.split('/').skip(1);
    let named = segments.next().filter(|apps| *apps == "apps").and(segments.next());
    named.unwrap_or_default().to_owned()
}

/// The key that a request says it is signed with. Nothing else of a query may stand in a log.
fn auth_key(query: &str) -> String {
    let encoded = query.split('&').find_map(|pair| pair.strip_prefix("auth_key=")).unwrap_or_default();
    String::from_utf8_lossy(&percent_decode(encoded, true)).into_owned()
}

/// A key as a log may contain it: "" unless it is an app's, since what stands in its place may be a secret.
fn known_key(table: &AppTable, key: String) -> String {
    if table.by_key(&key).is_some() { key } else { String::new() }
}

async fn run(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    request: Request<Incoming>,
    form: &mut AnswerForm,
) -> Result<(StatusCode, String), ApiRefusal> {
    let (parts, body) = request.into_parts();
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if authorization.and_then(echo::bearer).is_some() {
        *form = AnswerForm::EchoServer;
    }
    let path = parts.uri.path();
    let rest = if let RequestTarget::Api(rest) = &asked.target.place { rest } else { "/up" };
    let (id, call) = match route::route(parts.method.as_str(), rest)? {
        Route::Up if visit.connection.port.health.is_ready() => {
            return Ok((StatusCode::OK, answer::HEALTHY.to_owned()));
        }
        Route::Up => {
            let text = "not in a view as ready: no register, or draining";
            return Err(ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        Route::App { app, call } => (app, call),
    };
    // Only laravel-echo-server has this call.
    if call == Call::Status {
        *form = AnswerForm::EchoServer;
    }
    let port = &visit.connection.port;
    let table = port.config.apps.load();
    let params = Params::parse_bounded(parts.uri.query().unwrap_or_default())?;
    let app = match &id {
        Some(id) => table.by_id(id).filter(|app| !app.keys.is_empty()),
        None => params.get("auth_key").and_then(|key| table.by_key(key)).map(|(app, _)| app),
    };
    let id = id.as_deref().unwrap_or_default();
    let app = app.ok_or_else(|| ApiRefusal::unknown_app(id))?;
    check_prefix(&asked.target.prefix, app)
        .map_err(|sentence| ApiRefusal::new(StatusCode::NOT_FOUND, sentence))?;
    let tenant = port.shard.borrow_mut().tenants.of(app);
    match Authorization::of(authorization, &params, &tenant.keys) {
        Authorization::Signed if call == Call::Status && params.get(sign::SIGNATURE).is_none() => {
            return Err(ApiRefusal::new(StatusCode::FORBIDDEN, echo::UNAUTHORIZED));
        }
        // Before the body: the query says what it must be.
        Authorization::Signed => {
            *form = AnswerForm::Pusher;
            let signed = sign::SignedParts { method: parts.method.as_str(), path, params: &params };
            let prefixes: &[&str] = if app.path_prefix.is_empty() { &[] } else { &[&app.path_prefix] };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
            sign::verify(signed, &tenant.keys, prefixes, now, app.limits.timestamp_window_seconds)?;
        }
        Authorization::Secret => *form = AnswerForm::EchoServer,
        Authorization::WrongSecret => {
            *form = AnswerForm::EchoServer;
            return Err(ApiRefusal::new(StatusCode::FORBIDDEN, echo::UNAUTHORIZED));
        }
    }
    exchange::check_enabled(app)?;
    let mut lease = port.bodies.lease(&app.id);
    let bytes_max = publish::body_bytes_max(&app.limits);
    let body = exchange::read(body, bytes_max, &mut lease, visit).await?;
    if *form == AnswerForm::Pusher {
        sign::verify_body(&params, &body)?;
    }
    let dispatcher = exchange::dispatcher(port)?;
    let once = idempotency_key(&parts.headers)?;
    let key = params.get("auth_key").filter(|_| *form == AnswerForm::Pusher).map(str::to_owned);
    let traceparent = TraceParent::of(&parts.headers);
    let app = std::sync::Arc::clone(app);
    let backend = Backend { dispatcher, app, caller: asked.address, key, once, traceparent };
    if *form == AnswerForm::EchoServer {
        let answered = backend.carry_out_as_echo_server(call, &params, &body).await;
        return answered.map(|body| (StatusCode::OK, body));
    }
    let status =
        if matches!(call, Call::ChannelEvents { .. }) { StatusCode::ACCEPTED } else { StatusCode::OK };
    backend.carry_out(call, &params, &body).await.map(|body| (status, body))
}

/// What the backend says every time it repeats a publish; nothing is the same as no header.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiRefusal> {
    let Some(value) = headers.get(IDEMPOTENCY_HEADER) else { return Ok(None) };
    let bad = |why: String| ApiRefusal::new(StatusCode::BAD_REQUEST, format!("X-Idempotency-Key {why}"));
    let key = value.to_str().map_err(|_| bad("holds other characters than printable ASCII".to_owned()))?;
    let (key, max) = (key.trim(), IDEMPOTENCY_KEY_BYTES_MAX);
    if key.len() > max {
        return Err(bad(format!("has {} bytes: at most {max} are allowed", key.len())));
    }
    Ok((!key.is_empty()).then(|| key.to_owned()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn of_a_query_only_the_key_is_logged() {
        assert_eq!(auth_key("auth_signature=s&auth_key=k&auth_version=1.0"), "k");
        assert_eq!(auth_key("x=auth_key=k"), "");
        assert_eq!(auth_key("auth_key=%6b"), "k");
        let app = |key: &str| crate::apps::KeyPair {
            key: key.into(),
            secret: crate::apps::KeySecret::new("hush-hush"),
            secret_file: None,
        };
        let app = crate::apps::App { keys: vec![app("k")], ..crate::apps::App::new("1") };
        let table = AppTable::new(vec![app]).unwrap();
        assert_eq!(
            (known_key(&table, "k".into()), known_key(&table, "hush".into())),
            ("k".into(), String::new())
        );
    }

    #[test]
    fn an_empty_key_is_none() {
        let key = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_HEADER, HeaderValue::from_str(text).unwrap());
            idempotency_key(&headers).map_err(|refusal| refusal.status.as_u16())
        };
        assert_eq!((key(""), key("  ")), (Ok(None), Ok(None)));
        assert_eq!(key("order-7"), Ok(Some("order-7".to_owned())));
        assert_eq!((key(&"k".repeat(51)), key("\u{e9}")), (Err(400), Err(400)));
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
    }
}
