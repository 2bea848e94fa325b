//! The dashboard of a gateway's process: off unless it is configured, and for those who show a token.

use std::{net::SocketAddr, sync::Arc};

use broadgate_business::Credentials;
use broadgate_gateway::config::{Listener, ListenerKind};
use broadgate_proto::limits::{DASHBOARD_CONNECTIONS_MAX, DASHBOARD_SESSIONS_MAX};
use broadgate_tls::{PagesTls, PairFiles};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::DashboardSection,
    dashboard::{
        server,
        settings::{DashboardSettings, Login},
    },
    failure::Failure,
    operate::ChosenCluster,
};

/// A port that is open and not served yet.
pub(crate) struct RoleDashboard {
    listener: TcpListener,
    settings: DashboardSettings,
}

/// How many connections it may have: those of browsers, and one of each visitor to the cluster.
pub(crate) const fn connections(section: &DashboardSection) -> usize {
    if section.bind.is_some() { DASHBOARD_CONNECTIONS_MAX + DASHBOARD_SESSIONS_MAX } else { 0 }
}

/// The certificates with which it is served: its own; or, where other machines reach it and no proxy is named, those of
/// the first `web` listener that has some.
fn certificates(section: &DashboardSection, listeners: &[Listener]) -> Vec<PairFiles> {
    let is_reached = section.bind.is_some_and(|bind| !bind.ip().is_loopback()) && section.url.is_none();
    let of_listener = listeners
        .iter()
        .find(|listener| listener.kind == ListenerKind::Web && !listener.tls.is_empty())
        .filter(|_| is_reached);
    let chosen = match of_listener {
        Some(listener) if section.tls.is_empty() => &listener.tls,
        _ => &section.tls,
    };
    chosen.iter().map(|one| PairFiles { cert: one.cert.clone(), key: one.key.clone() }).collect()
}

/// Its certificates, read; none if it has none.
fn open_tls(section: &DashboardSection, listeners: &[Listener]) -> Result<Option<PagesTls>, Failure> {
    let files = certificates(section, listeners);
    if files.is_empty() {
        return Ok(None);
    }
    let opened = PagesTls::open(files, "dashboard.tls");
    opened.map(Some).map_err(|error| Failure::usage(format!("{error:#}")))
}

/// Whether the settings fit.
///
/// # Errors
/// If nobody could be asked for a token where somebody should be, a token could be read on its way, a certificate
/// cannot be used, or its URL is none.
pub(crate) fn check(
    section: &DashboardSection,
    listeners: &[Listener],
    credentials: &Credentials,
) -> Result<(), Failure> {
    let Some(bind) = section.bind else { return Ok(()) };
    if credentials.secret.is_none() && !bind.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "dashboard.bind: {bind} would be reached from other hosts, and without a shared secret nobody could be \
             asked for a token: set BROADGATE_SECRET or secret_file, or listen on 127.0.0.1"
        )));
    }
    if credentials.secret.is_none() && credentials.tls.is_some() {
        return Err(Failure::usage(
            "dashboard.bind: the cluster knows its members by certificates alone, and browsers have none: set \
             BROADGATE_SECRET or secret_file as well, or run `broadgate dashboard` on your own machine",
        ));
    }
    let has_tls = open_tls(section, listeners)?.is_some();
    let Some(url) = &section.url else {
        if has_tls || bind.ip().is_loopback() {
            return Ok(());
        }
        return Err(Failure::usage(format!(
            "dashboard.bind: {bind} is reached from other hosts, and tokens would cross the network readable: name \
             certificates in dashboard.tls, or put a proxy with TLS before it and name its address in dashboard.url, \
             or listen on 127.0.0.1"
        )));
    };
    if has_tls && url.starts_with("http://") {
        return Err(Failure::usage(format!(
            "dashboard.url: {url:?} is without TLS, and dashboard.tls has a certificate: write https://"
        )));
    }
    let parsed: Option<axum::http::Uri> = url.parse().ok();
    let is_origin = parsed.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.path().trim_matches('/').is_empty()
            && uri.query().is_none()
    });
    if is_origin {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "dashboard.url: {url:?} is not how a browser reaches the dashboard: write it like https://ops.example.com, \
         without a path"
    )))
}

impl RoleDashboard {
    /// Opens its port, if there is one. `gateway` is the internal port of the process.
    ///
    /// # Errors
    /// If nothing can listen there.
    pub(crate) async fn open(
        section: &DashboardSection,
        listeners: &[Listener],
        credentials: &Credentials,
        gateway: String,
    ) -> Result<Option<Self>, Failure> {
        let Some(bind) = section.bind else { return Ok(None) };
        let pages_tls = open_tls(section, listeners)?;
        let listener = TcpListener::bind(bind).await.map_err(|error| {
            Failure::usage(format!(
                "dashboard.bind: cannot listen on {bind}: {error}; stop what listens there or choose another port"
            ))
        })?;
        let is_open = credentials.secret.is_none();
        // Visitors show a secret of their own; the certificates are those of this process.
        let tls = credentials.tls.clone();
        let chosen = ChosenCluster::of_gateway(gateway, Credentials { tls, ..Credentials::default() });
        let login = if is_open { Login::Open } else { Login::Token };
        let settings = DashboardSettings { chosen, login, url: section.url.clone(), tls: pages_tls };
        let opened = Self { listener, settings };
        opened.warn(bind);
        Ok(Some(opened))
    }

