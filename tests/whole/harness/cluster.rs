//! A register and gateways as processes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use broadgate_proto::{
    secret::{Secret, SendSecret},
    v1::{self, Member, View, WatchRequest, gateway_client::GatewayClient, register_client::RegisterClient},
};
use broadgate_tls::{ClusterFiles, ClusterTls, Credentials, PairFiles};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use super::{Client, Fault, Process, Proxy, all, free_address, until};

pub type Caller = GatewayClient<Channel>;

/// As many whole clusters run at once: they mostly wait, but more would make each other slow.
static AT_ONCE: Semaphore = Semaphore::const_new(4);
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Without a worker service, clients have no events and need no worker.
pub const NO_WORKER: &str = "service = \"\"";

pub struct Cluster {
    pub dir: PathBuf,
    pub register: Option<Process>,
    pub register_address: String,
    pub gateways: Vec<Process>,
    /// Internal addresses, by gateway.
    pub internal: Vec<String>,
    /// Client addresses, by gateway and listener name.
    pub listeners: Vec<HashMap<String, SocketAddr>>,
    /// In front of each gateway's internal port, if they were asked for.
    pub proxies: Vec<Proxy>,
    /// Of processes that are started from now on, and of this one.
    pub secret: String,
    /// The certificates of [`Settings::tls`].
    pub tls: Option<Certificates>,
    /// What [`Settings::fault`] says, for the environment.
    fault: String,
    settings: Settings,
    // Dropped last.
    _permit: SemaphorePermit<'static>,
}

/// What a test wants to be different.
#[derive(Clone, Default)]
pub struct Settings {
    gateways: usize,
    listener: String,
    accept_one: bool,
    proxied: bool,
    spooled: bool,
    gateway: String,
    limits: String,
    ready_delay: Option<&'static str>,
    more: String,
    register: String,
    registers: Vec<String>,
    secret: String,
    tls: bool,
    fault: String,
    register_fault: bool,
    log: &'static str,
}

