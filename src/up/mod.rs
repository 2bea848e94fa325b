//! `broadgate up`: a whole cluster on this machine, as separate processes, looked after.

mod app;
mod certificates;
mod children;
mod ports;
mod restart;
mod welcome;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use broadgate_business::{Cluster, Credentials, v1::MemberState};
use clap::Args;

use self::{
    app::{CHAT, DemoAppsFile},
    certificates::DemoCertificates,
    children::{Children, Spec},
    ports::{Ports, WantedPorts},
};
use crate::{environment, failure::Failure, options::ConfigFile, telemetry};

/// A debug build on a busy machine needs some time.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// Where `up` keeps what outlives it, in the working directory.
const DEFAULT_STATE: &str = "broadgate-state";

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Number of gateways
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=10))]
    gateways: u16,
    /// Number of workers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=10))]
    workers: u16,
    /// First port: register P, dashboard P+5, gateways' internal ports P+10.., client ports P+20.., metrics P+30..
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    /// Address of the client ports; all other ports stay on loopback
    #[arg(long, value_name = "IP")]
    host: Option<IpAddr>,
    /// The built-in worker to run
    #[arg(long, value_enum, default_value = "chat")]
    worker: crate::roles::Demo,
    /// Folder of apps.toml, which the first start creates with an app for Laravel
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// A file of apps instead of that one [env: BROADGATE_APPS]
    #[arg(long, value_name = "FILE")]
    apps: Option<PathBuf>,
    /// Use TLS between processes and for clients, with certificates generated for this run
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    file: ConfigFile,
}

impl UpArgs {
    fn welcome<'a>(
        &self,
        ports: &'a Ports,
        apps: Option<&'a DemoAppsFile>,
        tls: Option<&'a DemoCertificates>,
        dashboard_tls: bool,
    ) -> welcome::WelcomeScreen<'a> {
        let (workers, paint) = (self.worker_names(), welcome::may_paint());
        welcome::WelcomeScreen { ports, apps, tls, dashboard_tls, workers, paint }
    }

    fn worker_names(&self) -> Vec<String> {
        let demo = format!("{:?}", self.worker).to_lowercase();
        (1..=self.workers).map(|number| format!("{demo}-{number}")).collect()
    }
}

pub(crate) async fn run(args: UpArgs) -> Result<(), Failure> {
    let config = args.file.load_for_command()?;
    let mut credentials = config.credentials()?;
    // The children would refuse it, each of them, again and again.
    telemetry::filter(&config)?;
    let wanted =
        WantedPorts { gateways: args.gateways, workers: args.workers, base: args.base_port, host: args.host };
    let mut ports = ports::choose(&wanted, ports::is_free).map_err(Failure::Usage)?;
    for note in &ports.notes {
        say!("{note}");
    }
    let apps = DemoAppsFile::open(
        args.apps.clone().or_else(|| environment::path("APPS")).as_deref(),
        &args.state,
        args.file.path(),
    )?;
    let tls = args.tls.then(|| DemoCertificates::make(args.host)).transpose()?;
    if let Some(tls) = &tls {
        credentials.tls = Some(tls.open()?);
        // Nothing is left by which a browser could be known.
        ports.dashboard = ports.dashboard.filter(|_| !credentials.secret.is_none());
    }
    let mut specs = specs(&args, &ports, apps.as_ref(), tls.as_ref());
    if let Some(file) = args.file.flag() {
        for spec in specs.iter_mut().flatten() {
            spec.arg(format!("--config={}", file.display()));
        }
    }
    let mut children = Children::start(specs)?;
    // One future from here on: a signal that comes between two is nobody's.
    let mut asked_to_end = std::pin::pin!(broadgate_business::shutdown_signal());
    tokio::select! {
        ready = wait_until_ready(&ports, &credentials, &args) => match ready {
            // That nobody reads it is no reason to end.
            Ok(()) => drop(crate::output::print_as_it_is(&welcome::text(&args.welcome(&ports, apps.as_ref(), tls.as_ref(), !config.dashboard.tls.is_empty())))),
            Err(failure) => {
                children.stop().await;
                return Err(failure);
            }
        },
        failed = children.watch() => {
            children.stop().await;
            return Err(failed);
        }
        () = &mut asked_to_end => {
            children.stop().await;
            return Ok(());
        }
    }
    let ended = tokio::select! {
        failed = children.watch() => Err(failed),
        () = &mut asked_to_end => Ok(()),
    };
    say!("stopping; press Ctrl-C again to stop at once");
    tokio::select! {
        () = children.stop() => {}
        () = broadgate_business::shutdown_signal() => children.kill().await,
    }
    ended
}

