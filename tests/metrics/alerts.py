"""One firing and one quiet case for each alert of deploy/alerts.yml, as `promtool test rules` reads them.

    python3 tests/metrics/alerts.py FOLDER      writes FOLDER/cases.yml and FOLDER/alerts.yml, or says what is missing

The quiet case is as near to the firing one as it can be: one sample less, one threshold lower, one label other.
"""
import re
import sys
from pathlib import Path

ALERTS = Path(__file__).resolve().parents[2] / "deploy" / "alerts.yml"
# Of two samples.
INTERVAL = 15
G1, G2, R1 = ('instance="g1"', 'instance="g2"', 'instance="r1"')


def increasing(step=1, samples=60):
    return f"0+{step}x{samples}"


def for_minutes(value, minutes=15):
    return f"{value}x{minutes * 60 // INTERVAL}"


# Prometheus' notation for a histogram of which all observations are below one bound.
def histogram(name, below, sel):
    bounds = ["0.1", "1", "10", "+Inf"]
    return {f'{name}_bucket{{{sel}, le="{le}"}}': increasing(10 if float(le.replace("+Inf", "inf")) >= below else 0, 80)
            for le in bounds}


def one(name, value, sel=G1):
    return {f"{name}{{{sel}}}": value}


def case(fires, at, labels, quiet, quiet_at=None):
    """Series and the time at which the alert fires with these labels; series, and the time at which it is quiet."""
    return fires, at, labels, quiet, quiet_at or at


