//! Authorization of calls to an internal port.
//!
//! With a shared secret: callers that send it, under any host name. With TLS: callers that have shown a certificate
//! of the cluster's CA, before any request is read. Without both the port listens on loopback only, and refuses web pages in a browser of the host: neither a request that browsers send without a
//! preflight, nor a page's own name that resolves here (DNS rebinding), passes. Every decision is made on a
//! request's head, before any of its body is read.
//!
//! A caller may send a token instead: whose it is, and which calls it allows, is decided by the port's [`Admit`].
//! A port without one refuses tokens.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::body::Body;
use broadgate_proto::secret::{Secret, token_of};
use broadgate_tls::Credentials;
use http::{Extensions, HeaderMap, Request, Response, StatusCode, Version, header};
use tonic::Status;

use crate::answers::{asks_grpc, error, is_grpc, text};

/// The path prefix of gRPC calls: their package.
const GRPC_PATHS: &str = "/broadgate.";

/// What a request has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownCredential<'a> {
    /// One of the shared secrets.
    Secret,
    /// A certificate of the cluster, where there is no secret.
    Certificate,
    /// Nothing, where there is neither: the caller is on the same machine.
    Nothing,
    /// A token, which may be anybody's.
    Token(&'a str),
}

impl ShownCredential<'_> {
    /// Is it a token?
    #[must_use]
    pub const fn is_token(&self) -> bool {
        matches!(self, Self::Token(_))
    }
}

/// Who a port's callers are, and which calls their tokens allow.
pub trait Admit: fmt::Debug + Send + Sync {
    /// Leaves in `extensions` who is calling.
    ///
    /// # Errors
    /// If the caller may not make the call at this path.
    fn admit(
        &self,
        shown: ShownCredential<'_>,
        path: &str,
        headers: &HeaderMap,
        from: Option<SocketAddr>,
        extensions: &mut Extensions,
    ) -> Result<(), RefusedRequest>;
}

/// What a port does with tokens.
#[derive(Debug, Clone)]
enum TokenUse {
    /// They are not looked at: everybody is admitted.
    Ignored,
    /// They are for other ports.
    Refused,
    Asked(Arc<dyn Admit>),
}

/// A port's checks of every request.
#[derive(Debug, Clone)]
pub struct Check {
    secret: Secret,
    tokens: TokenUse,
    has_tls: bool,
    /// Whether to check which host the request is for.
    by_host: bool,
    /// Besides IP addresses and localhost.
    hosts: Vec<String>,
    /// And names without a dot, which no outsider can resolve to this host.
    local_names: bool,
    /// Whether web pages may call: the port serves them itself.
    pages: bool,
}

/// A refused request.
#[derive(Debug)]
pub struct RefusedRequest {
    /// Why, from a closed set.
    pub reason: &'static str,
    status: StatusCode,
    code: &'static str,
    pub(crate) sentence: String,
}

impl Check {
    /// The checks of an internal port that is also reached as `host`.
    #[must_use]
    pub fn internal(credentials: Credentials, host: Option<String>) -> Self {
        let Credentials { secret, tls } = credentials;
        // No page has a certificate of the cluster.
        let by_host = secret.is_none() && tls.is_none();
        let hosts = host.into_iter().collect();
        Self {
            by_host,
            secret,
            tokens: TokenUse::Refused,
            has_tls: tls.is_some(),
            hosts,
            local_names: false,
            pages: false,
        }
    }

    /// The same, for callers with tokens, too.
    #[must_use]
    pub fn admitting(self, admit: Arc<dyn Admit>) -> Self {
        Self { tokens: TokenUse::Asked(admit), ..self }
    }

    /// The checks of a port with probes and metrics, which needs no secret: open to every host that reaches
    /// it, but on loopback not to web pages.
    #[must_use]
    pub fn probes(bind: SocketAddr) -> Self {
        let by_host = bind.ip().is_loopback();
        Self {
            secret: Secret::default(),
            tokens: TokenUse::Ignored,
            has_tls: false,
            by_host,
            hosts: Vec::new(),
            local_names: true,
            pages: false,
        }
    }

