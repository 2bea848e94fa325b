//! What the runbook tells an operator to do, done as it says, under traffic: nothing is incomplete.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use broadgate_business::cluster::{Audience as To, Cluster as Sdk, ClusterConfig};
use broadgate_proto::secret::Secret;
use tokio::task::JoinHandle;

use crate::harness::*;

const OLD: &str = "old-secret-0123456789abcdef0123456789";
const NEW: &str = "new-secret-0123456789abcdef0123456789";

/// Groups that are sent to: some have their home at each gateway.
const GROUPS: u64 = 20;

/// A program that sends to groups all the time, and expects every answer to be complete.
struct Traffic {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<String>>,
}

impl Traffic {
    /// Knows all registers that are given.
    async fn start(registers: &[String], secret: &str) -> Self {
        let secret = Secret::parse(secret).unwrap();
        let config = ClusterConfig { registers: registers.to_vec(), secret, ..ClusterConfig::default() };
        let sdk = Sdk::connect(config).await.unwrap();
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(send(sdk, Arc::clone(&sent), Arc::clone(&stop)));
        let traffic = Self { sent, stop, task };
        traffic.goes_on().await;
        traffic
    }

    /// Waits until more has been sent than now.
    async fn goes_on(&self) {
        let before = self.sent.load(Ordering::Relaxed);
        until("more is sent", async || (self.sent.load(Ordering::Relaxed) > before + GROUPS).then_some(()))
            .await;
    }

    async fn end(self) {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        let troubles = self.task.await.unwrap();
        let sent = self.sent.load(Ordering::Relaxed);
        println!("sent {sent}, troubles {}", troubles.len());
        assert!(
            troubles.is_empty(),
            "{} of {sent}: {:?}",
            troubles.len(),
            &troubles[..troubles.len().min(5)]
        );
    }
}

async fn send(sdk: Sdk, sent: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut troubles = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        match sdk.send(To::group(format!("room-{}", number % GROUPS)), "news").await {
            Ok(receipt) => {
                let coverage = receipt.coverage.clone().unwrap_or_default();
                if !coverage.complete {
                    troubles.push(format!("{number}: missing {:?}", coverage.missing));
                }
            }
            Err(error) => troubles.push(format!("{number}: {error}")),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    troubles
}

fn echo(cluster: &Cluster, name: &str) -> Process {
    let register = format!("--register={}", cluster.register_address);
    let args = ["worker", "echo", &register, &format!("--name={name}")];
    Process::start(&cluster.dir, name, &args, &cluster.environment())
}

async fn attached(cluster: &Cluster, names: &[&str]) {
    until(&format!("{names:?} are attached"), async || {
        let mut workers = cluster.status(0).await?.workers;
        workers.retain(|worker| worker.gateways as usize == cluster.gateways.len());
        let mut attached: Vec<_> = workers.iter().map(|worker| worker.name.as_str()).collect();
        attached.sort_unstable();
        (attached == names).then_some(())
    })
    .await;
}

async fn restart_register(cluster: &mut Cluster) {
    let mut register = cluster.register.take().unwrap();
    register.signal("TERM");
    register.ended().await;
    drop(register);
    cluster.start_register().await;
    let count = cluster.gateways.len();
    until("all gateways are at the new register", async || {
        let view = cluster.view().await?;
        (view.members.iter().filter(|member| !member.address.is_empty()).count() == count).then_some(())
    })
    .await;
}

async fn restart_worker(cluster: &Cluster, worker: &mut Process, name: &str) {
    worker.signal("TERM");
    assert_eq!(worker.ended().await.code(), Some(0));
    *worker = echo(cluster, name);
}

/// "Change the secret": in whatever order processes are restarted, those that share any secret work together.
#[tokio::test]
async fn secret_is_changed_under_traffic_and_nothing_is_incomplete() {
    let mut cluster = Cluster::of(3).secret(OLD).start().await;
    let (mut one, mut two) = (echo(&cluster, "one"), echo(&cluster, "two"));
    attached(&cluster, &["one", "two"]).await;
    let registers = [cluster.register_address.clone()];
    let both = format!("{NEW} {OLD}");
    // Programs that command the cluster are processes, too: restarted first, or last.
    let traffic = Traffic::start(&registers, &both).await;
    let with_old = Traffic::start(&registers, OLD).await;
    cluster.secret.clone_from(&both);
    for gateway in 0..3 {
        cluster.restart_gateway(gateway).await;
        cluster.linked().await;
        cluster.synced().await;
        traffic.goes_on().await;
    }
    restart_worker(&cluster, &mut one, "one").await;
    restart_register(&mut cluster).await;
    restart_worker(&cluster, &mut two, "two").await;
    attached(&cluster, &["one", "two"]).await;
    with_old.end().await;
    // From here on only the new one, and the register first.
    cluster.secret = NEW.to_owned();
    restart_register(&mut cluster).await;
    let with_new = Traffic::start(&registers, NEW).await;
    for gateway in [2, 0, 1] {
        cluster.restart_gateway(gateway).await;
        cluster.linked().await;
        cluster.synced().await;
    }
    restart_worker(&cluster, &mut two, "two").await;
    restart_worker(&cluster, &mut one, "one").await;
    attached(&cluster, &["one", "two"]).await;
    let mut client = cluster.client_at(1).await;
    client.say("hello").await;
    client.hears(&["hello"]).await;
    with_new.end().await;
    traffic.end().await;
    // The old one is worth nothing now.
    let secret = Secret::parse(OLD).unwrap();
    let late = Sdk::to_gateway(&cluster.internal[0], secret, "", std::time::Duration::from_secs(5)).unwrap();
    assert!(late.send(To::group("room-1"), "late").await.is_err());
}

/// "Move the register": members know both addresses, the old one is stopped, then the new one is started.
#[tokio::test]
async fn register_is_updated_and_moved_under_traffic_and_nothing_is_incomplete() {
    let new = free_address();
    let mut cluster = Cluster::quiet(3).second_register(&new.to_string()).start().await;
    let registers = [cluster.register_address.clone(), new.to_string()];
    let traffic = Traffic::start(&registers, "").await;
    // "Update the register".
    restart_register(&mut cluster).await;
    traffic.goes_on().await;
    cluster.register = None;
    traffic.goes_on().await;
    cluster.register_address = new.to_string();
    cluster.start_register().await;
    until("all gateways are at the new address", async || {
        (cluster.view().await?.members.len() == 3).then_some(())
    })
    .await;
    // "Add a gateway", and "Take a gateway away".
    let added = cluster.add_gateway().await;
    cluster.linked().await;
    traffic.goes_on().await;
    let name = cluster.gateways[added].name.clone();
    let (code, _, problem) = cluster.run(&["drain", &name]);
    assert_eq!((code, problem.as_str()), (0, ""));
    assert_eq!(cluster.gateways[added].ended().await.code(), Some(0));
    traffic.end().await;
}
