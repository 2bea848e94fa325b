//! The help text of each metric.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram};

/// Counters, which end in `_total`.
const COUNTERS: &[(&str, &str)] = &[
    ("broadgate_cluster_commands_failed_total", "Commands of this process whose attempts failed, by reason"),
    ("broadgate_cluster_link_breaks_total", "Command streams to gateways that broke"),
    ("broadgate_gateway_accept_errors_total", "Accepts that failed; the next is tried after 100 ms"),
    ("broadgate_gateway_answers_incomplete_total", "Answers that had to name a gateway as missing"),
    ("broadgate_gateway_api_requests_total", "Requests of backends to the HTTP APIs of apps, by status"),
    (
        "broadgate_gateway_apps_read_total",
        "Reloads of the apps, by outcome; after \"bad\" and \"lost\" the former apps stay",
    ),
    ("broadgate_gateway_bytes_in_total", "Payload bytes from clients"),
    ("broadgate_gateway_bytes_out_total", "Payload bytes placed in outboxes of clients"),
    ("broadgate_gateway_clients_closed_total", "Clients closed, by cause"),
    ("broadgate_gateway_clients_opened_total", "Connections that became clients"),
    (
        "broadgate_gateway_command_ids_forgotten_total",
        "Command ids evicted before their two minutes, by origin",
    ),
    ("broadgate_gateway_drops_total", "Messages and events dropped, by reason"),
    (
        "broadgate_gateway_pusher_delayed_total",
        "Subscriptions that delayed reading of a Pusher client to the next second",
    ),
    ("broadgate_gateway_events_redelivered_total", "Events sent again because a worker was lost"),
    ("broadgate_gateway_events_sent_total", "Events sent to workers"),
    ("broadgate_gateway_homes_drops_total", "Frames and questions dropped by the topics' core, by reason"),
    ("broadgate_gateway_http_errors_total", "JSON commands refused"),
    ("broadgate_gateway_messages_in_total", "Messages from clients"),
    ("broadgate_gateway_messages_out_total", "Messages placed in outboxes of clients"),
    (
        "broadgate_gateway_pauses_total",
        "Pauses of a shard of several seconds, because its process or host was stopped",
    ),
    ("broadgate_gateway_peer_batches_dropped_total", "Batches of commands not sent to a peer, by reason"),
    (
        "broadgate_gateway_peer_frames_unreadable_total",
        "Frames from peers that this gateway cannot decode, by kind",
    ),
    ("broadgate_gateway_peer_links_lost_total", "Links to other gateways that broke or could not be opened"),
    (
        "broadgate_gateway_peer_frames_sent_total",
        "Frames sent to peers by homes and callers of homes, by kind",
    ),
    ("broadgate_gateway_peer_resyncs_total", "Resets of a peer's links because its state mismatched"),
    ("broadgate_gateway_refused_total", "Connections, calls, subscriptions and sign-ins refused, by reason"),
    (
        "broadgate_gateway_sends_without_home_total",
        "Commands sent to every gateway because their home was unreachable",
    ),
    ("broadgate_gateway_socket_writes_total", "System calls that wrote to clients"),
    (
        "broadgate_gateway_subscriptions_without_home_total",
        "Subscriptions of Pusher clients whose channel's home did not answer in time: presence channels refuse them",
    ),
    ("broadgate_gateway_tls_failures_total", "TLS handshakes of clients that failed, by reason"),
    ("broadgate_gateway_tls_handshakes_total", "TLS handshakes of clients that succeeded, by version"),
    (
        "broadgate_gateway_views_asked_total",
        "Questions to other gateways for views that they have announced by number",
    ),
    (
        "broadgate_gateway_views_sent_total",
        "Views sent to other gateways, by form: number, changes, or whole",
    ),
    (
        "broadgate_gateway_webhook_drops_total",
        "Webhook events dropped, by reason; those of \"inbox_undone\" were cancelled by a later one",
    ),
    (
        "broadgate_gateway_webhook_unjournaled_total",
        "Notifications that the full webhook journal could not record",
    ),
    (
        "broadgate_gateway_authorizations_total",
        "Questions to apps' backends whether a client may subscribe, by outcome",
    ),
    (
        "broadgate_gateway_redis_messages_total",
        "Messages of apps' Redis, by app and by the home of their channel: here, another gateway, or unknown outside a view",
    ),
    (
        "broadgate_gateway_redis_drops_total",
        "Messages of apps' Redis that were not placed, by app and reason",
    ),
    (
        "broadgate_gateway_redis_disconnected_seconds_total",
        "Seconds without a connection to an app's Redis: what was published meanwhile is lost",
    ),
    (
        "broadgate_gateway_socketio_handshakes_total",
        "Handshakes of Socket.IO clients: begun by polling, gone over to a WebSocket, or begun with one",
    ),
    ("broadgate_gateway_socketio_ignored_total", "Frames of Socket.IO clients without effect, by reason"),
    ("broadgate_gateway_webhook_posts_total", "Attempts at posting webhooks, by outcome"),
    ("broadgate_gateway_webhook_spool_errors_total", "Failed writes of the webhook spool"),
    (
        "broadgate_gateway_webhook_unspooled_total",
        "Webhook events that are in memory only because the spool was full",
    ),
    (
        "broadgate_member_events_dropped_total",
        "Events from the register dropped because this member's queue was full",
    ),
    (
        "broadgate_member_requests_dropped_total",
        "Requests to the register dropped because the queue was full",
    ),
    (
        "broadgate_port_closed_total",
        "Connections closed by internal, register and metrics ports, by port and reason",
    ),
    ("broadgate_register_disconnects_total", "Member streams that the register ended, by reason"),
    ("broadgate_register_elections_total", "Times that this register began to lead over a ledger"),
    ("broadgate_register_joins_total", "Members that joined"),
    (
        "broadgate_register_ledger_behind_total",
        "Times that a member knew a view that the ledger had not: etcd had lost data, or was used first",
    ),
    (
        "broadgate_register_ledger_errors_total",
        "Calls to the ledger that failed, by reason; most are repeated",
    ),
    (
        "broadgate_register_step_downs_total",
        "Times that this register stepped down for an active one of a higher term",
    ),
    ("broadgate_register_redials_total", "Members that reconnected on another stream"),
    ("broadgate_register_refused_total", "Streams refused by the register, by reason"),
    ("broadgate_register_removed_total", "Members removed from the view, by reason"),
    ("broadgate_register_takeovers_total", "Views taken over from reports of members"),
    ("broadgate_register_views_sent_total", "Views sent to members and watchers, by form: changes, or whole"),
    ("broadgate_task_panics_total", "Panics that ended only one stream, connection or request, by task"),
    (
        "broadgate_tls_reload_failures_total",
        "Changed certificate files that could not be used, by role; the former ones stay",
    ),
    ("broadgate_tls_reloads_total", "Changed certificate files taken into use, by role"),
    ("broadgate_worker_attach_failures_total", "Attachments to gateways that broke or failed"),
    ("broadgate_worker_events_dropped_total", "Events not handled because a gateway redelivers them"),
    ("broadgate_worker_events_total", "Events received, by kind"),
    ("broadgate_worker_gateways_lost_total", "Gateways that left the view while attached"),
    ("broadgate_worker_handler_errors_total", "Handlers that returned an error"),
    ("broadgate_worker_handler_panics_total", "Handlers that panicked"),
    (
        "broadgate_worker_pusher_events_missed_total",
        "Events of Pusher clients that gateways dropped for this worker",
    ),
    ("broadgate_worker_timer_panics_total", "Timers that panicked"),
];