    /// The checks of a port that serves web pages to people, who log in there: it has to be called by an IP address,
    /// localhost or one of these names, which may begin with `*.`, so that no other page's name leads here.
    #[must_use]
    pub fn pages(hosts: Vec<String>) -> Self {
        Self {
            secret: Secret::default(),
            tokens: TokenUse::Ignored,
            has_tls: false,
            by_host: true,
            hosts,
            local_names: false,
            pages: true,
        }
    }

    /// Checks a request, and adds to its extensions who is calling.
    ///
    /// # Errors
    /// If not, why.
    pub fn check<B>(&self, request: &mut Request<B>, from: Option<SocketAddr>) -> Result<(), RefusedRequest> {
        self.check_head(request)?;
        let TokenUse::Asked(admit) = &self.tokens else { return Ok(()) };
        // What it shows is in the headers, and who it is goes to the extensions.
        let mut extensions = std::mem::take(request.extensions_mut());
        let shown = self.shown(request.headers());
        let admitted = admit.admit(shown, request.uri().path(), request.headers(), from, &mut extensions);
        *request.extensions_mut() = extensions;
        admitted
    }

    /// Of a request whose secret is right, if it sent one.
    fn shown<'a>(&self, headers: &'a HeaderMap) -> ShownCredential<'a> {
        if let Some(token) = text(headers, &header::AUTHORIZATION).and_then(token_of) {
            return ShownCredential::Token(token);
        }
        match (self.secret.is_none(), self.has_tls) {
            (false, _) => ShownCredential::Secret,
            (true, true) => ShownCredential::Certificate,
            (true, false) => ShownCredential::Nothing,
        }
    }

    fn check_head<B>(&self, request: &Request<B>) -> Result<(), RefusedRequest> {
        let headers = request.headers();
        let authorization = text(headers, &header::AUTHORIZATION);
        match (&self.tokens, authorization.and_then(token_of)) {
            (TokenUse::Refused, Some(_)) => {
                return Err(RefusedRequest::unauthenticated(
                    "token",
                    "tokens are for the internal ports of gateways; workers, registers and commands to a register use \
                     the shared secret (BROADGATE_SECRET)",
                ));
            }
            (TokenUse::Asked(_), Some(_)) => {}
            _ if self.secret.accepts(authorization) => {}
            _ if headers.contains_key(header::AUTHORIZATION) => return Err(RefusedRequest::secret()),
            _ => return Err(self.nothing_shown()),
        }
        if self.by_host {
            self.check_host(request)?;
            if !self.pages {
                not_from_a_page(headers)?;
            }
        }
        if request.uri().path().starts_with(GRPC_PATHS) {
            let content_type = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
            if request.version() != Version::HTTP_2 || !is_grpc(content_type) {
                return Err(RefusedRequest {
                    reason: "not_grpc",
                    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    code: "INVALID_ARGUMENT",
                    sentence: "gRPC calls are made over HTTP/2 with `Content-Type: application/grpc`; \
                               over HTTP/1.1 there is `POST /v1/{Call}` with JSON"
                        .to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Of a request without any credential: nothing is wrong with a secret that was not sent.
    fn nothing_shown(&self) -> RefusedRequest {
        let sentence = match &self.tokens {
            TokenUse::Asked(_) => {
                "no shared secret and no token was sent: commands take a token from --token-file or BROADGATE_TOKEN, the \
                 secret from BROADGATE_SECRET or cluster.secret_file, or either from a cluster that `broadgate cluster \
                 add` has named (--cluster); programs send it as `Authorization: Bearer <secret or token>`"
            }
            TokenUse::Refused | TokenUse::Ignored => {
                "no shared secret was sent: give every process of the cluster, and commands to a register, the same \
                 BROADGATE_SECRET (or cluster.secret_file), and send it as `Authorization: Bearer <secret>`"
            }
        };
        RefusedRequest::unauthenticated("secret", sentence)
    }

    fn check_host<B>(&self, request: &Request<B>) -> Result<(), RefusedRequest> {
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let hosts = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or(""));
        let mut named = authority.into_iter().chain(hosts).peekable();
        let none = named.peek().is_none().then_some("");
        match none.or_else(|| named.find(|host| !self.is_own(host))) {
            None => Ok(()),
            Some(host) => Err(RefusedRequest {
                reason: "host",
                status: StatusCode::FORBIDDEN,
                code: "PERMISSION_DENIED",
                sentence: format!("the Host {host:?} is not this port's: {}", self.host_advice()),
            }),
        }
    }

    fn host_advice(&self) -> &'static str {
        if self.pages {
            "use an IP address, localhost or a name of its certificate, or name the address of the pages in the \
             configuration (dashboard.url)"
        } else {
            "use an IP address or localhost, or give every process a shared secret (BROADGATE_SECRET), with which \
             any name will do"
        }
    }

    fn is_own(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
            _ => authority,
        };
        let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        [ip, authority].iter().any(|text| text.parse::<IpAddr>().is_ok())
            || host.eq_ignore_ascii_case("localhost")
            || self.local_names && !host.is_empty() && !host.contains(['.', '@'])
            || self.hosts.iter().any(|own| is_named(own, host))
    }
}

/// Whether this is the name, or one label before the rest of a `*.` name.
fn is_named(own: &str, host: &str) -> bool {
    match own.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(label, after)| !label.is_empty() && after.eq_ignore_ascii_case(rest)),
        None => host.eq_ignore_ascii_case(own),
    }
}

