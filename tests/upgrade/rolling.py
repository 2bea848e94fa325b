"""One cluster, whose processes are replaced one by one by those of another version. See `run`."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from cluster import KEY, SECRET, Process, free_port, until
from commands import every_command
from traffic import Traffic

GATEWAYS, WORKERS, CLIENTS = 3, 2, 6
# Of each topic and between two replacements: what was sent while versions were mixed in one way.
SENT_MIN = 10


class Role(Process):
    """A process that can be replaced by one of another version."""

    def __init__(self, folder, name, versions, arguments, settings):
        self.versions, self.version, self.starts = versions, "old", 0
        self.metrics_port = free_port()
        self.up = False
        config = f"{folder}/{name}.toml"
        with open(config, "w") as file:
            file.write(settings + f'[metrics]\nbind = "127.0.0.1:{self.metrics_port}"\n')
        self.rest = [*arguments, "--config", config]
        super().__init__(name, [], folder)

    def start(self):
        self.starts += 1
        self.running = self.version
        self.arguments = [self.versions[self.version], *self.rest]
        super().start()

    def is_ready(self):
        assert self.alive(), f"{self.name} has ended with {self.child.returncode}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    async def wait_ready(self):
        await until(f"{self.name} is ready", self.is_ready)
        self.up = True

    async def leave(self):
        """As the RUNBOOK says: SIGTERM, and the process ends by itself."""
        self.child.terminate()
        await until(f"{self.name} ends", lambda: not self.alive(), 30)
        assert self.child.returncode == 0, f"{self.name} ended with {self.child.returncode}"


class Gateway(Role):
    def __init__(self, folder, name, versions, register):
        self.internal, self.web, self.busy = free_port(), free_port(), 0
        # The version of the process that left last.
        self.leaver = None
        super().__init__(folder, name, versions, ["gateway"], f"""
[cluster]
register = ["127.0.0.1:{register}"]
[gateway]
name = "{name}"
[gateway.internal]
bind = "127.0.0.1:{self.internal}"
[gateway.stop]
ready_delay = "200ms"
drain = "1s"
[gateway.limits]
# A machine that is busy with something else must not make an answer incomplete.
link_timeout = "10s"
[[gateway.groups]]
app = "1"
pattern = "presence-room"
history_messages = 1000
history_time = "10m"
last_value_time = "10m"
[[gateway.listeners]]
name = "web"
kind = "web"
bind = "127.0.0.1:{self.web}"
[[apps]]
id = "default"
raw = true
[[apps]]
id = "quiet"
raw = true
[[apps]]
id = "1"
[[apps.keys]]
key = "{KEY}"
secret = "{SECRET}"
""")

    async def replace(self):
        self.up, self.leaver = False, self.running
        await until(f"{self.name} has no call under way", lambda: not self.busy)
        await self.leave()
        self.start()
        await self.wait_ready()


class Cluster:
    def __init__(self, versions):
        self.versions = versions
        self.folder = tempfile.mkdtemp(prefix="broadgate-upgrade-")
        port = free_port()
        self.register_settings = f'[register]\nbind = "127.0.0.1:{port}"\n'
        self.member_settings = f'[cluster]\nregister = ["127.0.0.1:{port}"]\n'
        self.roles = []
        self.register = self.add(Role(self.folder, "register", versions, ["register"], self.register_settings))
        self.gateways = [self.add(Gateway(self.folder, f"gateway-{n + 1}", versions, port)) for n in range(GATEWAYS)]
        self.workers = [self.add(self.worker(n, "old")) for n in range(WORKERS)]

    def add(self, role):
        self.roles.append(role)
        return role

    def worker(self, index, version):
        settings = self.member_settings + f'[worker]\nname = "echo-{index + 1}-{version}"\n'
        versions = {"old": self.versions[version]}
        return Role(self.folder, f"echo-{index + 1}-{version}-{len(self.roles)}", versions, ["worker", "echo"], settings)

    async def replace_register(self, version):
        self.register.version = version
        await self.register.leave()
        self.register.start()
        await self.register.wait_ready()

    async def replace_worker(self, index, version):
        """The new one is there before the old one goes."""
        old, self.workers[index] = self.workers[index], self.add(self.worker(index, version))
        await self.workers[index].wait_ready()
        await self.settled()
        await old.leave()

    async def settled(self):
        """Every gateway shows all members and a register that it hears, to the executables of both versions."""
        for gateway in self.gateways:
            for version, executable in self.versions.items():
                await until(f"{gateway.name} shows a whole cluster to the {version} executable",
                            lambda: self.is_whole(executable, gateway))

    def is_whole(self, executable, gateway):
        asked = [executable, "status", "--json", "--addr", f"127.0.0.1:{gateway.internal}"]
        answer = subprocess.run(asked, capture_output=True, text=True)
        if answer.returncode != 0:
            return False
        status = json.loads(answer.stdout)
        ready = lambda key: sum(member["state"] == "ready" for member in status[key])
        return (status["complete"] and status["register"]["heard"] and ready("gateways") == GATEWAYS
                and ready("workers") >= WORKERS)

    def stop(self):
        for role in self.roles:
            if role.alive():
                role.child.terminate()
        for role in self.roles:
            role.stop()


async def stage(cluster, traffic, what, replace):
    """One replacement, then the cluster as it is now: whole, and carrying everything."""
    began = time.monotonic()
    await replace
    await cluster.settled()
    topics = traffic.all, traffic.room, traffic.news
    before = [topic.sent for topic in topics]
    echoes = traffic.echoes
    calls = await every_command(cluster.gateways, traffic.users)

    def enough():
        traffic.check()
        return (all(topic.sent >= was + SENT_MIN for topic, was in zip(topics, before))
                and traffic.echoes >= echoes + SENT_MIN)
    await until(f"{what}: traffic goes on", enough)
    print(f"ok      {what} ({time.monotonic() - began:.1f} s), {calls} calls", flush=True)


async def roll(cluster, traffic, version):
    """To the new version in the order of RUNBOOK; back in the opposite one, so that other mixtures occur."""
    def gateway(index):
        cluster.gateways[index].version = version
        return f"gateway-{index + 1} is {version}", cluster.gateways[index].replace

    def worker(index):
        return f"worker {index + 1} is {version}", lambda: cluster.replace_worker(index, version)

    steps = [lambda: (f"the register is {version}", lambda: cluster.replace_register(version))]
    steps += [lambda index=index: gateway(index) for index in range(GATEWAYS)]
    steps += [lambda index=index: worker(index) for index in range(WORKERS)]
    for step in steps if version == "new" else reversed(steps):
        what, replace = step()
        await stage(cluster, traffic, what, replace())


async def main(new, old):
    cluster = Cluster({"old": old, "new": new})
    good = False
    try:
        for role in cluster.roles:
            await role.wait_ready()
        await cluster.settled()
        traffic = Traffic(cluster.gateways)
        traffic.start(CLIENTS)
        await roll(cluster, traffic, "new")
        await roll(cluster, traffic, "old")
        await traffic.finish()
        sent = traffic.all.sent + traffic.room.sent + traffic.news.sent
        print(f"        {sent} messages to {2 * CLIENTS} clients, {traffic.echoes} events answered, "
              f"{traffic.reconnects} reconnects; none lost, repeated or out of order; {traffic.repeats} sends "
              f"repeated by their caller; the slowest took {traffic.slowest:.1f} s")
        good = True
    finally:
        cluster.stop()
        if good:
            shutil.rmtree(cluster.folder)
        else:
            print(f"FAILED  the processes' logs are in {cluster.folder}", flush=True)


asyncio.run(main(*sys.argv[1:]))
