//! Registers over an etcd, gateways and workers, and traffic that must be answered completely throughout.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use broadgate_business::cluster::{Audience, Cluster as Sdk, ClusterConfig};
use broadgate_proto::v1::{View, WatchRequest, register_client::RegisterClient};
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use crate::{
    engine::Etcd,
    harness::{Client, Process, free_address, until},
};

/// A term's count, and before it the term.
type Epoch = (u64, u64);

pub struct Cluster {
    pub dir: PathBuf,
    pub registers: Vec<Option<Process>>,
    pub addresses: Vec<SocketAddr>,
    metrics: Vec<SocketAddr>,
    register_toml: Vec<String>,
    pub gateways: Vec<Process>,
    workers: Vec<Process>,
    internal: Vec<SocketAddr>,
    clients: Vec<JoinHandle<()>>,
    views: Arc<Mutex<BTreeMap<Epoch, View>>>,
    watchers: Vec<JoinHandle<()>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    traffic: Option<JoinHandle<Vec<String>>>,
    starts: u32,
}

/// Groups that are sent to: some have their home at each gateway.
const GROUPS: u64 = 20;

impl Cluster {
    /// Starts the first ones of the registers with these settings, gateways with one client each, and a worker.
    pub async fn start(dir: &Path, registers: &[String], running: usize, gateways: usize) -> Self {
        let addresses: Vec<_> = registers.iter().map(|_| free_address()).collect();
        let views: Arc<Mutex<BTreeMap<Epoch, View>>> = Arc::default();
        let watchers = addresses.iter().map(|address| tokio::spawn(watch(*address, Arc::clone(&views))));
        let mut cluster = Self {
            dir: dir.to_owned(),
            registers: registers.iter().map(|_| None).collect(),
            watchers: watchers.collect(),
            metrics: registers.iter().map(|_| free_address()).collect(),
            addresses,
            register_toml: registers.to_vec(),
            gateways: Vec::new(),
            workers: Vec::new(),
            internal: Vec::new(),
            clients: Vec::new(),
            views,
            sent: Arc::default(),
            stop: Arc::default(),
            traffic: None,
            starts: 0,
        };
        for index in 0..running {
            cluster.start_register(index);
        }
        let worker = cluster.worker("echo");
        cluster.workers.push(worker);
        for _ in 0..gateways {
            cluster.add_gateway().await;
        }
        cluster.members(gateways + 1).await;
        cluster
    }

    fn registers_flag(&self) -> String {
        let all: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        format!("--register={}", all.join(","))
    }

    fn worker(&self, name: &str) -> Process {
        let args = ["worker", "echo", &format!("--name={name}"), &self.registers_flag()];
        Process::start(&self.dir, name, &args, &[])
    }

    /// Changes the list: a worker comes and goes.
    pub async fn change_the_list(&self) {
        let name = format!("passing-{}", self.newest().1);
        let mut worker = self.worker(&name);
        let is_there = || {
            let views = self.views.lock().unwrap();
            views
                .last_key_value()
                .is_some_and(|(_, view)| view.members.iter().any(|member| member.name == name))
        };
        until("a worker joins", async || is_there().then_some(())).await;
        worker.signal("TERM");
        assert_eq!(worker.ended().await.code(), Some(0));
        until("a worker leaves", async || (!is_there()).then_some(())).await;
    }

    pub fn start_register(&mut self, index: usize) {
        let name = format!("register-{}", index + 1);
        let config = self.dir.join(format!("{name}.toml"));
        let toml = format!("[register]\nbind = \"{}\"\n{}", self.addresses[index], self.register_toml[index]);
        std::fs::write(&config, toml).unwrap();
        let metrics = format!("--metrics-bind={}", self.metrics[index]);
        let args = ["register", "--config", config.to_str().unwrap(), &metrics];
        self.registers[index] = Some(Process::start(&self.dir, &name, &args, &[]));
    }

    /// The largest value of a metric at the registers that run, as an alert sees it.
    pub async fn metric_of_registers(&self, name: &str) -> Option<f64> {
        let mut values = Vec::new();
        for index in (0..self.registers.len()).filter(|index| self.registers[*index].is_some()) {
            let text = scrape(self.metrics[index]).await.ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            values.push(line.trim().parse().ok()?);
        }
        values.into_iter().reduce(f64::max)
    }

    /// Starts a register again with other settings.
    pub fn change_register(&mut self, index: usize, toml: &str) {
        toml.clone_into(&mut self.register_toml[index]);
        self.start_register(index);
    }

    pub async fn stop_register(&mut self, index: usize) {
        let mut register = self.registers[index].take().unwrap();
        register.signal("TERM");
        assert_eq!(register.ended().await.code(), Some(0));
    }

