//! One process of the executable, with its log; ended when it is dropped.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::until;

/// Sends a process a signal. Not by the program `kill`, which a small machine lacks.
pub fn signal(id: u32, name: &str) {
    let signal = match name {
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        "TSTP" => Signal::TSTP,
        _ => panic!("no signal {name:?} here"),
    };
    let id = Pid::from_raw(id.try_into().unwrap()).unwrap();
    kill_process(id, signal).unwrap_or_else(|error| panic!("{name} to {id:?}: {error}"));
}

pub struct Process {
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(dir: &Path, name: &str, args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_through(&[], dir, name, args, environment)
    }

    /// By another program that becomes ours, such as `ip netns exec`.
    pub fn start_through(
        before: &[&str],
        dir: &Path,
        name: &str,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut words = before.iter().chain(&[env!("CARGO_BIN_EXE_broadgate")]).chain(args);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env("BROADGATE_LOG", "info").env_remove("BROADGATE_SECRET").env("NO_COLOR", "1");
        for (key, value) in environment {
            command.env(key, value);
        }
        let child =
            command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { name: name.to_owned(), child, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The text that follows `marker` in the log, up to white space.
    pub async fn logged(&self, marker: &str) -> String {
        until(&format!("{} logs {marker:?}", self.name), || async {
            let log = self.log();
            let rest = &log[log.find(marker)? + marker.len()..];
            rest.split_whitespace().next().map(str::to_owned)
        })
        .await
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// TERM, STOP, CONT.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// How it has ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let process = std::cell::RefCell::new(self);
        until(&format!("{name} ends"), || async { process.borrow_mut().has_ended() }).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("---- {} (last lines)", self.name);
            for line in &lines[lines.len().saturating_sub(40)..] {
                println!("{line}");
            }
        }
        self.kill();
    }
}