    fn warn(&self, bind: SocketAddr) {
        tracing::info!(address = %bind, tls = self.settings.tls.is_some(), "dashboard");
        if !bind.ip().is_loopback() && !self.settings.is_https() {
            tracing::warn!(
                address = %bind,
                "tokens cross the network unencrypted to the dashboard: name certificates in dashboard.tls, or put it \
                 behind a proxy with TLS and set dashboard.url"
            );
        }
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        // Without the signal the files are looked at all the same.
        let hangups = signal(SignalKind::hangup()).ok();
        server::serve(self.listener, Arc::new(self.settings), hangups, stop).await;
    }
}

#[cfg(test)]
mod tests {
    use broadgate_business::Secret;
    use broadgate_gateway::config::Certificate;

    use super::*;

    fn section(bind: &str, url: Option<&str>) -> DashboardSection {
        DashboardSection { bind: Some(bind.parse().unwrap()), url: url.map(str::to_owned), tls: Vec::new() }
    }

    /// Without listeners.
    fn check(section: &DashboardSection, credentials: &Credentials) -> Result<(), Failure> {
        super::check(section, &[], credentials)
    }

    fn certificate(name: &str) -> Certificate {
        Certificate { cert: format!("/{name}.pem").into(), key: format!("/{name}.key").into() }
    }

    #[test]
    fn other_machines_reach_it_by_tls_or_a_proxy() {
        let secret = Credentials::from(Secret::parse("0123456789abcdefghijklmnopqrstuv").unwrap());
        let refused = check(&section("0.0.0.0:7300", None), &secret).unwrap_err().to_string();
        assert!(refused.contains("dashboard.tls") && refused.contains("readable"), "{refused}");
        check(&section("127.0.0.1:7300", None), &secret).unwrap();
        for named in ["https://ops.example.com", "http://10.0.0.1:7300"] {
            check(&section("0.0.0.0:7300", Some(named)), &secret).unwrap();
        }
        let own = DashboardSection { tls: vec![certificate("own")], ..section("0.0.0.0:7300", None) };
        let refused = check(&own, &secret).unwrap_err().to_string();
        assert!(refused.contains("dashboard.tls") && refused.contains("/own.pem"), "{refused}");
    }

    #[test]
    fn its_certificates_are_its_own_or_those_of_the_listener_where_others_reach_it() {
        let web = Listener { tls: vec![certificate("web")], ..Listener::web("0.0.0.0:443".parse().unwrap()) };
        let listeners = [Listener::web("0.0.0.0:80".parse().unwrap()), web];
        let of = |section: &DashboardSection| {
            certificates(section, &listeners).first().map(|files| files.cert.display().to_string())
        };
        let there = section("0.0.0.0:7300", None);
        assert_eq!(of(&there).as_deref(), Some("/web.pem"));
        assert_eq!(of(&section("0.0.0.0:7300", Some("https://ops.example.com"))), None, "a proxy has TLS");
        assert_eq!(of(&section("127.0.0.1:7300", None)), None, "no name of the certificate leads here");
        let own = DashboardSection { tls: vec![certificate("own")], ..there };
        assert_eq!(of(&own).as_deref(), Some("/own.pem"));
    }

    #[test]
    fn without_a_secret_only_this_machine_reaches_it() {
        let (none, some) = (
            Credentials::default(),
            Credentials::from(Secret::parse("0123456789abcdefghijklmnopqrstuv").unwrap()),
        );
        check(&DashboardSection::default(), &none).unwrap();
        check(&section("127.0.0.1:7300", None), &none).unwrap();
        check(&section("[::1]:7300", None), &none).unwrap();
        check(&section("0.0.0.0:7300", Some("https://ops.example.com")), &some).unwrap();
        let refused = check(&section("0.0.0.0:7300", None), &none).unwrap_err().to_string();
        assert!(refused.contains("dashboard.bind") && refused.contains("BROADGATE_SECRET"), "{refused}");
    }

    #[test]
    fn url_is_an_origin() {
        let none = Credentials::default();
        for good in ["https://ops.example.com", "https://ops.example.com/", "http://10.0.0.1:7300"] {
            check(&section("127.0.0.1:7300", Some(good)), &none).unwrap();
        }
        for wrong in ["", "ops.example.com", "https://", "https://a/path", "wss://a", "https://a/?q"] {
            let refused = check(&section("127.0.0.1:7300", Some(wrong)), &none).unwrap_err().to_string();
            assert!(refused.contains("dashboard.url"), "{wrong}: {refused}");
        }
    }
}
