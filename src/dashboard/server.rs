//! The dashboard's port: its files, logins, orders, and the streams of its tabs.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use broadgate_port::{Check, PortSettings, PortTls, Times, TurnedAway};
use broadgate_proto::{
    VERSION,
    limits::{
        DASHBOARD_CONNECTIONS_MAX, DASHBOARD_REQUEST_BYTES_MAX, DASHBOARD_TABS_MAX, HANDSHAKE_TIME_MAX,
    },
};
use metrics::counter;
use serde_json::json;
use tokio::{net::TcpListener, signal::unix::Signal, sync::Semaphore};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpConnectInfo;

use crate::{
    dashboard::{
        files,
        live::Tab,
        logins::FailedLogins,
        orders::Order,
        origin::{PageOrigins, cookie, is_of_own_page, may_change},
        sessions::Sessions,
        settings::{DashboardSettings, Login, LoginForm, random_key, wrong_token},
        visitor::Visitor,
    },
    failure::Failure,
};

/// Everything comes from here: no script, style or frame of others, no inline script, no markup made of texts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

struct Dashboard {
    settings: Arc<DashboardSettings>,
    cookie: String,
    sessions: Mutex<Sessions<Arc<Visitor>>>,
    failed: Mutex<FailedLogins>,
    tabs: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Serves until `stop`. Its certificates, if it has any, are read again when they change, and at each of these signals.
pub(super) async fn serve(
    listener: TcpListener,
    settings: Arc<DashboardSettings>,
    hangups: Option<Signal>,
    stop: CancellationToken,
) {
    // Cookies do not know ports: each dashboard of a machine has one of its own.
    let port = listener.local_addr().map_or(0, |address| address.port());
    let host = if settings.is_https() { "__Host-" } else { "" };
    let check = Check::pages(settings.hosts());
    let tls = settings.tls.clone();
    let dashboard = Arc::new(Dashboard {
        cookie: format!("{host}broadgate-{port}"),
        settings,
        sessions: Mutex::default(),
        failed: Mutex::default(),
        tabs: Arc::new(Semaphore::new(DASHBOARD_TABS_MAX)),
        stop: stop.clone(),
    });
    let settings = PortSettings {
        name: "dashboard",
        connections_max: DASHBOARD_CONNECTIONS_MAX,
        strangers_max: DASHBOARD_CONNECTIONS_MAX,
        stranger_time_max: HANDSHAKE_TIME_MAX,
        // Who is logged in is known by a cookie of each request, and not by the connection.
        known_stay: false,
        times: Times::default(),
        http2: None,
        tls: tls.clone().map(PortTls::Pages),
        refused: Arc::new(refused),
    };
    let watching = async {
        match tls {
            Some(tls) => match tls.watch(hangups).await {},
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = broadgate_port::serve(listener, router(dashboard), check, settings, stop) => {}
        () = watching => {}
    }
}

fn refused(request: &TurnedAway<'_>) {
    counter!("broadgate_port_closed_total", "port" => "dashboard", "reason" => request.reason).increment(1);
    tracing::debug!(reason = request.reason, why = request.sentence, "refused at the dashboard's port");
}

fn router(dashboard: Arc<Dashboard>) -> Router {
    Router::new()
        .route("/me", get(me))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/order", post(order))
        .route("/live", get(live))
        .fallback(file)
        .layer(DefaultBodyLimit::max(DASHBOARD_REQUEST_BYTES_MAX))
        .layer(middleware::map_response(guarded))
        .with_state(dashboard)
}

/// What every answer carries.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
        headers.insert(name, HeaderValue::from_static("same-origin"));
    }
    // The files of another version must not meet this one's, and nothing of a cluster stays in a cache.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn file(request: Request) -> Response {
    let found = files::find(request.uri().path());
    let Some(file) = found.filter(|_| request.method() == "GET" || request.method() == "HEAD") else {
        return (StatusCode::NOT_FOUND, "nothing is here: the dashboard is at /\n").into_response();
    };
    ([(header::CONTENT_TYPE, file.content_type), (header::CACHE_CONTROL, "no-cache")], &*file.body)
        .into_response()
}

