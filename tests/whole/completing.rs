//! Completions at the shell's Tab: live names, in time or none, and nothing on the terminal.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::harness::*;

const SECRET: &str = "secret-of-completions-0123456789ab";

/// An operator's shell, with a home folder and an environment of its own.
struct Shell<'a> {
    home: &'a Path,
    environment: Vec<(&'static str, String)>,
}

impl Shell<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for name in ["XDG_CONFIG_HOME", "BROADGATE_SECRET", "BROADGATE_ADDR", "BROADGATE_CLUSTER"] {
            command.env_remove(name);
        }
        command.env("HOME", self.home).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// What the shell's script gets for the last of these words.
    fn tab(&self, words: &[&str]) -> Vec<String> {
        let mut command = self.command(env!("CARGO_BIN_EXE_broadgate"));
        command.arg("--").arg("broadgate").args(words).env("COMPLETE", "bash");
        command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).env("_CLAP_IFS", "\n");
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!((output.status.code(), text(output.stderr)), (Some(0), String::new()), "{words:?}");
        text(output.stdout).lines().map(str::to_owned).collect()
    }

    fn run(&self, args: &[&str]) {
        let output = self.command(env!("CARGO_BIN_EXE_broadgate")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}

/// The program's start alone may take longer than a Tab may.
const PATIENT: (&str, &str) = ("BROADGATE_COMPLETE_TIME", "60s");

#[tokio::test]
async fn live_names_complete() {
    let cluster = Cluster::quiet(2).secret(SECRET).start().await;
    let client = cluster.client_at(0).await;
    let groups = ["room-1", "room-2", "room 3", "room$(reboot)", "other"];
    let id = crate::audit::id_of(&cluster, "gateway-1", &client).await;
    let join = serde_json::to_string(&serde_json::json!({"clients": [id], "groups": groups})).unwrap();
    let joined = crate::tokens::as_json(&cluster.internal[0], "Join", SECRET, &join).await;
    assert_eq!(joined.0, 200, "{}", joined.1);
    let address = cluster.internal[0].as_str();
    let (host, port) = address.split_once(':').unwrap();
    let home = cluster.dir.join("home");
    std::fs::create_dir_all(&home).unwrap();
    let mut shell = Shell { home: &home, environment: vec![(PATIENT.0, PATIENT.1.to_owned())] };
    shell.environment.push(("BROADGATE_SECRET", SECRET.to_owned()));
    let secret = home.join("secret").display().to_string();
    std::fs::write(&secret, SECRET).unwrap();
    shell.run(&["cluster", "add", "prod", "--address", address, "--secret-file", &secret]);
    shell.run(&["cluster", "add", "test", "--address", "127.0.0.1:1"]);
    let both = ["gateway-1", "gateway-2"];
    for (words, wanted) in [
        (&["drain", "--addr", address, "ga"][..], &both[..]),
        // As bash splits it.
        (&["drain", "--addr", host, ":", port, "ga"], &both),
        (&["drain", "--cluster", "=", "prod", "ga"], &both),
        (&["drain", "--cluster", "prod", "gateway-2"], &["gateway-2"]),
        (&["drain", "--cluster", "prod", "x"], &[]),
        // Only what no shell acts on.
        (&["roster", "--cluster", "prod", "room"], &["room-1", "room-2"]),
        (&["send", "--cluster", "prod", "--except-group", "oth"], &["other"]),
        (&["history", "--cluster", "prod", "--app", "default", "room-2"], &["room-2"]),
        (&["history", "--cluster", "prod", "--app", "none", "room-2"], &[]),
        (&["clients", "--cluster", "prod", "--app", "de"], &["default"]),
        (&["status", "--cluster", "pr"], &["prod"]),
        (&["kick", "--cluster", "=", "te"], &["test"]),
        (&["cluster", "use", "te"], &["test"]),
        // These need no cluster.
        (&["tap", "--kind", "op"], &["opened"]),
        (&["events", "--kind", "au"], &["audit"]),
        (&["doctor", "--only", "links,vi"], &["links,views"]),
        (&["who"], &["whoami"]),
        // What the command refuses is not offered.
        (&["top", "callers", "--sort", ""], &["bytes", "drops", "out"]),
        (&["top", "callers", "--sort=d"], &["--sort=drops"]),
        (&["token", "new", "ann", "--role", "re"], &["reader"]),
        (&["token", "new", "ann", "--right", ""], &["payload"]),
        // Who has called, this shell among them.
        (&["tap", "--cluster", "prod", "--caller", "se"], &["secret"]),
        // Nobody is there, or the secret is missing: no names, and no word about it.
        (&["drain", "--cluster", "test", "ga"], &[]),
        (&["drain", "--cluster", "nobody", "ga"], &[]),
        (&["drain", "--addr", "nonsense", "ga"], &[]),
    ] {
        assert_eq!(shell.tab(words), wanted, "{words:?}");
    }
    // In bash itself, by its script.
    if has_program("bash") {
        let script = format!(
            "source <(COMPLETE=bash {:?}); COMP_WORDS=(broadgate drain --addr {host} : {port} ga) COMP_CWORD=6; \
             _clap_complete_broadgate broadgate ga {port}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            env!("CARGO_BIN_EXE_broadgate")
        );
        let output = shell.command("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), both.join("\n"), "{output:?}");
    }
    // A file that cannot be read is silent, too.
    std::fs::write(home.join(".config/broadgate/clusters.toml"), "[prod").unwrap();
    assert_eq!(shell.tab(&["status", "--cluster", "pr"]), [""; 0]);
}

/// Each shell can read its scripts, with live names and without, where it is installed.
#[test]
fn shells_parse_their_scripts() {
    let folder = std::env::temp_dir().join(format!("broadgate-scripts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, flag) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let program = || Command::new(env!("CARGO_BIN_EXE_broadgate"));
        let fixed = program().args(["completions", name]).output().unwrap();
        let live = program().env("COMPLETE", name).output().unwrap();
        for script in [fixed, live] {
            let text = String::from_utf8(script.stdout).unwrap();
            assert!(script.status.success() && text.contains("broadgate"), "{name}: {text}");
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            match Command::new(name).arg(flag).arg(&path).output() {
                Ok(parsed) => {
                    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{name}: {parsed:?}")
                }
                Err(error) => println!("{name} does not parse its scripts here: {error}"),
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A program that prints the token may ask for a password: it is not run.
#[tokio::test]
async fn no_program_is_run_for_a_token() {
    let cluster = Cluster::quiet(1).start().await;
    let home = cluster.dir.join("home");
    std::fs::create_dir_all(home.join(".config/broadgate")).unwrap();
    let ran = home.join("ran");
    let profile = format!(
        "[prod]\naddresses = [{:?}]\ntoken_command = [\"touch\", {:?}]\n",
        cluster.internal[0],
        ran.display().to_string()
    );
    let file = home.join(".config/broadgate/clusters.toml");
    std::fs::write(&file, profile).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let shell = Shell { home: &home, environment: vec![(PATIENT.0, PATIENT.1.to_owned())] };
    assert_eq!(shell.tab(&["drain", "--cluster", "prod", "ga"]), [""; 0]);
    assert!(!ran.exists(), "it was run");
    // Any other command runs it.
    let _ = shell.command(env!("CARGO_BIN_EXE_broadgate")).args(["whoami", "--cluster", "prod"]).output();
    assert!(ran.exists());
}

/// A cluster that takes the connection and says nothing is not waited for.
#[tokio::test]
async fn silent_cluster_has_no_names() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let home = std::env::temp_dir();
    let shell = Shell { home: &home, environment: Vec::new() };
    // Other waits of this program are of 2 s and more. The machine may be slow once.
    until("the shell has its prompt back soon", async || {
        let began = Instant::now();
        assert_eq!(shell.tab(&["drain", "--addr", &address, "ga"]), [""; 0]);
        (began.elapsed() < Duration::from_millis(1500)).then_some(())
    })
    .await;
    drop(listener);
}

/// Without a word to complete, the script is printed, or what is wrong with the shell's name.
#[test]
fn script_is_printed() {
    let home = std::env::temp_dir();
    let shell = Shell { home: &home, environment: Vec::new() };
    for (name, said) in [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --")] {
        let output = shell.command(env!("CARGO_BIN_EXE_broadgate")).env("COMPLETE", name).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(said), "{name}: {text}");
    }
    let output = shell.command(env!("CARGO_BIN_EXE_broadgate")).env("COMPLETE", "tcsh").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("unknown shell `tcsh`"), "{text}");
}