/// Browsers add these themselves, and pages cannot remove them.
fn not_from_a_page(headers: &HeaderMap) -> Result<(), RefusedRequest> {
    let site = headers.get("sec-fetch-site").is_some_and(|site| site != "none");
    if !site && !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    Err(RefusedRequest {
        reason: "browser",
        status: StatusCode::FORBIDDEN,
        code: "PERMISSION_DENIED",
        sentence: "requests of web pages are refused here, as any page could send them".to_owned(),
    })
}

impl RefusedRequest {
    fn secret() -> Self {
        Self::unauthenticated(
            "secret",
            "the shared secret is missing or differs: give every process of the cluster the same BROADGATE_SECRET, and \
             send it as `Authorization: Bearer <secret>`",
        )
    }

    /// Nobody knows the caller.
    #[must_use]
    pub fn unauthenticated(reason: &'static str, sentence: impl Into<String>) -> Self {
        let (status, sentence) = (StatusCode::UNAUTHORIZED, sentence.into());
        Self { reason, status, code: "UNAUTHENTICATED", sentence }
    }

    /// The caller is known, and may not do this.
    #[must_use]
    pub fn denied(reason: &'static str, sentence: impl Into<String>) -> Self {
        let (status, sentence) = (StatusCode::FORBIDDEN, sentence.into());
        Self { reason, status, code: "PERMISSION_DENIED", sentence }
    }

    /// What the caller says cannot be used.
    #[must_use]
    pub fn invalid(reason: &'static str, sentence: impl Into<String>) -> Self {
        let (status, sentence) = (StatusCode::BAD_REQUEST, sentence.into());
        Self { reason, status, code: "INVALID_ARGUMENT", sentence }
    }

