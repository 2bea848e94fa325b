//! The processes of `up`: it starts them, forwards their output, restarts them, and ends them with itself.

use std::{
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    task::JoinSet,
};

use super::restart::{Deaths, RestartVerdict};
use crate::failure::Failure;

/// Children have this long to end in good order.
const STOP_TIME_MAX: Duration = Duration::from_millis(2500);

/// A child that waits for another's listener is started after this all the same.
const AFTER_TIME_MAX: Duration = Duration::from_secs(10);

/// What a child is started with.
#[derive(Clone)]
pub(super) struct Spec {
    name: String,
    args: Vec<String>,
    /// Not started before somebody listens here.
    after: Option<SocketAddr>,
}

impl Spec {
    pub(super) fn new<'a>(name: &str, args: impl IntoIterator<Item = &'a str>) -> Self {
        Self { name: name.to_owned(), args: args.into_iter().map(str::to_owned).collect(), after: None }
    }

    pub(super) fn arg(&mut self, arg: String) {
        self.args.push(arg);
    }

    /// Its first start waits for this listener, so that it need not be told that nobody is there.
    pub(super) fn after(self, listener: SocketAddr) -> Self {
        Self { after: Some(listener), ..self }
    }
}

/// Every child, each with a task that looks after it.
pub(super) struct Children {
    /// In the order in which they are started; they are ended in the reverse order of their stages.
    stages: Vec<StopStage>,
    failures: mpsc::Receiver<Failure>,
}

/// Children that are ended together.
struct StopStage {
    keepers: JoinSet<()>,
    orders: tokio::sync::watch::Sender<ChildOrder>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChildOrder {
    Run,
    Stop,
    Kill,
}

impl Children {
    /// Starts all; each stage is ended before those that stand before it.
    pub(super) fn start(stages: Vec<Vec<Spec>>) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let (failed, failures) = mpsc::channel(stages.iter().map(Vec::len).sum::<usize>().max(1));
        let stages = stages.into_iter().map(|specs| StopStage::start(&program, specs, &failed)).collect();
        Ok(Self { stages, failures })
    }

    /// Waits until a child is given up.
    pub(super) async fn watch(&mut self) -> Failure {
        match self.failures.recv().await {
            Some(failure) => failure,
            None => Failure::Failed("every child has ended".to_owned()),
        }
    }

    /// Ends all in good order, and those that take too long at once.
    pub(super) async fn stop(&mut self) {
        let in_order = async {
            for stage in self.stages.iter_mut().rev() {
                stage.order(ChildOrder::Stop).await;
            }
        };
        if tokio::time::timeout(STOP_TIME_MAX, in_order).await.is_err() {
            self.kill().await;
        }
    }

    pub(super) async fn kill(&mut self) {
        for stage in self.stages.iter_mut().rev() {
            stage.order(ChildOrder::Kill).await;
        }
    }
}

impl StopStage {
    fn start(program: &std::path::Path, specs: Vec<Spec>, failed: &mpsc::Sender<Failure>) -> Self {
        let (orders, order) = tokio::sync::watch::channel(ChildOrder::Run);
        let mut keepers = JoinSet::new();
        for spec in specs {
            let keeper =
                Keeper { program: program.to_owned(), spec, order: order.clone(), failed: failed.clone() };
            keepers.spawn(keeper.run());
        }
        Self { keepers, orders }
    }

    async fn order(&mut self, order: ChildOrder) {
        self.orders.send_replace(order);
        while self.keepers.join_next().await.is_some() {}
    }
}

struct Keeper {
    program: std::path::PathBuf,
    spec: Spec,
    order: tokio::sync::watch::Receiver<ChildOrder>,
    failed: mpsc::Sender<Failure>,
}

type LastLine = Arc<Mutex<String>>;

impl Keeper {
    async fn run(mut self) {
        if let Some(listener) = self.spec.after {
            tokio::select! {
                _ = tokio::time::timeout(AFTER_TIME_MAX, listens(listener)) => {}
                _ = self.order.changed() => {}
            }
        }
        let started = Instant::now();
        let mut deaths = Deaths::default();
        while self.may_run() {
            let last = LastLine::default();
            let reason = match self.start(&last) {
                Ok((child, stdin)) => match self.look_after(child, stdin).await {
                    Some(status) => describe(status),
                    None => return,
                },
                Err(error) => format!("it could not be started: {error}"),
            };
            let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let reason = if last.is_empty() { reason } else { format!("{reason}; its last line: {last}") };
            match deaths.died(started.elapsed()) {
                RestartVerdict::Again { after } => {
                    say!("{} has ended: {reason}. Starting it again in {after:?}.", self.spec.name);
                    tokio::select! {
                        () = tokio::time::sleep(after) => {}
                        _ = self.order.changed() => {}
                    }
                }
                RestartVerdict::GiveUp => {
                    let sentence =
                        format!("{} has ended five times within a minute: {reason}", self.spec.name);
                    // The first failure is reported.
                    let _ = self.failed.try_send(Failure::Failed(sentence));
                    return;
                }
            }
        }
    }

    fn may_run(&self) -> bool {
        *self.order.borrow() == ChildOrder::Run
    }

    fn start(&self, last: &LastLine) -> std::io::Result<(Child, ChildStdin)> {
        let mut command = Command::new(&self.program);
        // The supervisor alone speaks for its service, and names its children.
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("BROADGATE_NAME");
        // Quieter than a role alone: the table is what a newcomer looks for.
        if std::env::var_os("BROADGATE_LOG").is_none_or(|level| level.is_empty()) {
            command.env("BROADGATE_LOG", "warn");
        }
        let mut child = command
            .args(&self.spec.args)
            .arg("--supervised")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C at the terminal is for the supervisor, which then ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().ok_or_else(|| std::io::Error::other("no standard input"))?;
        if let Some(stderr) = child.stderr.take() {
            broadgate_tasks::spawn("child's log", forward(self.spec.name.clone(), stderr, Arc::clone(last)));
        }
        Ok((child, stdin))
    }

    /// Its exit status; none if it was told to end. Its standard input is held open: when this
    /// process is gone, however it went, the child sees the end of it and stops.
    async fn look_after(&mut self, mut child: Child, stdin: ChildStdin) -> Option<ExitStatus> {
        tokio::select! {
            status = child.wait() => return status.ok(),
            () = ordered(&mut self.order, |order| order != ChildOrder::Run) => {}
        }
        drop(stdin);
        tokio::select! {
            _ = child.wait() => {}
            () = ordered(&mut self.order, |order| order == ChildOrder::Kill) => {
                let _ = child.kill().await;
            }
        }
        None
    }
}

/// Waits for such an order. The guard that `wait_for` returns must not be held.
async fn ordered(orders: &mut tokio::sync::watch::Receiver<ChildOrder>, such: impl Fn(ChildOrder) -> bool) {
    // The sender lives as long as the children.
    let _ = orders.wait_for(|order| such(*order)).await.map(|order| *order);
}

async fn listens(listener: SocketAddr) {
    while tokio::net::TcpStream::connect(listener).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn forward(name: String, stderr: tokio::process::ChildStderr, last: LastLine) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        say!("{name:>10} | {line}");
        if !line.trim().is_empty() {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}
