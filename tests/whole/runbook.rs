//! What the runbook tells an operator to do, done as it says, under traffic: nothing is incomplete.
//!
//! Each procedure of `deploy/RUNBOOK.md` has its test; `documents.rs` checks that.
//!
//! | procedure | test |
//! |---|---|
//! | Add a gateway | `gateways_are_added_updated_and_removed_under_traffic` |
//! | Take a gateway away | `gateways_are_added_updated_and_removed_under_traffic` |
//! | Update gateways | `gateways_are_added_updated_and_removed_under_traffic` |
//! | Update workers | `workers_are_updated_under_traffic_and_no_client_notices` |
//! | Update the register | `register_is_updated_and_moved_under_traffic_and_nothing_is_incomplete` |
//! | Move the register | `register_is_updated_and_moved_under_traffic_and_nothing_is_incomplete` |
//! | Change the secret | `secret_is_changed_under_traffic_and_nothing_is_incomplete` |
//! | Replace a certificate | `certificates_and_their_ca_are_changed_under_traffic_and_nothing_is_incomplete` |
//! | Change the CA | `certificates_and_their_ca_are_changed_under_traffic_and_nothing_is_incomplete` |
//! | Add or change an app | `app_is_added_and_changed_under_traffic_and_no_other_client_notices` |
//! | Change an app's key | `key_of_an_app_is_changed_and_no_publish_is_lost` |

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use broadgate_business::cluster::{Audience as To, Cluster as Sdk, ClusterConfig};
use broadgate_proto::secret::Secret;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    apps::{replace, run, told},
    backends::call_with,
    handover::converse,
    harness::*,
    pusher::{APPS, Key, Pusher, SHOP_KEY},
};

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
        Self::start_with(ClusterConfig { registers: registers.to_vec(), secret, ..ClusterConfig::default() })
            .await
    }

    async fn start_with(config: ClusterConfig) -> Self {
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

/// "Replace a certificate" and "Change the CA": processes read their files again, links live on, and every
/// handshake on the way succeeds.
#[tokio::test]
async fn certificates_and_their_ca_are_changed_under_traffic_and_nothing_is_incomplete() {
    let cluster = Cluster::of(3).tls().start().await;
    let worker = echo(&cluster, "one");
    attached(&cluster, &["one"]).await;
    let dir = cluster.tls.as_ref().unwrap().dir.clone();
    let config = || ClusterConfig {
        registers: vec![cluster.register_address.clone()],
        tls: cluster.credentials().tls,
        ..ClusterConfig::default()
    };
    let traffic = Traffic::start_with(config()).await;
    let processes: Vec<&Process> =
        cluster.gateways.iter().chain(&cluster.register).chain([&worker]).collect();
    let reads = || -> Vec<usize> {
        processes.iter().map(|process| process.log().matches("certificates read again").count()).collect()
    };
    // Every process has read again what was written.
    let changed = async |change: &dyn Fn()| {
        let before = reads();
        change();
        until("every process has read its certificates again", async || {
            reads().iter().zip(&before).all(|(now, before)| now > before).then_some(())
        })
        .await;
        // New connections are made with what is new.
        Traffic::start_with(config()).await.end().await;
        cluster.run(&["status"]);
        assert_eq!(cluster.run(&["status"]).0, 0);
        traffic.goes_on().await;
    };
    let folder = dir.display().to_string();
    let pairs = |ca: &std::path::Path, names: &[&str]| {
        for name in names {
            for kind in ["pem", "key"] {
                let _ = std::fs::remove_file(ca.join(format!("{name}.{kind}")));
            }
            certs(&["pair", name, "--dir", &ca.display().to_string()]);
            for kind in ["key", "pem"] {
                if ca != dir {
                    let file = format!("{name}.{kind}");
                    replace(&dir.join(&file), &std::fs::read_to_string(ca.join(&file)).unwrap());
                }
            }
        }
    };
    // "Replace a certificate": `broadgate certs` makes another pair in the place of the former.
    changed(&|| pairs(&dir, &["node", "test"])).await;
    // "Change the CA": both are trusted, then each process shows a certificate of the new one, then the old
    // one is trusted no more.
    let new = cluster.dir.join("new-certs");
    certs(&["ca", "--dir", &new.display().to_string()]);
    let (old_ca, new_ca) =
        [&dir, &new].map(|dir| std::fs::read_to_string(dir.join("ca.pem")).unwrap()).into();
    std::fs::write(cluster.dir.join("old-ca.pem"), &old_ca).unwrap();
    certs(&["pair", "old", "--dir", &folder]);
    changed(&|| replace(&dir.join("ca.pem"), &(new_ca.clone() + &old_ca))).await;
    let old = Certificates::of(&dir, "old").unwrap();
    changed(&|| pairs(&new, &["node", "test"])).await;
    changed(&|| replace(&dir.join("ca.pem"), &new_ca)).await;
    let mut client = cluster.client_at(1).await;
    client.say("hello").await;
    client.hears(&["hello"]).await;
    traffic.end().await;
    // The old one is worth nothing now.
    let late = Sdk::to_gateway(
        &cluster.internal[0],
        broadgate_tls::Credentials { tls: Some(old), ..Default::default() },
        "",
        std::time::Duration::from_secs(5),
    );
    assert!(late.unwrap().send(To::group("room-1"), "late").await.is_err());
    until("the gateway says why", async || {
        cluster.gateways[0].log().contains("refused reason=\"tls_unknown_ca\"").then_some(())
    })
    .await;
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

/// Where clients may connect, as a load balancer knows it.
type Open = Arc<Mutex<Vec<SocketAddr>>>;

/// A client that says numbers and hears each back. When its gateway lets it go with *come back*, it comes back
/// at another one and says again what was not answered. Returns how often it had to.
async fn stay(open: Open, number: usize, stop: watch::Receiver<bool>) -> u32 {
    let (mut said, mut times) = (0_u32, 0);
    loop {
        let web = until("a gateway is open", async || {
            let open = open.lock().unwrap();
            open.get(number % open.len().max(1)).copied()
        })
        .await;
        // What is closed just now is taken off the balancer's list a moment later.
        let Ok(mut client) = Client::try_connect(&format!("ws://{web}/ws"), &[]).await else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        loop {
            if *stop.borrow() {
                return times;
            }
            // A close that is under way is read below.
            let _ = futures_util::SinkExt::send(&mut client.socket, Message::text(said.to_string())).await;
            match soon("an echo or a close", client.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    assert_eq!(text.as_str(), said.to_string(), "neither lost, nor twice");
                    said += 1;
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    assert_eq!(u16::from(frame.code), 1012, "come back");
                    break;
                }
                Some(Ok(_)) => {}
                other => panic!("client {number} was closed without a reason: {other:?}"),
            }
        }
        times += 1;
    }
}

/// "Add a gateway", "Update gateways" and "Take a gateway away".
#[tokio::test]
async fn gateways_are_added_updated_and_removed_under_traffic() {
    let mut cluster = Cluster::of(2).start().await;
    let _workers = (echo(&cluster, "one"), echo(&cluster, "two"));
    attached(&cluster, &["one", "two"]).await;
    let registers = [cluster.register_address.clone()];
    let traffic = Traffic::start(&registers, "").await;
    let open: Open = Arc::new(Mutex::new((0..2).map(|gateway| cluster.web(gateway)).collect()));
    let (stop, stopped) = watch::channel(false);
    let clients: Vec<_> =
        (0..12).map(|number| tokio::spawn(stay(Arc::clone(&open), number, stopped.clone()))).collect();
    let added = cluster.add_gateway().await;
    is_up(&cluster, added).await;
    open.lock().unwrap().push(cluster.web(added));
    attached(&cluster, &["one", "two"]).await;
    for gateway in 0..2 {
        let web = cluster.web(gateway);
        open.lock().unwrap().retain(|one| *one != web);
        let name = cluster.gateways[gateway].name.clone();
        let address = cluster.internal[added].clone();
        may_leave(&cluster, &name, &address).await;
        let (code, out, problem) = cluster.run(&["drain", &name, "--addr", &address, "--wait"]);
        assert!(code == 0 && out.contains("has left"), "{out}{problem}");
        assert_eq!(cluster.gateways[gateway].ended().await.code(), Some(0));
        cluster.start_gateway_again(gateway).await;
        is_up(&cluster, gateway).await;
        open.lock().unwrap().push(cluster.web(gateway));
        attached(&cluster, &["one", "two"]).await;
        traffic.goes_on().await;
    }
    let web = cluster.web(added);
    open.lock().unwrap().retain(|one| *one != web);
    may_leave(&cluster, &cluster.gateways[added].name, &cluster.internal[0]).await;
    cluster.gateways[added].signal("TERM");
    assert_eq!(cluster.gateways[added].ended().await.code(), Some(0));
    traffic.goes_on().await;
    stop.send(true).unwrap();
    let mut times = 0;
    for client in clients {
        times += soon("every client has its answers", client).await.unwrap();
    }
    assert!(times >= 12, "each was at one of the gateways that were stopped: {times}");
    traffic.end().await;
}

/// What an operator asks before a gateway is stopped; another one answers.
async fn may_leave(cluster: &Cluster, name: &str, address: &str) {
    until("the gateway may leave", async || {
        let (code, out, _) = cluster.run(&["drain", name, "--addr", address, "--check"]);
        println!("{out}");
        (code == 0).then_some(())
    })
    .await;
}

/// What a load balancer asks: 200 on the client port.
async fn is_up(cluster: &Cluster, gateway: usize) {
    let web = cluster.web(gateway);
    until("/up answers 200", async || {
        let mut stream = tokio::net::TcpStream::connect(web).await.ok()?;
        stream.write_all(b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

/// "Update workers": the new one is started, then the old one is stopped.
#[tokio::test]
async fn workers_are_updated_under_traffic_and_no_client_notices() {
    let cluster = Cluster::of(2).start().await;
    let mut old = [echo(&cluster, "one"), echo(&cluster, "two")];
    attached(&cluster, &["one", "two"]).await;
    let registers = [cluster.register_address.clone()];
    let traffic = Traffic::start(&registers, "").await;
    let (stop, stopped) = watch::channel(false);
    let mut talking = Vec::new();
    for number in 0..12 {
        talking.push(tokio::spawn(converse(cluster.client(number % 2).await, stopped.clone())));
    }
    let mut new = Vec::new();
    for (worker, after) in old.iter_mut().zip([["one", "three", "two"], ["four", "three", "two"]]) {
        let name = if after[0] == "one" { "three" } else { "four" };
        new.push(echo(&cluster, name));
        attached(&cluster, &after).await;
        worker.signal("TERM");
        assert_eq!(worker.ended().await.code(), Some(0));
        let rest: Vec<_> = after.into_iter().filter(|name| *name != worker.name).collect();
        attached(&cluster, &rest).await;
        traffic.goes_on().await;
    }
    stop.send(true).unwrap();
    for talk in talking {
        assert!(soon("every echo comes", talk).await.unwrap() > 8);
    }
    traffic.end().await;
}

/// "Add or change an app": a file for every gateway, which they read by themselves.
#[tokio::test]
async fn app_is_added_and_changed_under_traffic_and_no_other_client_notices() {
    let cluster = Cluster::quiet(2).start().await;
    let registers = [cluster.register_address.clone()];
    let traffic = Traffic::start(&registers, "").await;
    let mut others = [cluster.client(0).await, cluster.client(1).await];
    let (code, made, _) = run(&["apps", "new", "shop"]);
    assert_eq!(code, 0, "{made}");
    let key = made.split("key = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let files: Vec<_> = (1..=2)
        .map(|number| {
            let (config, apps) =
                (format!("gateway-{number}.toml"), cluster.dir.join(format!("apps-{number}.toml")));
            let config = cluster.dir.join(config);
            replace(&apps, &made);
            let (config_name, apps_name) = (config.display().to_string(), apps.display().to_string());
            let (code, table, _) = run(&["apps", "--config", &config_name, "--apps", &apps_name]);
            assert!(code == 0 && table.contains("shop") && table.contains("default"), "{table}");
            let plain = std::fs::read_to_string(&config).unwrap();
            replace(&config, &format!("apps_file = {apps_name:?}\n{plain}"));
            apps
        })
        .collect();
    let mut shop = Vec::new();
    for (gateway, process) in cluster.gateways.iter().enumerate() {
        let line = told(process, 0).await;
        assert!(line.ends_with("apps read again: added shop"), "{line}");
        shop.push(Pusher::with_key(&cluster, gateway, &key).await);
        shop[gateway].subscribe("room").await;
    }
    // A change of the app itself, at one gateway after the other.
    let changed = made.replacen("id = \"shop\"\n", "id = \"shop\"\nraw = true\n", 1);
    for (process, apps) in cluster.gateways.iter().zip(&files) {
        replace(apps, &changed);
        let line = told(process, 1).await;
        assert!(line.contains("apps read again: changed shop ("), "{line}");
        traffic.goes_on().await;
    }
    let mut raw = cluster.client_of(1, "shop").await;
    let to = broadgate_proto::v1::Audience { app: "shop".into(), ..all() };
    cluster.caller(0).await.send(text(to, "to the shop")).await.unwrap();
    raw.hears(&["to the shop"]).await;
    for client in &mut shop {
        assert_eq!(client.hear().await["data"], "to the shop");
    }
    let mut caller = cluster.caller(0).await;
    caller.send(text(all(), "undisturbed")).await.unwrap();
    for client in &mut others {
        client.hears(&["undisturbed"]).await;
    }
    traffic.end().await;
}

const NEW_KEY: Key = ("new-key", "new-secret-of-the-shop");

/// A receiver of webhooks that notes which key each post names.
async fn keys_of_posts(address: SocketAddr) -> mpsc::Receiver<String> {
    let listener = until("the receiver listens", async || TcpListener::bind(address).await.ok()).await;
    let (told, keys) = mpsc::channel(1000);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
                    if header("content-length: ").and_then(|length| length.parse().ok()) != Some(body.len()) {
                        continue;
                    }
                    let _ = told.send(header("x-pusher-key: ").unwrap().to_owned()).await;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    bytes.clear();
                }
            });
        }
    });
    keys
}

