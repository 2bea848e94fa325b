//! The cluster and the ceiling, as processes that end with this one.

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use broadgate::{config::Config, failure::Failure};
use broadgate_business::{Cluster, v1::MemberState};
use data_encoding::BASE64;

use crate::load::block;

const READY_TIME_MAX: Duration = Duration::from_secs(30);
pub(super) const APP: &str = "1";

/// A process that is killed when nobody holds it any more.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        // It may have been killed by what was measured.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a role of the executable beside this one.
fn start_role(args: &[String]) -> Result<Held, Failure> {
    start(&std::env::current_exe()?.with_file_name("broadgate"), args)
}

fn start(program: &Path, args: &[String]) -> Result<Held, Failure> {
    let child = Command::new(program)
        .args(args)
        .env("BROADGATE_LOG", "error")
        // What the user's shell says is not what is measured.
        .env_remove("BROADGATE_CONFIG")
        .env_remove("BROADGATE_APPS")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| Failure::Failed(format!("{} does not start: {error}", program.display())))?;
    Ok(Held(child))
}

/// A port that is free now.
fn free() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn texts<const N: usize>(args: [&str; N]) -> Vec<String> {
    args.map(str::to_owned).to_vec()
}

/// The ceiling.
pub(super) struct Ceiling {
    process: Held,
    pub(super) address: SocketAddr,
}

impl Ceiling {
    pub(super) fn start(mode: &str, threads: Option<u16>) -> Result<Self, Failure> {
        let address = free()?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.map_or_else(cores, usize::from);
        let args = [
            "ceiling",
            &format!("--bind={address}"),
            &format!("--threads={threads}"),
            &format!("--mode={mode}"),
            "--supervised",
        ];
        let process = start(&std::env::current_exe()?, &texts(args))?;
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > READY_TIME_MAX {
                return Err(Failure::Failed("the ceiling does not listen".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { process, address })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// A register, gateways, and an echo worker.
pub(super) struct Servers {
    gateways: Vec<Held>,
    worker: Held,
    register: Held,
    pub(super) clients: Vec<SocketAddr>,
    /// Where they come by TLS.
    tls: Vec<SocketAddr>,
    pub(super) internal: Vec<SocketAddr>,
    pub(super) apps: AppsFile,
}

/// A folder with the apps, certificates and configurations of a run, which is gone when nobody needs it.
pub(super) struct AppsFile {
    folder: PathBuf,
    pub(super) path: PathBuf,
    pub(super) key: String,
}

impl Drop for AppsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl AppsFile {
    fn make(socketio: bool) -> Result<Self, Failure> {
        let name = format!("broadgate-bench-{:016x}", getrandom::u64().map_err(std::io::Error::other)?);
        let folder = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let mut text = broadgate::apps::fresh(APP)?;
        if socketio {
            // Only then, since each of its messages is framed for them, too.
            text = text.replacen("[[apps]]\n", "[[apps]]\nsocketio = true\n", 1);
        }
        let key = text.lines().find_map(|line| line.strip_prefix("key = "));
        let key = key.unwrap_or_default().trim_matches('"').to_owned();
        let made = Self { path: folder.join("apps.toml"), folder, key };
        // The limits are those of every app; the secret is of this run, and nobody else's business.
        made.write("apps.toml", &text)?;
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
            .map_err(|error| Failure::Failed(error.to_string()))?;
        made.write("tls.pem", &pem("CERTIFICATE", own.cert.der()))?;
        made.write("tls.key", &pem("PRIVATE KEY", &own.signing_key.serialize_der()))?;
        Ok(made)
    }

    fn write(&self, name: &str, text: &str) -> std::io::Result<PathBuf> {
        let path = self.folder.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }

    /// The configuration of a gateway with a plain and a TLS listener.
    fn config(&self, plain: SocketAddr, tls: SocketAddr) -> std::io::Result<PathBuf> {
        let (cert, key) = (self.folder.join("tls.pem"), self.folder.join("tls.key"));
        let text = format!(
            "[[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"{plain}\"\n\
             [[gateway.listeners]]\nname = \"tls\"\nkind = \"web\"\nbind = \"{tls}\"\n\
             tls = [{{ cert = {cert:?}, key = {key:?} }}]\n"
        );
        self.write(&format!("gateway-{}.toml", plain.port()), &text)
    }
}

fn pem(what: &str, der: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", BASE64.encode(der))
}

impl Servers {
    /// So many gateways, with Socket.IO clients if they are wanted.
    pub(super) fn start(count: usize, socketio: bool) -> Result<Self, Failure> {
        let apps = AppsFile::make(socketio)?;
        let at = free()?;
        let register = start_role(&texts(["register", &format!("--bind={at}"), "--supervised"]))?;
        let (mut gateways, mut clients, mut internal) = (Vec::new(), Vec::new(), Vec::new());
        let mut secure = Vec::new();
        for index in 0..count {
            let (client, inner, tls) = (free()?, free()?, free()?);
            let config = apps.config(client, tls)?;
            let args = [
                "gateway",
                &format!("--name=gateway-{}", index + 1),
                &format!("--register={at}"),
                &format!("--internal-bind={inner}"),
                &format!("--config={}", config.display()),
                "--raw-app=default",
                &format!("--apps={}", apps.path.display()),
                "--supervised",
            ];
            gateways.push(start_role(&texts(args))?);
            clients.push(client);
            secure.push(tls);
            internal.push(inner);
        }
        let worker = start_role(&texts(["worker", "echo", &format!("--register={at}"), "--supervised"]))?;
        let servers = Self { gateways, worker, register, clients, tls: secure, internal, apps };
        servers.wait(count)?;
        Ok(servers)
    }

    fn wait(&self, count: usize) -> Result<(), Failure> {
        let credentials = Config::load_for_command(None)?.credentials()?;
        let Some(first) = self.internal.first() else { return Ok(()) };
        let ready = async {
            let cluster = Cluster::to_gateway(&first.to_string(), credentials, "", Duration::from_secs(1))?;
            loop {
                if let Ok(status) = cluster.status().await {
                    let linked = status.gateways.iter().filter(|gateway| gateway.peers.len() + 1 == count);
                    let attached = status.workers.iter().filter(|worker| worker.gateways as usize == count);
                    let members = status.view.iter().flat_map(|view| &view.members);
                    let members = members.filter(|member| member.state() == MemberState::Ready);
                    if members.count() == count + 1 && linked.count() == count && attached.count() == 1 {
                        return Ok::<_, Failure>(());
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let late = |_| Failure::Failed(format!("the cluster was not ready within {READY_TIME_MAX:?}"));
        block(async { tokio::time::timeout(READY_TIME_MAX, ready).await }).map_err(late)?
    }

    /// Where clients connect, without a path.
    pub(super) fn urls(&self, is_tls: bool) -> impl Iterator<Item = String> {
        let (scheme, addresses) = if is_tls { ("wss", &self.tls) } else { ("ws", &self.clients) };
        addresses.iter().map(move |address| format!("{scheme}://{address}"))
    }

    pub(super) fn gateways(&self) -> Vec<u32> {
        self.gateways.iter().map(|gateway| gateway.0.id()).collect()
    }

    /// Every process of the cluster.
    pub(super) fn all(&self) -> Vec<u32> {
        [self.gateways(), vec![self.worker.0.id(), self.register.0.id()]].concat()
    }
}
