//! What is posted: the body, and the request around it. Pure.

use std::sync::Arc;

use broadgate_proto::VERSION;
use broadgate_pusher::auth::AppKey;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;

use super::event::EndpointEvent;
use crate::apps::App;

const X_PUSHER_KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const X_PUSHER_SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");

/// Where an endpoint's posts go, and what makes them ours.
pub(super) struct PostTarget {
    pub(super) app: String,
    /// The URL as logs show it.
    pub(super) address: String,
    uri: Uri,
    headers: HeaderMap,
    key: AppKey,
}

impl PostTarget {
    /// An endpoint of an app, which has been checked and so has a key and a URL. Posts are signed with the
    /// first of its keys.
    pub(super) fn new(app: &App, webhook: usize) -> Option<Self> {
        let (webhook, key) = (app.webhooks.get(webhook)?, app.keys.first()?);
        let mut headers = HeaderMap::new();
        let agent = HeaderValue::try_from(format!("broadgate/{VERSION}")).ok()?;
        headers.insert(header::USER_AGENT, agent);
        for (name, value) in &webhook.headers {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name).ok()?, value);
        }
        // Some receivers compare this with the whole value.
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_PUSHER_KEY, HeaderValue::try_from(&key.key).ok()?);
        Some(Self {
            app: app.id.clone(),
            address: webhook.address().to_owned(),
            uri: webhook.url.parse().ok()?,
            headers,
            key: AppKey::new(&key.key, key.secret.reveal()),
        })
    }

    /// One attempt at telling these events.
    pub(super) fn request(&self, events: &[Arc<EndpointEvent>]) -> Request<Full<Bytes>> {
        let body = body(events);
        let signature = self.key.sign(&body);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        // Hexadecimal digits always make a header.
        let signature = HeaderValue::try_from(signature).unwrap_or(HeaderValue::from_static(""));
        request.headers_mut().insert(X_PUSHER_SIGNATURE, signature);
        request
    }
}

/// The time is that of the oldest event, so that a receiver sees what is late.
fn body(events: &[Arc<EndpointEvent>]) -> Vec<u8> {
    let time_ms = events.iter().map(|event| event.at_ms).min().unwrap_or_default();
    let events: Vec<&str> = events.iter().map(|event| &*event.json).collect();
    format!(r#"{{"time_ms":{time_ms},"events":[{}]}}"#, events.join(",")).into_bytes()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_post_is_signed_with_the_apps_first_key_and_carries_what_the_endpoint_asks_for() {
        let app: App = toml::from_str(
            r#"
            id = "shop"
            keys = [{ key = "new", secret = "7ad3773142a6692b25b8" }, { key = "old", secret = "s" }]
            [[webhooks]]
            url = "https://example.com:8443/hook?token=t"
            headers = { Authorization = "Bearer b" }
            "#,
        )
        .unwrap();
        let target = PostTarget::new(&app, 0).unwrap();
        assert_eq!((&*target.app, &*target.address), ("shop", "https://example.com:8443/hook"));
        let event = |at_ms, json: &str| {
            Arc::new(EndpointEvent { seq: 1, channel: "c".into(), at_ms, json: json.into(), arrival: None })
        };
        let request =
            target.request(&[event(1_327_078_148_132, "{\"a\":1}"), event(1_327_078_148_133, "{}")]);
        assert_eq!(
            (request.method(), request.uri().to_string()),
            (&Method::POST, app.webhooks[0].url.clone())
        );
        let headers = request.headers().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"time_ms":1327078148132,"events":[{"a":1},{}]}"#);
        let shown = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(shown("content-type"), "application/json");
        assert_eq!(
            (shown("x-pusher-key"), shown("authorization")),
            ("new".to_owned(), "Bearer b".to_owned())
        );
        assert_eq!(shown("user-agent"), format!("broadgate/{VERSION}"));
        // openssl dgst -sha256 -hmac 7ad3773142a6692b25b8
        assert_eq!(
            shown("x-pusher-signature"),
            "ee4f743e458f721d451da865c082f8e0a73959906bcfd5229dcbad611968f34a"
        );
        assert!(!format!("{headers:?}").contains("Bearer"));
        assert!(PostTarget::new(&app, 1).is_none());
    }
}