/// Certificates by `broadgate certs`: of one CA, `node` for every process, `test` for this one.
pub struct Certificates {
    pub dir: PathBuf,
    environment: [(&'static str, String); 3],
    /// This process's own.
    pub own: ClusterTls,
}

impl Certificates {
    fn make(dir: PathBuf) -> Self {
        certs(&["ca", "--dir", &dir.display().to_string()]);
        for name in ["node", "test"] {
            certs(&["pair", name, "--dir", &dir.display().to_string()]);
        }
        let environment = [
            ("BROADGATE_CLUSTER__TLS__CA", "ca.pem"),
            ("BROADGATE_CLUSTER__TLS__CERT", "node.pem"),
            ("BROADGATE_CLUSTER__TLS__KEY", "node.key"),
        ]
        .map(|(name, file)| (name, dir.join(file).display().to_string()));
        let own = Self::of(&dir, "test").unwrap();
        Self { dir, environment, own }
    }

    /// A pair in this folder, with its CA.
    pub fn of(dir: &Path, name: &str) -> anyhow::Result<ClusterTls> {
        ClusterTls::open(ClusterFiles {
            ca: dir.join("ca.pem"),
            pair: PairFiles { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) },
            server_name: "broadgate".to_owned(),
        })
    }
}

/// Runs `broadgate certs`.
pub fn certs(args: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"));
    let output = command.arg("certs").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Settings {
    /// The task or thread of this name panics in every gateway once [`Cluster::strike`] was called.
    pub fn fault(mut self, name: &str) -> Self {
        self.fault = name.to_owned();
        self
    }

    /// The same in the register.
    pub fn register_fault(self, name: &str) -> Self {
        Self { register_fault: true, ..self.fault(name) }
    }

    /// What every process logs; without this, `info`.
    pub fn logging(mut self, level: &'static str) -> Self {
        self.log = level;
        self
    }

    /// The shared secret of the internal ports; without this there is none.
    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = secret.to_owned();
        self
    }

    /// Mutual TLS inside the cluster.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Keys of the web listener.
    pub fn listener(mut self, toml: &str) -> Self {
        self.listener.push_str(&format!("{toml}\n"));
        self
    }

    /// One acceptor hands connections out to the shards, as where the system does not balance.
    pub fn accept_one(mut self) -> Self {
        self.accept_one = true;
        self
    }

    /// Gateways dial each other through proxies, whose links can be cut.
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Webhooks that wait are in [`Cluster::spool`].
    pub fn spooled(mut self) -> Self {
        self.spooled = true;
        self
    }

    /// Keys of `[gateway]`.
    pub fn gateway(mut self, toml: &str) -> Self {
        self.gateway.push_str(&format!("{toml}\n"));
        self
    }

    /// Keys of `[gateway.limits]`.
    pub fn limits(mut self, toml: &str) -> Self {
        self.limits.push_str(&format!("{toml}\n"));
        self
    }

    /// From "not ready" to the first close of a stop.
    pub fn ready_delay(mut self, delay: &'static str) -> Self {
        self.ready_delay = Some(delay);
        self
    }

    /// Whole sections at the end.
    pub fn more(mut self, toml: &str) -> Self {
        self.more.push_str(&format!("{toml}\n"));
        self
    }

    /// Keys of `[register]`.
    pub fn register(mut self, toml: &str) -> Self {
        self.register.push_str(&format!("{toml}\n"));
        self
    }

    /// Register addresses besides the first.
    pub fn second_register(mut self, address: &str) -> Self {
        self.registers.push(address.to_owned());
        self
    }

    fn toml(&self, name: &str, registers: &[String], spool: &Path) -> String {
        format!(
            "[cluster]\nregister = {registers:?}\n[register]\n{}\n[gateway]\nname = \"{name}\"\n\
             shards = 2\n{}{}{}internal = {{ bind = \"127.0.0.1:0\" }}\n\
             stop = {{ ready_delay = \"{}\", drain = \"10s\" }}\n[gateway.limits]\n{}\n\
             [[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"127.0.0.1:0\"\n{}\n\
             [[apps]]\nid = \"default\"\nraw = true\n{}\n",
            self.register,
            if self.accept_one { "accept = \"one\"\n" } else { "" },
            if self.spooled { format!("spool = {spool:?}\n") } else { String::new() },
            self.gateway,
            self.ready_delay.unwrap_or("100ms"),
            self.limits,
            self.listener,
            self.more
        )
    }

    pub async fn start(self) -> Cluster {
        let permit = AT_ONCE.acquire().await.unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("broadgate-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut cluster = Cluster {
            dir,
            register: None,
            register_address: "127.0.0.1:0".to_owned(),
            gateways: Vec::new(),
            internal: Vec::new(),
            listeners: Vec::new(),
            proxies: Vec::new(),
            secret: self.secret.clone(),
            tls: None,
            fault: String::new(),
            settings: self,
            _permit: permit,
        };
        if cluster.settings.tls {
            cluster.tls = Some(Certificates::make(cluster.dir.join("certs")));
        }
        if !cluster.settings.fault.is_empty() {
            cluster.fault = format!("{}={}", cluster.settings.fault, cluster.fault_file().display());
        }
        cluster.start_register().await;
        for _ in 0..cluster.settings.gateways {
            cluster.add_gateway().await;
        }
        cluster.linked().await;
        cluster.ready().await;
        cluster.synced().await;
        cluster
    }
}

impl Cluster {
    pub fn of(gateways: usize) -> Settings {
        Settings { gateways, ..Settings::default() }
    }

    /// Clients without events.
    pub fn quiet(gateways: usize) -> Settings {
        Self::of(gateways).listener(NO_WORKER)
    }

    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    fn config(&self, name: &str) -> String {
        let mut registers = vec![self.register_address.clone()];
        registers.extend(self.settings.registers.iter().cloned());
        let path = self.dir.join(format!("{name}.toml"));
        std::fs::write(&path, self.settings.toml(name, &registers, &self.spool())).unwrap();
        path.display().to_string()
    }

    /// Starts the register, at its former address if it had one.
    pub async fn start_register(&mut self) {
        let config = self.config("register");
        let bind = format!("--bind={}", self.register_address);
        let args = ["register", "--config", &config, &bind];
        let mut environment = self.environment();
        environment.retain(|(name, _)| *name != "BROADGATE_FAULT" || self.settings.register_fault);
        let process = Process::start(&self.dir, "register", &args, &environment);
        if self.register_address.ends_with(":0") {
            self.register_address = process.logged("register address=").await;
        }
        self.register = Some(process);
    }