/// A refusal in words.
fn error(status: StatusCode, sentence: impl Into<String>) -> Response {
    (status, Json(json!({ "error": sentence.into() }))).into_response()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who connects; behind a proxy the address that it has added last, so that a stranger who fails there keeps nobody
/// else out.
fn ip(extensions: &Extensions, headers: &HeaderMap, behind_proxy: bool) -> IpAddr {
    let forwarded = headers.get_all("x-forwarded-for").iter().next_back().filter(|_| behind_proxy);
    let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    last.or_else(|| Some(address?.ip())).unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

impl Dashboard {
    /// The visitor who sent these headers; it counts as a use of the session.
    fn visitor(&self, headers: &HeaderMap) -> Option<(String, Arc<Visitor>)> {
        let key = cookie(headers, &self.cookie)?;
        let visitor = locked(&self.sessions).used(key, Instant::now())?;
        Some((key.to_owned(), visitor))
    }

    fn may_change(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        if may_change(headers, self.origins()) {
            return Ok(());
        }
        Err(Box::new(error(StatusCode::FORBIDDEN, "only the dashboard's own page may ask for this")))
    }

    fn origins(&self) -> PageOrigins<'_> {
        PageOrigins { url: self.settings.url.as_deref(), has_tls: self.settings.tls.is_some() }
    }

    fn set_cookie(&self, value: &str) -> String {
        let secure = if self.settings.is_https() { "; Secure" } else { "" };
        let over = if value.is_empty() { "; Max-Age=0" } else { "" };
        format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{over}", self.cookie)
    }
}

/// What the page has to know before anything else. The cluster's name is for those who are logged in.
async fn me(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap) -> Response {
    let login = dashboard.settings.login.word();
    let Some((_, visitor)) = dashboard.visitor(&headers) else {
        return Json(json!({ "logged_in": false, "login": login })).into_response();
    };
    let who = &visitor.who;
    let chosen = &dashboard.settings.chosen;
    let me = json!({
        "logged_in": true, "login": login, "version": VERSION, "cluster": chosen.name,
        "protected": chosen.protected && chosen.name.is_some(), "app": chosen.app,
        "who": who.who, "role": who.role, "apps": who.apps,
        "sees_payloads": who.rights.iter().any(|right| right == "payload"),
    });
    Json(me).into_response()
}

async fn login(
    State(dashboard): State<Arc<Dashboard>>,
    headers: HeaderMap,
    extensions: Extensions,
    body: Bytes,
) -> Response {
    if let Err(refused) = dashboard.may_change(&headers) {
        return *refused;
    }
    let Ok(shown) = serde_json::from_slice::<LoginForm>(&body) else {
        return error(StatusCode::BAD_REQUEST, "this is not what the dashboard's page sends: reload it");
    };
    let settings = &dashboard.settings;
    let ip = ip(&extensions, &headers, settings.url.is_some());
    let admitted = settings.admit(&shown);
    // A right link is known here, and works however often others have failed. A token is known to the cluster alone.
    let is_known = admitted.is_ok() && !matches!(settings.login, Login::Token);
    let begun = if is_known { Ok(()) } else { locked(&dashboard.failed).begin(ip, Instant::now()) };
    if let Err(wait) = begun {
        let sentence = format!("too many logins have failed: wait for {} s", wait.as_secs() + 1);
        let mut response = error(StatusCode::TOO_MANY_REQUESTS, sentence);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        return response;
    }
    let chosen = match admitted {
        Ok(chosen) => chosen,
        Err(sentence) => {
            tracing::warn!(%ip, "a login at the dashboard has failed");
            return error(StatusCode::UNAUTHORIZED, sentence);
        }
    };
    let mut visitor = Visitor::new(chosen);
    match visitor.introduce().await {
        Ok(()) => {}
        Err(Failure::Usage(_)) => {
            tracing::warn!(%ip, "a login at the dashboard has failed: the cluster does not accept the token");
            return error(StatusCode::UNAUTHORIZED, wrong_token());
        }
        // A cluster that is down is looked at, too: the pages say what does not answer. But somebody whose token
        // nobody has seen is let in nowhere.
        Err(_) if is_known => {}
        Err(failure) => {
            locked(&dashboard.failed).succeeded(ip);
            return error(StatusCode::BAD_GATEWAY, failure.to_string());
        }
    }
    if !is_known {
        locked(&dashboard.failed).succeeded(ip);
    }
    let key = match random_key() {
        Ok(key) => key,
        Err(failure) => return error(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string()),
    };
    tracing::info!(%ip, "somebody has logged in at the dashboard");
    let set = dashboard.set_cookie(&key);
    let mut sessions = locked(&dashboard.sessions);
    if let Some(former) = cookie(&headers, &dashboard.cookie) {
        sessions.close(former);
    }
    sessions.open(key, Arc::new(visitor), Instant::now());
    drop(sessions);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, set)]).into_response()
}

