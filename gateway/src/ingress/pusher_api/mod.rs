//! The HTTP API by which an app's backend publishes and asks, on the client port of any gateway.
//! `broadgate_pusher::api` says what a request means and what an answer looks like; here it is read, checked,
//! and carried out by commands as every caller gives them.

mod calls;

use std::{
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_proto::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use broadgate_pusher::api::{
    ApiRefusal, answer,
    params::Params,
    publish,
    route::{self, Call, Route},
    sign,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics::counter;

use crate::{
    ingress::{
        asked::{ParsedRequest, check_prefix},
        pusher_api::calls::Backend,
        target::RequestTarget,
        visit::{HttpAnswer, Visit},
    },
    request_bodies::{Lease, Unread},
};

/// The same for everybody who repeats a publish, so that nobody gets it twice.
const IDEMPOTENCY_HEADER: &str = "x-idempotency-key";

/// Answers one request.
pub(super) async fn answer(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    request: Request<Incoming>,
) -> HttpAnswer {
    let key = auth_key(request.uri().query().unwrap_or_default());
    let answered = run(visit, asked, request).await;
    if let Err(refusal) = &answered {
        let app = app_named(asked);
        asked.log(&visit.connection, refused_reason(refusal.status), &app, &key, refusal.for_log());
    }
    let (status, body, allow) = match answered {
        Ok((status, body)) => (status, body, None),
        Err(refusal) => (refusal.status, refusal.text, refusal.allow),
    };
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain; charset=utf-8" };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, crate::ingress::visit::RETRY_AFTER.as_secs().into());
    }
    counter!("broadgate_gateway_api_requests_total", "status" => status_label(status)).increment(1);
    answer
}

/// A closed set of labels.
fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..300 => "2xx",
        401 => "401",
        404 => "404",
        413 => "413",
        429 => "429",
        400..500 => "4xx",
        _ => "5xx",
    }
}

/// Why a request was refused, for the log: a closed set.
fn refused_reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "api_400",
        401 => "api_401",
        403 => "api_403",
        404 => "api_404",
        405 => "api_405",
        408 => "api_408",
        413 => "api_413",
        429 => "api_429",
        503 => "api_503",
        _ if status.is_client_error() => "api_4xx",
        _ => "api_5xx",
    }
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
    query.split('&').find_map(|pair| pair.strip_prefix("auth_key=")).unwrap_or_default().to_owned()
}

async fn run(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    request: Request<Incoming>,
) -> Result<(StatusCode, String), ApiRefusal> {
    let (parts, body) = request.into_parts();
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
    // Before the body: the query says what it must be.
    let signed = sign::SignedParts { method: parts.method.as_str(), path, params: &params };
    let prefixes: &[&str] = if app.path_prefix.is_empty() { &[] } else { &[&app.path_prefix] };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    sign::verify(signed, &tenant.keys, prefixes, now, app.limits.timestamp_window_seconds)?;
    if !app.enabled {
        return Err(ApiRefusal::new(StatusCode::FORBIDDEN, format!("The app {} is disabled.", app.id)));
    }
    let mut lease = port.bodies.lease(&app.id);
    let body = read(body, publish::body_bytes_max(&app.limits), &mut lease, (visit, asked, &app.id)).await?;
    sign::verify_body(&params, &body)?;
    let dispatcher = port.dispatcher.upgrade();
    let dispatcher = dispatcher
        .ok_or_else(|| ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping: repeat"))?;
    let once = idempotency_key(&parts.headers)?;
    let backend = Backend { dispatcher, app: std::sync::Arc::clone(app), caller: asked.address, once };
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

/// The whole body, if it is not too large, has room among the others, and comes in time.
async fn read(
    body: Incoming,
    bytes_max: usize,
    lease: &mut Lease,
    (visit, asked, app): (&Visit, &ParsedRequest, &str),
) -> Result<Bytes, ApiRefusal> {
    let time_max = visit.connection.port.config.settings.limits.handshake_time_max;
    let Ok(read) = tokio::time::timeout(time_max, lease.read(body, bytes_max)).await else {
        let text = format!("The request's body did not come within {time_max:?}.");
        return Err(ApiRefusal::new(StatusCode::REQUEST_TIMEOUT, text));
    };
    read.map_err(|unread| match unread {
        Unread::TooLarge(bytes_max) => ApiRefusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "The request's body is larger than {bytes_max} bytes, which is more than any event may have."
            ),
        ),
        Unread::Spent => {
            let text = "The gateway holds as many bytes of requests as it may: repeat.";
            asked.refused(&visit.connection, "api_bodies_bytes_max", app, text);
            ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Unread::Broken(error) => ApiRefusal::new(
            StatusCode::BAD_REQUEST,
            format!("The request's body could not be read: {error}."),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_query_only_the_key_is_logged() {
        assert_eq!(auth_key("auth_signature=s&auth_key=k&auth_version=1.0"), "k");
        assert_eq!(auth_key("x=auth_key=k"), "");
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
