//! What an HTTP request on the client port asks for, and of whom: read once, for every kind of client.

use std::net::SocketAddr;

use http::{HeaderMap, Request, StatusCode, Version, header};

use crate::{
    apps::{App, AppTable},
    ingress::{
        forwarding::{self, is_trusted},
        port::Connection,
        target::{PathTarget, RequestTarget, longest_prefix},
        visit::{HttpAnswer, error},
    },
    refusals::RefusalContext,
};

/// A request as it is understood.
#[derive(Clone)]
pub(super) struct ParsedRequest {
    pub(super) target: PathTarget,
    /// The client, where trusted proxies have said so.
    pub(super) address: SocketAddr,
    /// Did the client come by TLS, as far as trusted proxies say?
    pub(super) tls: bool,
    /// The Origin header; "" if there is none.
    pub(super) origin: String,
}

impl ParsedRequest {
    pub(super) fn read<B>(connection: &Connection, request: &Request<B>) -> Self {
        let table = connection.port.config.apps.load();
        let prefixes = |path: &str| longest_prefix(path, table.iter().map(|app| &*app.path_prefix));
        let headers = request.headers();
        let proxies = &connection.listener.trusted_proxies;
        let peer = connection.peer;
        let client = forwarding::client(proxies, peer.ip(), headers);
        // The PROXY protocol puts the client in the place of the proxy that speaks to us.
        let by_proxy =
            is_trusted(proxies, connection.socket_peer.ip()) || is_trusted(proxies, connection.peer.ip());
        let origin = headers.get(header::ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
        Self {
            target: PathTarget::read(request.uri().path(), prefixes),
            address: client.map_or(peer, |ip| SocketAddr::new(ip, 0)),
            tls: connection.tls || (by_proxy && forwarding::says_tls(headers)),
            origin: origin.unwrap_or_default().into_owned(),
        }
    }

    /// Counts and logs that the request was refused.
    pub(super) fn refused(&self, connection: &Connection, reason: &'static str, app: &str, why: &str) {
        self.with(connection, reason, app, why, |refused| connection.refuse(refused));
    }

    /// Logs that the request was refused; it is counted elsewhere.
    pub(super) fn log(&self, connection: &Connection, reason: &'static str, app: &str, key: &str, why: &str) {
        self.with(connection, reason, app, why, |refused| {
            RefusalContext { key, ..refused.clone() }.log(&connection.port.refusals);
        });
    }

    /// The app is the one that the path names, where the caller has not looked for it.
    fn with(
        &self,
        connection: &Connection,
        reason: &'static str,
        app: &str,
        why: &str,
        act: impl FnOnce(&RefusalContext<'_>),
    ) {
        let table = connection.port.config.apps.load();
        let app = match (app, &self.target.place) {
            ("", RequestTarget::Raw(named)) if named.is_empty() => &connection.listener.app,
            ("", RequestTarget::Raw(named)) => named,
            ("", RequestTarget::Key(key) | RequestTarget::SocketIo(key)) => {
                table.by_key(key).map_or("", |(app, _)| &app.id)
            }
            _ => app,
        };
        let key = if let RequestTarget::Key(key) | RequestTarget::SocketIo(key) = &self.target.place {
            key
        } else {
            ""
        };
        let path = self.target.shown();
        let (address, origin) = (Some(self.address), &*self.origin);
        act(&RefusalContext { reason, why, address, app, key, path: &path, origin });
    }

    /// Counts and logs a refusal, and answers with it.
    pub(super) fn answer(
        &self,
        connection: &Connection,
        (reason, app): (&'static str, &str),
        status: StatusCode,
        sentence: &str,
    ) -> HttpAnswer {
        self.refused(connection, reason, app, sentence);
        error(status, sentence)
    }
}

/// Exactly one Host in HTTP/1.1 (RFC 9112 section 3.2); none need be in HTTP/1.0.
pub(super) fn check_host(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if !host.is_empty() => Ok(()),
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (Some(_), Some(_)) => Err("the request has several Host headers: send one"),
        _ => Err("the request has no Host header, which HTTP/1.1 needs: behind nginx, set \
             `proxy_set_header Host $host`"),
    }
}

/// What a proxy has to be told that asked for no upgrade although its client did.
pub(super) fn check_upgrade(version: Version, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let asks = has_token(headers, header::UPGRADE, "websocket");
    let wants = asks || headers.contains_key(header::SEC_WEBSOCKET_KEY);
    if version < Version::HTTP_11 && wants {
        return Err((
            StatusCode::BAD_REQUEST,
            "the upgrade was asked for over HTTP/1.0, which has none: behind nginx, set \
             `proxy_http_version 1.1`",
        ));
    }
    if asks && has_token(headers, header::CONNECTION, "upgrade") {
        return Ok(());
    }
    Err((
        StatusCode::UPGRADE_REQUIRED,
        if wants {
            "the headers that ask for the WebSocket upgrade were lost on the way: behind nginx, set \
             `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \
             \"upgrade\"`"
        } else {
            "this address speaks WebSocket: ask for an upgrade; behind nginx, set `proxy_http_version 1.1; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"`"
        },
    ))
}

pub(super) fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// May this app be reached under the prefix?
pub(super) fn check_prefix(prefix: &str, app: &App) -> Result<(), String> {
    if prefix.is_empty() || prefix == app.path_prefix {
        return Ok(());
    }
    let id = &app.id;
    Err(format!(
        "the path prefix {prefix:?} is not that of app {id:?}: set path_prefix = {prefix:?} in its [[apps]] \
         entry, or let the proxy take it off"
    ))
}

/// What to say where nothing is.
pub(super) fn nothing_at(path: &str, table: &AppTable) -> String {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let places = "Pusher clients connect to /app/{key}, their backends to /apps/{id}/events, raw WebSocket \
                  clients to /ws or /ws/{app}";
    if segments.iter().any(|segment| table.by_key(segment).is_some()) {
        return format!(
            "nothing is here, but the path holds an app's key: a proxy has taken /app off, or added to it; {places}"
        );
    }
    let at = segments.iter().position(|segment| ["ws", "up"].contains(segment)).filter(|&at| at > 0);
    if let Some(at) = at {
        let prefix = format!("/{}", segments[..at].join("/"));
        return format!(
            "nothing is here: no app has the path_prefix {prefix:?}; set it in an [[apps]] entry, or let the \
             proxy take it off; {places}"
        );
    }
    format!("nothing is here: {places}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        apps::{KeyPair, KeySecret},
        ingress::forwarding::tests::headers,
    };

    #[test]
    fn a_host_is_needed_once() {
        let check = |version, pairs| check_host(version, &headers(pairs)).map_err(|said| &said[..24]);
        assert_eq!(check(Version::HTTP_11, &[("host", "x")]), Ok(()));
        assert_eq!(check(Version::HTTP_10, &[]), Ok(()));
        assert_eq!(check(Version::HTTP_11, &[]), Err("the request has no Host "));
        assert_eq!(check(Version::HTTP_11, &[("host", "")]), Err("the request has no Host "));
        assert_eq!(check(Version::HTTP_11, &[("host", "x"), ("host", "x")]), Err("the request has several "));
    }

    #[test]
    fn a_proxys_mistake_is_named() {
        let good = [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")];
        let lost = [("sec-websocket-key", "x"), ("connection", "close")];
        let check = |version, pairs: &[_]| check_upgrade(version, &headers(pairs));
        assert_eq!(check(Version::HTTP_11, &good), Ok(()));
        let (status, said) = check(Version::HTTP_10, &good).unwrap_err();
        assert!(status == 400 && said.contains("proxy_http_version 1.1"), "{said}");
        assert_eq!(check(Version::HTTP_10, &lost).unwrap_err().0, 400);
        let (status, said) = check(Version::HTTP_11, &lost).unwrap_err();
        assert!(
            status == 426 && said.contains("were lost") && said.contains("Upgrade $http_upgrade"),
            "{said}"
        );
        let (status, said) = check(Version::HTTP_11, &[]).unwrap_err();
        assert!(status == 426 && said.contains("speaks WebSocket"), "{said}");
    }

    #[test]
    fn where_nothing_is_the_probable_mistake_is_named() {
        let key = KeyPair { key: "k".into(), secret: KeySecret::new("s"), secret_file: None };
        let table = AppTable::new(vec![App { keys: vec![key], ..App::new("1") }]).unwrap();
        let said = |path| nothing_at(path, &table);
        assert!(said("/k").contains("taken /app off") && said("/x").contains("/app/{key}"));
        assert!(said("/x/y/ws/blue").contains("path_prefix \"/x/y\""), "{}", said("/x/y/ws/blue"));
        let app = App { path_prefix: "/a".into(), ..App::new("1") };
        assert_eq!((check_prefix("", &app), check_prefix("/a", &app)), (Ok(()), Ok(())));
        assert!(check_prefix("/b", &app).unwrap_err().contains("path_prefix = \"/b\""));
    }
}
