//! Messages to the service manager that started a role (systemd, `Type=notify`): ready, stopping, a line of
//! status, the watchdog. Nothing is sent without NOTIFY_SOCKET.

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use sd_notify::NotifyState;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

/// Is the role ready? Else a sentence that says why not.
pub(crate) type Ready = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Between two looks at readiness, which is a flag.
const LOOK: Duration = Duration::from_millis(200);
/// And at least this, however short the watchdog's time is: a process that only reports would do nothing else.
const LOOK_MIN: Duration = Duration::from_millis(20);
/// Between two lines of status: each reads all metrics.
const STATUS: Duration = Duration::from_secs(5);

/// What a role reports to its service manager.
pub(crate) struct ServiceManager {
    pub(crate) role: &'static str,
    pub(crate) ready: Ready,
    /// Cancelled when the role begins to stop.
    pub(crate) stopping: CancellationToken,
    pub(crate) metrics: PrometheusHandle,
}

impl ServiceManager {
    /// Reports until the role has ended.
    pub(crate) async fn run(self, end: CancellationToken) {
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return end.cancelled().await;
        }
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        if let Some(time) = watchdog.filter(|time| *time < LOOK_MIN * 3) {
            tracing::warn!(
                ?time,
                "the service manager's watchdog (WatchdogSec) is too short to be kept: give it 1 s or more"
            );
        }
        let mut looks = interval(look_interval(watchdog));
        let mut reported = ManagerReport::default();
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.stopping.cancelled(), if !reported.stopping => {}
                () = end.cancelled() => {}
            }
            let over = end.is_cancelled();
            let messages = self.messages(&mut reported, watchdog, Instant::now());
            if !messages.is_empty() && !send(messages).await {
                return end.cancelled().await;
            }
            if over {
                return;
            }
        }
    }

    /// What is due.
    fn messages(
        &self,
        reported: &mut ManagerReport,
        watchdog: Option<Duration>,
        now: Instant,
    ) -> Vec<Message> {
        let mut due = Vec::new();
        let ready = (self.ready)();
        let stopping = self.stopping.is_cancelled();
        let state = (ready, stopping);
        if ready.is_ok() && !stopping && !reported.ready {
            reported.ready = true;
            due.push(Message::Ready);
        }
        if stopping && !reported.stopping {
            reported.stopping = true;
            due.push(Message::Stopping);
        }
        let over = |at: Option<Instant>, time| at.is_none_or(|at| now.duration_since(at) >= time);
        if reported.state != Some(state) || over(reported.status_at, STATUS) {
            reported.state = Some(state);
            reported.status_at = Some(now);
            let status = status(self.role, state, &self.metrics.render());
            if status != reported.status {
                reported.status.clone_from(&status);
                due.push(Message::Status(status));
            }
        }
        if watchdog.is_some_and(|time| over(reported.alive_at, time / 3)) {
            reported.alive_at = Some(now);
            due.push(Message::Alive);
        }
        due
    }
}

/// Three signs of life within the watchdog's time, so that one may be late.
fn look_interval(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(LOOK, |time| (time / 3).clamp(LOOK_MIN, LOOK))
}

/// What the service manager has been sent.
#[derive(Default)]
struct ManagerReport {
    ready: bool,
    stopping: bool,
    state: Option<State>,
    status: String,
    status_at: Option<Instant>,
    alive_at: Option<Instant>,
}

/// Ready or why not, and whether it stops.
type State = (Result<(), &'static str>, bool);

enum Message {
    Ready,
    Stopping,
    Status(String),
    Alive,
}

/// Sends the messages; returns false if nobody takes them.
async fn send(messages: Vec<Message>) -> bool {
    // The socket blocks while the service manager is busy.
    let sent = broadgate_tasks::blocking("service manager", move || {
        let states: Vec<NotifyState<'_>> = messages
            .iter()
            .map(|message| match message {
                Message::Ready => NotifyState::Ready,
                Message::Stopping => NotifyState::Stopping,
                Message::Status(line) => NotifyState::Status(line),
                Message::Alive => NotifyState::Watchdog,
            })
            .collect();
        sd_notify::notify(&states)
    });
    match sent.await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "no messages to the service manager: NOTIFY_SOCKET cannot be used");
            false
        }
        Err(_) => false,
    }
}

/// One line for `systemctl status`.
fn status(role: &str, (ready, stopping): State, metrics: &str) -> String {
    let counted = |name: &str, label: &str, what: &str| {
        let count = sum(metrics, name, label);
        format!("{count} {what}{}", if count == 1 { "" } else { "s" })
    };
    let counts = match role {
        "gateway" => [
            counted("broadgate_gateway_clients", "", "client"),
            counted("broadgate_gateway_peers", "", "other gateway"),
            counted("broadgate_gateway_workers", "", "worker"),
        ]
        .join(", "),
        "register" => [
            counted("broadgate_register_members", "role=\"gateway\"", "gateway"),
            counted("broadgate_register_members", "role=\"worker\"", "worker"),
        ]
        .join(", "),
        _ => format!("attached to {}", counted("broadgate_worker_gateways_attached", "", "gateway")),
    };
    match (stopping, ready) {
        (true, _) => format!("stopping: {counts}"),
        (false, Ok(())) => format!("ready: {counts}"),
        (false, Err(why)) => format!("{why}; {counts}"),
    }
}

/// The sum of a gauge over its labels, of those lines that have this one.
fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let lines = lines.filter(|rest| rest.starts_with([' ', '{']) && rest.contains(label));
    // A gauge is a number of things here, so never below zero for long.
    lines.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_watchdog_does_not_keep_the_process_busy() {
        for (watchdog_us, look_ms) in [(1, 20), (59_999, 20), (90_000, 30), (30_000_000, 200)] {
            let watchdog = Some(Duration::from_micros(watchdog_us));
            assert_eq!(look_interval(watchdog), Duration::from_millis(look_ms), "{watchdog_us}");
        }
        assert_eq!(look_interval(None), LOOK);
    }

    #[test]
    fn status_counts_over_labels() {
        let metrics = "# HELP broadgate_gateway_clients Clients\n# TYPE broadgate_gateway_clients gauge\n\
                       broadgate_gateway_clients{shard=\"0\"} 3\nbroadgate_gateway_clients{shard=\"1\"} 4\n\
                       broadgate_gateway_clients_opened_total 90\nbroadgate_gateway_peers 1\n\
                       broadgate_register_members{role=\"gateway\",state=\"ready\"} 2\n\
                       broadgate_register_members{role=\"gateway\",state=\"draining\"} 1\n\
                       broadgate_register_members{role=\"worker\",state=\"ready\"} 5\n";
        assert_eq!(
            status("gateway", (Ok(()), false), metrics),
            "ready: 7 clients, 1 other gateway, 0 workers"
        );
        assert_eq!(status("register", (Ok(()), true), metrics), "stopping: 3 gateways, 5 workers");
        assert_eq!(
            status("worker", (Err("no register"), false), metrics),
            "no register; attached to 0 gateways"
        );
    }
}
