//! business/ECHO-SERVER.md, word by word: the commands of the page, with free ports in the place of its own.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{harness::*, socketio::Io};

/// Where the page's processes listen.
struct Ports {
    register: String,
    internal: String,
    web: String,
    /// Nothing listens there.
    redis: String,
}

/// The commands of the page, in its order.
struct Page {
    dir: PathBuf,
    ports: Ports,
}

impl Page {
    fn read() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("business/ECHO-SERVER.md");
        std::fs::read_to_string(path).unwrap()
    }

    /// The fenced blocks of a language.
    fn blocks(text: &str, language: &str) -> Vec<String> {
        let fence = format!("\n```{language}\n");
        let parts = text.split(&fence).skip(1);
        parts.map(|part| part.split("\n```").next().unwrap().to_owned() + "\n").collect()
    }

    /// With our ports instead of those that other programs of this machine may use.
    fn ours(&self, text: &str) -> String {
        let port = self.ports.web.rsplit(':').next().unwrap();
        let redis = self.ports.redis.rsplit(':').next().unwrap();
        text.replace("6001", port).replace("6379", redis).replace("0.0.0.0", "127.0.0.1")
    }

    fn environment(&self) -> Vec<(String, String)> {
        let executable = Path::new(env!("CARGO_BIN_EXE_broadgate")).parent().unwrap();
        let path = format!(
            "{}:{}:{}",
            self.dir.join("bin").display(),
            executable.display(),
            std::env::var("PATH").unwrap()
        );
        [
            ("PATH", path),
            ("NO_COLOR", "1".to_owned()),
            ("BROADGATE_CLUSTER__REGISTER", format!("[{:?}]", self.ports.register)),
            ("BROADGATE_REGISTER__BIND", self.ports.register.clone()),
            ("BROADGATE_GATEWAY__INTERNAL__BIND", self.ports.internal.clone()),
            ("BROADGATE_ADDR", self.ports.internal.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Types a block; what it prints.
    fn shell(&self, block: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-euc", &self.ours(block)]).current_dir(&self.dir).envs(self.environment());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{block}\n{said}\n{error}");
        said
    }

    /// Starts the process of a block with one command.
    fn start(&self, block: &str) -> Process {
        let line = block.lines().nth(1).unwrap();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(words[0], "broadgate", "{block}");
        let in_dir = |word: &str| {
            if word.ends_with(".toml") { self.dir.join(word).display().to_string() } else { word.to_owned() }
        };
        let args: Vec<String> = words[1..].iter().map(|word| in_dir(word)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let environment = self.environment();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        Process::start(&self.dir, &words[1], &args, &environment)
    }
}

#[tokio::test]
async fn page_for_users_of_laravel_echo_server_is_true() {
    // The page's own command.
    if !has_program("curl") {
        return;
    }
    // The guard that bounds how many clusters run, and a folder that goes with it.
    let cluster = Cluster::of(0).start().await;
    let [register, internal, web, redis] = [(); 4].map(|()| free_address().to_string());
    let ports = Ports { register, internal, web, redis };
    let page = Page { dir: cluster.dir.join("page"), ports };
    std::fs::create_dir_all(page.dir.join("bin")).unwrap();
    // The one command that is not there.
    let stub = page.dir.join("bin/laravel-echo-server");
    std::fs::write(&stub, "#!/bin/sh\n[ \"$1\" = stop ]\n").unwrap();
    std::fs::set_permissions(&stub, Permissions::from_mode(0o755)).unwrap();

    let text = Page::read();
    let json = Page::blocks(&text, "json");
    std::fs::write(page.dir.join("laravel-echo-server.json"), page.ours(&json[0])).unwrap();
    let mut processes = Vec::new();
    let mut client = None;
    let mut said = String::new();
    for block in Page::blocks(&text, "sh") {
        if block.starts_with("# a process of its own\n") {
            processes.push(page.start(&block));
            continue;
        }
        // The last block publishes: the client must be there.
        if block.contains("curl") {
            let ready = format!("http://{}/up", page.ports.web);
            until("the gateway is ready", async || {
                let up = Command::new("curl").args(["--fail", "--silent", &ready]).output().unwrap();
                up.status.success().then_some(())
            })
            .await;
            let mut io = Io::connect_to(&page.ports.web, 3).await;
            io.subscribe("news", "").await;
            io.has_subscribed().await;
            client = Some(io);
        }
        said += &page.shell(&block);
    }
    assert_eq!(processes.len(), 2);
    let heard = client.expect("the page publishes").hear().await;
    assert_eq!(heard, json!(["hello", "news", {"text": "from a script"}]));
    assert!(said.contains(r#"{"message":"ok"}"#), "{said}");
    assert!(said.contains(r#"{"channels":{"news":{"subscription_count":1,"occupied":true}}}"#), "{said}");
}