/// Gauges.
const GAUGES: &[(&str, &str)] = &[
    ("broadgate_build_info", "1; version and role are in the labels"),
    ("broadgate_gateway_apps_stale", "1 while the files of the apps are unusable and the former apps stay"),
    ("broadgate_gateway_clients", "Clients and reserved slots, by shard"),
    (
        "broadgate_gateway_command_ids_bytes",
        "Bytes of a shard's remembered commands: ids, answers and tables",
    ),
    (
        "broadgate_gateway_cluster_majority_lost",
        "1 for a lease after more than half of the gateways have vanished within one",
    ),
    (
        "broadgate_gateway_outboxes_bytes",
        "Bytes of a shard's outboxes: a message counts once, however many clients get it",
    ),
    ("broadgate_gateway_epoch_number", "The count of the view's epoch"),
    ("broadgate_gateway_epoch_term", "The term of the view's epoch"),
    ("broadgate_gateway_homes", "Topics that have members and their home at this gateway"),
    (
        "broadgate_gateway_retained_bytes",
        "Bytes of the last values and histories that groups retain at this gateway",
    ),
    ("broadgate_gateway_homes_asked", "Unanswered questions of callers to homes"),
    ("broadgate_gateway_homes_deliveries", "Unanswered commands that this home has forwarded"),
    ("broadgate_gateway_homes_parked", "Questions parked at this home until gateways have synced"),
    ("broadgate_gateway_peers", "Other gateways in the view"),
    ("broadgate_gateway_peers_unsynced", "Gateways of the view that have not synced"),
    ("broadgate_gateway_pusher_watchers", "Streams that watch Pusher clients"),
    ("broadgate_gateway_redis_disconnected", "1 while there is no connection to an app's Redis"),
    ("broadgate_gateway_register_heard", "1 while a register answers"),
    ("broadgate_gateway_webhook_journal_bytes", "Size of the webhook journal's file"),
    ("broadgate_gateway_webhook_queue_bytes", "Bytes of webhook events queued for an app's endpoints"),
    ("broadgate_gateway_webhook_queue_events", "Webhook events queued for an app's endpoints"),
    ("broadgate_gateway_webhook_spool_bytes", "Size of the webhook spool's file"),
    ("broadgate_gateway_workers", "Workers attached to this gateway"),
    ("broadgate_member_register_heard", "1 while a register answers"),
    (
        "broadgate_member_register_outside",
        "Gateways that only another active register knows; anything but 0: run only one",
    ),
    ("broadgate_register_epoch_number", "The count of the view's epoch"),
    ("broadgate_register_epoch_term", "The term of the view's epoch"),
    ("broadgate_register_leads", "1 while this register leads, or keeps its list in memory"),
    ("broadgate_register_members", "Members in the view, by role and state"),
    (
        "broadgate_tls_certificate_expires_seconds",
        "Unix time at which the first certificate of a file expires, by role and file",
    ),
    ("broadgate_tls_stale", "1 while certificate files are unusable and the former ones stay, by role"),
    ("broadgate_worker_events_unanswered", "Unanswered events in this worker"),
    ("broadgate_worker_gateways_attached", "Gateways that this worker is attached to"),
];

