"""Runs what `run` says: one cluster of two gateways, each shipped proxy in front of both."""
import json, os, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path

from client import CLIENT, WebSocket, connect, publish, pusher, request

BROADGATE = sys.argv[1]
CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "config"
KEYS = {"1": ("key-of-one", "secret-of-app-one"), "2": ("key-of-two", "secret-of-app-two")}
READY_DELAY, DRAIN = "2s", "3s"
# Of each proxy, in a whole rolling restart: what is under way in a connection that is just cut, or asked of a
# gateway that has just gone and answered with 503, to be repeated.
LOST_MAX = 1
# Each proxy's clients are back by then.
BACK_SECONDS = 10

dir = Path(tempfile.mkdtemp(prefix="broadgate-proxies-"))
started = []

# Seconds between two health checks of the shipped configurations, at most.
HEALTH_INTERVAL = 1


def port():
    """A free one below those that the system gives to connections."""
    for candidate in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        if candidate not in port.given:
            port.given.add(candidate)
            return candidate
    raise SystemExit("no port is free")


port.given = set()


def until(what, check, seconds=30):
    end = time.time() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.time() > end:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def start(name, *command):
    log = open(dir / f"{name}.log", "ab")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BROADGATE_")}
    environment.update(HOME=str(dir), XDG_DATA_HOME=str(dir), XDG_CONFIG_HOME=str(dir))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    started.append(process)
    return process


