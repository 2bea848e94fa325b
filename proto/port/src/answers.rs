//! An internal port's answers to requests that it does not serve: in the caller's format, with a hint where
//! the request is served.

use axum::{Router, body::Body, response::IntoResponse as _};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use tonic::Status;

/// Paths that are served elsewhere.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// A router whose fallback says what the port is.
pub fn or_nothing(router: Router, port: &'static str) -> Router {
    router.fallback(async move |request: Request<Body>| nothing_here(&request, port))
}

/// The answer for an unknown path. `port` says what the port is and what it serves.
#[must_use]
pub fn nothing_here<B>(request: &Request<B>, port: &str) -> Response<Body> {
    let path = request.uri().path();
    if asks_grpc(request) {
        return Status::unimplemented(format!("{port}; it does not serve {path}")).into_http();
    }
    let sentence = if PROBES.contains(&path) {
        format!("{path} is on the metrics port (metrics.bind, --metrics-bind), and not here: {port}")
    } else {
        format!("nothing is here: {port}")
    };
    error(StatusCode::NOT_FOUND, "NOT_FOUND", &sentence)
}

/// The answer to a request with another method than POST, where only that is served.
#[must_use]
pub fn only_post<B>(request: &Request<B>) -> Response<Body> {
    let (method, path) = (request.method(), request.uri().path());
    let sentence = format!(
        "{path} is called with POST and a JSON body, and this was {method}: curl -d '{{}}' -H 'Content-Type: \
         application/json'"
    );
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "INVALID_ARGUMENT", &sentence);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// Whether the caller reads a gRPC status.
pub(crate) fn asks_grpc<B>(request: &Request<B>) -> bool {
    let content_type = text(request.headers(), &header::CONTENT_TYPE).unwrap_or_default();
    request.version() == Version::HTTP_2 && is_grpc(content_type)
}

pub(crate) fn is_grpc(content_type: &str) -> bool {
    content_type
        .strip_prefix("application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';', ' ']))
}

pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An error in the format of every call over HTTP/1.1.
pub(crate) fn error(status: StatusCode, code: &str, sentence: &str) -> Response<Body> {
    let body = serde_json::json!({ "error": { "code": code, "message": sentence } });
    (status, axum::Json(body)).into_response()
}

/// The same as bytes of HTTP/1.1, where no request was read.
pub(crate) fn bad_request(sentence: &str) -> String {
    let body =
        serde_json::json!({ "error": { "code": "INVALID_ARGUMENT", "message": sentence } }).to_string();
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_answered_by_its_status_and_others_by_json() {
        let request = |path: &str| Request::get(path).body(()).unwrap();
        let json = nothing_here(&request("/healthz"), "this is a port");
        assert!(json.status() == 404 && json.headers()[header::CONTENT_TYPE] == "application/json");
        let mut call = request("/broadgate.v1.Register/Join");
        *call.version_mut() = Version::HTTP_2;
        call.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let grpc = nothing_here(&call, "this is a port");
        assert!(grpc.status() == 200 && grpc.headers()["grpc-status"] == "12");
        let post = only_post(&request("/v1/Send"));
        assert!(post.status() == 405 && post.headers()[header::ALLOW] == "POST");
    }
}