/// "Change an app's key": the new one below the old one, then the old one is taken out. The backend publishes
/// all the while.
#[tokio::test]
async fn key_of_an_app_is_changed_and_no_publish_is_lost() {
    let address = free_address();
    let mut keys = keys_of_posts(address).await;
    let hook = format!("[[apps.webhooks]]\nurl = \"http://{address}/\"\n");
    let cluster = Cluster::quiet(2).more(&format!("{APPS}{hook}")).start().await;
    let mut client = Pusher::connect(&cluster, 0).await;
    client.subscribe("news").await;
    assert_eq!(soon("a post comes", keys.recv()).await.unwrap(), SHOP_KEY.0);
    let (key, used) = watch::channel(SHOP_KEY);
    let (stop, stopped) = watch::channel(false);
    let webs = [cluster.web(0), cluster.web(1)];
    let publishing = tokio::spawn(async move {
        let mut number = 0_usize;
        while !*stopped.borrow() {
            let body = json!({ "name": "e", "channels": ["news"], "data": number.to_string() }).to_string();
            let key = *used.borrow();
            let answer = call_with(key, webs[number % 2], "POST", "/events", "", "", &body).await;
            assert_eq!(answer.status, 200, "{number} with {}: {}", key.0, answer.body);
            number += 1;
        }
        number
    });
    let entry = |(key, secret): Key| format!("[[apps.keys]]\nkey = \"{key}\"\nsecret = \"{secret}\"\n");
    let change = async |before: usize, from: &str, to: &str| {
        for (number, process) in cluster.gateways.iter().enumerate() {
            let config = cluster.dir.join(format!("gateway-{}.toml", number + 1));
            let text = std::fs::read_to_string(&config).unwrap();
            assert!(text.contains(from), "{text}");
            replace(&config, &text.replace(from, to));
            let line = told(process, before).await;
            assert!(line.contains("apps read again: changed shop ("), "{line}");
        }
    };
    let both = entry(SHOP_KEY) + &entry(NEW_KEY);
    change(0, &entry(SHOP_KEY), &both).await;
    // The application uses the new one now, and its clients come with it.
    key.send(NEW_KEY).unwrap();
    let mut with_new = Pusher::with_key(&cluster, 1, NEW_KEY.0).await;
    with_new.subscribe("more-news").await;
    assert_eq!(soon("a post comes", keys.recv()).await.unwrap(), SHOP_KEY.0, "signed with the first");
    change(1, &both, &entry(NEW_KEY)).await;
    with_new.subscribe("latest-news").await;
    // Posts of what was before may still come, but none after the first with the new one.
    soon("a post with the new key comes", async { while keys.recv().await.unwrap() != NEW_KEY.0 {} }).await;
    with_new.subscribe("last-news").await;
    assert_eq!(soon("a post comes", keys.recv()).await.unwrap(), NEW_KEY.0);
    let old = call_with(SHOP_KEY, cluster.web(0), "GET", "/channels", "", "", "").await;
    assert_eq!(old.status, 401, "{}", old.body);
    stop.send(true).unwrap();
    let published = soon("the backend stops", publishing).await.unwrap();
    for number in 0..published {
        assert_eq!(client.hear().await["data"], number.to_string(), "of {published}");
    }
    assert!(published > 10, "{published}");
}
