//! Users, passwords and TLS; and what a register says that cannot use etcd.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::{
    cluster::Cluster,
    engine::{Etcd, Login},
    harness::{Process, free_address},
};

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").current_dir(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A CA, and what etcd and its clients show.
fn certificates(dir: &Path) -> PathBuf {
    let tls = dir.join("tls");
    std::fs::create_dir_all(&tls).unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let ca = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca"];
    openssl(&tls, &[&ca[..], &key].concat());
    for name in ["etcd", "client"] {
        let (key_file, request, cert) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        let ask = ["req", "-keyout", &key_file, "-out", &request, "-subj", &subject];
        openssl(&tls, &[&ask[..], &key[..5]].concat());
        std::fs::write(tls.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(&tls, &[&sign[..], &["-days", "2", "-extfile", "names", "-out", &cert]].concat());
    }
    tls
}

/// Runs a register that must not start.
fn refused(dir: &Path, toml: &str) -> String {
    let config = dir.join("refused.toml");
    let address = free_address();
    std::fs::write(&config, format!("[register]\nbind = \"{address}\"\n{toml}")).unwrap();
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_broadgate"))
        .args(["register", "--config", config.to_str().unwrap()])
        .env_remove("BROADGATE_SECRET")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{said}");
    let at = said.find("broadgate: ").unwrap_or(0);
    println!("  {}", said[at..].lines().next().unwrap_or_default());
    said[at..].to_owned()
}

/// With TLS, a user and a password a cluster works; with wrong ones a register exits with 2 and one sentence.
pub async fn users_and_tls_work_and_wrong_ones_are_named(dir: &Path) {
    let tls = certificates(dir);
    let mut etcd = Etcd::start(dir, 1, Some(tls.clone())).await;
    for command in [
        &["user", "add", "root:root"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "broadgate:p4ssw0rd"],
        &["user", "add", "stranger:p4ssw0rd"],
        &["role", "add", "registers"],
        &["role", "grant-permission", "registers", "--prefix=true", "readwrite", "broadgate/"],
        &["user", "grant-role", "broadgate", "registers"],
        &["auth", "enable"],
    ] {
        etcd.told(command);
    }
    etcd.login = Some(Login { user: "broadgate", password: "p4ssw0rd" });
    let good = etcd.settings();
    let mut cluster = Cluster::start(dir, &[good.clone(), good.clone()], 2, 1).await;
    cluster.begin_traffic().await;
    let (term, leader) = (cluster.newest().0, cluster.leader().await.unwrap());
    cluster.stop_register(leader).await;
    cluster.leads_after(term).await;
    // Its tokens are in memory: all are forgotten.
    etcd.kill(0);
    etcd.begin(0);
    etcd.answers_to(&["get", "broadgate/leader"]).await;
    cluster.change_the_list().await;
    cluster.check_processes();
    cluster.end_traffic().await;

    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        good.replace(from, to)
    };
    let other = dir.join("wrong-password");
    std::fs::write(&other, "guess\n").unwrap();
    let file = format!("{:?}", dir.join("etcd-password"));
    let said = refused(dir, &with(&file, &format!("{other:?}")));
    assert!(said.contains("authentication failed") && said.contains("register.etcd.password_file"), "{said}");
    let said = refused(dir, &with("user = \"broadgate\"", "user = \"stranger\""));
    assert!(said.contains("permission denied") && said.contains("register.etcd.prefix"), "{said}");
    let said = refused(dir, &with("broadgate\"\npass", "\"\npass"));
    assert!(said.contains("register.etcd.user"), "{said}");
    let said = refused(dir, &with("https://", "http://"));
    assert!(said.contains("https://"), "{said}");
    let said = refused(dir, &with("ca.pem", "ca.key"));
    assert!(said.contains("ca.key"), "{said}");
    let said = refused(dir, &with("ledger = \"etcd\"", "ledger = \"consul\""));
    assert!(said.contains("consul") && said.contains("line 3") && said.contains("memory"), "{said}");
}

/// Nobody answers at start: the register says it once, and begins when etcd does.
pub async fn register_waits_for_etcd(dir: &Path) {
    let mut etcd = Etcd::start(dir, 1, None).await;
    etcd.kill(0);
    let config = dir.join("waits.toml");
    let address = free_address();
    std::fs::write(&config, format!("[register]\nbind = \"{address}\"\n{}", etcd.settings())).unwrap();
    let args = ["register", "--config", config.to_str().unwrap()];
    let mut register = Process::start(dir, "waits", &args, &[]);
    register.logged("correct register.etcd.endpoints").await;
    etcd.begin(0);
    register.logged("this register leads").await;
    register.signal("TERM");
    assert_eq!(register.ended().await.code(), Some(0));
    let log = register.log();
    let warnings = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    assert!(warnings <= 3, "{log}");
}
