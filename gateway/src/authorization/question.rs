//! What a backend is asked. Pure.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use broadgate_proto::{VERSION, limits::AUTHORIZATION_HEADERS_BYTES_MAX};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;

use crate::apps::App;

/// May this client subscribe to this channel?
#[derive(Debug, Clone)]
pub(crate) struct AuthQuestion {
    pub(crate) app: Arc<App>,
    pub(crate) channel: String,
    pub(crate) is_presence: bool,
    pub(crate) socket_id: String,
    pub(crate) address: IpAddr,
    /// "" if the client has sent none.
    pub(crate) origin: Box<str>,
    /// The Cookie header of the client's handshake; "" if there was none.
    pub(crate) cookie: Box<str>,
    /// Headers that the client wants to be passed on: unchecked.
    pub(crate) headers: Vec<(String, String)>,
}

/// What every client may pass on.
const ALWAYS_PASSED_ON: [&str; 4] = ["authorization", "cookie", "x-csrf-token", "x-xsrf-token"];

const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Of the headers that a client gives those that may be passed on, in the first bytes that they may take: a question
/// that waits holds no more.
pub(crate) fn kept_headers(app: &App, given: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut left = AUTHORIZATION_HEADERS_BYTES_MAX;
    let mut fits = |name: &str, value: &str| {
        let is_kept = is_passed_on(app, name) && value.len() <= left;
        left -= if is_kept { value.len() } else { 0 };
        is_kept
    };
    given.into_iter().filter(|(name, value)| fits(name, value)).collect()
}

fn is_passed_on(app: &App, name: &str) -> bool {
    let named = app.auth.iter().flat_map(|auth| &auth.headers).map(String::as_str);
    ALWAYS_PASSED_ON.into_iter().chain(named).any(|allowed| allowed.eq_ignore_ascii_case(name))
}

impl AuthQuestion {
    /// The request; none if the URL, which was checked, is no URL after all.
    pub(super) fn request(&self, url: &str) -> Option<Request<Full<Bytes>>> {
        let mut body = String::with_capacity(self.channel.len() + self.socket_id.len() + 32);
        body.push_str("channel_name=");
        encode(&self.channel, &mut body);
        body.push_str("&socket_id=");
        encode(&self.socket_id, &mut body);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.parse().ok()?;
        *request.headers_mut() = self.passed_on();
        let headers = request.headers_mut();
        // After the client's, so that none of them takes the place of one of these.
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::try_from(format!("broadgate/{VERSION}")).ok()?);
        headers.insert(X_REQUESTED_WITH, HeaderValue::from_static("XMLHttpRequest"));
        headers.insert(X_FORWARDED_FOR, HeaderValue::try_from(self.address.to_string()).ok()?);
        Some(request)
    }

    /// Of the client's headers those that the app lets through, in the first bytes that they may take.
    fn passed_on(&self) -> HeaderMap {
        let cookie = Some(("cookie", &*self.cookie)).filter(|(_, cookie)| !cookie.is_empty());
        let given = self.headers.iter().map(|(name, value)| (&**name, &**value));
        let mut headers = HeaderMap::new();
        let mut bytes = 0;
        for (name, value) in cookie.into_iter().chain(given) {
            // A value with a line break is none.
            if let (true, Ok(name), Ok(mut value)) =
                (is_passed_on(&self.app, name), HeaderName::try_from(name), HeaderValue::try_from(value))
                && bytes + value.len() <= AUTHORIZATION_HEADERS_BYTES_MAX
            {
                bytes += value.len();
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// As a form's value.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::apps::AppAuth;

    fn question(headers: &[(&str, &str)]) -> AuthQuestion {
        let auth = AppAuth { headers: vec!["X-Tenant".to_owned()], ..AppAuth::default() };
        AuthQuestion {
            app: Arc::new(App { auth: Some(auth), ..App::new("shop") }),
            channel: "private-a:b é&x=1".to_owned(),
            is_presence: false,
            socket_id: "1.2".to_owned(),
            address: IpAddr::from([192, 0, 2, 7]),
            origin: "".into(),
            cookie: "session=from-the-handshake".into(),
            headers: headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    #[tokio::test]
    async fn a_question_is_a_form_with_what_laravel_needs() {
        let request = question(&[("Authorization", "Bearer abc"), ("X-CSRF-TOKEN", "tok")]);
        let request = request.request("https://shop.example/broadcasting/auth?x=1").unwrap();
        assert_eq!(
            (request.method(), request.uri().to_string()),
            (&Method::POST, "https://shop.example/broadcasting/auth?x=1".to_owned())
        );
        let headers = request.headers().clone();
        let shown = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(shown("content-type"), "application/x-www-form-urlencoded");
        assert_eq!(
            (shown("accept"), shown("x-requested-with")),
            ("application/json".into(), "XMLHttpRequest".into())
        );
        assert_eq!((shown("authorization"), shown("x-csrf-token")), ("Bearer abc".into(), "tok".into()));
        assert_eq!(
            (shown("cookie"), shown("x-forwarded-for")),
            ("session=from-the-handshake".into(), "192.0.2.7".into())
        );
        assert!(!format!("{headers:?}").contains("abc"), "secrets are not printed");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "channel_name=private-a%3Ab%20%C3%A9%26x%3D1&socket_id=1.2");
    }

    #[test]
    fn clients_pass_on_only_what_they_may() {
        let request = question(&[
            ("Host", "evil.example"),
            ("Content-Length", "0"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Host", "evil.example"),
            ("Accept", "text/html"),
            ("X-Other", "1"),
            ("x-tenant", "7"),
            ("X-XSRF-TOKEN", "a\r\nHost: evil.example"),
            ("Authorization\r\nHost", "x"),
            ("COOKIE", "session=own"),
        ]);
        let request = request.request("http://shop.example/").unwrap();
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "content-type",
                "cookie",
                "user-agent",
                "x-forwarded-for",
                "x-requested-with",
                "x-tenant"
            ]
        );
        assert_eq!(request.headers()["accept"], "application/json");
        assert_eq!(request.headers()["x-forwarded-for"], "192.0.2.7");
        assert_eq!(
            request.headers()["cookie"],
            "session=own",
            "the client's own comes before its handshake's"
        );
    }

    #[test]
    fn a_waiting_question_holds_no_more_than_it_passes_on() {
        let long = "x".repeat(AUTHORIZATION_HEADERS_BYTES_MAX);
        let headers = [("X-Other", "1"), ("x-tenant", "7"), ("Authorization", &long), ("x-csrf-token", "t")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let kept = kept_headers(&question(&[]).app, headers.into());
        let names: Vec<_> = kept.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["x-tenant", "x-csrf-token"]);
    }

    #[test]
    fn headers_are_bounded() {
        let long = "x".repeat(AUTHORIZATION_HEADERS_BYTES_MAX - 30);
        let request = question(&[("Authorization", &long), ("X-Tenant", "12345678901234567890")]);
        let request = request.request("http://shop.example/").unwrap();
        assert!(
            request.headers().contains_key("authorization") && !request.headers().contains_key("x-tenant")
        );
    }
}
