//! `broadgate dashboard`.

use std::{
    io::IsTerminal as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use broadgate_tls::{PagesTls, PairFiles};
use clap::Args;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use crate::{
    dashboard::{
        server,
        settings::{DashboardSettings, Links, Login},
    },
    failure::Failure,
    operate::{At, ClusterTarget},
    output::{print, print_json},
    setting_errors,
};

/// How long the cluster may take to answer at the start.
const START_TIME_MAX: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
Examples:
  broadgate dashboard                          the cluster in use, at a free port
  broadgate dashboard --cluster prod           a cluster that `broadgate cluster add` has named
  broadgate dashboard --bind 127.0.0.1:7300    always the same port
  broadgate dashboard --bind 0.0.0.0:7300 --dashboard-tls-cert ops.pem --dashboard-tls-key ops.key
                                               by HTTPS, also from other machines

It runs on this machine until Ctrl-C, opens no port on the servers, and asks the cluster with this machine's
credentials. The link that it prints opens it once; press Enter for another one.
A gateway serves it as well, to those who have a token: [dashboard] in the configuration.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DashboardArgs {
    #[command(flatten)]
    at: At,
    /// Address to serve it on; other machines reach it only by HTTPS [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", hide_default_value = true,
          value_parser = setting_errors::address)]
    bind: SocketAddr,
    /// Certificate of the dashboard (PEM), which is then served by HTTPS
    #[arg(long, value_name = "FILE", requires = "dashboard_tls_key")]
    dashboard_tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "dashboard_tls_cert")]
    dashboard_tls_key: Option<PathBuf>,
    /// Print the link as JSON: {"url": "http://..."}
    #[arg(long)]
    json: bool,
}

pub(crate) async fn dashboard(args: DashboardArgs) -> Result<(), Failure> {
    let tls = args.tls()?;
    if !args.bind.ip().is_loopback() && tls.is_none() {
        return Err(Failure::usage(format!(
            "--bind: {} is reached from other machines, and the link and what is shown could be read on their way: add \
             --dashboard-tls-cert and --dashboard-tls-key, or serve it by a gateway, with [dashboard] bind, where \
             everybody shows a token",
            args.bind
        )));
    }
    let at = args.at.clone();
    let target = ClusterTarget { at, app: None, timeout: START_TIME_MAX, json: args.json };
    let chosen = args.at.open()?;
    // A cluster that cannot be reached, or refuses, is said here and not in a browser.
    target.any_app().await?;
    let listener = TcpListener::bind(args.bind)
        .await
        .map_err(|error| Failure::usage(format!("--bind: cannot listen on {}: {error}", args.bind)))?;
    let address = listener.local_addr()?;
    let name = chosen.name.clone().unwrap_or_else(|| chosen.addresses.join(", "));
    let base = match &tls {
        Some(tls) => format!("https://{}", reached_as(&tls.names(), address)),
        None => format!("http://{address}"),
    };
    let settings = DashboardSettings { chosen, login: Login::Link(Links::default()), url: None, tls };
    let (settings, stop) = (Arc::new(settings), CancellationToken::new());
    let link = || match &settings.login {
        Login::Link(links) => links.new_key().map(|key| format!("{base}/#link={key}")),
        Login::Token | Login::Open => Ok(format!("{base}/")),
    };
    if args.json {
        print_json(&json!({ "url": link()? }))?;
    } else {
        print(&format!("The dashboard of {name}, until Ctrl-C; the link opens it once:\n{}\n", link()?))?;
    }
    // The signal by which a terminal closes ends the command, as everywhere.
    let serving = server::serve(listener, Arc::clone(&settings), None, stop.clone());
    let asked = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            print(&format!("{}\n", link()?))?;
        }
        std::future::pending::<Result<(), Failure>>().await
    };
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => return Ok(()),
        ended = asked, if std::io::stdin().is_terminal() => return ended,
        () = broadgate_business::shutdown_signal() => {}
    }
    stop.cancel();
    serving.await;
    Ok(())
}

impl DashboardArgs {
    /// Its certificate, read; none if it has none.
    fn tls(&self) -> Result<Option<PagesTls>, Failure> {
        let (Some(cert), Some(key)) = (self.dashboard_tls_cert.clone(), self.dashboard_tls_key.clone())
        else {
            return Ok(None);
        };
        let opened = PagesTls::open(vec![PairFiles { cert, key }], "--dashboard-tls-cert");
        opened.map(Some).map_err(|error| Failure::usage(format!("{error:#}")))
    }
}

/// How a browser reaches what listens here, so that one of these names of its certificate is right.
fn reached_as(names: &[String], address: SocketAddr) -> String {
    let has = |wanted: &str| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
    if has(&address.ip().to_string()) {
        return address.to_string();
    }
    if address.ip().is_loopback() && has("localhost") {
        return format!("localhost:{}", address.port());
    }
    match names.iter().find(|name| !name.starts_with("*.")).map(|name| (name, name.parse())) {
        Some((_, Ok(ip))) => SocketAddr::new(ip, address.port()).to_string(),
        Some((name, Err::<IpAddr, _>(_))) => format!("{name}:{}", address.port()),
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_has_a_name_of_the_certificate() {
        let of = |names: &[&str], address: &str| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            reached_as(&names, address.parse().unwrap())
        };
        assert_eq!(of(&["ops.example.com", "10.0.0.9"], "0.0.0.0:7300"), "ops.example.com:7300");
        assert_eq!(of(&["ops.example.com", "10.0.0.9"], "10.0.0.9:7300"), "10.0.0.9:7300");
        assert_eq!(of(&["ops.example.com", "localhost"], "127.0.0.1:7300"), "localhost:7300");
        assert_eq!(of(&["2001:db8::1"], "[::]:7300"), "[2001:db8::1]:7300");
        assert_eq!(of(&["*.example.com"], "0.0.0.0:7300"), "0.0.0.0:7300");
    }
}
