//! Finds live names, in time or not at all.

use std::{
    ffi::{OsStr, OsString},
    sync::mpsc,
    time::Duration,
};

use broadgate_port::connect;
use broadgate_proto::{
    said,
    v1::{
        ListGroupsRequest, Role, StatusRequest, TopBy, TopRequest, gateway_client::GatewayClient,
        observe_client::ObserveClient,
    },
};
use clap_complete::CompletionCandidate;
use tonic::transport::Endpoint;

use crate::{
    environment,
    failure::Failure,
    operate::{
        completions::typed::{TypedTarget, is_plain, joined},
        doctor::CHECKS,
        profiles::Profiles,
        target::ChosenCluster,
        top,
    },
    setting_errors,
};

/// By default. BROADGATE_COMPLETE_TIME has another one, for clusters that are far away.
const TIME_MAX: Duration = Duration::from_millis(300);
/// As many groups as anybody reads in a list.
const GROUPS_MAX: u32 = 200;

/// What an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CompletedKind {
    Clusters,
    Gateways,
    Apps,
    Groups,
    Checks,
    /// Who has called the cluster.
    Callers,
    /// By what the list can be sorted that the line names.
    TopOrders,
    /// One of these.
    Words(&'static [&'static str]),
}

impl CompletedKind {
    /// The names that begin so. Files and hosts may hang: what is not known in time is not waited for, and the process
    /// ends then.
    pub(super) fn find(self, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(prefix) = current.to_str().map(str::to_owned) else { return Vec::new() };
        let (found, names) = mpsc::sync_channel(1);
        let (time, begins) = (time_max(), prefix.clone());
        let finding = move || {
            let _ = found.send(self.all(&begins, time).unwrap_or_default());
        };
        if std::thread::Builder::new().name("names".to_owned()).spawn(finding).is_err() {
            return Vec::new();
        }
        let mut names = names.recv_timeout(time).unwrap_or_default();
        names.retain(|name| name.starts_with(&prefix) && is_plain(name));
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(CompletionCandidate::new).collect()
    }

    fn all(self, prefix: &str, time: Duration) -> Option<Vec<String>> {
        match self {
            Self::Clusters => return Some(Profiles::read().ok()?.all.into_keys().collect()),
            Self::Checks => return Some(CHECKS.iter().map(|(name, ..)| (*name).to_owned()).collect()),
            Self::Words(words) => return Some(words.iter().map(|word| (*word).to_owned()).collect()),
            Self::TopOrders => {
                let typed = joined(&words(), 0).0;
                return Some(top::orders_of(typed.iter().filter_map(|word| word.to_str())));
            }
            Self::Gateways | Self::Apps | Self::Groups | Self::Callers => {}
        }
        let typed = TypedTarget::of(&words())?;
        let mut chosen = typed.at.open_without_programs().ok()?;
        chosen.credentials.secret = chosen.credentials.secret.of_program(said::COMPLETION);
        let app = typed.app.or_else(|| chosen.app.clone()).unwrap_or_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let names = runtime.block_on(async {
            let asking =
                chosen.first(time, |address, within| self.ask(&chosen, address, &app, prefix, within));
            tokio::time::timeout(time, asking).await
        });
        // A look-up of a host's name may go on.
        runtime.shutdown_background();
        Some(names.ok()?.ok()?.1)
    }

    async fn ask(
        self,
        chosen: &ChosenCluster,
        address: String,
        app: &str,
        prefix: &str,
        within: Duration,
    ) -> Result<Vec<String>, Failure> {
        let silent = |error: tonic::transport::Error| Failure::Unreachable(error.to_string());
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(silent)?;
        let endpoint = endpoint.connect_timeout(within).timeout(within);
        let channel = connect(endpoint, chosen.credentials.tls.as_ref()).await.map_err(silent)?;
        if self == Self::Callers {
            let mut client = ObserveClient::with_interceptor(channel, chosen.credentials.sender());
            let request = TopRequest { by: TopBy::Callers.into(), app: app.to_owned(), ..Default::default() };
            let reply = client.top(request).await.map_err(refused)?.into_inner();
            return Ok(reply.callers.into_iter().map(|row| row.caller).collect());
        }
        let mut client = GatewayClient::with_interceptor(channel, chosen.credentials.sender());
        if self == Self::Groups {
            let (app, prefix) = (app.to_owned(), prefix.to_owned());
            let request = ListGroupsRequest { app, prefix, limit: GROUPS_MAX, ..Default::default() };
            let page = client.list_groups(request).await.map_err(refused)?.into_inner();
            return Ok(page.names.into_iter().map(|group| group.name).collect());
        }
        let evidence = self == Self::Apps;
        let status = client.status(StatusRequest { evidence, ..StatusRequest::default() }).await;
        let status = status.map_err(refused)?.into_inner();
        Ok(if evidence {
            let evidence = status.gateways.into_iter().filter_map(|gateway| gateway.evidence);
            evidence.flat_map(|evidence| evidence.apps).map(|app| app.id).collect()
        } else {
            let members = status.view.into_iter().flat_map(|view| view.members);
            members.filter(|member| member.role() == Role::Gateway).map(|member| member.name).collect()
        })
    }
}

/// No name is worth a second question at another address.
fn refused(status: tonic::Status) -> Failure {
    Failure::Failed(status.message().to_owned())
}

/// The words of the line, after those of the shell's script.
fn words() -> Vec<OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(1).collect()
}

/// How long names may take.
fn time_max() -> Duration {
    let said = environment::text("COMPLETE_TIME").ok().flatten();
    said.and_then(|text| setting_errors::duration(&text).ok()).unwrap_or(TIME_MAX)
}
