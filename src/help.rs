//! The help text of each metric.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram};

/// Counters, which end in `_total`.
const COUNTERS: &[(&str, &str)] = &[
    ("broadgate_cluster_commands_failed_total", "Commands of this process whose attempts failed, by reason"),
    ("broadgate_cluster_link_breaks_total", "Command streams to gateways that broke"),
    ("broadgate_gateway_accept_errors_total", "Failed accepts; the next follows after 100 ms"),
    ("broadgate_gateway_answers_incomplete_total", "Answers that list a gateway as missing"),
    ("broadgate_gateway_api_requests_total", "Requests of backends to the HTTP APIs of apps, by status"),
    (
        "broadgate_gateway_apps_read_total",
        "Reloads of the apps, by outcome; after \"bad\" and \"lost\" the former apps stay",
    ),
    ("broadgate_gateway_bytes_in_total", "Payload bytes from clients"),
    ("broadgate_gateway_bytes_out_total", "Payload bytes placed in outboxes of clients"),
    ("broadgate_gateway_clients_closed_total", "Clients closed, by cause"),
    ("broadgate_gateway_clients_opened_total", "Connections accepted as clients"),
    (
        "broadgate_gateway_command_ids_forgotten_total",
        "Command ids evicted before their two minutes, by origin",
    ),
    ("broadgate_gateway_drops_total", "Messages and events dropped, by reason"),
    (
        "broadgate_gateway_pusher_delayed_total",
        "Subscriptions over an app's rate, after which a Pusher client is not read until the next second",
    ),
    ("broadgate_gateway_events_redelivered_total", "Events sent again because a worker was lost"),
    ("broadgate_gateway_events_sent_total", "Events sent to workers"),
    ("broadgate_gateway_homes_drops_total", "Frames and requests dropped by the topics' core, by reason"),
    ("broadgate_gateway_http_errors_total", "Refused JSON commands"),
    ("broadgate_gateway_messages_in_total", "Messages from clients"),
    ("broadgate_gateway_messages_out_total", "Messages placed in outboxes of clients"),
    (
        "broadgate_gateway_pauses_total",
        "Pauses of a shard for several seconds, as when its process or host is stopped",
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
    ("broadgate_gateway_peer_resyncs_total", "Resets of a peer's links after a state mismatch"),
    (
        "broadgate_gateway_tap_events_missed_total",
        "Events that a tap did not show, since there were too many or its reader was too slow, by reason",
    ),
    ("broadgate_gateway_refused_total", "Refused connections, calls, subscriptions and sign-ins, by reason"),
    (
        "broadgate_gateway_sends_without_home_total",
        "Commands sent to every gateway because their home was unreachable",
    ),
    ("broadgate_gateway_socket_writes_total", "System calls that wrote to clients"),
    (
        "broadgate_gateway_subscriptions_without_home_total",
        "Subscriptions of Pusher clients whose channel's home did not answer in time, by outcome",
    ),
    ("broadgate_gateway_tls_failures_total", "TLS handshakes of clients that failed, by reason"),
    ("broadgate_gateway_tls_handshakes_total", "TLS handshakes of clients that succeeded, by version"),
    (
        "broadgate_gateway_audit_lost_total",
        "Lines missing in the audit, by reason: the queue was full, or the file could not be written",
    ),
    (
        "broadgate_gateway_tokens_read_total",
        "Reloads of the tokens file, by outcome; after \"bad\" the former tokens stay",
    ),
    (
        "broadgate_gateway_views_asked_total",
        "Requests to other gateways for views that they announced by number",
    ),
    (
        "broadgate_gateway_views_sent_total",
        "Views sent to other gateways, by form: number, changes, or whole",
    ),
    (
        "broadgate_gateway_webhook_drops_total",
        "Webhook events dropped, by reason; \"inbox_undone\" means that a later event cancelled it",
    ),
    (
        "broadgate_gateway_webhook_unjournaled_total",
        "Notifications not recorded because the webhook journal was full",
    ),
    ("broadgate_gateway_authorizations_total", "Authorization requests to apps' backends, by outcome"),
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
        "Handshakes of Socket.IO clients, by transport: polling, upgraded, or WebSocket",
    ),
    ("broadgate_gateway_socketio_ignored_total", "Ignored frames of Socket.IO clients, by reason"),
    ("broadgate_gateway_webhook_posts_total", "Webhook posts, by outcome"),
    ("broadgate_gateway_webhook_spool_errors_total", "Failed writes of the webhook spool"),
    (
        "broadgate_gateway_webhook_unspooled_total",
        "Webhook events kept only in memory because the spool was full",
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
    ("broadgate_register_elections_total", "Elections that this register won"),
    ("broadgate_register_joins_total", "Members that joined"),
    (
        "broadgate_register_ledger_behind_total",
        "Members that knew a view missing from the ledger: etcd has lost data, or its ledger is new",
    ),
    ("broadgate_register_ledger_errors_total", "Failed calls to the ledger, by reason; most are retried"),
    ("broadgate_register_step_downs_total", "Step-downs of this register for an active one of a higher term"),
    ("broadgate_register_redials_total", "Members that reconnected"),
    ("broadgate_register_refused_total", "Streams refused by the register, by reason"),
    ("broadgate_register_removed_total", "Members removed from the view, by reason"),
    ("broadgate_register_takeovers_total", "Views taken over from reports of members"),
    ("broadgate_register_views_sent_total", "Views sent to members and watchers, by form: changes, or whole"),
    ("broadgate_task_panics_total", "Panics that ended only one stream, connection or request, by task"),
    (
        "broadgate_tls_reload_failures_total",
        "Failed reloads of certificate files, by role; the former ones stay in use",
    ),
    ("broadgate_tls_reloads_total", "Reloads of certificate files, by role"),
    ("broadgate_worker_attach_failures_total", "Streams to gateways that broke or could not be opened"),
    ("broadgate_worker_events_dropped_total", "Events left to redelivery"),
    ("broadgate_worker_events_total", "Events received, by kind"),
    ("broadgate_worker_gateways_lost_total", "Gateways that left the view while attached"),
    ("broadgate_worker_handler_errors_total", "Handlers that returned an error"),
    ("broadgate_worker_handler_panics_total", "Handlers that panicked"),
    (
        "broadgate_worker_pusher_events_missed_total",
        "Events of Pusher clients that gateways dropped before this worker received them",
    ),
    ("broadgate_worker_timer_panics_total", "Timers that panicked"),
];

/// Gauges.
const GAUGES: &[(&str, &str)] = &[
    ("broadgate_build_info", "1; version and role are in the labels"),
    ("broadgate_gateway_apps_stale", "1 while the apps' files are unusable and the former apps stay in use"),
    ("broadgate_gateway_audit_failing", "1 while the audit's file cannot be written and lines are lost"),
    (
        "broadgate_gateway_tokens_stale",
        "1 while the tokens file is unusable and the former tokens stay in use",
    ),
    ("broadgate_gateway_clients", "Clients and reserved slots, by shard"),
    (
        "broadgate_gateway_command_ids_bytes",
        "Bytes of a shard's remembered commands: ids, answers and tables",
    ),
    (
        "broadgate_gateway_cluster_majority_lost",
        "1 for one lease after more than half of the gateways vanished within a lease",
    ),
    (
        "broadgate_gateway_outboxes_bytes",
        "Bytes of a shard's outboxes; a message counts once, however many clients receive it",
    ),
    ("broadgate_gateway_epoch_number", "The count of the view's epoch"),
    ("broadgate_gateway_epoch_term", "The term of the view's epoch"),
    ("broadgate_gateway_homes", "Topics that have members and their home at this gateway"),
    (
        "broadgate_gateway_retained_bytes",
        "Bytes of the last values and histories that groups retain at this gateway",
    ),
    ("broadgate_gateway_homes_asked", "Unanswered requests to homes"),
    ("broadgate_gateway_homes_deliveries", "Unanswered commands forwarded by homes here"),
    ("broadgate_gateway_homes_parked", "Requests parked at homes here until gateways have synced"),
    ("broadgate_gateway_peers", "Other gateways in the view"),
    ("broadgate_gateway_peers_unsynced", "Gateways of the view that have not synced"),
    ("broadgate_gateway_taps", "Open taps, by which operators look at what clients do"),
    ("broadgate_gateway_pusher_watchers", "Open streams that observe Pusher clients"),
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
        "Gateways that only another active register knows; if not 0, run only one register",
    ),
    ("broadgate_register_epoch_number", "The count of the view's epoch"),
    ("broadgate_register_epoch_term", "The term of the view's epoch"),
    ("broadgate_register_leads", "1 while this register leads, or keeps its list in memory"),
    ("broadgate_register_members", "Members in the view, by role and state"),
    (
        "broadgate_tls_certificate_expires_seconds",
        "Unix time at which the file's first certificate expires, by role and file",
    ),
    (
        "broadgate_tls_stale",
        "1 while certificate files are unusable and the former ones stay in use, by role",
    ),
    ("broadgate_worker_events_unanswered", "Unanswered events in this worker"),
    ("broadgate_worker_gateways_attached", "Gateways with an open stream to this worker"),
];

