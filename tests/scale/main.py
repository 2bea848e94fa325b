"""Measures clusters of many gateways: CPU time at rest, and bytes and CPU time of a change of members."""

import argparse
import glob
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HOST = "127.0.0.1"
# From the start to all links, and from a worker's start or stop to the view that shows it.
START_SECONDS_MAX, CHANGE_SECONDS_MAX = 60, 20
# What is counted of the gateways' metrics, if they have it.
COUNTED = ("broadgate_gateway_views_asked_total", "broadgate_gateway_peer_resyncs_total",
           "broadgate_gateway_peer_links_lost_total")


def free_ports(count):
    """Ports below the ephemeral range that nobody listens on."""
    ports = set()
    while len(ports) < count:
        port = random.randrange(10000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
                ports.add(port)
            except OSError:
                pass
    return sorted(ports)


def cpu_seconds(pid):
    """The CPU time of all threads that a process has now, in the kernel's own resolution."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path) as file:
            total += int(file.read().split()[0])
    return total / 1e9


def switches(pid):
    """How often the threads of a process have slept."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        with open(path) as file:
            total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(), re.MULTILINE)[1])
    return total


def loopback_bytes():
    with open("/proc/net/dev") as file:
        return int(re.search(r"^\s*lo:\s*(\d+)", file.read(), re.MULTILINE)[1])


class Process:
    def __init__(self, arguments, folder, name):
        self.log = f"{folder}/{name}.log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(arguments, stdout=log, stderr=log)
        self.pid = self.child.pid

    def stop(self, wait=True):
        if self.child.poll() is None:
            self.child.terminate()
        if wait:
            try:
                self.child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Gateway(Process):
    def __init__(self, executable, folder, name, register, ports):
        internal, clients, self.metrics_port = ports
        super().__init__([
            executable, "gateway", "--register", register, "--name", name,
            "--internal-bind", f"{HOST}:{internal}", "--client-bind", f"{HOST}:{clients}",
            "--metrics-bind", f"{HOST}:{self.metrics_port}", "--ready-delay", "0s", "--drain", "1s",
        ], folder, name)

    def metrics(self):
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.metrics_port}/metrics", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def metric(self, name):
        samples = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.metrics(), re.MULTILINE)
        return sum(map(float, samples)) if samples else None


class Cluster:
    def __init__(self, executable, gateways):
        self.executable, self.folder = executable, tempfile.mkdtemp(prefix="broadgate-scale-")
        ports = free_ports(2 + 3 * gateways)
        random.shuffle(ports)
        self.register_address, self.metrics_port = f"{HOST}:{ports.pop()}", ports.pop()
        self.register = Process([executable, "register", "--bind", self.register_address,
                                 "--metrics-bind", f"{HOST}:{self.metrics_port}"], self.folder, "register")
        self.gateways = [
            Gateway(executable, self.folder, f"gateway-{number + 1}", self.register_address,
                    [ports.pop() for _ in range(3)])
            for number in range(gateways)
        ]

    def ready(self):
        """Every gateway has synced with every other one."""
        others = len(self.gateways) - 1
        for gateway in self.gateways:
            wait_for(f"{gateway.log}: its peers have synced", START_SECONDS_MAX,
                     lambda: gateway.metric("broadgate_gateway_peers") == others
                     and gateway.metric("broadgate_gateway_peers_unsynced") == 0)

    def read(self):
        pids = [gateway.pid for gateway in self.gateways]
        return {
            "at": time.monotonic(),
            "gateways": sum(map(cpu_seconds, pids)),
            "register": cpu_seconds(self.register.pid),
            "switches": sum(map(switches, pids)),
            "bytes": loopback_bytes(),
        }

    def counted(self):
        totals = {}
        for name in COUNTED:
            values = [gateway.metric(name) for gateway in self.gateways]
            totals[name] = sum(value or 0 for value in values)
        return totals

    def worker_comes_and_goes(self, number):
        """Every gateway has installed the views of both."""
        before = self.gateways[0].metric("broadgate_gateway_workers") or 0
        worker = Process([self.executable, "worker", "echo", "--register", self.register_address,
                          "--name", f"worker-{number}"], self.folder, f"worker-{number}")
        wait_for(f"{worker.log}: it has joined", CHANGE_SECONDS_MAX,
                 lambda: (self.gateways[0].metric("broadgate_gateway_workers") or 0) > before)
        worker.stop()
        wait_for(f"{worker.log}: it has left", CHANGE_SECONDS_MAX,
                 lambda: (self.gateways[0].metric("broadgate_gateway_workers") or 0) == before)

    def stop(self):
        for gateway in self.gateways:
            gateway.stop(wait=False)
        for process in [*self.gateways, self.register]:
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(what, seconds, condition):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def difference(before, after):
    return {name: after[name] - before[name] for name in before}


def measure(executable, options):
    cluster = Cluster(executable, options.gateways)
    try:
        cluster.ready()
        time.sleep(2)
        first = cluster.read()
        time.sleep(options.seconds)
        rest = difference(first, cluster.read())
        counted = cluster.counted()
        first = cluster.read()
        for number in range(options.changes):
            cluster.worker_comes_and_goes(number)
        # What a change causes is over.
        time.sleep(1)
        changes = difference(first, cluster.read())
        counted = difference(counted, cluster.counted())
    finally:
        cluster.stop()
    at_rest = {name: rest[name] / rest["at"] for name in rest}
    # Beyond what the same time costs at rest.
    extra = {name: (changes[name] - at_rest[name] * changes["at"]) / options.changes for name in changes}
    return {
        "CPU at rest, all gateways (% of a core)": 100 * at_rest["gateways"],
        "CPU at rest, one gateway (% of a core)": 100 * at_rest["gateways"] / options.gateways,
        "CPU at rest, register (% of a core)": 100 * at_rest["register"],
        "sleeps per second and gateway": at_rest["switches"] / options.gateways,
        "KB per second at rest": at_rest["bytes"] / 1e3,
        "KB per worker that joins and leaves": extra["bytes"] / 1e3,
        "CPU ms of all gateways per worker that joins and leaves": 1e3 * extra["gateways"],
        "CPU ms of the register per worker that joins and leaves": 1e3 * extra["register"],
        **{f"{name} meanwhile": value for name, value in counted.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("executables", nargs="*", default=["target/release/broadgate"])
    parser.add_argument("--gateways", type=int, default=25)
    parser.add_argument("--runs", type=int, default=1, help="of each executable, in turn")
    parser.add_argument("--seconds", type=float, default=15, help="at rest")
    parser.add_argument("--changes", type=int, default=5, help="workers that join and leave")
    options = parser.parse_args()
    for executable in options.executables:
        if not os.access(executable, os.X_OK):
            raise SystemExit(f"no executable at {executable}: run cargo build --release")
    results = {executable: [] for executable in options.executables}
    for run in range(options.runs):
        for executable in options.executables:
            results[executable].append(measure(executable, options))
            print(f"run {run + 1} of {options.runs}: {executable}", file=sys.stderr)
    print(f"{options.gateways} gateways, medians of {options.runs} runs of {options.seconds:g} s at rest and "
          f"{options.changes} changes\n")
    print("| | " + " | ".join(options.executables) + " |")
    print("|---|" + "---|" * len(options.executables))
    for name in results[options.executables[0]][0]:
        medians = [statistics.median(run[name] for run in results[executable]) for executable in results]
        print(f"| {name} | " + " | ".join(f"{median:,.2f}" for median in medians) + " |")


if __name__ == "__main__":
    main()