    /// Starts another gateway and waits until it is in the view.
    pub async fn add_gateway(&mut self) -> usize {
        let index = self.gateways.len();
        let name = format!("gateway-{}", index + 1);
        let config = self.config(&name);
        let mut args = vec!["gateway".to_owned(), "--config".to_owned(), config];
        let mut direct = None;
        if self.settings.proxied {
            let address = free_address();
            let proxy = Proxy::in_front_of(address).await;
            args.push(format!("--internal-bind={address}"));
            args.push(format!("--advertise={}", proxy.address));
            self.proxies.push(proxy);
            direct = Some(address.to_string());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let process = Process::start(&self.dir, &name, &args, &self.environment());
        self.gateways.push(process);
        let member = self.member(&name).await;
        self.listeners.push(listeners_of(&member));
        self.internal.push(direct.unwrap_or(member.address));
        index
    }

    /// Kills a gateway, and starts it again under its name when it is out of the view; without a proxy.
    pub async fn kill_and_start_again(&mut self, index: usize) {
        let name = format!("gateway-{}", index + 1);
        self.gateways[index].kill();
        until("the gateway is out of the view", async || {
            let view = self.view().await?;
            view.members.iter().all(|member| member.name != name).then_some(())
        })
        .await;
        self.start_gateway_again(index).await;
    }

    /// Stops a gateway in good order, and starts it again under its name; without a proxy.
    pub async fn restart_gateway(&mut self, index: usize) {
        self.gateways[index].signal("TERM");
        assert_eq!(self.gateways[index].ended().await.code(), Some(0));
        self.start_gateway_again(index).await;
    }

    pub async fn start_gateway_again(&mut self, index: usize) {
        let name = format!("gateway-{}", index + 1);
        let config = self.config(&name);
        let args = ["gateway", "--config", &config];
        self.gateways[index] = Process::start(&self.dir, &name, &args, &self.environment());
        let member = self.member(&name).await;
        self.listeners[index] = listeners_of(&member);
        self.internal[index] = member.address;
    }

    pub fn environment(&self) -> Vec<(&str, &str)> {
        let all = [
            ("BROADGATE_SECRET", &*self.secret),
            ("BROADGATE_FAULT", &*self.fault),
            ("BROADGATE_LOG", self.settings.log),
        ];
        let tls =
            self.tls.iter().flat_map(|tls| &tls.environment).map(|(name, value)| (*name, value.as_str()));
        all.into_iter().filter(|(_, value)| !value.is_empty()).chain(tls).collect()
    }

    /// What this process shows.
    pub fn credentials(&self) -> Credentials {
        let tls = self.tls.as_ref().map(|tls| tls.own.clone());
        Credentials { secret: Secret::parse(&self.secret).unwrap(), tls }
    }

    async fn channel(&self, address: &str) -> Option<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        broadgate_port::connect(endpoint, self.credentials().tls.as_ref()).await.ok()
    }

    fn fault_file(&self) -> PathBuf {
        self.dir.join("fault")
    }

    /// The fault that was set up happens now.
    pub fn strike(&self) {
        std::fs::write(self.fault_file(), "").unwrap();
    }

    fn sender(&self) -> SendSecret {
        Secret::parse(&self.secret).unwrap().sender()
    }

    async fn secret_caller(
        &self,
        gateway: usize,
    ) -> Option<GatewayClient<InterceptedService<Channel, SendSecret>>> {
        let channel = self.channel(&self.internal[gateway]).await?;
        Some(GatewayClient::with_interceptor(channel, self.sender()))
    }

    /// Spoils what one gateway dials to another.
    pub fn cut(&self, from: usize, to: usize, fault: Fault) {
        self.proxies[to].cut(self.gateways[from].id(), fault);
    }

    pub fn mend(&self, from: usize, to: usize) {
        self.proxies[to].mend(self.gateways[from].id());
    }

    async fn member(&self, name: &str) -> Member {
        until(&format!("{name} is in the view"), || async {
            let view = self.view().await?;
            view.members.into_iter().find(|member| member.name == name && !member.listeners.is_empty())
        })
        .await
    }

    pub async fn view(&self) -> Option<View> {
        let channel = self.channel(&self.register_address).await?;
        let mut client = RegisterClient::with_interceptor(channel, self.sender());
        let mut views = client.watch(WatchRequest::default()).await.ok()?.into_inner();
        views.message().await.ok()?
    }

    /// Waits until every gateway is linked to every other one.
    pub async fn linked(&self) {
        let count = self.gateways.len();
        if count == 0 {
            return;
        }
        until("all gateways are linked", || async {
            let status = self.status(0).await?;
            let linked = status.gateways.iter().filter(|gateway| gateway.peers.len() + 1 == count);
            (linked.count() == count).then_some(())
        })
        .await;
    }

