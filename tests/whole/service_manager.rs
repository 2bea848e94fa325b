//! What a service manager sees: systemd by its socket, a container's health check by the program.

use std::{net::Shutdown, os::unix::net::UnixDatagram, path::Path, process::Command, time::Duration};

use crate::harness::*;

/// A service manager's socket, and all that has come.
struct Manager {
    socket: UnixDatagram,
    path: String,
    lines: Vec<String>,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned(), lines: Vec::new() }
    }

    /// Waits for a line that begins so.
    async fn hears(&mut self, start: &str) -> String {
        let mine = std::cell::RefCell::new(self);
        until(&format!("the service manager gets {start:?}"), || async {
            let mut mine = mine.borrow_mut();
            let mut datagram = [0; 4096];
            while let Ok(length) = mine.socket.recv(&mut datagram) {
                let text = String::from_utf8(datagram[..length].to_vec()).unwrap();
                mine.lines.extend(text.lines().map(str::to_owned));
            }
            mine.lines.iter().find(|line| line.starts_with(start)).cloned()
        })
        .await
    }

    fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|heard| heard == line)
    }
}

fn health(address: &str, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broadgate"));
    let said = command.args(["health", "--metrics-bind", address]).args(more).output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    (said.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn service_manager_sees_ready_status_watchdog_and_stopping() {
    let dir = std::env::temp_dir().join(format!("broadgate-manager-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let [mut register, mut gateway, mut worker] =
        ["register", "gateway", "worker"].map(|role| Manager::at(&dir.join(format!("{role}.sock"))));
    let at: [String; 5] = std::array::from_fn(|_| free_address().to_string());
    let [registers, internal, client, probes, metrics] = at.each_ref().map(String::as_str);
    let args = [
        ["gateway", "--register", registers, "--internal-bind", internal].as_slice(),
        &["--client-bind", client, "--metrics-bind", probes, "--ready-delay", "1s", "--drain", "2s"],
    ]
    .concat();
    let environment = |manager: &Manager| vec![("NOTIFY_SOCKET".to_owned(), manager.path.clone())];
    let start = |name: &str, args: &[&str], more: &[(String, String)]| {
        let more: Vec<_> = more.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Process::start(&dir, name, args, &more)
    };

    let mut set = environment(&gateway);
    set.push(("WATCHDOG_USEC".to_owned(), "300000".to_owned()));
    set.push(("BROADGATE_NAME".to_owned(), "gw-of-the-pod".to_owned()));
    let mut running = start("gateway", &args, &set);
    // It runs, and is not ready without a register.
    let status = gateway.hears("STATUS=").await;
    assert!(status.starts_with("STATUS=not in a view as ready"), "{status}");
    gateway.hears("WATCHDOG=1").await;
    assert!(!gateway.has("READY=1"), "{:?}", gateway.lines);
    assert_eq!(health(probes, &[]), (0, "ok\n".to_owned()));
    let (code, said) = health(probes, &["--ready"]);
    assert!(code == 1 && said.contains("not in a view as ready"), "{code} {said}");

    let served = start(
        "register",
        &["register", "--bind", registers, "--metrics-bind", metrics],
        &environment(&register),
    );
    register.hears("READY=1").await;
    gateway.hears("READY=1").await;
    gateway.hears("STATUS=ready: 0 clients, 0 other gateways, 0 workers").await;
    assert_eq!(health(probes, &["--ready"]), (0, "ready\n".to_owned()));
    register.hears("STATUS=ready: 1 gateway, 0 workers").await;
    let shown = Command::new(env!("CARGO_BIN_EXE_broadgate")).args(["status", "--addr", internal]).output();
    assert!(String::from_utf8_lossy(&shown.unwrap().stdout).contains("gw-of-the-pod"));

    let mut echo = start("worker", &["worker", "echo", "--register", registers], &environment(&worker));
    worker.hears("READY=1").await;
    worker.hears("STATUS=ready: attached to 1 gateway").await;
    echo.signal("TERM");
    worker.hears("STOPPING=1").await;
    assert_eq!(echo.ended().await.code(), Some(0));

    // An operator's drain is a stop as well.
    assert!(!gateway.has("STOPPING=1"), "{:?}", gateway.lines);
    let drain = ["drain", "gw-of-the-pod", "--addr", internal];
    assert!(Command::new(env!("CARGO_BIN_EXE_broadgate")).args(drain).status().unwrap().success());
    gateway.hears("STOPPING=1").await;
    gateway.hears("STATUS=stopping: ").await;
    assert_eq!(running.ended().await.code(), Some(0));
    assert_eq!(health(probes, &[]).0, 5);
    served.signal("TERM");
    register.hears("STOPPING=1").await;
    drop((running, echo, served));
    std::fs::remove_dir_all(dir).unwrap();
}

/// A socket that nobody reads must not stop a role.
#[tokio::test]
async fn role_runs_without_its_service_manager() {
    let dir = std::env::temp_dir().join(format!("broadgate-no-manager-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let manager = Manager::at(&dir.join("gone.sock"));
    manager.socket.shutdown(Shutdown::Both).unwrap();
    let path = manager.path.clone();
    drop(manager);
    let (address, probes) = (free_address().to_string(), free_address().to_string());
    let args = ["register", "--bind", &address, "--metrics-bind", &probes];
    let register = Process::start(&dir, "register", &args, &[("NOTIFY_SOCKET", &path)]);
    register.logged("NOTIFY_SOCKET cannot be used").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(health(&probes, &["--ready"]).0, 0);
    drop(register);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn health_needs_an_address_of_probes() {
    let said = Command::new(env!("CARGO_BIN_EXE_broadgate")).arg("health").output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("metrics.bind"));
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = other.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n");
    });
    let (code, said) = health(&address, &[]);
    assert!(code == 5 && said.contains("is not a metrics port"), "{code} {said}");
}