    /// In the caller's format: a gRPC status for gRPC, JSON for others.
    #[must_use]
    pub fn into_response<B>(self, request: &Request<B>) -> Response<Body> {
        if asks_grpc(request) {
            return match self.status {
                StatusCode::UNAUTHORIZED => Status::unauthenticated(self.sentence),
                StatusCode::BAD_REQUEST => Status::invalid_argument(self.sentence),
                _ => Status::permission_denied(self.sentence),
            }
            .into_http();
        }
        error(self.status, self.code, &self.sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdefghijklmnopqrstuv";
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    const JSON: (&str, &str) = ("content-type", "application/json");

    fn reason(check: &Check, version: Version, uri: &str, headers: &[(&str, &str)]) -> &'static str {
        let mut request = Request::builder().method("POST").version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check.check(&mut request.body(()).unwrap(), None).map_or_else(|refusal| refusal.reason, |()| "in")
    }

    #[test]
    fn with_a_secret_any_name_will_do() {
        let check = Check::internal(Secret::parse(SECRET).unwrap().into(), None);
        let bearer = format!("Bearer {SECRET}");
        let json = |host, bearer| {
            reason(&check, Version::HTTP_11, "/v1/Send", &[JSON, ("host", host), ("authorization", bearer)])
        };
        for host in ["broadgate:7200", "my_project_gateway_1:7200", "a.svc.cluster.local"] {
            assert_eq!(json(host, &bearer), "in", "{host}");
        }
        assert_eq!(json("127.0.0.1", "Bearer x"), "secret");
        assert_eq!(reason(&check, Version::HTTP_11, "/v1/Send", &[JSON]), "secret");
    }

    #[test]
    fn a_secret_that_was_not_sent_is_not_called_wrong() {
        let register = Check::internal(Secret::parse(SECRET).unwrap().into(), None);
        let gateway = register.clone().admitting(Arc::new(Admits));
        let said = |check: &Check, bearer: Option<&str>| {
            let mut request = Request::post("/v1/Send");
            if let Some(bearer) = bearer {
                request = request.header("authorization", bearer);
            }
            check.check(&mut request.body(()).unwrap(), None).unwrap_err().sentence
        };
        let ways = ["no shared secret and no token was sent", "--token-file", "BROADGATE_TOKEN", "--cluster"];
        let sentence = said(&gateway, None);
        assert!(ways.iter().all(|way| sentence.contains(way)), "{sentence}");
        let sentence = said(&register, None);
        assert!(
            sentence.starts_with("no shared secret was sent") && !sentence.contains("token"),
            "{sentence}"
        );
        for check in [&gateway, &register] {
            for wrong in ["Bearer x", "", "Basic eDp5"] {
                let sentence = said(check, Some(wrong));
                assert!(sentence.contains("is missing or differs"), "{wrong:?}: {sentence}");
            }
        }
    }

    #[derive(Debug)]
    struct Admits;

    impl Admit for Admits {
        fn admit(
            &self,
            shown: ShownCredential<'_>,
            path: &str,
            _: &HeaderMap,
            from: Option<SocketAddr>,
            extensions: &mut Extensions,
        ) -> Result<(), RefusedRequest> {
            assert!(from.is_none());
            extensions.insert(format!("{shown:?} {path}"));
            match shown {
                ShownCredential::Token("bgt_right")
                | ShownCredential::Secret
                | ShownCredential::Certificate
                | ShownCredential::Nothing => Ok(()),
                ShownCredential::Token(_) => Err(RefusedRequest::denied("not_allowed", "no")),
            }
        }
    }

    #[test]
    fn tokens_are_for_ports_that_know_them() {
        let secret = Check::internal(Secret::parse(SECRET).unwrap().into(), None);
        let open = Check::internal(Credentials::default(), None);
        let call = |check: &Check, bearer: &str| {
            let mut request = Request::post("/v1/Send").header("host", "localhost");
            if !bearer.is_empty() {
                request = request.header("authorization", format!("Bearer {bearer}"));
            }
            let mut request = request.body(()).unwrap();
            let reason = check.check(&mut request, None).map_or_else(|refused| refused.reason, |()| "in");
            (reason, request.extensions().get::<String>().cloned().unwrap_or_default())
        };
        let reason = |check: &Check, bearer: &str| call(check, bearer).0;
        for check in [&secret, &open] {
            assert_eq!(reason(check, "bgt_right"), "token", "a register");
        }
        let admitting = |check: &Check| check.clone().admitting(Arc::new(Admits));
        assert_eq!(call(&admitting(&secret), "bgt_right"), ("in", "Token(\"bgt_right\") /v1/Send".into()));
        assert_eq!(call(&admitting(&secret), SECRET), ("in", "Secret /v1/Send".into()));
        assert_eq!(call(&admitting(&open), ""), ("in", "Nothing /v1/Send".into()));
        assert_eq!(reason(&admitting(&open), "bgt_wrong"), "not_allowed", "also without a secret");
        assert_eq!(reason(&admitting(&secret), "bgt_wrong"), "not_allowed");
        assert_eq!(reason(&admitting(&secret), ""), "secret");
        // A token beside a wrong secret, or the other way round, is neither.
        assert_eq!(reason(&admitting(&secret), "x, Bearer bgt_right"), "secret");
        assert_eq!(reason(&Check::probes("127.0.0.1:9100".parse().unwrap()), "bgt_right"), "in");
    }

    #[test]
    fn without_a_secret_no_page_comes_in() {
        let check = Check::internal(Credentials::default(), Some("gateway-1".to_owned()));
        let http1 =
            |headers: &[_]| reason(&check, Version::HTTP_11, "/v1/Send", &[&[JSON], headers].concat());
        for own in
            ["127.0.0.1:7200", "localhost", "LocalHost:1", "[::1]:7200", "::1", "gateway-1:7200", "10.1.2.3"]
        {
            assert_eq!(http1(&[("host", own)]), "in", "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:7200",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "x@127.0.0.1",
            "127.0.0.1@evil.example",
            "[::1",
        ] {
            assert_eq!(http1(&[("host", other)]), "host", "{other}");
        }
        assert_eq!(http1(&[]), "host", "without any");
        assert_eq!(http1(&[("host", "localhost"), ("host", "evil.example")]), "host", "one of two");
        let absolute = "http://evil.example/v1/Send";
        assert_eq!(reason(&check, Version::HTTP_11, absolute, &[JSON, ("host", "localhost")]), "host");
        assert_eq!(http1(&[("host", "localhost"), ("origin", "http://localhost:7200")]), "browser");
        assert_eq!(http1(&[("host", "localhost"), ("sec-fetch-site", "cross-site")]), "browser");
        assert_eq!(http1(&[("host", "localhost"), ("sec-fetch-site", "none")]), "in", "typed by the user");
        let authority = |name| {
            reason(&check, Version::HTTP_2, &format!("http://{name}/broadgate.v1.Gateway/Send"), &[GRPC])
        };
        assert_eq!((authority("127.0.0.1:7200"), authority("evil.example")), ("in", "host"));
    }

    #[test]
    fn grpc_is_grpc() {
        let check = Check::internal(Credentials::default(), None);
        let call = |version, content_type| {
            let headers = [("host", "127.0.0.1"), ("content-type", content_type)];
            reason(&check, version, "/broadgate.v1.Gateway/Send", &headers)
        };
        for right in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
            assert_eq!(call(Version::HTTP_2, right), "in", "{right}");
        }
        for wrong in ["text/plain", "application/grpc-web", "application/x-www-form-urlencoded", ""] {
            assert_eq!(call(Version::HTTP_2, wrong), "not_grpc", "{wrong}");
        }
        assert_eq!(call(Version::HTTP_11, "application/grpc"), "not_grpc");
    }

    #[test]
    fn pages_are_asked_for_by_their_own_names() {
        let check = Check::pages(vec!["ops.example.com".to_owned()]);
        let get = |headers: &[_]| reason(&check, Version::HTTP_11, "/", headers);
        for own in [
            "127.0.0.1:7300",
            "localhost:7300",
            "[::1]:7300",
            "10.1.2.3",
            "ops.example.com",
            "OPS.example.com:443",
        ] {
            assert_eq!(
                get(&[("host", own), ("origin", "http://x"), ("sec-fetch-site", "same-origin")]),
                "in",
                "{own}"
            );
        }
        for other in ["evil.example", "x.ops.example.com", "gateway-1", ""] {
            assert_eq!(get(&[("host", other)]), "host", "{other}");
        }
        let wild = Check::pages(vec!["*.example.com".to_owned()]);
        let get = |host| reason(&wild, Version::HTTP_11, "/", &[("host", host)]);
        assert_eq!((get("ops.example.com:7300"), get("OPS.Example.com")), ("in", "in"));
        for other in
            ["example.com", "a.ops.example.com", ".example.com", "ops.example.com.evil", "*.example.com.x"]
        {
            assert_eq!(get(other), "host", "{other}");
        }
        let refused = check
            .check(&mut Request::get("/").header("host", "evil.example").body(()).unwrap(), None)
            .unwrap_err();
        assert!(refused.sentence.contains("dashboard.url"), "{}", refused.sentence);
    }

    #[test]
    fn probes_are_asked_by_anybody_but_on_loopback_not_by_pages() {
        let get = |bind: &str, host| {
            reason(&Check::probes(bind.parse().unwrap()), Version::HTTP_11, "/metrics", &[("host", host)])
        };
        assert_eq!(get("0.0.0.0:9100", "broadgate-gateway:9100"), "in");
        assert_eq!(get("127.0.0.1:9100", "localhost:9100"), "in");
        assert_eq!(get("127.0.0.1:9100", "prometheus-target:9100"), "in");
        assert_eq!(get("127.0.0.1:9100", "evil.example"), "host");
    }
}