/// The stages of the cluster: gateways are ended first, since their clients' ends are events for the
/// workers, and the register last.
fn specs(
    args: &UpArgs,
    ports: &Ports,
    apps: Option<&DemoAppsFile>,
    tls: Option<&DemoCertificates>,
) -> Vec<Vec<Spec>> {
    let register = format!("127.0.0.1:{}", ports.register);
    let metrics = |index: usize| format!("--metrics-bind=127.0.0.1:{}", ports.metrics[index]);
    let first = vec![Spec::new("register", ["register", &format!("--bind={register}"), &metrics(0)])];
    let mut gateways = Vec::new();
    for (index, (internal, client)) in ports.internal.iter().zip(&ports.clients).enumerate() {
        let name = format!("gateway-{}", index + 1);
        let apps = apps.map(|apps| format!("--apps={}", apps.path.display()));
        let mut gateway = Spec::new(
            &name,
            [
                "gateway",
                &format!("--name={name}"),
                &format!("--register={register}"),
                &format!("--internal-bind=127.0.0.1:{internal}"),
                &format!("--client-bind={client}"),
                &format!("--raw-app={CHAT}"),
                "--pages",
                // Ctrl-C ends a cluster on a desk within seconds.
                "--ready-delay=0s",
                "--drain=1s",
                &metrics(1 + index),
            ]
            .into_iter()
            .chain(apps.as_deref()),
        );
        gateway.arg(match ports.dashboard.filter(|_| index == 0) {
            Some(port) => format!("--dashboard-bind=127.0.0.1:{port}"),
            None => "--no-dashboard".to_owned(),
        });
        gateways.push(gateway);
    }
    let demo = format!("{:?}", args.worker).to_lowercase();
    let mut workers = Vec::new();
    for (index, name) in args.worker_names().iter().enumerate() {
        workers.push(Spec::new(
            name,
            [
                "worker",
                &demo,
                &format!("--name={name}"),
                &format!("--register={register}"),
                &metrics(1 + ports.internal.len() + index),
            ],
        ));
    }
    let listener = SocketAddr::from(([127, 0, 0, 1], ports.register));
    let after = |specs: Vec<Spec>| specs.into_iter().map(|spec| spec.after(listener)).collect();
    for gateway in &mut gateways {
        tls.into_iter().flat_map(DemoCertificates::client_flags).for_each(|flag| gateway.arg(flag));
    }
    let mut stages = vec![first, after(workers), after(gateways)];
    for spec in stages.iter_mut().flatten() {
        tls.into_iter().flat_map(DemoCertificates::flags).for_each(|flag| spec.arg(flag));
    }
    stages
}

/// Ready is when a gateway says that every gateway and worker is.
async fn wait_until_ready(ports: &Ports, credentials: &Credentials, args: &UpArgs) -> Result<(), Failure> {
    let Some(internal) = ports.internal.first() else { return Ok(()) };
    let address = format!("127.0.0.1:{internal}");
    let cluster = Cluster::to_gateway(&address, credentials.clone(), "", Duration::from_secs(1))?;
    let ready = async {
        loop {
            if let Ok(status) = cluster.status().await {
                let gateways = status
                    .gateways
                    .iter()
                    .filter(|gateway| gateway.peers.len() + 1 == usize::from(args.gateways));
                let attached =
                    status.workers.iter().filter(|worker| worker.gateways == u32::from(args.gateways));
                let members = status.view.iter().flat_map(|view| &view.members);
                let ready = members.filter(|member| member.state() == MemberState::Ready).count();
                if ready == usize::from(args.gateways + args.workers)
                    && gateways.count() == usize::from(args.gateways)
                    && attached.count() == usize::from(args.workers)
                {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(READY_TIME_MAX, ready).await.map_err(|_| {
        Failure::Failed(format!(
            "the cluster was not ready within {} s: see the lines above",
            READY_TIME_MAX.as_secs()
        ))
    })
}