    /// Waits until every gateway has a view in which all of them are ready: `/up` succeeds then.
    pub async fn ready(&self) {
        let count = self.gateways.len();
        until("all gateways are ready", || async {
            for gateway in 0..count {
                let view = self.status(gateway).await?.view?;
                let all = broadgate_proto::view::gateways(&view);
                let ready = all.filter(|gateway| gateway.state() == v1::MemberState::Ready);
                (ready.count() == count).then_some(())?;
            }
            Some(())
        })
        .await;
    }

    /// Waits until every gateway that answers knows what every other one holds.
    pub async fn synced(&self) {
        // Some of so many groups have their home at each gateway.
        let groups: Vec<String> = (0..100).map(|number| format!("nobody-{number}")).collect();
        let count = v1::CountRequest { groups, ..Default::default() };
        until("all gateways have synced", || async {
            for gateway in 0..self.gateways.len() {
                let mut caller = self.secret_caller(gateway).await?;
                let reply = caller.count(count.clone()).await.ok()?.into_inner();
                reply.coverage.filter(|coverage| coverage.complete)?;
            }
            Some(())
        })
        .await;
    }

    pub async fn status(&self, gateway: usize) -> Option<v1::StatusReply> {
        let mut caller = self.secret_caller(gateway).await?;
        Some(caller.status(v1::StatusRequest::default()).await.ok()?.into_inner())
    }

    pub async fn caller(&self, gateway: usize) -> Caller {
        self.caller_at(&self.internal[gateway]).await
    }

    pub async fn caller_at(&self, internal: &str) -> Caller {
        Caller::new(self.channel(internal).await.unwrap())
    }

    pub fn web(&self, gateway: usize) -> SocketAddr {
        self.listeners[gateway]["web"]
    }

    /// A raw WebSocket client, whose id is not asked for.
    pub async fn client_at(&self, gateway: usize) -> Client {
        Client::connect(&format!("ws://{}/ws", self.web(gateway))).await
    }

    /// A raw WebSocket client, with its id.
    pub async fn client(&self, gateway: usize) -> Client {
        self.client_of(gateway, "default").await
    }

    pub async fn client_of(&self, gateway: usize, app: &str) -> Client {
        let mut client = Client::connect(&format!("ws://{}/ws/{app}", self.web(gateway))).await;
        client.id = self.id_of(gateway, app, &client.local).await;
        client
    }

    /// The id of the client that has this address.
    pub async fn id_of(&self, gateway: usize, app: &str, local: &str) -> String {
        let mut caller = self.caller(gateway).await;
        let of = v1::Audience { app: app.to_owned(), ..all() };
        let fields = vec![v1::ClientField::Connection.into()];
        let list = v1::ListClientsRequest { of: Some(of), fields, limit: 1000, ..Default::default() };
        let name = &self.gateways[gateway].name;
        let found = until("the client is listed", || {
            let (mut caller, list) = (caller.clone(), list.clone());
            async move {
                let page = caller.list_clients(list).await.ok()?.into_inner();
                // Two connections to different gateways may have the same local port.
                page.clients.into_iter().find(|client| client.address == local && client.gateway == *name)
            }
        })
        .await;
        let _ = &mut caller;
        found.client_id
    }

    /// Everything about one client.
    pub async fn details(&self, gateway: usize, id: &str) -> v1::ClientInfo {
        let request = v1::GetClientRequest { client_id: id.to_owned(), ..Default::default() };
        self.caller(gateway).await.get_client(request).await.unwrap().into_inner().client.unwrap()
    }

    /// Waits until so many events of a client are unanswered: answers are on their way for a while.
    pub async fn unanswered(&self, gateway: usize, id: &str, count: u32) -> v1::ClientInfo {
        until(&format!("{count} events are unanswered"), async || {
            Some(self.details(gateway, id).await).filter(|info| info.events_unanswered == count)
        })
        .await
    }

    /// How many clients the cluster counts.
    pub async fn count(&self, gateway: usize) -> u64 {
        let reply = self.caller(gateway).await.count(v1::CountRequest::default()).await.unwrap().into_inner();
        reply.app.unwrap().clients
    }

    /// Runs an operator's command to its end: exit code, output, errors.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"))
            .args(args)
            .env("BROADGATE_ADDR", &self.internal[0])
            .env("BROADGATE_REGISTER", &self.register_address)
            .env_remove("BROADGATE_SECRET")
            .envs(self.environment())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.gateways.clear();
        self.register = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn listeners_of(member: &Member) -> HashMap<String, SocketAddr> {
    let listeners = member.listeners.iter();
    listeners.map(|(name, address)| (name.clone(), address.parse().unwrap())).collect()
}
