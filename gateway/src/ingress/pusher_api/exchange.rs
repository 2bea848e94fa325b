//! What the APIs of backends share: reading bodies, counting and finishing answers.

use std::sync::Arc;

use broadgate_pusher::api::ApiRefusal;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics::counter;

use crate::{
    apps::App,
    dispatch::Dispatcher,
    ingress::{
        port::ClientPort,
        visit::{HttpAnswer, RETRY_AFTER, Visit},
    },
    request_bodies::{Lease, Unread},
};

/// An answer as it goes out.
pub(super) struct ApiAnswer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) content_type: &'static str,
    /// The `Allow` header of a 405.
    pub(super) allow: Option<&'static str>,
}

/// Counts the answer.
pub(super) fn finish(answer: ApiAnswer) -> HttpAnswer {
    let ApiAnswer { status, body, content_type, allow } = answer;
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
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

/// What somebody gets for whose body there is no room.
const NO_ROOM: &str = "The gateway holds as many bytes of requests as it may: repeat.";

/// Why a request was refused, for the log: a closed set.
pub(super) fn refused_reason(refusal: &ApiRefusal) -> &'static str {
    let status = refusal.status;
    match status.as_u16() {
        503 if refusal.text == NO_ROOM => "api_bodies_bytes_max",
        400 => "api_400",
        401 => "api_401",
        403 => "api_403",
        404 => "api_404",
        405 => "api_405",
        408 => "api_408",
        413 => "api_413",
        503 => "api_503",
        _ if status.is_client_error() => "api_4xx",
        _ => "api_5xx",
    }
}

pub(super) fn check_enabled(app: &App) -> Result<(), ApiRefusal> {
    if app.enabled {
        return Ok(());
    }
    Err(ApiRefusal::new(StatusCode::FORBIDDEN, format!("The app {} is disabled.", app.id)))
}

pub(super) fn dispatcher(port: &ClientPort) -> Result<Arc<Dispatcher>, ApiRefusal> {
    let stopping = || ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping: repeat");
    port.dispatcher.upgrade().ok_or_else(stopping)
}

/// The whole body, if it is not too large, has room among the others, and comes in time.
pub(super) async fn read(
    body: Incoming,
    bytes_max: usize,
    lease: &mut Lease,
    visit: &Visit,
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
            // Its line is that of the whole request.
            counter!("broadgate_gateway_refused_total", "reason" => "api_bodies_bytes_max").increment(1);
            ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, NO_ROOM)
        }
        Unread::Broken(error) => ApiRefusal::new(
            StatusCode::BAD_REQUEST,
            format!("The request's body could not be read: {error}."),
        ),
    })
}
