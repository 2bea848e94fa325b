//! Ably's call that publishes, for Laravel's driver `ably`: see `broadgate_pusher::api::ably`.

use std::{rc::Rc, sync::Arc};

use broadgate_pusher::{
    api::{
        ApiRefusal,
        ably::{self, AblyPublish, BodyFormat},
        publish,
    },
    auth,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use crate::callers::TraceParent;
use crate::ingress::{
    asked::{ParsedRequest, check_prefix},
    pusher_api::{
        calls::Backend,
        exchange::{self, ApiAnswer},
        known_key,
    },
    visit::{HttpAnswer, Visit},
};

const ERROR_CODE: HeaderName = HeaderName::from_static("x-ably-errorcode");

/// Answers one request. `segment` is the channel's part of the path, still encoded.
pub(in crate::ingress) async fn answer(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    request: Request<Incoming>,
    segment: &str,
) -> HttpAnswer {
    let headers = request.headers();
    let key = credentials(headers).map(|(key, _)| key).unwrap_or_default();
    let key = known_key(&visit.connection.port.config.apps.load(), key);
    let sent = BodyFormat::named(text(headers, &header::CONTENT_TYPE));
    let wanted = BodyFormat::named(text(headers, &header::ACCEPT)).or(sent).unwrap_or(BodyFormat::Json);
    let content_type = wanted.content_type();
    match run(visit, asked, request, segment).await {
        Ok((channel, id)) => {
            let body = ably::accepted(&channel, &id, wanted).into();
            exchange::finish(ApiAnswer { status: StatusCode::CREATED, body, content_type, allow: None })
        }
        Err(refusal) => {
            let reason = exchange::refused_reason(&refusal);
            asked.log(&visit.connection, reason, "", &key, refusal.for_log());
            let body = ably::error(&refusal, wanted).into();
            let (status, allow) = (refusal.status, refusal.allow);
            let mut answer = exchange::finish(ApiAnswer { status, body, content_type, allow });
            answer.headers_mut().insert(ERROR_CODE, HeaderValue::from(ably::error_code(&refusal)));
            answer
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    ably::basic(text(headers, &header::AUTHORIZATION))
}

/// The channel as Ably names it, and the id of the first message.
async fn run(
    visit: &Rc<Visit>,
    asked: &ParsedRequest,
    request: Request<Incoming>,
    segment: &str,
) -> Result<(String, String), ApiRefusal> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        let text = "only POST is answered here: of Ably's API this server has the call that publishes";
        let refusal = ApiRefusal::new(StatusCode::METHOD_NOT_ALLOWED, text);
        return Err(ApiRefusal { allow: Some("POST"), ..refusal });
    }
    let (key, secret) = credentials(&parts.headers).ok_or_else(|| {
        let text = "no key: send it as Authorization: Basic, in the form appId.keyId:secret";
        ApiRefusal::new(StatusCode::UNAUTHORIZED, text)
    })?;
    let port = &visit.connection.port;
    let table = port.config.apps.load();
    let invalid = || {
        let text = "invalid credentials: no app of this server has this key with this secret";
        ApiRefusal::new(StatusCode::UNAUTHORIZED, text)
    };
    let (app, _) = table.by_key(&key).ok_or_else(invalid)?;
    let tenant = port.shard.borrow_mut().tenants.of(app);
    auth::find(&tenant.keys, &key).filter(|key| key.has_secret(&secret)).ok_or_else(invalid)?;
    check_prefix(&asked.target.prefix, app)
        .map_err(|sentence| ApiRefusal::new(StatusCode::NOT_FOUND, sentence))?;
    exchange::check_enabled(app)?;
    let name = ably::decoded_name(segment)?;
    let channel = ably::channel_name(&name)?;
    let content_type = text(&parts.headers, &header::CONTENT_TYPE);
    let format = match BodyFormat::named(content_type) {
        Some(format) => format,
        None if content_type.is_empty() => BodyFormat::Json,
        None => {
            let text =
                "the body's Content-Type is not supported: send application/json or application/x-msgpack";
            return Err(ApiRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
    };
    let mut lease = port.bodies.lease(&app.id);
    let bytes_max = publish::body_bytes_max(&app.limits);
    let body = exchange::read(body, bytes_max, &mut lease, visit).await?;
    let publish = AblyPublish::parse(&body, format, &channel, &app.limits)?;
    let dispatcher = exchange::dispatcher(port)?;
    let once = publish.key();
    let (app, caller) = (Arc::clone(app), asked.address);
    let traceparent = TraceParent::of(&parts.headers);
    let backend = Backend { dispatcher, app, caller, key: Some(key), once, traceparent };
    backend.publish(&publish.events).await?;
    let id = match publish.id {
        Some(id) => id,
        None => random_id()?,
    };
    Ok((name, id))
}

/// For messages without an id of their own.
fn random_id() -> Result<String, ApiRefusal> {
    let unavailable = |_| ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, "no random number for an id");
    getrandom::u64().map(|random| format!("{random:016x}:0")).map_err(unavailable)
}
