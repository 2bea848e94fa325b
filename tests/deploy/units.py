"""A small stand-in for systemctl: it starts the ExecStart of a unit with its variables, limits and user, waits for
READY=1 of Type=notify, answers for the watchdog, and stops with SIGTERM within TimeoutStopSec.

A supervisor, one process per unit, owns the notify socket and its main process, and writes /run/units/NAME.state. It
does not sandbox: NoNewPrivileges, an empty CapabilityBoundingSet, UMask, LimitNOFILE and StateDirectory are applied.
"""
import os, pwd, re, resource, shlex, signal, socket, subprocess, sys, time
from pathlib import Path

PLACES = ["/etc/systemd/system", "/lib/systemd/system"]
RUN = Path("/run/units")
LOOK = 0.02


class Unit:
    def __init__(self, name):
        self.name = name if name.endswith(".service") else f"{name}.service"
        stem = self.name.removesuffix(".service")
        prefix, at, instance = stem.partition("@")
        file = f"{prefix}@.service" if at else self.name
        found = [Path(place) / file for place in PLACES if (Path(place) / file).exists()]
        if not found:
            sys.exit(f"Unit {self.name} could not be found.")
        texts = [found[0].read_text()]
        texts += [one.read_text() for one in sorted((Path(PLACES[0]) / f"{file}.d").glob("*.conf"))]
        host = os.uname().nodename
        self.specifiers = {"i": instance, "p": prefix, "l": host.split(".")[0], "H": host, "n": self.name, "%": "%"}
        self.keys = {}
        for line in "\n".join(texts).splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith(("#", ";")):
                self.keys.setdefault(key.strip(), []).append(self.filled(value.strip()))

    def filled(self, text):
        return re.sub(r"%(.)", lambda found: self.specifiers[found[1]], text)

    def all(self, key):
        return self.keys.get(key, [])

    def one(self, key, default=None):
        return self.all(key)[-1] if self.all(key) else default

    def environment(self):
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}
        for line in self.all("Environment"):
            environment.update(pair.split("=", 1) for pair in shlex.split(line))
        for file in self.all("EnvironmentFile"):
            optional, path = file.startswith("-"), Path(file.removeprefix("-"))
            if optional and not path.exists():
                continue
            lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith(("#", ";"))]
            environment.update((name.strip(), value.strip().strip("\"'")) for name, value in (line.split("=", 1) for line in lines))
        return environment

    def words(self, environment):
        """$NAME alone is split into words, as systemd does it."""
        words = []
        for word in shlex.split(self.one("ExecStart")):
            if re.fullmatch(r"\$\w+", word):
                words += environment.get(word[1:], "").split()
            else:
                words.append(word)
        return words

    def seconds(self, key, default):
        text = self.one(key, str(default))
        return float("inf") if text == "infinity" else float(text.removesuffix("s"))

    def state(self):
        try:
            return (RUN / f"{self.name}.state").read_text()
        except FileNotFoundError:
            return "inactive"

    def set_state(self, text):
        file = RUN / f"{self.name}.state"
        new = file.with_suffix(".new")
        new.write_text(text)
        new.rename(file)


def confine(unit):
    """Runs in the child, before the program."""
    os.setsid()
    files = int(unit.one("LimitNOFILE", 524288))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    except (ValueError, PermissionError):
        # This machine allows its root fewer: the programs say so and take those.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.umask(int(unit.one("UMask", "0022"), 8))


def as_user(unit):
    words = []
    if unit.one("User"):
        words += ["setpriv", f"--reuid={unit.one('User')}", f"--regid={unit.one('Group', unit.one('User'))}", "--init-groups"]
        if unit.one("NoNewPrivileges") == "yes":
            words.append("--no-new-privs")
        if unit.one("CapabilityBoundingSet") == "":
            words.append("--bounding-set=-all")
    return words


def supervise(unit):
    """Until the main process has ended. Restart=on-failure is honoured, so that a crash is seen in the journal alone."""
    path = RUN / f"{unit.name}.sock"
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    path.chmod(0o666)
    sock.settimeout(LOOK)
    environment = unit.environment() | {"NOTIFY_SOCKET": str(path)}
    watchdog = unit.seconds("WatchdogSec", "infinity")
    if watchdog < float("inf"):
        environment["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
    journal = open(f"/run/units/{unit.name}.log", "ab")
    main = subprocess.Popen([*as_user(unit), *unit.words(environment)], env=environment, stdin=subprocess.DEVNULL,
                            stdout=journal, stderr=journal, cwd="/", preexec_fn=lambda: confine(unit))
    (RUN / f"{unit.name}.pid").write_text(str(main.pid))
    alive = time.time()
    while main.poll() is None:
        try:
            for line in sock.recv(65536).decode().splitlines():
                if line == "READY=1":
                    unit.set_state("active")
                if line == "WATCHDOG=1":
                    alive = time.time()
        except TimeoutError:
            pass
        if time.time() - alive > watchdog and unit.state() == "active":
            main.kill()
            unit.set_state("failed (watchdog)")
            main.wait()
            return
    # systemd takes an end by SIGTERM for a clean one. Broadgate's roles handle it, and end with 0.
    good = {"0", *unit.one("SuccessExitStatus", "").split(), "0" if unit.name.startswith("broadgate") else "-15"}
    status = str(main.returncode)
    unit.set_state("inactive" if status in good else f"failed (exit status {status})")


def start(unit, block=True):
    RUN.mkdir(exist_ok=True)
    if unit.state() in ("active", "activating"):
        return 0
    folder = unit.one("StateDirectory")
    if folder:
        owner = pwd.getpwnam(unit.one("User"))
        path = Path("/var/lib") / folder
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, owner.pw_uid, owner.pw_gid)
    unit.set_state("activating")
    if os.fork() == 0:
        os.setsid()
        silent = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(silent, number)
        try:
            supervise(unit)
        except BaseException as error:  # The one place where it would be seen.
            unit.set_state(f"failed ({error!r})")
        os._exit(0)
    while block and unit.state() == "activating":
        time.sleep(LOOK)
    if block and unit.state() != "active":
        log = Path(f"/run/units/{unit.name}.log").read_text()[-1500:]
        sys.exit(f"{unit.name}: {unit.state()}\n{log}")
    return 0


def stop(unit):
    if unit.state() not in ("active", "activating"):
        return
    pid = int((RUN / f"{unit.name}.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    end = time.time() + unit.seconds("TimeoutStopSec", 90)
    while unit.state() in ("active", "activating"):
        if time.time() > end:
            os.killpg(pid, signal.SIGKILL)
            sys.exit(f"{unit.name}: did not stop within TimeoutStopSec")
        time.sleep(LOOK)
    if unit.state() != "inactive":
        sys.exit(f"{unit.name}: stopped as {unit.state()}")


def systemctl(args, _work):
    flags = [arg for arg in args if arg.startswith("-")]
    verb, *names = [arg for arg in args if not arg.startswith("-")]
    assert set(flags) <= {"--now", "--no-block"}, args
    if verb == "daemon-reload":
        return 0
    for unit in map(Unit, names):
        if verb == "enable":
            assert unit.one("WantedBy"), f"{unit.name} has no [Install]"
        if verb == "stop" or verb == "restart" or (verb == "try-restart" and unit.state() == "active"):
            was = unit.state()
            stop(unit)
            if verb == "try-restart" and was == "active":
                start(unit)
        if verb in ("start", "restart") or (verb == "enable" and "--now" in flags):
            start(unit, "--no-block" not in flags)
        assert verb in ("enable", "start", "stop", "restart", "try-restart"), args
    return 0