async fn logout(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap) -> Response {
    if let Err(refused) = dashboard.may_change(&headers) {
        return *refused;
    }
    if let Some(key) = cookie(&headers, &dashboard.cookie) {
        locked(&dashboard.sessions).close(key);
    }
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, dashboard.set_cookie(""))]).into_response()
}

async fn order(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refused) = dashboard.may_change(&headers) {
        return *refused;
    }
    let Some((_, visitor)) = dashboard.visitor(&headers) else {
        return error(StatusCode::UNAUTHORIZED, "you are not logged in any more");
    };
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(_) => return error(StatusCode::BAD_REQUEST, "this is not an order: reload the page"),
    };
    let chosen = &dashboard.settings.chosen;
    let protected = chosen.name.as_deref().filter(|_| chosen.protected);
    let receipt = match order.check(protected) {
        Ok(()) => order.run(&visitor.asker).await,
        Err(failure) => Err(failure),
    };
    match receipt {
        Ok(receipt) => Json(receipt).into_response(),
        Err(failure @ Failure::Usage(_)) => error(StatusCode::BAD_REQUEST, failure.to_string()),
        Err(failure @ Failure::NotFound(_)) => error(StatusCode::NOT_FOUND, failure.to_string()),
        Err(failure @ Failure::NotAllowed(_)) => error(StatusCode::FORBIDDEN, failure.to_string()),
        Err(failure) => error(StatusCode::BAD_GATEWAY, failure.to_string()),
    }
}

/// A WebSocket for a tab.
async fn live(State(dashboard): State<Arc<Dashboard>>, mut request: Request) -> Response {
    let headers = request.headers();
    if !is_of_own_page(headers, dashboard.origins()) {
        return error(StatusCode::FORBIDDEN, "only the dashboard's own page may ask for this");
    }
    let Some((key, visitor)) = dashboard.visitor(headers) else {
        return error(StatusCode::UNAUTHORIZED, "you are not logged in any more");
    };
    let is_websocket =
        headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let accept = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = accept.filter(|_| is_websocket) else {
        return error(StatusCode::BAD_REQUEST, "this is for WebSockets");
    };
    let Ok(place) = Arc::clone(&dashboard.tabs).try_acquire_owned() else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many tabs of this dashboard are open: close some",
        );
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let stop = dashboard.stop.clone();
    // The credentials of others are not the visitor's: there a new login changes nothing.
    let log_out = matches!(dashboard.settings.login, Login::Token).then(|| {
        let (dashboard, key) = (Arc::clone(&dashboard), key.clone());
        Box::new(move || locked(&dashboard.sessions).close(&key)) as Box<dyn Fn() + Send + Sync>
    });
    let is_logged_in = Box::new(move |is_use: bool| {
        let mut sessions = locked(&dashboard.sessions);
        let now = Instant::now();
        if is_use { sessions.used(&key, now).is_some() } else { sessions.has(&key, now) }
    });
    let tab = Tab { visitor, is_logged_in, log_out, stop };
    broadgate_tasks::spawn("dashboard tab", async move {
        if let Ok(upgraded) = upgrade.await {
            tab.run(upgraded).await;
        }
        drop(place);
    });
    let switching = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    switching.body(Body::empty()).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_proxy_the_address_is_what_the_proxy_has_added() {
        let mut headers = HeaderMap::new();
        let of = |headers: &HeaderMap, behind| ip(&Extensions::new(), headers, behind).to_string();
        assert_eq!(of(&headers, true), "0.0.0.0");
        headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.9"));
        headers.append("x-forwarded-for", HeaderValue::from_static("1.2.3.4, 203.0.113.66"));
        assert_eq!(of(&headers, true), "203.0.113.66");
        assert_eq!(of(&headers, false), "0.0.0.0", "without a proxy anybody could say so");
        headers.append("x-forwarded-for", HeaderValue::from_static("unknown"));
        assert_eq!(of(&headers, true), "0.0.0.0");
    }
}
