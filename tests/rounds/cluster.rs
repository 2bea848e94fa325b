//! The processes of a round: a register, gateways with proxies between them, and who watches views.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use broadgate_proto::v1::{Role, View, WatchRequest, register_client::RegisterClient};

use crate::{
    faults::Cut,
    ground::{Ground, Place},
    harness::{Fault as Spoilt, Process, Proxy, until},
    network::{self, Network},
    record::Views,
};

/// Faster than by default, so that a minute holds many faults.
const REGISTER: &str = "beat = \"500ms\"\nlease = \"3s\"";
const STOP: &str = "{ ready_delay = \"200ms\", drain = \"1s\" }";

pub struct Cluster {
    pub dir: PathBuf,
    pub ground: Arc<Ground>,
    register: SocketAddr,
    /// Members go through it.
    register_proxy: Option<Proxy>,
    register_process: Option<Process>,
    register_starts: u32,
    pub gateways: Vec<Gateway>,
    pub views: Arc<Mutex<Views>>,
    /// What ended as it should not have.
    pub errors: Vec<String>,
}

pub struct Gateway {
    pub process: Process,
    proxy: Option<Proxy>,
    place: Place,
    starts: u32,
}

impl Cluster {
    pub async fn start(ground: Arc<Ground>, dir: PathBuf, gateways: usize) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let register = ground.network.register_address();
        let mut cluster = Self {
            dir,
            register,
            register_proxy: ground.network.proxy(register).await,
            ground,
            register_process: None,
            register_starts: 0,
            gateways: Vec::new(),
            views: Arc::default(),
            errors: Vec::new(),
        };
        cluster.start_register();
        tokio::spawn(watch(cluster.register, Arc::clone(&cluster.views), Arc::clone(&cluster.ground)));
        for _ in 0..gateways {
            cluster.add_gateway().await;
        }
        let views = Arc::clone(&cluster.views);
        until("all gateways are in the view", async || {
            let views = views.lock().unwrap();
            views.0.last_key_value().is_some_and(|(_, members)| members.len() == gateways).then_some(())
        })
        .await;
        cluster
    }

    pub fn start_register(&mut self) {
        self.register_starts += 1;
        let name = format!("register-{}", self.register_starts);
        let toml = format!("[register]\nbind = \"{}\"\n{REGISTER}\n", self.register);
        let config = self.write(&name, &toml);
        let args = ["register", "--config", &config];
        self.register_process = Some(self.ground.network.start_register(&self.dir, &name, &args));
    }

    pub fn kill_register(&mut self) {
        self.register_process = None;
    }

    /// Starts one gateway more and waits until it takes commands.
    pub async fn add_gateway(&mut self) {
        let index = self.gateways.len();
        let gateway = self.launch(index, format!("gateway-{}", index + 1), None, 1).await;
        self.gateways.push(gateway);
        self.announce(index).await;
    }

    /// Starts a gateway again whose process has ended: at the same address and name, or as a fresh one.
    pub async fn start_again(&mut self, index: usize, fresh: bool) {
        let Gateway { place, starts, .. } = &self.gateways[index];
        let (name, kept, starts) = (place.name.clone(), place.clone(), *starts + 1);
        let gateway = if fresh {
            self.launch(index, format!("gateway-{}-{starts}", index + 1), None, starts).await
        } else {
            self.launch(index, name, Some(kept), starts).await
        };
        let old = std::mem::replace(&mut self.gateways[index], gateway);
        if !fresh {
            self.gateways[index].proxy = old.proxy;
        }
        self.announce(index).await;
    }

    async fn launch(&self, index: usize, name: String, kept: Option<Place>, starts: u32) -> Gateway {
        let network = &self.ground.network;
        let anywhere = || (network.address(index), network.address(index));
        let (internal, web) = kept.as_ref().map_or_else(anywhere, |place| (place.internal, place.web));
        // Where the former one's place is kept, its proxy is.
        let former = kept.and_then(|kept| self.gateways.iter().find(|gateway| gateway.place == kept));
        let proxy = if former.is_some() { None } else { network.proxy(internal).await };
        let front = former.map_or(&proxy, |gateway| &gateway.proxy);
        let advertised = front.as_ref().map_or(internal, |proxy| proxy.address);
        let toml = format!(
            "[cluster]\nregister = [\"{}\"]\n[gateway]\nname = \"{name}\"\nshards = 2\n\
             internal = {{ bind = \"{internal}\", advertise = \"{advertised}\" }}\nstop = {STOP}\n\
             [[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"{web}\"\nservice = \"\"\n\
             [[apps]]\nid = \"default\"\nraw = true\n",
            self.register_proxy.as_ref().map_or(self.register, |proxy| proxy.address)
        );
        let config = self.write(&name, &toml);
        let args = ["gateway", "--config", &config];
        let process = network.start_gateway(index, &self.dir, &name, &args);
        let place = Place { name, pid: process.id(), internal, web, down: true };
        Gateway { process, proxy, place, starts }
    }

    /// Spoils what one gateway dials to another.
    pub fn cut(&self, from: usize, to: usize, how: Cut) {
        let pid = self.gateways[from].process.id();
        match &self.gateways[to].proxy {
            Some(proxy) => proxy.cut(pid, network::spoilt(how)),
            None => self.ground.network.lose(from, to, how, true),
        }
    }

    pub fn mend(&self, from: usize, to: usize, how: Cut) {
        let pid = self.gateways[from].process.id();
        match &self.gateways[to].proxy {
            Some(proxy) => proxy.mend(pid),
            None => self.ground.network.lose(from, to, how, false),
        }
    }

    pub fn cut_from_register(&self, gateway: usize, cut: bool) {
        let pid = self.gateways[gateway].process.id();
        match (&self.register_proxy, &self.ground.network) {
            (Some(proxy), _) if cut => proxy.cut(pid, Spoilt::Blackhole),
            (Some(proxy), _) => proxy.mend(pid),
            (None, Network::Namespaces(prefix)) => network::lose_host(prefix, gateway, cut),
            (None, Network::Loopback) => {}
        }
    }

    /// The other members learn of it, and then that it is up.
    async fn announce(&self, index: usize) {
        let place = self.gateways[index].place.clone();
        let internal = place.internal;
        self.ground.set(index, place);
        until("the gateway listens", async || tokio::net::TcpStream::connect(internal).await.ok()).await;
        self.ground.set_down(index, false);
    }

    fn write(&self, name: &str, toml: &str) -> String {
        let path = self.dir.join(format!("{name}.toml"));
        std::fs::write(&path, toml).unwrap();
        path.display().to_string()
    }

    /// Nobody has ended who was not meant to.
    pub fn check_processes(&mut self) {
        for gateway in &mut self.gateways {
            if let Some(status) = gateway.process.has_ended() {
                self.errors.push(format!("{} has ended: {status}", gateway.place.name));
            }
        }
        if let Some(status) = self.register_process.as_mut().and_then(Process::has_ended) {
            self.errors.push(format!("the register has ended: {status}"));
        }
    }
}

/// Hears every view, from whichever register process there is.
async fn watch(register: SocketAddr, views: Arc<Mutex<Views>>, ground: Arc<Ground>) {
    let heard = async || -> Option<()> {
        let mut client = RegisterClient::connect(format!("http://{register}")).await.ok()?;
        let mut stream = client.watch(ground.request(WatchRequest::default())).await.ok()?.into_inner();
        while let Some(View { epoch, members, .. }) = stream.message().await.ok()? {
            let epoch = epoch.unwrap_or_default();
            let gateways = members.into_iter().filter(|member| member.role() == Role::Gateway);
            let gateways = gateways.map(|member| member.incarnation).collect();
            views.lock().unwrap().heard((epoch.term, epoch.count), gateways);
        }
        None
    };
    while !ground.over.is_cancelled() {
        heard().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