    /// Starts one more gateway, with a client; returns when it is ready.
    pub async fn add_gateway(&mut self) {
        let url = self.start_gateway();
        self.gateway_takes_clients(&url).await;
    }

    /// Starts one more gateway; returns where its clients connect.
    pub fn start_gateway(&mut self) -> String {
        self.starts += 1;
        let name = format!("gateway-{}", self.starts);
        let (internal, web) = (free_address(), free_address());
        let bind = [format!("--internal-bind={internal}"), format!("--client-bind={web}")];
        let flags = [format!("--name={name}"), self.registers_flag()];
        let args = ["gateway", &bind[0], &bind[1], &flags[0], &flags[1], "--raw-app=default"];
        self.gateways.push(Process::start(&self.dir, &name, &args, &[]));
        self.internal.push(internal);
        format!("ws://{web}/ws")
    }

    /// Waits until the gateway that was started last is ready, and connects a client.
    pub async fn gateway_takes_clients(&mut self, url: &str) {
        let name = format!("gateway-{}", self.starts);
        let mut client = until(&format!("{name} takes clients"), async || {
            self.gateways_ready().contains(&name).then_some(())?;
            Client::try_connect(url, &[]).await.ok()
        })
        .await;
        self.clients.push(tokio::spawn(async move { while let Some(Ok(_)) = client.socket.next().await {} }));
    }

    /// The gateways that are ready in the newest view.
    fn gateways_ready(&self) -> Vec<String> {
        let views = self.views.lock().unwrap();
        let Some((_, view)) = views.last_key_value() else { return Vec::new() };
        broadgate_proto::view::ready_gateways(view).map(|member| member.name.clone()).collect()
    }

    /// Waits for a view of so many members.
    pub async fn members(&self, count: usize) {
        until(&format!("{count} members are in the view"), async || {
            let views = self.views.lock().unwrap();
            views.last_key_value().filter(|(_, view)| view.members.len() == count).map(drop)
        })
        .await;
    }

    pub fn newest(&self) -> Epoch {
        self.views.lock().unwrap().last_key_value().map(|(epoch, _)| *epoch).unwrap_or_default()
    }

    /// Waits for a register that leads under a later term than this.
    pub async fn leads_after(&self, term: u64) -> usize {
        until("another register leads", async || {
            if self.newest().0 <= term {
                return None;
            }
            self.leader().await
        })
        .await
    }

    /// The register that answers.
    pub async fn leader(&self) -> Option<usize> {
        for (index, address) in self.addresses.iter().enumerate() {
            let asked = tokio::time::timeout(Duration::from_secs(1), newest(*address)).await;
            if matches!(asked, Ok(Some(_))) {
                return Some(index);
            }
        }
        None
    }

