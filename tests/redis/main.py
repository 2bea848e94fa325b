"""Gateways that read events from real Redis. See `run`."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from cluster import Cluster, Process, free_port, until
from clients import Pusher, WebSocket

HERE = os.path.dirname(os.path.abspath(__file__))
PREFIX = "laravel_database_"
CHANNELS = [f"room.{number}" for number in range(8)]
# Laravel's script, as its broadcaster sends it.
SCRIPT = "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend"


class Redis(Process):
    def __init__(self, folder, name, *options, port=None):
        self.port = port or free_port()
        base = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        super().__init__(f"redis-{name}", [*base, *options], folder)

    def cli(self, *words):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip()

    async def answers(self):
        await until(f"{self.name} answers", lambda: self.cli("PING") in ("PONG", "NOAUTH Authentication required."))
        return self


def certificates(folder):
    """A CA, and certificates for Redis and for the gateways."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl("req", "-x509", *new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("redis", "gateway"):
        openssl("req", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        with open(f"{folder}/{name}.ext", "w") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")


def app(name, lines, prefix=PREFIX):
    return f"""
[[apps]]
id = "{name}"
socketio = true
[[apps.keys]]
key = "{name}-key"
secret = "secret-of-{name}-and-more"
[apps.redis]
prefix = "{prefix}"
{lines}
"""


def url(redis, scheme="redis"):
    return f'url = "{scheme}://127.0.0.1:{redis.port}"'


class Subscriber:
    """A client in every channel, by either protocol; it notes what it hears."""

    every = []

    def __init__(self, socket, io):
        self.socket, self.io, self.heard = socket, io, []
        Subscriber.every.append(self)
        self.reading = asyncio.create_task(self.read())

    @classmethod
    async def pusher(cls, gateway, name):
        socket = await Pusher.connect(gateway.web, f"/app/{name}-key?protocol=7")
        established = json.loads(await socket.receive())
        socket.socket_id = json.loads(established["data"])["socket_id"]
        for channel in CHANNELS:
            socket.subscribe(channel)
            await socket.expect("pusher_internal:subscription_succeeded", channel)
        return cls(socket, False)

    @classmethod
    async def socketio(cls, gateway, name):
        socket = await WebSocket.connect(gateway.web, f"/socket.io/?EIO=4&transport=websocket&key={name}-key")
        await socket.receive()
        socket.send("40")
        socket.socket_id = json.loads((await socket.receive())[2:])["sid"]
        for channel in [*CHANNELS, "#"]:
            socket.send("42" + json.dumps(["subscribe", {"channel": channel}]))
        # What is refused behind them shows that they have taken effect.
        assert "subscription_error" in await socket.receive()
        return cls(socket, True)

    async def read(self):
        while (text := await self.socket.receive()) is not None:
            if text == "2":
                self.socket.send("3")
            elif self.io:
                name, channel, data = json.loads(text[2:])
                self.heard.append((channel, name, data))
            else:
                event = json.loads(text)
                if not event["event"].startswith("pusher"):
                    self.heard.append((event["channel"], event["event"], json.loads(event["data"])))

    def numbers(self, channel):
        return [data["n"] for heard, _, data in self.heard if heard == channel]


class Publisher:
    """Publishes numbered events, and knows what each channel has got."""

    def __init__(self, subscribers):
        self.subscribers, self.next = subscribers, 0
        self.sent = {channel: [] for channel in CHANNELS}

    def events(self, count, socket=None):
        """Events for one channel each, and some for several at once."""
        events = []
        for _ in range(count):
            self.next += 1
            channels = [CHANNELS[self.next % len(CHANNELS)]]
            if self.next % 10 == 0:
                channels.append(CHANNELS[(self.next + 3) % len(CHANNELS)])
            for channel in channels:
                self.sent[channel].append(self.next)
            events.append([channels, "App\\Events\\News", {"n": self.next, "text": "hé", "socket": socket}])
        return events

    async def arrived(self, what, subscribers=None):
        """Each client has each message once and in order; nothing more comes."""
        subscribers = subscribers or self.subscribers
        def all_of(compare):
            return all(compare(len(one.numbers(channel)), len(sent))
                       for one in subscribers for channel, sent in self.sent.items())
        try:
            await until(f"all of {what} has arrived", lambda: all_of(lambda heard, sent: heard >= sent), seconds=20)
        except AssertionError as error:
            lost = {channel: [sorted(set(sent) - set(one.numbers(channel))) for one in subscribers]
                    for channel, sent in self.sent.items()}
            raise AssertionError(f"{error}; lost: {lost}") from error
        for one in subscribers:
            for channel, sent in self.sent.items():
                assert one.numbers(channel) == sent, f"{what}: {channel}: {one.numbers(channel)} is not {sent}"


def by_cli(redis, events, prefix=PREFIX):
    for channels, event, data in events:
        payload = json.dumps({"event": event, "data": data, "socket": data["socket"]})
        redis.cli("EVAL", SCRIPT, "0", payload, *[prefix + channel for channel in channels])


def by_laravel(client, events, *redis, prefix=PREFIX):
    lines = "".join(json.dumps(event) + "\n" for event in events)
    command = ["php", f"{HERE}/publish.php", client, prefix, *[str(one.port) for one in redis]]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and not done.stdout, f"{client}: {done.stdout}{done.stderr}"


def has_php(code):
    return shutil.which("php") and subprocess.run(["php", "-r", f"exit((int) !({code}));"]).returncode == 0


CLIENTS = [client for client, code in [
    ("phpredis", "extension_loaded('redis') && is_dir('/usr/share/php/Illuminate/Redis')"),
    ("predis", "is_file('/usr/share/php/Predis/autoload.php') && is_dir('/usr/share/php/Illuminate/Redis')"),
] if has_php(code)]


class Suite:
    def __init__(self, executable):
        self.cluster = Cluster(executable, gateways=0)
        self.failed = 0

    def readers(self, name, alive=None):
        """The states of an app's readers, by gateway."""
        status = self.cluster.command("Status", {}, gateway=alive or 0)
        return [reader for gateway in status["gateways"] for reader in gateway.get("redis_readers", [])
                if reader["app"] == name]

    async def connected(self, name, count=3, alive=None):
        await until(f"{count} readers of {name} are connected", lambda: sum(
            reader.get("connected", False) for reader in self.readers(name, alive)) == count, seconds=20)

    async def check(self, name, work):
        began = time.monotonic()
        try:
            await work
            print(f"ok      {name} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception as error:  # whatever it is, this does not hold
            self.failed += 1
            print(f"FAILED  {name} ({time.monotonic() - began:.0f} s): {type(error).__name__}: {error}", flush=True)

    async def start(self):
        folder = self.cluster.folder
        certificates(folder)
        self.secret = f"{folder}/password"
        with open(self.secret, "w") as file:
            file.write("a-password-of-redis\n")
        with open(f"{folder}/wrong", "w") as file:
            file.write("another-password\n")
        for path in (self.secret, f"{folder}/wrong"):
            os.chmod(path, 0o600)
        self.alone = Redis(folder, "alone")
        self.acl = Redis(folder, "acl")
        tls_port = free_port()
        self.tls = Redis(folder, "tls", "--tls-port", str(tls_port), "--tls-cert-file", f"{folder}/redis.pem",
                         "--tls-key-file", f"{folder}/redis.key", "--tls-ca-cert-file", f"{folder}/ca.pem")
        self.frozen = Redis(folder, "frozen")
        # By default a cluster's bus listens at port + 10000, which may be beyond the range.
        self.nodes = [Redis(folder, f"node{n}", "--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{n}.conf",
                            "--cluster-port", str(free_port()), "--cluster-require-full-coverage", "no")
                      for n in range(3)]
        self.servers = [self.alone, self.acl, self.tls, self.frozen, *self.nodes]
        for server in self.servers:
            await server.answers()
        self.acl.cli("ACL", "SETUSER", "reader", "on", ">a-password-of-redis", "resetchannels", f"&{PREFIX}*",
                     "+psubscribe", "+ping")
        self.acl.cli("ACL", "SETUSER", "only", "on", ">a-password-of-redis", "resetchannels", "&only_*", "+psubscribe")
        self.acl.cli("ACL", "SETUSER", "nothing", "on", ">a-password-of-redis", "resetchannels", "&other*", "+psubscribe")
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        subprocess.run(["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"], check=True, capture_output=True)
        for node in self.nodes:
            await until("the Redis Cluster is whole", lambda: "cluster_state:ok" in node.cli("CLUSTER", "INFO"))

        files = f'[apps.redis.tls]\nca = "{folder}/ca.pem"\ncert = "{folder}/gateway.pem"\nkey = "{folder}/gateway.key"'
        over_tls = f'url = "rediss://localhost:{tls_port}"\n'
        password = f'password_file = "{self.secret}"'
        urls = ", ".join(f'"redis://127.0.0.1:{node.port}"' for node in self.nodes)
        self.cluster.webhooks = "".join([
            app("alone", url(self.alone)),
            app("reader", f'{url(self.acl)}\nuser = "reader"\n{password}'),
            app("only", f'{url(self.acl)}\nuser = "only"\n{password}', prefix="only_"),
            app("nothing", f'{url(self.acl)}\nuser = "nothing"\n{password}'),
            app("wrong", f'{url(self.acl)}\nuser = "reader"\npassword_file = "{folder}/wrong"'),
            app("tls", over_tls + files),
            app("anonymous", over_tls + f'[apps.redis.tls]\nca = "{folder}/ca.pem"'),
            app("untrusted", over_tls),
            app("plain", f'url = "redis://127.0.0.1:{tls_port}"'),
            app("secure", f'url = "rediss://127.0.0.1:{self.alone.port}"'),
            app("nodes", f"url = [{urls}]"),
            app("frozen", url(self.frozen)),
            app("prefix", url(self.frozen), prefix="laravel-database-"),
        ])
        from cluster import Gateway
        self.cluster.gateways = [Gateway(self.cluster, f"gateway-{n + 1}", "") for n in range(3)]
        await self.cluster.ready()

    async def subscribers(self, name):
        first, second, third = self.cluster.gateways
        return [await Subscriber.pusher(first, name), await Subscriber.socketio(second, name),
                await Subscriber.pusher(third, name)]

    async def in_thread(self, work, *arguments, **named):
        """Other checks go on meanwhile."""
        await asyncio.to_thread(work, *arguments, **named)

    async def alone_and_killed(self):
        await self.connected("alone")
        publisher = self.publisher = Publisher(await self.subscribers("alone"))
        subscribers = publisher.subscribers
        await self.in_thread(by_cli, self.alone, publisher.events(24))
        await publisher.arrived("redis-cli")
        for client in CLIENTS:
            await self.in_thread(by_laravel, client, publisher.events(400), self.alone)
            await publisher.arrived(client)
        # All but one, by either protocol's id.
        for one in subscribers[:2]:
            before = {channel: list(sent) for channel, sent in publisher.sent.items()}
            await self.in_thread(by_cli, self.alone, publisher.events(8, one.socket.socket_id))
            others = [other for other in subscribers if other is not one]
            await publisher.arrived("toOthers", others)
            assert all(one.numbers(channel) == sent for channel, sent in before.items()), "its own client got it"
            # From here on it has had the same as the others.
            one.heard = list(others[0].heard)

        self.alone.kill()
        await self.connected("alone", 0)
        self.alone.start()
        await self.alone.answers()
        await self.connected("alone")
        await self.in_thread(by_cli, self.alone, publisher.events(24))
        await publisher.arrived("Redis after kill -9")

    async def gateway_killed(self):
        publisher, dead = self.publisher, self.cluster.gateways[1]
        dead.kill()
        def knows():
            status = self.cluster.command("Status", {})
            return len(status["gateways"]) == 2 and status["coverage"]["complete"]
        await until("the view is without the dead gateway", knows)
        left = [publisher.subscribers[0], publisher.subscribers[2]]
        await self.in_thread(by_cli, self.alone, publisher.events(40))
        await publisher.arrived("a killed gateway's channels", left)

    async def said(self, *lines):
        """Each line is in every gateway's log, for its app."""
        for name, words in lines:
            for gateway in self.cluster.gateways:
                await until(f"{gateway.name} says of {name}: {words}", lambda: any(
                    f"app={name}" in line.split() and words in line for line in gateway.log().splitlines()), seconds=20)

    async def wrong_settings(self):
        await self.said(
            ("nothing", "may not subscribe: `ACL SETUSER nothing +psubscribe"),
            ("wrong", "does not accept the password of user \"reader\""),
            ("anonymous", "set tls.cert and tls.key"),
            ("untrusted", "a CA that is not trusted: set tls.ca"),
            ("plain", "if this port is for TLS, url must begin with rediss://"),
            ("secure", "url must begin with redis://"),
        )
        for gateway in self.cluster.gateways:
            lines = gateway.log().count("does not accept the password")
            assert lines == 1, f"{lines} lines about one trouble"

    async def served(self, name, redis, **named):
        await self.connected(name)
        publisher = Publisher(await self.subscribers(name))
        await self.in_thread(by_cli, redis, publisher.events(24), **named)
        await publisher.arrived(name)

    async def redis_cluster(self):
        await self.connected("nodes")
        publisher = Publisher(await self.subscribers("nodes"))
        # A script may run at any node.
        for node in self.nodes:
            await self.in_thread(by_cli, node, publisher.events(8))
            await publisher.arrived("a node's script")
        if "phpredis" in CLIENTS:
            await self.in_thread(by_laravel, "cluster", publisher.events(100), *self.nodes)
            await publisher.arrived("phpredis over a cluster")
        # The node that is read dies: another one is.
        self.nodes[0].kill()
        await until("another node is read", lambda: all(
            reader.get("connected") and reader["url"] == f"redis://127.0.0.1:{self.nodes[1].port}"
            for reader in self.readers("nodes")), seconds=20)
        await self.in_thread(by_cli, self.nodes[2], publisher.events(24))
        await publisher.arrived("a node's death")

    async def frozen_and_prefix(self):
        await self.connected("frozen")
        await self.connected("prefix")
        publisher = Publisher(await self.subscribers("frozen"))
        event = [["private-orders.1"], "E", {"n": 0, "socket": None}]
        # Until the other names are listened to.
        async def found():
            await self.in_thread(by_cli, self.frozen, [event], prefix="shop_database_")
            return all("begin with \"shop_database_\"" in reader.get("trouble", "") for reader in self.readers("prefix"))
        await until("the other prefix is found", found, seconds=20)
        await self.said(("prefix", "prefix is \"laravel-database-\", but Laravel's channels in this Redis begin with \"shop_database_\""))
        self.frozen.signal(signal.SIGSTOP)
        await self.connected("frozen", 0)
        await self.said(("frozen", "it does not answer any more"))
        self.frozen.signal(signal.SIGCONT)
        await self.connected("frozen")
        await self.in_thread(by_cli, self.frozen, publisher.events(24))
        await publisher.arrived("a Redis that was frozen")

    async def run(self):
        try:
            await self.start()
            checks = [
                self.check("access control: the prefix alone", self.served("reader", self.acl)),
                self.check("access control: PSUBSCRIBE alone", self.served("only", self.acl, prefix="only_")),
                self.check("TLS, with certificates on both sides", self.served("tls", self.tls)),
                self.check("what is wrong is said once", self.wrong_settings()),
                self.check("a Redis Cluster of three, and a node's death", self.redis_cluster()),
                self.check("another prefix; a Redis that is frozen", self.frozen_and_prefix()),
                self.check(f"alone, by redis-cli and {CLIENTS}; kill -9 of Redis", self.alone_and_killed()),
            ]
            await asyncio.gather(*checks)
            await self.check("kill -9 of a gateway", self.gateway_killed())
        finally:
            for one in Subscriber.every:
                one.reading.cancel()
            for server in getattr(self, "servers", []):
                server.stop()
            self.cluster.stop()
        return 1 if self.failed else 0


if len(CLIENTS) < 2:
    print(f"skipped  Laravel with phpredis and predis: only {CLIENTS or 'none'} can be used", flush=True)
sys.exit(asyncio.run(Suite(sys.argv[1]).run()))
