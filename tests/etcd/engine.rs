//! A real etcd of one or three members, each a process of this test's.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use crate::harness::{free_address, until};

/// Whom etcd authenticates and with what.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: &'static str,
    pub password: &'static str,
}

pub struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

/// A cluster of etcd.
pub struct Etcd {
    dir: PathBuf,
    pub members: Vec<Member>,
    /// Files of certificates; clients and etcd show each other theirs.
    pub tls: Option<PathBuf>,
    pub login: Option<Login>,
    /// From the start, or restored from a backup.
    generation: u32,
}

impl Etcd {
    pub async fn start(dir: &Path, count: usize, tls: Option<PathBuf>) -> Self {
        let member = |index| {
            let name = format!("etcd-{}", index + 1);
            Member { name, client: free_address(), peer: free_address(), child: None }
        };
        let members = (0..count).map(member).collect();
        let mut etcd = Self { dir: dir.to_owned(), members, tls, login: None, generation: 0 };
        for index in 0..count {
            etcd.begin(index);
        }
        etcd.answers().await;
        etcd
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    fn data(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{}.{}", self.members[index].name, self.generation))
    }

    fn cluster(&self) -> String {
        let one = |member: &Member| format!("{}=http://{}", member.name, member.peer);
        self.members.iter().map(one).collect::<Vec<_>>().join(",")
    }

    /// Starts a member, with the data that it had.
    pub fn begin(&mut self, index: usize) {
        let (scheme, data, cluster) = (self.scheme(), self.data(index), self.cluster());
        let member = &self.members[index];
        let log = self.dir.join(format!("{}.log", member.name));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &member.name, "--data-dir", data.to_str().unwrap()])
            .args(["--initial-cluster", &cluster, "--initial-cluster-token", "broadgate-test"])
            .args(["--listen-client-urls", &format!("{scheme}://{}", member.client)])
            .args(["--advertise-client-urls", &format!("{scheme}://{}", member.client)])
            .args(["--listen-peer-urls", &format!("http://{}", member.peer)])
            .args(["--initial-advertise-peer-urls", &format!("http://{}", member.peer)]);
        if let Some(tls) = &self.tls {
            let file = |name: &str| tls.join(name).display().to_string();
            command.args(["--cert-file", &file("etcd.pem"), "--key-file", &file("etcd.key")]);
            command.args(["--trusted-ca-file", &file("ca.pem"), "--client-cert-auth"]);
        }
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.members[index].child = Some(child);
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("{}://{}", self.scheme(), member.client)).collect()
    }

    /// Keys of `[register]` and `[register.etcd]`.
    pub fn settings(&self) -> String {
        let mut toml = format!("ledger = \"etcd\"\n[register.etcd]\nendpoints = {:?}\n", self.endpoints());
        if let Some(login) = &self.login {
            let file = self.dir.join("etcd-password");
            std::fs::write(&file, format!("{}\n", login.password)).unwrap();
            toml += &format!("user = {:?}\npassword_file = {file:?}\n", login.user);
        }
        if let Some(tls) = &self.tls {
            let file = |name: &str| tls.join(name);
            toml += &format!(
                "tls = {{ ca = {:?}, cert = {:?}, key = {:?} }}\n",
                file("ca.pem"),
                file("client.pem"),
                file("client.key")
            );
        }
        toml
    }

    /// Runs `etcdctl`; what it prints, if it succeeds.
    pub fn ctl(&self, endpoints: &str, args: &[&str]) -> Option<String> {
        let output = self.run_ctl(endpoints, args);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `etcdctl` prints that does not succeed.
    pub fn complaint(&self, args: &[&str]) -> String {
        let output = self.run_ctl(&self.endpoints().join(","), args);
        assert!(!output.status.success(), "etcdctl {args:?} succeeds");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn run_ctl(&self, endpoints: &str, args: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints, "--command-timeout", "1s"]);
        command.args(["--dial-timeout", "1s"]).args(args);
        if let Some(login) = &self.login {
            command.args(["--user", &format!("{}:{}", login.user, login.password)]);
        }
        if let Some(tls) = &self.tls {
            let file = |name: &str| tls.join(name).display().to_string();
            command.args([
                "--cacert",
                &file("ca.pem"),
                "--cert",
                &file("client.pem"),
                "--key",
                &file("client.key"),
            ]);
        }
        command.output().unwrap()
    }

    /// The same, at any member that answers; it must succeed.
    pub fn told(&self, args: &[&str]) -> String {
        let all = self.endpoints().join(",");
        self.ctl(&all, args).unwrap_or_else(|| panic!("etcdctl {args:?} failed"))
    }

    pub async fn answers(&self) {
        self.answers_to(&["get", "nothing"]).await;
    }

    pub async fn answers_to(&self, args: &[&str]) {
        until("etcd answers", async || {
            self.endpoints().iter().all(|one| self.ctl(one, args).is_some()).then_some(())
        })
        .await;
    }

    /// The member that leads.
    pub async fn leader(&self) -> usize {
        until("etcd has a leader", async || {
            self.endpoints().iter().position(|one| {
                let status = self.ctl(one, &["endpoint", "status", "-w", "fields"]).unwrap_or_default();
                let field = |name: &str| {
                    let line = status.lines().find(|line| line.starts_with(&format!("\"{name}\"")));
                    line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
                };
                field("Leader").is_some_and(|leader| leader != "0" && Some(leader) == field("MemberID"))
            })
        })
        .await
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// STOP or CONT.
    pub fn signal(&self, index: usize, signal: &str) {
        let Some(child) = &self.members[index].child else { return };
        let args = [format!("-{signal}"), child.id().to_string()];
        assert!(Command::new("kill").args(args).status().unwrap().success());
    }

    /// Saves what this member has.
    pub fn back_up(&self, index: usize, file: &Path) {
        let one = &self.endpoints()[index];
        self.ctl(one, &["snapshot", "save", file.to_str().unwrap()]).expect("a snapshot is saved");
    }

    /// Stops all members and starts them with what the backup has, as the runbook says.
    pub async fn restore(&mut self, file: &Path) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
        self.generation += 1;
        let cluster = self.cluster();
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let output = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore", file.to_str().unwrap(), "--name", &member.name])
                .args(["--initial-cluster", &cluster, "--initial-cluster-token", "broadgate-test"])
                .args(["--initial-advertise-peer-urls", &format!("http://{}", member.peer)])
                .args(["--data-dir", self.data(index).to_str().unwrap()])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            self.begin(index);
        }
        self.answers().await;
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}
