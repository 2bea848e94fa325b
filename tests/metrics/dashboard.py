"""Whether every metric, label and label's value in the dashboard and in the alerts is one that processes serve.

    python3 tests/metrics/dashboard.py FOLDER METRICS...

METRICS are files with what the roles of a cluster under load serve at /metrics. Metrics of what does not happen there
(a ledger in etcd, a handler's panic) are looked up in the sources. Writes FOLDER/dashboard.yml, which has every
expression as a rule, for promtool.

Not run here: Grafana.
"""
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Labels and metrics of Prometheus' own.
SCRAPED = {"job", "instance", "le"}
METRIC = r"\b(?:broadgate|process)_[a-z_]+\b|\bup\b"


class Known:
    """The labels of each metric and the values of each label; values are unknown if only the sources have it."""

    def __init__(self, texts):
        self.served = {"up": {}}
        for text in texts:
            for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*)\})? \S+$", text, re.M):
                known = self.served.setdefault(name, {})
                for label, value in re.findall(r'([a-z_]+)="([^"]*)"', labels):
                    known.setdefault(label, set()).add(value)
        sources = [path.read_text() for folder in ("src", "gateway", "register", "business", "proto")
                   for path in (ROOT / folder).rglob("*.rs") if "target" not in path.parts]
        self.source = "\n".join(sources)
        self.help = (ROOT / "src" / "help.rs").read_text()

    def labels(self, name):
        """None if there is no such metric."""
        if name in self.served:
            return self.served[name]
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        if f'"{base}"' not in self.help:
            return None
        labels = {}
        for args in re.findall(rf'(?:counter|gauge|histogram)!\(\s*"{base}"((?:,\s*"[a-z_]+"\s*=>\s*[^,)]+)*)', self.source):
            for label, value in re.findall(r'"([a-z_]+)"\s*=>\s*("[a-z_]+")?', args):
                labels.setdefault(label, None)
        return labels


def problems(known, where, expression, legend=""):
    names = set(re.findall(METRIC, re.sub(r'"[^"]*"', '""', expression)))
    names |= set(re.findall(METRIC, " ".join(re.findall(r'__name__=~"([^"]*)"', expression))))
    if not names:
        yield f"{where}: no metric in {expression}"
    of = {name: known.labels(name) for name in names}
    for name, labels in of.items():
        if labels is None:
            yield f"{where}: no process serves {name}"
    of = {name: labels for name, labels in of.items() if labels is not None}
    for name, matchers in re.findall(rf"({METRIC})\{{([^}}]*)\}}", expression):
        labels = of.get(name, {})
        for label, operator, value in re.findall(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
            if label in SCRAPED or name not in of:
                continue
            if label not in labels:
                yield f"{where}: {name} has no label {label}"
            elif operator == "=" and labels[label] is not None and value not in labels[label]:
                yield f"{where}: {name} is never served with {label}={value!r}"
    used = {label.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)|\bon\(([^)]*)\)", expression)
            for label in ",".join(group).split(",") if label.strip()}
    used |= set(re.findall(r"{{\s*(?:\$labels\.)?(\w+)\s*}}", legend))
    for label in used - SCRAPED:
        if not any(label in labels for labels in of.values()):
            yield f"{where}: none of {sorted(of)} has a label {label}"


def dashboard():
    """(where, expression, legend) of every query."""
    board = json.loads((ROOT / "deploy" / "grafana" / "broadgate.json").read_text())
    ids, places = set(), set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert panel["id"] not in ids, f"two panels have the id {panel['id']}"
        assert place["x"] + place["w"] <= 24, f"{panel['title']} is outside"
        ids.add(panel["id"])
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & places, f"{panel['title']} lies over another panel"
        places |= cells
        for target in panel.get("targets", ()):
            yield f"dashboard, {panel['title']}", target["expr"], target["legendFormat"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
            yield f"dashboard, variable {variable['name']}", metric, "{{%s}}" % label


def alerts():
    text = (ROOT / "deploy" / "alerts.yml").read_text()
    for block in re.split(r"^ +- alert: ", text, flags=re.M)[1:]:
        yield f"alert {block.split()[0]}", re.search(r"expr: (.*)", block)[1], re.search(r'summary: "(.*)"', block)[1]


def main(folder, *files):
    known = Known([Path(file).read_text() for file in files])
    queries = list(dashboard()) + list(alerts())
    found = [problem for query in queries for problem in problems(known, *query)]
    # What a check that finds nothing would miss.
    for wrong in ("sum(broadgate_gateway_client)", 'broadgate_gateway_drops_total{cause="x"}',
                  'broadgate_gateway_drops_total{reason="slowly"}', "sum by (cause) (broadgate_gateway_drops_total)"):
        if not list(problems(known, "planted", wrong)):
            found.append(f"the check does not notice {wrong}")
    rules = ["groups:", "  - name: dashboard", "    rules:"]
    for number, (_, expression, _) in enumerate(queries):
        for variable, value in (("$__rate_interval", "5m"), ("$job", "broadgate"), ("$instance", ".*")):
            expression = expression.replace(variable, value)
        rules += [f"      - record: query:{number}", f"        expr: '{expression.replace(chr(39), chr(39) * 2)}'"]
    Path(folder, "dashboard.yml").write_text("\n".join(rules) + "\n")
    unserved = sorted({name for _, text, _ in queries for name in re.findall(METRIC, text) if name not in known.served})
    print(f"{len(queries)} queries; not served here, but in the sources: {', '.join(unserved) or 'none'}")
    if found:
        sys.exit("\n".join(found))


main(*sys.argv[1:])
