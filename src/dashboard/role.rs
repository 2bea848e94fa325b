//! The dashboard of a gateway's process: off unless it is configured, and for those who show a token.

use std::{net::SocketAddr, sync::Arc};

use broadgate_business::Credentials;
use broadgate_proto::limits::{DASHBOARD_CONNECTIONS_MAX, DASHBOARD_SESSIONS_MAX};
use tokio::net::TcpListener;
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

/// Whether the settings fit.
///
/// # Errors
/// If nobody could be asked for a token where somebody should be, or its URL is none.
pub(crate) fn check(section: &DashboardSection, credentials: &Credentials) -> Result<(), Failure> {
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
    let Some(url) = &section.url else { return Ok(()) };
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
        credentials: &Credentials,
        gateway: String,
    ) -> Result<Option<Self>, Failure> {
        let Some(bind) = section.bind else { return Ok(None) };
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
        let settings = DashboardSettings { chosen, login, url: section.url.clone() };
        let opened = Self { listener, settings };
        opened.warn(bind);
        Ok(Some(opened))
    }

    fn warn(&self, bind: SocketAddr) {
        tracing::info!(address = %bind, "dashboard");
        if !bind.ip().is_loopback() && !self.settings.is_https() {
            tracing::warn!(
                address = %bind,
                "tokens cross the network unencrypted to the dashboard: put it behind a proxy with TLS and set dashboard.url"
            );
        }
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        server::serve(self.listener, Arc::new(self.settings), stop).await;
    }
}

#[cfg(test)]
mod tests {
    use broadgate_business::Secret;

    use super::*;

    fn section(bind: &str, url: Option<&str>) -> DashboardSection {
        DashboardSection { bind: Some(bind.parse().unwrap()), url: url.map(str::to_owned) }
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
        check(&section("0.0.0.0:7300", None), &some).unwrap();
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
