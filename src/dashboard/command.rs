//! `broadgate dashboard`.

use std::{io::IsTerminal as _, net::SocketAddr, sync::Arc, time::Duration};

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

It runs on this machine until Ctrl-C, opens no port on the servers, and asks the cluster with this machine's
credentials. The link that it prints opens it once; press Enter for another one.
A gateway serves it as well, to those who have a token: [dashboard] in the configuration.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DashboardArgs {
    #[command(flatten)]
    at: At,
    /// Address to serve it on, on this machine [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", hide_default_value = true,
          value_parser = setting_errors::address)]
    bind: SocketAddr,
    /// Print the link as JSON: {"url": "http://..."}
    #[arg(long)]
    json: bool,
}

pub(crate) async fn dashboard(args: DashboardArgs) -> Result<(), Failure> {
    if !args.bind.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "--bind: {} is reached from other machines: serve it by a gateway instead, with [dashboard] bind, where \
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
    let settings = DashboardSettings { chosen, login: Login::Link(Links::default()), url: None };
    let (settings, stop) = (Arc::new(settings), CancellationToken::new());
    let link = || match &settings.login {
        Login::Link(links) => links.new_key().map(|key| format!("http://{address}/#link={key}")),
        Login::Token | Login::Open => Ok(format!("http://{address}/")),
    };
    if args.json {
        print_json(&json!({ "url": link()? }))?;
    } else {
        print(&format!("The dashboard of {name}, until Ctrl-C; the link opens it once:\n{}\n", link()?))?;
    }
    let serving = server::serve(listener, Arc::clone(&settings), stop.clone());
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
