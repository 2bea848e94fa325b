//! What each metric means, for `/metrics` and for people who read it.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Counters, which end in `_total`.
const COUNTERS: &[(&str, &str)] = &[
    (
        "cluster_commands_failed_total",
        "Attempts at commands of this process that were not answered, by reason",
    ),
    ("cluster_link_breaks_total", "Command streams to gateways that broke"),
    ("gateway_accept_errors_total", "Accepts that failed; the next is tried after 100 ms"),
    ("gateway_answers_incomplete_total", "Answers that had to name a gateway as missing"),
    ("gateway_api_requests_total", "Requests of backends to the HTTP API of Pusher apps, by status"),
    ("gateway_apps_read_total", "Times that the apps were read again, by outcome; after \"bad\" they stay"),
    ("gateway_bytes_in_total", "Payload bytes from clients"),
    ("gateway_bytes_out_total", "Payload bytes placed in outboxes of clients"),
    ("gateway_clients_closed_total", "Clients that went, by cause"),
    ("gateway_clients_opened_total", "Connections that became clients"),
    ("gateway_drops_total", "Messages and events that were dropped, by reason"),
    ("gateway_events_redelivered_total", "Events sent again because a worker was lost"),
    ("gateway_events_sent_total", "Events sent to workers"),
    ("gateway_homes_drops_total", "What the homes could not pass on or take, by reason"),
    ("gateway_http_errors_total", "JSON commands that were refused"),
    ("gateway_messages_in_total", "Messages from clients"),
    ("gateway_messages_out_total", "Messages placed in outboxes of clients"),
    ("gateway_peer_batches_dropped_total", "Batches of commands that were not sent to a peer, by reason"),
    (
        "gateway_peer_frames_unreadable_total",
        "What a peer said that this gateway does not understand, by kind",
    ),
    ("gateway_peer_links_lost_total", "Links to other gateways that broke or could not be opened"),
    ("gateway_peer_said_total", "What homes and those who ask them said to peers, by kind"),
    ("gateway_peers_mistrusted_total", "Links made anew because what a peer holds is not certain"),
    ("gateway_refused_total", "Connections and calls that were refused, by reason"),
    (
        "gateway_sends_without_home_total",
        "Commands whose home could not be reached, passed to every gateway instead",
    ),
    ("gateway_socket_writes_total", "System calls that wrote to clients"),
    ("gateway_webhook_drops_total", "Webhook events that no receiver got, by reason"),
    ("gateway_webhook_posts_total", "Attempts at posting webhooks, by outcome"),
    ("gateway_webhook_spool_errors_total", "Times that the webhook spool could not be written"),
    ("gateway_webhook_unspooled_total", "Webhook events that found the spool full and wait in memory only"),
    ("member_events_dropped_total", "Orders of the register that this member could not take"),
    ("member_requests_dropped_total", "Requests to the register that found no room"),
    ("register_disconnects_total", "Member streams that the register ended, by reason"),
    ("register_joins_total", "Members taken in"),
    ("register_redials_total", "Members that came back on another stream"),
    ("register_refused_total", "Streams that the register refused, by reason"),
    ("register_removed_total", "Members taken out of the view, by reason"),
    ("register_takeovers_total", "Views taken over from what members reported"),
    ("worker_attach_failures_total", "Attachments to gateways that broke or failed"),
    ("worker_events_dropped_total", "Events not handled because a gateway gives them out again"),
    ("worker_events_total", "Events that came, by kind"),
    ("worker_gateways_lost_total", "Gateways that left the view while attached"),
    ("worker_handler_errors_total", "Handlers that returned an error"),
    ("worker_handler_panics_total", "Handlers that panicked"),
    ("worker_pusher_events_missed_total", "Events of Pusher clients that gateways dropped for this worker"),
    ("worker_timer_panics_total", "Timers that panicked"),
];

/// Gauges.
const GAUGES: &[(&str, &str)] = &[
    ("broadgate_build_info", "1; version and role are in the labels"),
    ("gateway_clients", "Clients and places of clients, by shard"),
    ("gateway_cluster_halved", "1 for a lease after more than half of the gateways have vanished within one"),
    ("gateway_epoch_count", "The count of the view's epoch"),
    ("gateway_epoch_term", "The term of the view's epoch"),
    ("gateway_homes", "Topics that have members and their home at this gateway"),
    ("gateway_homes_asked", "Questions of callers that homes have not answered"),
    ("gateway_homes_deliveries", "Commands that this home has passed on and that are not answered"),
    ("gateway_homes_parked", "Questions to this home that wait until gateways have said what they hold"),
    ("gateway_peers", "Other gateways in the view"),
    ("gateway_peers_unsynced", "Gateways of the view that have not said what they hold"),
    ("gateway_pusher_watchers", "Streams that are told what Pusher clients do"),
    ("gateway_register_heard", "1 while a register is heard"),
    ("gateway_webhook_queue_bytes", "Bytes of webhook events that wait for an app's endpoints"),
    ("gateway_webhook_queue_events", "Webhook events that wait for an app's endpoints"),
    ("gateway_webhook_spool_bytes", "Size of the file with the webhook events that wait"),
    ("gateway_workers", "Workers attached to this gateway"),
    ("member_register_heard", "1 while a register is heard"),
    ("register_epoch_count", "The count of the view's epoch"),
    ("register_epoch_term", "The term of the view's epoch"),
    ("register_members", "Members in the view, by role and state"),
    ("worker_events_unanswered", "Events under way in this worker"),
    ("worker_gateways_attached", "Gateways that this worker is attached to"),
];

/// Histograms, in seconds.
const HISTOGRAMS: &[(&str, &str)] = &[
    ("gateway_webhook_delivery_seconds", "From a webhook event until its receiver has it, with all attempts"),
    ("gateway_webhook_post_seconds", "One attempt at posting webhooks"),
];

/// Gives every metric its help text.
pub(crate) fn describe() {
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

    /// Every metric of the program is described here, and everything described here is one.
    #[test]
    fn every_metric_has_help() {
        let mut made = BTreeSet::new();
        for room in ["src", "register/src", "gateway/src", "business/src"] {
            collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut made);
        }
        let described: BTreeSet<String> =
            COUNTERS.iter().chain(GAUGES).chain(HISTOGRAMS).map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(made, described);
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