/// Histograms, in seconds.
const HISTOGRAMS: &[(&str, &str)] = &[
    (
        "broadgate_gateway_commands_seconds",
        "From placing a batch of commands until its last answer, by the calls in it; a single call is a batch of one",
    ),
    (
        "broadgate_gateway_worker_answer_seconds",
        "From sending an event to a worker until its answer; about one in 64 is timed",
    ),
    ("broadgate_gateway_shard_lag_seconds", "Delay of a shard's one-second tick"),
    ("broadgate_gateway_shard_turn_seconds", "Duration of a turn of a shard's loop, sampled"),
    (
        "broadgate_gateway_webhook_delivery_seconds",
        "From a webhook event until its delivery, with all retries",
    ),
    ("broadgate_gateway_webhook_post_seconds", "Duration of one webhook post"),
    (
        "broadgate_gateway_authorization_seconds",
        "From a Socket.IO client's subscription until its app's backend has answered or failed",
    ),
    (
        "broadgate_register_ledger_commit_seconds",
        "From a change of the list until the ledger has committed it, with all retries",
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
            "audit",
            "authorization",
            "client",
            "command stream",
            "connection",
            "dashboard tab",
            "drain",
            "handshake",
            "list of clients",
            "peer's link",
            "redis certificates",
            "redis messages",
            "redis reader",
            "release of a worker",
            "survey",
            "tokens file",
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
        // `up` and commands have no metrics.
        for unseen in ["child's log", "questions of top", "signals of top"] {
            assert!(started.remove(unseen), "{unseen}");
        }
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
