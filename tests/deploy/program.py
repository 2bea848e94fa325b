"""What all subjects share: counting checks, and asking the program whether it accepts what a file sets."""
import http.client, os, re, shutil, socket, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "deploy" / "config" / "broadgate.toml"
# The directory of a deployment's files, wherever one is named.
ETC = "/etc/broadgate"


class Refused(Exception):
    """Something that is deployed would not work; the text says what."""


class Checks:
    """Runs checks, prints a line for each, and knows whether all have passed."""

    def __init__(self):
        self.failed = 0

    def check(self, what, run, *args):
        try:
            run(*args)
            print(f"ok       {what}")
        except Refused as why:
            self.failed += 1
            print(f"FAILED   {what}: {why}")

    def finds(self, what, run, *args):
        """A planted fault, which a check must find."""
        try:
            run(*args)
        except Refused as why:
            print(f"ok       finds {what}: {' '.join(str(why).split())[:100]}")
        else:
            self.failed += 1
            print(f"FAILED   does not find {what}")

    def end(self):
        sys.exit(1 if self.failed else 0)


def must(holds, why):
    if not holds:
        raise Refused(why)


def run(*command, env=None, **more):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, env=env, timeout=30, **more)


def clean_environment(**more):
    """Without the settings of the user who runs this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROADGATE_")}
    return {**kept, **more}


def free_port():
    with socket.socket() as sock:
        for port in range(21000 + os.getpid() % 5000, 32000):
            if port not in free_port.given:
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError:
                    continue
                free_port.given.add(port)
                return port
    raise SystemExit("no port is free")


free_port.given = set()


class Program:
    """The executable, and the files that a deployment has in /etc/broadgate."""

    def __init__(self, path):
        self.path = path
        self.dir = Path(tempfile.mkdtemp(prefix="broadgate-deploy-"))
        self.etc = self.dir / "etc"
        tls = self.etc / "tls"
        tls.mkdir(parents=True)
        for args in (["ca"], ["pair", "node"], ["listener", "chat.example.com", "--host", "chat.example.com"]):
            made = run(path, "certs", *args, "--dir", tls)
            must(made.returncode == 0, made.stderr)
        secret = run(path, "secret").stdout
        for name, text in (("secret", secret), ("etcd-password", "p4ssw0rd\n"), ("apps.toml", "")):
            (self.etc / name).write_text(text)
            (self.etc / name).chmod(0o600)
        shutil.copy(tls / "ca.pem", self.etc / "etcd-ca.pem")

    def remove(self):
        shutil.rmtree(self.dir)

    def local(self, text):
        """The same text with the files of this test."""
        return text.replace(ETC, str(self.etc))

    def takes_flags(self, args):
        """Each flag and its value; `--help` ends the program when it has read what is before it."""
        said = run(self.path, *(self.local(arg) for arg in args), "--help", env=clean_environment())
        must(said.returncode == 0, f"broadgate {' '.join(args)}: {said.stderr.strip()}")

    def takes_settings(self, environment, toml=""):
        """A configuration file's text with these variables over it. What has no effect is refused as well."""
        file = self.dir / "checked.toml"
        file.write_text(self.local(toml))
        variables = {name: self.local(value) for name, value in environment.items() if name.startswith("BROADGATE_")}
        variables["BROADGATE_CONFIG"] = str(file)
        said = run(self.path, "check-config", file, env=clean_environment(**variables))
        must(said.returncode == 0 and "warning" not in said.stderr, said.stderr.strip())

    def start(self, args, environment=()):
        return Running(self, args, dict(environment))


class Running:
    """A role as a process, with its own ports; it ends with the `with` block."""

    def __init__(self, program, args, environment):
        self.program = program
        self.log = open(program.dir / "role.log", "ab")
        env = clean_environment(**environment)
        command = [program.path, *args]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def answers(self, port, path, seconds=20):
        """The status of a GET, as soon as the port is open."""
        end = time.time() + seconds
        while True:
            must(self.process.poll() is None, f"it ended: {(self.program.dir / 'role.log').read_text()[-500:]}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", path)
                return connection.getresponse().status
            except OSError as error:
                must(time.time() < end, f"port {port} is not open: {error}")
                time.sleep(0.05)


def seconds(text):
    """Of a duration as systemd and the configuration write it: "45s", "500ms", "2m", "1min 30s"."""
    units = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
    parts = re.findall(r"([\d.]+)\s*([a-z]*)", text)
    must(parts, f"{text!r} is no duration")
    return sum(float(number) * units[unit or "s"] for number, unit in parts)