class Gateway:
    def __init__(self, name, register):
        self.name, self.internal, self.web, self.lines = name, port(), port(), port()
        trusted = 'trusted_proxies = ["127.0.0.1/32"]'
        (dir / f"{name}.toml").write_text(f"""
apps_file = "{dir}/apps.toml"
[cluster]
register = ["127.0.0.1:{register}"]
[gateway]
name = "{name}"
internal = {{ bind = "127.0.0.1:{self.internal}" }}
stop = {{ ready_delay = "{READY_DELAY}", drain = "{DRAIN}" }}
[[gateway.listeners]]
name = "web"
kind = "web"
service = ""
bind = "127.0.0.1:{self.web}"
{trusted}
[[gateway.listeners]]
name = "lines"
kind = "text"
service = ""
bind = "127.0.0.1:{self.lines}"
proxy_protocol = true
{trusted}
""")
        self.start()

    def start(self):
        self.process = start(self.name, BROADGATE, "gateway", "--config", str(dir / f"{self.name}.toml"))

    def wait_ready(self):
        def ready():
            asked = [BROADGATE, "status", "--json", "--addr", f"127.0.0.1:{self.internal}"]
            answer = subprocess.run(asked, capture_output=True, text=True)
            try:
                gateways = json.loads(answer.stdout)["gateways"]
            except ValueError:
                return False
            return any(one["name"] == self.name and one["state"] == "ready" for one in gateways)

        until(f"{self.name} is ready", ready)

    def restart(self):
        """As the RUNBOOK says."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        assert status == 0, f"{self.name} ended with {status}"
        self.start()
        self.wait_ready()


class Proxy:
    """A shipped file, with addresses and certificates replaced."""

    def __init__(self, name, gateways):
        self.name, self.tls, self.lines = name, port(), None
        self.lost, self.taken, self.away = [], 0, 0.0
        text = (CONFIG / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}[name]).read_text()
        for address, gateway in zip(("10.0.0.1", "10.0.0.2"), gateways):
            text = text.replace(f"{address}:8080", f"127.0.0.1:{gateway.web}")
            text = text.replace(f"{address}:8282", f"127.0.0.1:{gateway.lines}")
        getattr(self, name)(text)
        until(f"{name} listens", lambda: self.listens(self.tls), 10)

    def nginx(self, text):
        text = replace(text, "listen 443 ssl", f"listen 127.0.0.1:{self.tls} ssl")
        text = replace(text, "/etc/nginx/tls/chat.example.com.pem", f"{dir}/cert.pem")
        text = replace(text, "/etc/nginx/tls/chat.example.com.key", f"{dir}/key.pem")
        text = replace(text, "worker_processes auto;\nworker_rlimit_nofile 100000;", "worker_processes 1;")
        text = replace(text, "worker_connections 50000", "worker_connections 500")
        text = replace(text, "http {", "http { access_log off; client_body_temp_path %s/body; proxy_temp_path %s/proxy;" % (dir, dir))
        self.run(f"daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;\n{text}", "nginx", "-c")

    def haproxy(self, text):
        self.lines = port()
        text = replace(text, "bind :443", f"bind 127.0.0.1:{self.tls}")
        text = replace(text, "bind :8282", f"bind 127.0.0.1:{self.lines}")
        text = replace(text, "/etc/haproxy/tls/chat.example.com.pem", f"{dir}/both.pem")
        text = replace(text, "maxconn 100000", "maxconn 500")
        self.run(text, "haproxy", "-db", "-f")

    def caddy(self, text):
        text = replace(text, "chat.example.com {", f"https://localhost:{self.tls} {{\n\tbind 127.0.0.1\n\ttls {dir}/cert.pem {dir}/key.pem")
        text = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n" + text
        self.run(text, "caddy", "run", "--adapter", "caddyfile", "--config")

    def run(self, text, *command):
        file = dir / f"{self.name}.conf"
        file.write_text(text)
        start(self.name, *command, str(file))

    @staticmethod
    def listens(number):
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", number)) == 0


def replace(text, old, new):
    assert old in text, f"{old!r} is not in the shipped file"
    return text.replace(old, new)


def say(gateway, to, text):
    status, answer = request(gateway.internal, "POST", "/v1/Send", json.dumps({"to": to, "text": text}), tls=False)
    assert status == 200, answer
    return json.loads(answer)


def every_kind_of_client(proxy, gateways):
    """At rest: each kind comes in, hears what is sent to it, and has its own address."""
    status, text = request(proxy.tls, "GET", "/up")
    assert status == 200, f"/up: {status} {text}"
    status, text = request(proxy.tls, "GET", "/apps/1/channels")
    assert status == 401, f"the HTTP API, unsigned: {status} {text}"
    raw = WebSocket(proxy.tls, "/ws")
    lines = proxy.lines and connect(proxy.lines, tls=False)
    plain, secure = (pusher(proxy.tls, KEYS[app][0]) for app in "12")
    addresses = lambda: [client["address"].rsplit(":", 1)[0] for client in of(gateways[0])]
    if lines:
        until("the line client is in", lambda: len(addresses()) == 2, 10)
    assert set(addresses()) == {CLIENT}, f"the clients' address is {CLIENT}, not {addresses()}"
    receipt = say(gateways[1], {"all": True}, "to raw clients")
    assert receipt["clients"] == 1 + bool(lines), receipt
    assert raw.hear() == "to raw clients"
    if lines:
        assert lines.recv(100) == b"to raw clients\n"
        lines.close()
    for app, client in (("1", plain), ("2", secure)):
        status, text = publish(proxy.tls, app, *KEYS[app], event="shipped", data="x" * 5000)
        assert status == 200, f"a publish: {status} {text}"
        heard = json.loads(client.hear())
        assert (heard["event"], len(heard["data"])) == ("shipped", 5000), heard
        client.close()
    raw.close()
    until("they have gone", lambda: not of(gateways[0]), 10)
    print(f"  {proxy.name}: raw, Pusher, tls_only{', lines' if lines else ''}, HTTP API, /up")


def of(gateway):
    body = json.dumps({"of": {"all": True}, "fields": ["CLIENT_FIELD_CONNECTION"]})
    status, text = request(gateway.internal, "POST", "/v1/ListClients", body, tls=False)
    assert status == 200, text
    return json.loads(text)["clients"]


def keep_publishing(proxy, over):
    number = 0
    while not over.is_set():
        number += 1
        try:
            status, text = publish(proxy.tls, "1", *KEYS["1"], event="tick", data=str(number), channel=proxy.name)
        except OSError as error:
            status, text = 0, str(error)
        if status == 200:
            proxy.taken += 1
        else:
            proxy.lost.append((status, text[:120]))
        time.sleep(0.05)


def keep_connected(proxy, over, kind):
    """Comes back at once whenever it was closed; the longest time away is kept."""
    while not over.is_set():
        gone = time.time()
        while True:
            try:
                client = pusher(proxy.tls, KEYS["1"][0], proxy.name) if kind == "pusher" else WebSocket(proxy.tls, "/ws")
                break
            except OSError:
                if over.is_set():
                    return
                time.sleep(0.05)
        proxy.away = max(proxy.away, time.time() - gone)
        try:
            while not over.is_set():
                try:
                    client.hear(0.5)
                except TimeoutError:
                    pass
        except OSError:
            pass
        client.close()


def rolling_restart(proxies, gateways):
    over = threading.Event()
    threads = [threading.Thread(target=keep_publishing, args=(proxy, over)) for proxy in proxies]
    threads += [threading.Thread(target=keep_connected, args=(proxy, over, kind))
                for proxy in proxies for kind in ("pusher", "raw")]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        for gateway in gateways:
            gateway.restart()
            print(f"  {gateway.name} is ready again")
            # As the runbook says: the proxies have to see it before the next one goes.
            time.sleep(2 * HEALTH_INTERVAL)
        time.sleep(1)
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
    bad = False
    for proxy in proxies:
        print(f"  {proxy.name}: {proxy.taken} publishes taken, {len(proxy.lost)} lost {proxy.lost[:3]}; "
              f"clients away for {proxy.away:.1f} s at most")
        bad |= len(proxy.lost) > LOST_MAX or proxy.taken < 10 or proxy.away > BACK_SECONDS
    assert not bad, "a rolling restart behind a shipped proxy was noticed"


def main():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", dir / "key.pem", "-out", dir / "cert.pem", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    (dir / "both.pem").write_text((dir / "cert.pem").read_text() + (dir / "key.pem").read_text())
    apps = '[[apps]]\nid = "default"\nraw = true\n'
    for app, (key, secret) in KEYS.items():
        apps += f'[[apps]]\nid = "{app}"\ntls_only = {str(app == "2").lower()}\n[[apps.keys]]\nkey = "{key}"\nsecret = "{secret}"\n'
    (dir / "apps.toml").write_text(apps)
    register = port()
    start("register", BROADGATE, "register", "--bind", f"127.0.0.1:{register}")
    gateways = [Gateway(name, register) for name in ("gateway-1", "gateway-2")]
    for gateway in gateways:
        gateway.wait_ready()
    proxies = [Proxy(name, gateways) for name in ("nginx", "haproxy", "caddy")]
    print("at rest:")
    for proxy in proxies:
        every_kind_of_client(proxy, gateways)
    print("through a rolling restart:")
    rolling_restart(proxies, gateways)


def stop():
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


try:
    main()
except BaseException:
    for log in sorted(dir.glob("*.log")) + sorted(dir.glob("*.err")):
        lines = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace")).splitlines()
        print(f"---- {log.name} (last lines)", *lines[-15:], sep="\n", file=sys.stderr)
    raise
finally:
    stop()
    shutil.rmtree(dir, ignore_errors=True)
print("every shipped proxy carries every kind of client, also through a rolling restart")