/// Histograms, in seconds.
const HISTOGRAMS: &[(&str, &str)] = &[
    (
        "broadgate_gateway_commands_seconds",
        "From placing a batch of commands until its last answer; a single call is a batch of one",
    ),
    ("broadgate_gateway_shard_lag_seconds", "How late a shard's tick was, once per second and shard"),
    (
        "broadgate_gateway_shard_turn_seconds",
        "Turns of the shards' loops: commands executed and clients written to, a sample",
    ),
    (
        "broadgate_gateway_webhook_delivery_seconds",
        "From a webhook event until its delivery, with all attempts",
    ),
    ("broadgate_gateway_webhook_post_seconds", "One attempt at posting webhooks"),
    (
        "broadgate_gateway_authorization_seconds",
        "From a Socket.IO client's request to subscribe until its app's backend has answered, or not",
    ),
    (
        "broadgate_register_ledger_commit_seconds",
        "From a change of the list until the ledger has accepted it, with all attempts",
    ),
];

/// A label and its value.
type Label = (&'static str, &'static str);

/// Counters that alerts watch, by role, with a label: they exist from the start, because for
/// Prometheus a counter that appears with 1 has not increased.
const FROM_THE_START: &[(&str, &str, Option<Label>)] = &[
    ("gateway", "broadgate_gateway_authorizations_total", Some(("outcome", "connect"))),
    ("gateway", "broadgate_gateway_authorizations_total", Some(("outcome", "timeout"))),
    ("gateway", "broadgate_gateway_peer_links_lost_total", None),
    ("gateway", "broadgate_gateway_refused_total", Some(("reason", "clients_max"))),
    ("gateway", "broadgate_gateway_refused_total", Some(("reason", "secret"))),
    ("gateway", "broadgate_gateway_sends_without_home_total", None),
    ("gateway", "broadgate_gateway_socketio_handshakes_total", Some(("step", "polling"))),
    ("gateway", "broadgate_gateway_socketio_handshakes_total", Some(("step", "upgrade"))),
    ("gateway", "broadgate_gateway_subscriptions_without_home_total", Some(("outcome", "confirmed"))),
    ("gateway", "broadgate_gateway_subscriptions_without_home_total", Some(("outcome", "refused"))),
    ("gateway", "broadgate_gateway_tls_failures_total", Some(("reason", "plain"))),
    ("gateway", "broadgate_gateway_tls_failures_total", Some(("reason", "certificate_refused"))),
    ("gateway", "broadgate_gateway_tls_failures_total", Some(("reason", "timeout"))),
    ("gateway", "broadgate_gateway_tls_failures_total", Some(("reason", "malformed"))),
    ("gateway", "broadgate_gateway_webhook_drops_total", Some(("reason", "inbox_full"))),
    ("gateway", "broadgate_gateway_homes_drops_total", Some(("reason", "channels_busy"))),
    ("gateway", "broadgate_gateway_webhook_drops_total", Some(("reason", "given_up"))),
    ("gateway", "broadgate_gateway_webhook_drops_total", Some(("reason", "queue_full"))),
    ("gateway", "broadgate_gateway_webhook_drops_total", Some(("reason", "stopped"))),
    ("gateway", "broadgate_gateway_webhook_posts_total", Some(("outcome", "ok"))),
    ("register", "broadgate_register_ledger_behind_total", None),
    ("register", "broadgate_register_ledger_errors_total", Some(("reason", "refused"))),
    ("register", "broadgate_register_ledger_errors_total", Some(("reason", "unreachable"))),
    ("register", "broadgate_register_ledger_errors_total", Some(("reason", "no_lease"))),
    ("register", "broadgate_register_refused_total", Some(("reason", "secret"))),
    ("register", "broadgate_register_removed_total", Some(("reason", "lease"))),
    ("register", "broadgate_register_step_downs_total", None),
];