# It has happened once, and not within the last five minutes of twelve.
PAST = "0x4 1x80"
INSTANCE = {"instance": "g1"}
CASES = {
    "BroadgateProcessDown": case(
        one("up", for_minutes(0), f'job="broadgate", {G1}'), "1m", {"job": "broadgate", **INSTANCE},
        one("up", for_minutes(0), f'job="other", {G1}')),
    "BroadgateRegisterNotHeard": case(
        one("broadgate_member_register_heard", for_minutes(0)), "30s", INSTANCE,
        one("broadgate_member_register_heard", "0 0 1x10"), "1m"),
    "BroadgateTwoRegisters": case(
        one("broadgate_member_register_outside", for_minutes(1)), "1m", INSTANCE,
        {**one("broadgate_member_register_outside", for_minutes(0)),
         **one("broadgate_register_step_downs_total", PAST, R1)}, "12m"),
    "BroadgateNoRegisterLeads": case(
        one("broadgate_register_leads", for_minutes(0), R1), "30s", {},
        {**one("broadgate_register_leads", for_minutes(0), R1),
         **one("broadgate_register_leads", for_minutes(1), 'instance="r2"')}),
    "BroadgateLedgerFails": case(
        one("broadgate_register_ledger_errors_total", increasing(), f'{R1}, reason="no_lease"'), "5m",
        {"instance": "r1", "reason": "no_lease"},
        {**one("broadgate_register_ledger_errors_total", "0x10 20x80", f'{R1}, reason="refused"'),
         **one("broadgate_register_ledger_errors_total", "0x30 4x60", f'{R1}, reason="unreachable"'),
         **one("broadgate_register_ledger_errors_total", increasing(), f'{R1}, reason="other"')}, "12m"),
    "BroadgateLedgerSlow": case(
        histogram("broadgate_register_ledger_commit_seconds", 10, R1), "12m", {},
        histogram("broadgate_register_ledger_commit_seconds", 1, R1)),
    "BroadgateLedgerBehind": case(
        one("broadgate_register_ledger_behind_total", "0x4 1x20", R1), "2m", {"instance": "r1"},
        one("broadgate_register_ledger_behind_total", PAST, R1), "12m"),
    "BroadgateGatewaysDisagree": case(
        {**one("broadgate_gateway_epoch_number", for_minutes(7), f'job="broadgate", {G1}'),
         **one("broadgate_gateway_epoch_number", for_minutes(8), f'job="broadgate", {G2}')}, "30s", {"job": "broadgate"},
        {**one("broadgate_gateway_epoch_number", "7 8x20", f'job="broadgate", {G1}'),
         **one("broadgate_gateway_epoch_number", "8x20", f'job="broadgate", {G2}')}),
    "BroadgateMajorityLost": case(
        {**one("broadgate_gateway_cluster_majority_lost", for_minutes(1)),
         **one("broadgate_gateway_cluster_majority_lost", for_minutes(0), G2)}, "1m", {},
        one("broadgate_gateway_cluster_majority_lost", for_minutes(0))),
    "BroadgateNotSynced": case(
        one("broadgate_gateway_peers_unsynced", for_minutes(1)), "15s", INSTANCE,
        one("broadgate_gateway_peers_unsynced", "1 0x20"), "30s"),
    "BroadgateWithoutHome": case(
        one("broadgate_gateway_sends_without_home_total", increasing()), "1m", INSTANCE,
        one("broadgate_gateway_sends_without_home_total", for_minutes(4))),
    "BroadgateMembersLost": case(
        one("broadgate_register_removed_total", "0x4 1x20", f'{R1}, reason="lease"'), "2m", {},
        {**one("broadgate_register_removed_total", PAST, f'{R1}, reason="lease"'),
         **one("broadgate_register_removed_total", increasing(), f'{R1}, reason="leave"')}, "12m"),
    "BroadgateAppsStale": case(
        one("broadgate_gateway_apps_stale", for_minutes(1)), "1m", INSTANCE,
        one("broadgate_gateway_apps_stale", "1x2 0x20")),
    "BroadgateTokensStale": case(
        one("broadgate_gateway_tokens_stale", for_minutes(1)), "1m", INSTANCE,
        one("broadgate_gateway_tokens_stale", "1x2 0x20")),
    "BroadgateAuditLost": case(
        one("broadgate_gateway_audit_lost_total", increasing(), f'{G1}, reason="unwritable"'), "1m", INSTANCE,
        one("broadgate_gateway_audit_lost_total", for_minutes(4), f'{G1}, reason="unwritable"')),
    # The tests' clock begins at 0.
    "BroadgateCertificateExpires": case(
        one("broadgate_tls_certificate_expires_seconds", for_minutes(6 * 86400), f'{G1}, role="cluster", file="/a.pem"'), "1m",
        {**INSTANCE, "role": "cluster", "file": "/a.pem"},
        one("broadgate_tls_certificate_expires_seconds", for_minutes(8 * 86400), f'{G1}, role="cluster", file="/a.pem"')),
    "BroadgateCertificatesStale": case(
        one("broadgate_tls_stale", for_minutes(1), f'{G1}, role="clients"'), "1m", {**INSTANCE, "role": "clients"},
        one("broadgate_tls_stale", "1x2 0x20", f'{G1}, role="clients"')),
    "BroadgateNoWorker": case(
        {**one("broadgate_gateway_workers", for_minutes(0)),
         **one("broadgate_gateway_clients", for_minutes(3), f'{G1}, shard="0"')}, "15s", INSTANCE,
        {**one("broadgate_gateway_workers", for_minutes(0)),
         **one("broadgate_gateway_clients", for_minutes(0), f'{G1}, shard="0"')}),
    "BroadgateEventsDropped": case(
        one("broadgate_gateway_drops_total", increasing(), f'{G1}, reason="no_worker"'), "5m", INSTANCE,
        {**one("broadgate_gateway_drops_total", PAST, f'{G1}, reason="no_worker"'),
         **one("broadgate_gateway_drops_total", increasing(), f'{G1}, reason="slow"')}, "12m"),
    "BroadgateRedisDisconnected": case(
        one("broadgate_gateway_redis_disconnected", for_minutes(1), f'{G1}, app="shop"'), "1m", {**INSTANCE, "app": "shop"},
        one("broadgate_gateway_redis_disconnected", "1 1 0x20", f'{G1}, app="shop"')),
    "BroadgateRedisDrops": case(
        one("broadgate_gateway_redis_drops_total", increasing(), f'{G1}, app="shop", reason="full"'), "5m",
        {**INSTANCE, "app": "shop", "reason": "full"},
        one("broadgate_gateway_redis_drops_total", PAST, f'{G1}, app="shop", reason="full"'), "12m"),
    "BroadgateWebhooksLost": case(
        one("broadgate_gateway_webhook_drops_total", increasing(), f'{G1}, reason="given_up"'), "5m",
        {**INSTANCE, "reason": "given_up"},
        {**one("broadgate_gateway_webhook_drops_total", PAST, f'{G1}, reason="given_up"'),
         **one("broadgate_gateway_webhook_drops_total", increasing(), f'{G1}, reason="endpoint_gone"')}, "12m"),
    "BroadgateWebhooksWait": case(
        one("broadgate_gateway_webhook_queue_events", for_minutes(1001), f'{G1}, app="shop"'), "1m", {**INSTANCE, "app": "shop"},
        one("broadgate_gateway_webhook_queue_events", for_minutes(1000), f'{G1}, app="shop"')),
    "BroadgateSlowClients": case(
        one("broadgate_gateway_clients_closed_total", increasing(2 * INTERVAL, 80), f'{G1}, cause="slow"'), "11m", INSTANCE,
        one("broadgate_gateway_clients_closed_total", increasing(INTERVAL // 2, 80), f'{G1}, cause="slow"')),
    "BroadgatePeerLinksBreak": case(
        one("broadgate_gateway_peer_links_lost_total", increasing(1, 80)), "11m", INSTANCE,
        one("broadgate_gateway_peer_links_lost_total", "0x20 1x60")),
    "BroadgateWrongSecret": case(
        one("broadgate_register_refused_total", "0x4 1x20", f'{R1}, reason="secret"'), "2m", {"instance": "r1"},
        {**one("broadgate_register_refused_total", PAST, f'{R1}, reason="secret"'),
         **one("broadgate_register_refused_total", increasing(), f'{R1}, reason="version"')}, "12m"),
    "BroadgateNearlyFull": case(
        one("broadgate_gateway_refused_total", increasing(), f'{G1}, reason="clients_max"'), "2m", INSTANCE,
        {**one("broadgate_gateway_refused_total", PAST, f'{G1}, reason="clients_max"'),
         **one("broadgate_gateway_refused_total", increasing(), f'{G1}, reason="path"')}, "12m"),
    "BroadgateTaskPanics": case(
        one("broadgate_task_panics_total", "0x4 1x20", f'{G1}, task="client"'), "2m", {**INSTANCE, "task": "client"},
        {**one("broadgate_task_panics_total", PAST, f'{G1}, task="client"'),
         **one("broadgate_task_panics_total", for_minutes(0), f'{G1}, task="connection"')}, "12m"),
    "BroadgateHandlersFail": case(
        one("broadgate_worker_handler_panics_total", increasing(1, 80)), "7m", INSTANCE,
        one("broadgate_worker_handler_panics_total", PAST), "12m"),
}


def alerts():
    """Name, severity and summary of each."""
    blocks = re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.M)[1:]
    for block in blocks:
        name = block.split("\n")[0].strip()
        severity = re.search(r"severity: (\w+)", block)[1]
        summary = re.search(r'summary: "(.*)"', block)[1]
        yield name, severity, summary


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def series(them):
    lines = ["    input_series:"]
    for name, values in them.items():
        lines += [f"      - series: {quoted(name)}", f"        values: {quoted(values)}"]
    return lines


def main(folder):
    known = list(alerts())
    names = [name for name, _, _ in known]
    missing, gone = [name for name in names if name not in CASES], [name for name in CASES if name not in names]
    if missing or gone:
        sys.exit(f"tests/metrics/alerts.py has no case for {missing}, and cases for {gone}, which are no alerts")
    lines = ["rule_files: [alerts.yml]", f"evaluation_interval: {INTERVAL}s", "tests:"]
    for name, severity, summary in known:
        fires, at, labels, quiet, quiet_at = CASES[name]
        summary = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], summary)
        lines += [f"  - interval: {INTERVAL}s", *series(fires), "    alert_rule_test:",
                  f"      - {{ eval_time: {at}, alertname: {name}, exp_alerts: [",
                  f"          {{ exp_labels: {{ {', '.join(f'{key}: {quoted(value)}' for key, value in {'severity': severity, **labels}.items())} }},",
                  f"            exp_annotations: {{ summary: {quoted(summary)} }} }}] }}"]
        lines += [f"  - interval: {INTERVAL}s", *series(quiet), "    alert_rule_test:",
                  f"      - {{ eval_time: {quiet_at}, alertname: {name}, exp_alerts: [] }}"]
    (folder / "cases.yml").write_text("\n".join(lines) + "\n")
    (folder / "alerts.yml").write_text(ALERTS.read_text())
    print(f"{len(known)} alerts, each fires and is quiet")


main(Path(sys.argv[1]))