    /// What `broadgate status` prints.
    pub fn status(&self) -> String {
        let addr = format!("--addr={}", self.internal[0]);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"))
            .args(["status", &addr])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `broadgate drain`, to its end, with the address of this register alone.
    pub fn drain(&self, gateway: &str, register: usize) {
        let register = format!("--register={}", self.addresses[register]);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"))
            .args(["drain", gateway, "--wait", &register])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Begins to send, through every gateway's members.
    pub async fn begin_traffic(&mut self) {
        let registers = self.addresses.iter().map(ToString::to_string).collect();
        let sdk = Sdk::connect(ClusterConfig { registers, ..ClusterConfig::default() }).await.unwrap();
        // Gateways that have just joined link and sync first.
        until("answers are complete", async || {
            for number in 0..GROUPS {
                let receipt = sdk.send(Audience::group(format!("room-{number}")), "first").await.ok()?;
                receipt.coverage.clone().filter(|coverage| coverage.complete)?;
            }
            let receipt = sdk.send(Audience::all(), "first").await.ok()?;
            receipt.coverage.clone().filter(|coverage| coverage.complete).map(drop)
        })
        .await;
        let (sent, stop, least) = (Arc::clone(&self.sent), Arc::clone(&self.stop), self.clients.len() as u64);
        self.traffic = Some(tokio::spawn(send(sdk, sent, stop, least)));
        self.goes_on().await;
    }

    /// Waits until more has been sent than now.
    pub async fn goes_on(&self) {
        let before = self.sent.load(Ordering::Relaxed);
        until("more is sent", async || (self.sent.load(Ordering::Relaxed) > before + GROUPS).then_some(()))
            .await;
    }

    /// Ends the traffic; everything that was sent was answered completely.
    pub async fn end_traffic(&mut self) {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        let troubles = self.traffic.take().unwrap().await.unwrap();
        let sent = self.sent.load(Ordering::Relaxed);
        println!("  sent {sent}, troubles {}", troubles.len());
        assert!(
            troubles.is_empty(),
            "{} of {sent}: {:?}",
            troubles.len(),
            &troubles[..troubles.len().min(5)]
        );
    }

    /// The members of the newest view.
    pub fn living(&self) -> BTreeSet<String> {
        let views = self.views.lock().unwrap();
        let members = views.last_key_value().map(|(_, view)| view.members.clone()).unwrap_or_default();
        members.into_iter().map(|member| member.incarnation).collect()
    }

    /// The views that were shown form one chain, as far as the ledger still has them, and since this epoch
    /// nobody of these was without a place in one.
    pub fn check_views(&self, ledger: &[View], since: Epoch, living: &BTreeSet<String>) {
        let shown = self.views.lock().unwrap();
        let of = |epoch: Option<broadgate_proto::v1::Epoch>| epoch.map(|epoch| (epoch.term, epoch.count));
        for pair in ledger.windows(2) {
            assert_eq!(pair[1].before, pair[0].epoch, "the ledger's views are no chain");
        }
        let kept: BTreeMap<Epoch, &View> =
            ledger.iter().map(|view| (of(view.epoch).unwrap(), view)).collect();
        let first = *kept.first_key_value().expect("the ledger has views").0;
        for (epoch, view) in shown.iter() {
            if *epoch >= first {
                let same = kept.get(epoch).is_some_and(|kept| *kept == view);
                assert!(same, "view {epoch:?} was shown, and the ledger has not got it");
            }
            let there: BTreeSet<_> = view.members.iter().map(|member| member.incarnation.clone()).collect();
            assert!(*epoch < since || living.is_subset(&there), "view {epoch:?} lacks one that beats");
        }
        println!("  {} views shown, {} in the ledger", shown.len(), ledger.len());
    }

    /// Nobody has ended who was not meant to.
    pub fn check_processes(&mut self) {
        for process in
            self.gateways.iter_mut().chain(&mut self.workers).chain(self.registers.iter_mut().flatten())
        {
            let ended = process.has_ended();
            assert!(ended.is_none(), "{} has ended: {ended:?}", process.name);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in self.watchers.iter().chain(&self.clients) {
            task.abort();
        }
    }
}

/// The views that the ledger has, in order.
pub fn ledger(etcd: &Etcd) -> Vec<View> {
    let text = etcd.told(&["get", "--prefix", "broadgate/views/", "-w", "json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let decode = |stored: &serde_json::Value| {
        let bytes = data_encoding::BASE64.decode(stored["value"].as_str().unwrap().as_bytes()).unwrap();
        prost::Message::decode(&bytes[..]).unwrap()
    };
    json["kvs"].as_array().map(|stored| stored.iter().map(decode).collect()).unwrap_or_default()
}

async fn send(sdk: Sdk, sent: Arc<AtomicU64>, stop: Arc<AtomicBool>, clients_min: u64) -> Vec<String> {
    let mut troubles = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        let (to, least) = match number % 4 {
            0 => (Audience::all(), clients_min),
            _ => (Audience::group(format!("room-{}", number % GROUPS)), 0),
        };
        match sdk.send(to, "news").await {
            Ok(receipt) => {
                let coverage = receipt.coverage.clone().unwrap_or_default();
                if !coverage.complete {
                    troubles.push(format!("{number}: missing {:?}", coverage.missing));
                } else if receipt.clients < least {
                    troubles.push(format!("{number}: only {} clients of {least}", receipt.clients));
                }
            }
            Err(error) => troubles.push(format!("{number}: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    troubles
}

async fn scrape(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// The newest view of a register that leads.
async fn newest(register: SocketAddr) -> Option<View> {
    let mut client = RegisterClient::connect(format!("http://{register}")).await.ok()?;
    client.watch(WatchRequest::default()).await.ok()?.into_inner().message().await.ok()?
}

/// Hears every view that a register shows.
async fn watch(register: SocketAddr, views: Arc<Mutex<BTreeMap<Epoch, View>>>) {
    let heard = async || -> Option<()> {
        let mut client = RegisterClient::connect(format!("http://{register}")).await.ok()?;
        let mut stream = client.watch(WatchRequest::default()).await.ok()?.into_inner();
        while let Some(view) = stream.message().await.ok()? {
            let epoch = view.epoch.unwrap_or_default();
            if epoch.term > 0 {
                let mut views = views.lock().unwrap();
                let other = views.insert((epoch.term, epoch.count), view.clone());
                assert!(other.is_none_or(|other| other == view), "two views have the number {epoch}");
            }
        }
        None
    };
    loop {
        heard().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
