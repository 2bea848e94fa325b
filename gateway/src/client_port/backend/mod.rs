//! The HTTP API by which an app's backend publishes and asks, on the client port of any gateway.
//! `crate::pusher::api` says what a request means and what an answer looks like; here it is read, checked,
//! and carried out by commands as every caller gives them.

mod calls;

use std::{
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics::counter;

use self::calls::Backend;
use super::{
    http::{Answer, Visit},
    refused,
};
use crate::{
    bodies::{Lease, Unread},
    pusher::api::{
        Refusal, answer,
        params::Params,
        publish,
        route::{self, Call, Route},
        sign,
    },
};

/// The same for everybody who repeats a publish, so that nobody gets it twice.
const IDEMPOTENCY_HEADER: &str = "x-idempotency-key";

/// A path of the API without what stands before it, such as a prefix that no proxy has taken off.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    if path == "/up" {
        return Some(("", path));
    }
    // Without its app: see `route`.
    let terminates = path.ends_with("/terminate_connections").then(|| path.find("/users/")).flatten();
    let at = path.find("/apps/").or(terminates)?;
    Some((path[..at].trim_end_matches('/'), &path[at..]))
}

/// Answers one request.
pub(super) async fn answer(visit: &Rc<Visit>, request: Request<Incoming>) -> Answer {
    let answered = run(visit, request).await;
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
        answer.headers_mut().insert(header::RETRY_AFTER, super::http::RETRY_AFTER.as_secs().into());
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

async fn run(visit: &Rc<Visit>, request: Request<Incoming>) -> Result<(StatusCode, String), Refusal> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let (prefix, rest) = split(path).unwrap_or(("", path));
    let (id, call) = match route::route(parts.method.as_str(), rest)? {
        Route::Up if visit.connection.port.health.is_ready() => {
            return Ok((StatusCode::OK, answer::HEALTHY.to_owned()));
        }
        Route::Up => {
            let text = "not in a view as ready: no register, or draining";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
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
    let app = app.ok_or_else(|| Refusal::unknown_app(id))?;
    if !prefix.is_empty() && prefix != app.path_prefix {
        return Err(Refusal::unknown_app(id));
    }
    let tenant = port.shard.borrow_mut().tenant(app);
    // Before the body: the query says what it must be.
    let signed = sign::Request { method: parts.method.as_str(), path, params: &params };
    let prefixes: &[&str] = if app.path_prefix.is_empty() { &[] } else { &[&app.path_prefix] };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    sign::verify(signed, &tenant.keys, prefixes, now, app.limits.timestamp_window_seconds)?;
    if !app.enabled {
        return Err(Refusal::new(StatusCode::FORBIDDEN, format!("The app {} is disabled.", app.id)));
    }
    let mut lease = port.bodies.lease(&app.id);
    let body = read(body, publish::body_bytes_max(&app.limits), &mut lease, visit).await?;
    sign::verify_body(&params, &body)?;
    let dispatcher = port.shard.borrow().desk.dispatcher();
    let dispatcher = dispatcher.ok_or_else(|| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway starts or stops: repeat")
    })?;
    let once = parts.headers.get(IDEMPOTENCY_HEADER).and_then(|value| value.to_str().ok());
    let backend = Backend { dispatcher, app: std::sync::Arc::clone(app), once: once.map(str::to_owned) };
    let status =
        if matches!(call, Call::ChannelEvents { .. }) { StatusCode::ACCEPTED } else { StatusCode::OK };
    backend.carry_out(call, &params, &body).await.map(|body| (status, body))
}

/// The whole body, if it is not too large, has room among the others, and comes in time.
async fn read(body: Incoming, bytes_max: usize, lease: &mut Lease, visit: &Visit) -> Result<Bytes, Refusal> {
    let time_max = visit.connection.port.config.settings.limits.handshake_time_max;
    let Ok(read) = tokio::time::timeout(time_max, lease.read(body, bytes_max)).await else {
        let text = format!("The request's body did not come within {time_max:?}.");
        return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, text));
    };
    read.map_err(|unread| match unread {
        Unread::TooLarge(bytes_max) => Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "The request's body is larger than {bytes_max} bytes, which is more than any event may have."
            ),
        ),
        Unread::Spent => {
            let text = "The gateway holds as many bytes of requests as it may: repeat.";
            refused("api_bodies_bytes_max", visit.connection.peer, text);
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Unread::Broken(error) => {
            Refusal::new(StatusCode::BAD_REQUEST, format!("The request's body could not be read: {error}."))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_split_off() {
        assert_eq!(split("/apps/1/events"), Some(("", "/apps/1/events")));
        assert_eq!(split("//apps/1/events"), Some(("", "/apps/1/events")));
        assert_eq!(split("/x/apps/1/channels"), Some(("/x", "/apps/1/channels")));
        let without_app = "/users/7/terminate_connections";
        assert_eq!(split(without_app), Some(("", without_app)));
        assert_eq!(split("/up"), Some(("", "/up")));
        assert_eq!(split("/"), None);
    }
}
