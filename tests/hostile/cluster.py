"""A cluster of real processes on loopback, with one Pusher app, and what an attack measures of it."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

KEY, SECRET = "hostile-key", "secret-of-the-hostile-suite"
MIB = 1024 * 1024

_given = set()


def free_port():
    """A port below the ephemeral range that nobody listens on and that was not given out before."""
    while True:
        port = random.randrange(20000, 32000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


class Process:
    def __init__(self, name, arguments, folder, environment=None):
        self.name, self.arguments, self.folder = name, arguments, folder
        self.environment = {**os.environ, **(environment or {})}
        self.child = None
        self.start()

    def start(self):
        with open(f"{self.folder}/{self.name}.log", "ab") as log:
            self.child = subprocess.Popen(self.arguments, stdout=log, stderr=log, env=self.environment)

    def alive(self):
        return self.child.poll() is None

    def kill(self):
        """Ends it at once, as a crash does."""
        self.child.kill()
        self.child.wait()

    def stop(self):
        """Asks it to end, and insists after a while."""
        self.signal(signal.SIGCONT)
        self.child.terminate()
        try:
            self.child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

    def signal(self, number):
        if self.alive():
            self.child.send_signal(number)

    def resident_bytes(self):
        with open(f"/proc/{self.child.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def log(self):
        with open(f"{self.folder}/{self.name}.log", errors="replace") as log:
            return log.read()


class Gateway(Process):
    def __init__(self, cluster, name, settings):
        self.web, self.internal, self.metrics_port = free_port(), free_port(), free_port()
        config = f"{cluster.folder}/{name}.toml"
        with open(config, "w") as file:
            file.write(cluster.gateway_toml(self, name, settings))
        super().__init__(name, [cluster.executable, "gateway", "--config", config], cluster.folder)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name, labels=""):
        """The sum of a metric's samples that have these labels in their text."""
        samples = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", self.metrics(), re.MULTILINE)
        return sum(float(value) for found, value in samples if labels in found)

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


class Cluster:
    """A register, gateways, and the settings that an attack wants.

    `app`, `limits`, `gateway` and `listener` are lines of TOML for the app, [gateway.limits], [gateway] and
    the one listener; `webhooks` are whole sections of the app.
    """

    keep_logs = False

    def __init__(self, executable, gateways=1, app="", limits="", gateway="", webhooks="", listener=""):
        self.executable = executable
        self.folder = tempfile.mkdtemp(prefix="broadgate-hostile-")
        self.app, self.limits, self.gateway, self.webhooks, self.listener = app, limits, gateway, webhooks, listener
        self.register_port = free_port()
        bind = f"127.0.0.1:{self.register_port}"
        self.register = Process("register", [executable, "register", "--bind", bind], self.folder)
        self.gateways = [Gateway(self, f"gateway-{n + 1}", "") for n in range(gateways)]
        self.others = []

    def gateway_toml(self, gateway, name, settings):
        spool = f"{self.folder}/{name}-spool" if "@SPOOL" in self.gateway else ""
        return f"""
[cluster]
register = ["127.0.0.1:{self.register_port}"]
[metrics]
bind = "127.0.0.1:{gateway.metrics_port}"
[gateway]
name = "{name}"
{self.gateway.replace("@SPOOL", spool)}
[gateway.internal]
bind = "127.0.0.1:{gateway.internal}"
[gateway.stop]
ready_delay = "0s"
drain = "2s"
[gateway.limits]
{self.limits}
{settings}
[[gateway.listeners]]
name = "web"
kind = "web"
bind = "127.0.0.1:{gateway.web}"
service = ""
{self.listener}
[[apps]]
id = "default"
raw = true
[[apps]]
id = "1"
{self.app}
[[apps.keys]]
key = "{KEY}"
secret = "{SECRET}"
{self.webhooks}
"""

    def start(self, name, arguments, environment=None):
        process = Process(name, arguments, self.folder, environment)
        self.others.append(process)
        return process

    def processes(self):
        return [self.register, *self.gateways, *self.others]

    async def ready(self):
        async def joined():
            return all(gateway.ready() and gateway.metric("broadgate_gateway_peers") == len(self.gateways) - 1
                       for gateway in self.gateways)
        await until("the gateways know each other", joined)

    def command(self, call, body, gateway=0, timeout=30):
        """A command as JSON on a gateway's internal port."""
        url = f"http://127.0.0.1:{self.gateways[gateway].internal}/v1/{call}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def complete(self):
        """Do all gateways answer?"""
        try:
            return self.command("Status", {})["coverage"]["complete"]
        except urllib.error.HTTPError:
            return False

    def stop(self):
        for process in reversed(self.processes()):
            process.stop()
        if Cluster.keep_logs:
            print(f"    logs: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


async def until(what, condition, seconds=60):
    """Waits for a condition, a function that may be async; fails with `what` after a while."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.05)