/// Tasks whose panic ends only what they serve, by role: the label `task` of `broadgate_task_panics_total`.
const CONTAINED: &[(&str, &[&str])] = &[
    (
        "",
        &["certificates", "connection of a port", "look at other registers", "service manager", "step-down"],
    ),
    (
        "gateway",
        &[
            "answers to clients",
            "app files",
            "authorization",
            "client",
            "command stream",
            "connection",
            "drain",
            "handshake",
            "list of clients",
            "peer's link",
            "redis certificates",
            "redis messages",
            "redis reader",
            "release of a worker",
            "webhook journal",
            "webhook spool",
            "worker's stream",
        ],
    ),
    ("register", &["member's stream"]),
    (
        "worker",
        &[
            "command stream",
            "end of a link",
            "followed views",
            "watch of Pusher clients",
            "watch of groups",
            "watched gateway",
        ],
    ),
];

/// Registers every metric's help text, and the counters that alerts watch.
pub(crate) fn describe(role: &str) {
    for task in CONTAINED.iter().filter(|(of, _)| of.is_empty() || *of == role).flat_map(|(_, tasks)| *tasks)
    {
        counter!("broadgate_task_panics_total", "task" => *task).increment(0);
    }
    for &(_, name, label) in FROM_THE_START.iter().filter(|(of, ..)| *of == role) {
        match label {
            Some((label, value)) => counter!(name, label => value).increment(0),
            None => counter!(name).increment(0),
        }
    }
    for &(name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for &(name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    for &(name, help) in HISTOGRAMS {
        describe_histogram!(name, help);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    /// Every metric of the program is described here, and nothing else.
    #[test]
    fn every_metric_has_help() {
        let mut made = BTreeSet::new();
        let rooms = ["src", "proto", "register", "gateway", "business/src"];
        for room in rooms {
            collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut made);
        }
        let described: BTreeSet<String> =
            COUNTERS.iter().chain(GAUGES).chain(HISTOGRAMS).map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(made, described);
    }

    /// What follows each place where a contained task is started.
    fn contained(folder: &Path, tasks: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                contained(&path, tasks);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for call in ["broadgate_tasks::", "= contain("] {
                for rest in text.split(call).skip(1) {
                    let starts = ["spawn(", "spawn_local(", "blocking(", "note(", "contain("];
                    let rest = starts.iter().find_map(|start| rest.strip_prefix(start)).unwrap_or(rest);
                    let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                    // Not this function's own text.
                    let name = name
                        .filter(|name| name.bytes().all(|b| b.is_ascii_alphabetic() || b" '-".contains(&b)));
                    tasks.extend(name.map(str::to_owned));
                }
            }
        }
    }

    /// The counters of panics exist from the start, so that the first panic is an increase.
    #[test]
    fn every_contained_task_is_counted_from_the_start() {
        let mut started = BTreeSet::new();
        for room in ["src", "proto/port", "proto/tls", "register/src", "gateway/src", "business/src"] {
            contained(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut started);
        }
        // `up` has no metrics.
        assert!(started.remove("child's log"));
        let listed = CONTAINED.iter().flat_map(|(_, tasks)| *tasks).map(|task| (*task).to_owned());
        assert_eq!(started, listed.collect());
    }

    fn collect(folder: &Path, made: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, made);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for call in ["counter!(", "gauge!(", "histogram!("] {
                for rest in text.split(call).skip(1) {
                    let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                    // Not this function's own text.
                    let name = name.filter(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
                    made.extend(name.map(str::to_owned));
                }
            }
        }
    }
}
