//! Clusters that an operator has named: which one a command goes to, and with what credentials.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{harness::*, operator::json};

const SECRET: &str = "secret-of-profiles-0123456789abcdef";
const OTHER: &str = "other-secret-of-profiles-0123456789";

/// An operator with a home folder, and nothing else of the cluster's environment.
struct Operator {
    home: PathBuf,
}

impl Operator {
    fn new(dir: &Path) -> Self {
        let home = dir.join("home");
        std::fs::create_dir_all(&home).unwrap();
        Self { home }
    }

    fn file(&self) -> PathBuf {
        self.home.join(".config/broadgate/clusters.toml")
    }

    /// Exit code, and output before errors.
    fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"));
        for name in ["XDG_CONFIG_HOME", "BROADGATE_SECRET", "BROADGATE_ADDR", "BROADGATE_CONFIG"] {
            command.env_remove(name);
        }
        command.args(args).env("HOME", &self.home).stdin(std::process::Stdio::null());
        let output = command.envs(environment.iter().copied()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout) + &text(output.stderr))
    }

    fn works(&self, args: &[&str]) -> String {
        let (code, text) = self.run(args, &[]);
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    }
}

fn write_secret(dir: &Path, name: &str, secret: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, secret).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// A profile has the address and the credentials; what comes before it is asked with its own.
#[tokio::test]
async fn named_cluster_is_asked_with_its_own_credentials() {
    let cluster = Cluster::quiet(2).secret(SECRET).start().await;
    let operator = Operator::new(&cluster.dir);
    let (good, wrong) =
        (write_secret(&cluster.dir, "good", SECRET), write_secret(&cluster.dir, "wrong", OTHER));
    let dead = free_address().to_string();
    let both = format!("{dead},{}", cluster.internal[1]);
    let said = operator.works(&[
        "cluster",
        "add",
        "prod",
        "--address",
        &both,
        "--secret-file",
        &good,
        "--protected",
        "--use",
    ]);
    assert!(said.contains("it is in use"), "{said}");
    assert_eq!(std::fs::metadata(operator.file()).unwrap().permissions().mode() & 0o777, 0o600);
    operator.works(&["cluster", "add", "wrong", "--address", &cluster.internal[0], "--secret-file", &wrong]);
    operator.works(&[
        "cluster",
        "add",
        "port",
        "--address",
        &cluster.register_address,
        "--secret-file",
        &good,
    ]);
    operator.works(&["cluster", "add", "dead", "--address", &dead]);
    let listed = json(&operator.works(&["cluster", "list", "--json"]));
    let named = |name: &str| {
        let all = listed["clusters"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap().clone()
    };
    assert!(named("prod")["in_use"] == true && named("prod")["protected"] == true, "{listed}");
    assert!(named("dead")["in_use"] == false, "{listed}");
    assert!(operator.works(&["cluster", "list"]).contains("prod"));

    // In use: the second address answers, whatever secret the environment has.
    let (code, text) = operator.run(&["status"], &[("BROADGATE_SECRET", OTHER)]);
    assert!(code == 0 && text.contains("gateway-2"), "{text}");
    // Each place that comes first takes its own credentials, or none.
    let internal = cluster.internal[0].as_str();
    for (args, environment, expected, said) in [
        (
            &["status", "--cluster", "wrong"][..],
            &[("BROADGATE_SECRET", SECRET)][..],
            2,
            "cluster \"wrong\": ",
        ),
        (&["status"], &[("BROADGATE_CLUSTER", "wrong")], 2, "the shared secret is missing or differs"),
        (&["status"], &[("BROADGATE_ADDR", internal)], 2, "no shared secret and no token was sent"),
        (&["status"], &[("BROADGATE_ADDR", internal), ("BROADGATE_SECRET", OTHER)], 2, "or differs"),
        (&["status"], &[("BROADGATE_ADDR", internal), ("BROADGATE_SECRET", SECRET)], 0, "gateway-1"),
        (&["status", "--addr", internal], &[("BROADGATE_CLUSTER", "prod")], 2, "--token-file"),
        (&["status", "--cluster", "prod"], &[("BROADGATE_CLUSTER", "wrong")], 0, "gateway-1"),
        (&["status", "--cluster", "port"], &[], 5, "is the register's port"),
        (&["status", "--cluster", "dead"], &[], 5, "cannot be reached"),
        (&["status", "--cluster", "pord"], &[], 2, "no cluster \"pord\""),
        (&["status"], &[("BROADGATE_CLUSTER", "pord")], 2, "BROADGATE_CLUSTER: no cluster \"pord\""),
        (&["status", "--cluster", "prod", "--addr", internal], &[], 2, "cannot be used with"),
        (&["status", "--cluster", "prod", "--tls-ca", "x"], &[], 2, "leave out --tls-ca"),
    ] {
        let (code, text) = operator.run(args, environment);
        assert!(code == expected && text.contains(said), "{args:?} {environment:?}: {code} {text}");
        let sentences = text.lines().filter(|line| line.starts_with("broadgate: "));
        assert!(code == 0 || text.starts_with("error:") || sentences.count() == 1, "{text}");
    }

    file_must_be_ones_own(&operator, internal);
    operator.works(&["cluster", "use", "dead"]);
    assert_eq!(operator.run(&["status", "--timeout", "1s"], &[]).0, 5);
    operator.works(&["cluster", "remove", "dead"]);
    let (code, text) = operator.run(&["cluster", "remove", "dead"], &[]);
    assert!(code == 4 && text.contains("no cluster \"dead\""), "{text}");
    let listed = operator.works(&["cluster", "list", "--json"]);
    assert!(!listed.contains("\"in_use\": true"), "{listed}");
}

/// Others may write the file, or it is none.
fn file_must_be_ones_own(operator: &Operator, internal: &str) {
    let before = std::fs::read_to_string(operator.file()).unwrap();
    std::fs::set_permissions(operator.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = operator.run(&["status"], &[]);
    assert!(code == 2 && text.contains("mode 644") && text.contains("chmod 600"), "{text}");
    std::fs::set_permissions(operator.file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(operator.file(), "[prod\n").unwrap();
    let (code, text) = operator.run(&["status"], &[]);
    assert!(code == 2 && text.contains("clusters.toml:1: "), "{text}");
    // Who names an address does not need the file.
    let environment = [("BROADGATE_SECRET", SECRET)];
    let (code, text) = operator.run(&["status", "--addr", internal], &environment);
    assert_eq!(code, 0, "{text}");
    std::fs::write(operator.file(), before).unwrap();
}

/// Orders to a protected cluster name it; questions need not.
#[tokio::test]
async fn protected_cluster_has_to_be_named() {
    let mut cluster = Cluster::quiet(2).start().await;
    let operator = Operator::new(&cluster.dir);
    let mut client = cluster.client(0).await;
    operator.works(&["cluster", "add", "prod", "--address", &cluster.internal[1], "--protected", "--use"]);
    operator.works(&["cluster", "add", "test", "--address", &cluster.internal[1]]);
    operator.works(&["status"]);
    let id = client.id.clone();
    for order in
        [&["send", "--all", "x"][..], &["kick", "--client", &id], &["kick", "--all"], &["drain", "gateway-2"]]
    {
        for yes in [&[][..], &["--yes"]] {
            let (code, text) = operator.run(&[order, yes].concat(), &[]);
            assert!(code == 2 && text.contains("add --yes=prod"), "{order:?} {yes:?}: {code} {text}");
        }
        let (code, text) = operator.run(&[order, &["--yes=test"]].concat(), &[]);
        assert!(code == 2 && text.contains("another cluster"), "{order:?}: {code} {text}");
    }
    let url = format!("ws://{}/ws", cluster.web(0));
    let load = ["bench", "fanout", "--clients", "1", "--messages", "1", "--url", &url];
    let (code, text) = operator.run(&load, &[]);
    assert!(code == 2 && text.contains("is protected"), "{text}");
    operator.works(&["send", "--all", "--yes=prod", "hello"]);
    client.hears(&["hello"]).await;
    operator.works(&["send", "--all", "--cluster", "test", "again"]);
    client.hears(&["again"]).await;
    operator.works(&["drain", "gateway-2", "--yes=prod"]);
    assert_eq!(cluster.gateways[1].ended().await.code(), Some(0));
}

/// Addresses at which something listens and says nothing are given up in time, whatever the command.
#[test]
fn mute_addresses_are_given_up_in_time() {
    let dir = std::env::temp_dir().join(format!("broadgate-mute-{}", std::process::id()));
    let operator = Operator::new(&dir);
    let mute: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> = mute.iter().map(|one| one.local_addr().unwrap().to_string()).collect();
    operator.works(&["cluster", "add", "mute", "--use", "--address", &addresses.join(",")]);
    for command in [&["status"][..], &["doctor"], &["drain", "gateway-1", "--check"], &["send", "--all", "x"]]
    {
        let began = std::time::Instant::now();
        let (code, text) = operator.run(&[command, &["--timeout", "2s"]].concat(), &[]);
        let sentence = "cluster \"mute\": no address answers: ";
        assert!(code == 5 && text.contains(sentence) && text.contains(&addresses[2]), "{command:?}: {text}");
        assert!(began.elapsed() < GENEROUS / 2, "{command:?} took {:?}", began.elapsed());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Commands that change the file at the same time lose nothing, and a link to it stays one.
#[test]
fn file_is_changed_by_one_command_at_a_time_and_links_are_followed() {
    let dir = std::env::temp_dir().join(format!("broadgate-parallel-{}", std::process::id()));
    let operator = Operator::new(&dir);
    let real = dir.join("dotfiles/clusters.toml");
    operator.works(&["cluster", "add", "first", "--address", "a:1", "--use"]);
    std::fs::create_dir_all(real.parent().unwrap()).unwrap();
    std::fs::rename(operator.file(), &real).unwrap();
    std::os::unix::fs::symlink(&real, operator.file()).unwrap();
    std::thread::scope(|threads| {
        for number in 0..8 {
            let operator = &operator;
            threads.spawn(move || {
                operator.works(&["cluster", "add", &format!("c{number}"), "--address", "b:2"]);
            });
        }
    });
    let listed = json(&operator.works(&["cluster", "list", "--json"]));
    assert_eq!(listed["clusters"].as_array().unwrap().len(), 9, "{listed}");
    assert!(std::fs::symlink_metadata(operator.file()).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().contains("[c7]"));

    // A name that is gone is in the way of nothing but what would go there.
    std::fs::write(&real, "use = \"gone\"\n[b]\naddresses = [\"b:2\"]\n").unwrap();
    let listed = operator.works(&["cluster", "list"]);
    assert!(
        listed.contains("b:2") && listed.contains("warning: ") && listed.contains("\"gone\""),
        "{listed}"
    );
    let (code, text) = operator.run(&["status"], &[]);
    assert!(code == 2 && text.contains("`broadgate cluster use`: no cluster \"gone\""), "{text}");
    operator.works(&["cluster", "add", "c", "--address", "c:3"]);
    operator.works(&["cluster", "remove", "c"]);
    operator.works(&["cluster", "use", "--none"]);
    assert!(!operator.works(&["cluster", "list"]).contains("gone"));

    // A file without a secret is a mistake, and none is sent.
    let empty = write_secret(&dir, "empty", "\n");
    let (code, text) =
        operator.run(&["cluster", "add", "d", "--address", "d:4", "--secret-file", &empty], &[]);
    assert!(code == 2 && text.contains("it is empty: `broadgate secret`"), "{text}");
    assert!(!std::fs::read_to_string(&real).unwrap().contains("[d]"));
    let checks = json(&operator.works(&["doctor", "--list", "--json"]));
    assert!(checks["checks"].as_array().unwrap().iter().any(|check| check["check"] == "links"), "{checks}");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Clients are load as well: no benchmark goes to a protected cluster, whether it sends or not.
#[test]
fn no_benchmark_goes_to_a_protected_cluster() {
    let dir = std::env::temp_dir().join(format!("broadgate-load-{}", std::process::id()));
    let operator = Operator::new(&dir);
    operator.works(&["cluster", "add", "prod", "--address", "127.0.0.1:1", "--protected"]);
    for kind in ["idle", "fanout", "groups", "slow", "storm"] {
        let url = ["--url", "ws://127.0.0.1:1/ws", "--clients", "1", "--cluster", "prod"];
        let (code, text) = operator.run(&[&["bench", kind][..], &url].concat(), &[]);
        assert!(code == 2 && text.contains("cluster \"prod\" is protected"), "{kind}: {code} {text}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
