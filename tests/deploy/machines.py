"""Machines as network namespaces on one bridge, each with an /etc, /run, /var/lib and /usr/local/bin of its own; with
`Node` also each with a systemd of its own, which runs what the units say, sandboxes included.

Call `enter()` first: it starts the program again in namespaces in which nothing can leave, and which take all
processes with them when it ends. There, "your machine" is the program's own place, with the bridge.
"""
import os, shutil, signal, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENTERED = "BROADGATE_TEST_MACHINES"
YOURS = "10.0.0.99"
# What a machine does not share with the others, and what it begins with.
OWN = {"/etc": "a copy", "/var/lib": "empty", "/usr/local/bin": "empty", "/usr/share/doc": "empty", "/run": "empty"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Commands of the page for which there are stand-ins.
STAND_INS = {"your machine": ["ssh", "scp", "cargo"], "a node": ["apt-get"]}
# systemd needs a hierarchy of cgroups, and no controller.
CGROUPS = Path("/sys/fs/cgroup/systemd")
BOOT_SECONDS_MAX = 20


NAMESPACES = ["--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc"]


def refused():
    """Why no namespaces can be made here; "" if they can."""
    if os.geteuid() != 0:
        return "not root"
    tried = subprocess.run(["unshare", *NAMESPACES, "ip", "link", "add", "br0", "type", "bridge"],
                           capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else ""


def enter():
    """Returns inside. Outside, it waits for that and ends with its exit code."""
    if os.environ.get(ENTERED):
        return
    if os.geteuid() != 0:
        sys.exit("namespaces are made by root")
    group = CGROUPS / f"broadgate-{os.getpid()}"
    child = subprocess.Popen(["unshare", *NAMESPACES, "--kill-child", sys.executable, *sys.argv], env=os.environ | {ENTERED: str(group)})
    for end in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(end, lambda *_: child.kill())
    code = child.wait()
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(folder)
        except OSError as error:
            print(f"{folder} is left: {error}", file=sys.stderr)
    sys.exit(code if code >= 0 else 1)


def command(*words, **more):
    subprocess.run([str(word) for word in words], check=True, **more)


def build_network(yours=YOURS):
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "br0", "type", "bridge")
    command("ip", "addr", "add", f"{yours}/24", "dev", "br0")
    command("ip", "link", "set", "br0", "up")


class Failed(Exception):
    """A command of the page failed; the text has what it printed."""


def run_script(words, script, environment, cwd, seconds):
    """What a person would type, line by line, until one fails."""
    base = {"PATH": PATH, "LC_ALL": "C.UTF-8", **environment}
    said = subprocess.run([*words, "bash", "-euo", "pipefail", "-c", script], env=base, cwd=cwd, timeout=seconds,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if said.returncode != 0:
        raise Failed(f"{script}\n--- exit code {said.returncode}:\n{said.stdout}")
    return said.stdout


class Machine:
    """Its holder, a process that sleeps, keeps its namespaces. With `read_only` it has no file that can be written."""

    def __init__(self, work, name, address, read_only=False):
        self.name, self.address, self.dir = name, address, work / name
        mounts, seals = [], ["mount -o remount,bind,ro /"]
        for place, begins in OWN.items():
            own = self.dir / place.strip("/").replace("/", "-")
            if begins == "a copy":
                shutil.copytree(place, own, symlinks=True)
            else:
                own.mkdir(parents=True)
            mounts.append(f"mount --bind {own} {place}")
            seals.append(f"mount -o remount,bind,ro {place}")
        (self.dir / "etc" / "hostname").write_text(f"{name}\n")
        stand_ins = self.dir / "stand-ins"
        stand_ins.mkdir()
        for one in STAND_INS["a node"]:
            write_stand_in(stand_ins / one, work)
        ready = self.dir / "ready"
        begin = ["set -e", "mount --make-rprivate /", *mounts, f"hostname {name}", "ip link set lo up", f"touch {ready}"]
        self.hold("\n".join([*begin, *(seals if read_only else []), *self.last_commands()]), self.dir / "console")
        wait(ready.exists, f"{name} is there")
        self.find()
        self.connect()
        (work / "by-address").mkdir(exist_ok=True)
        (work / "by-address" / address).write_text(" ".join(self.inside()))

    def hold(self, script, console):
        with open(console, "ab") as log:
            self.holder = subprocess.Popen([*self.namespaces(), "bash", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def namespaces(self):
        return ["unshare", "--net", "--mount", "--uts"]

    def last_commands(self):
        return ["exec sleep infinity"]

    def find(self):
        self.pid = self.holder.pid

    def connect(self):
        # Interface names have 15 bytes at most.
        port = f"to-{self.name}"[:15]
        command("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        command("ip", "link", "set", port, "master", "br0", "up")
        inside = ["nsenter", "-t", self.pid, "-n", "ip"]
        command(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        command(*inside, "link", "set", "eth0", "up")

    def remove(self):
        command("ip", "link", "del", f"to-{self.name}"[:15])
        self.holder.kill()
        self.holder.wait()

    def inside(self):
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "--wd=/"]

    def run(self, script, seconds=60):
        path = f"{self.dir / 'stand-ins'}:{PATH}"
        return run_script(self.inside(), script, {"PATH": path, "HOME": "/"}, "/", seconds)


class Node(Machine):
    """A machine that runs systemd, with a target of its own instead of those that start a whole Debian."""

    # In place of what /lib/systemd/system makes of them.
    TARGETS = {
        "machine.target": "Requires=systemd-journald.service\nAfter=systemd-journald.service",
        "sysinit.target": "DefaultDependencies=no",
        "basic.target": "DefaultDependencies=no\nAfter=sysinit.target",
    }

    def namespaces(self):
        return [*super().namespaces(), "--ipc", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc"]

    def hold(self, script, console):
        """The cgroup namespace's root is the group in which it is made."""
        group = Path(os.environ[ENTERED]) / self.name
        group.mkdir(parents=True)
        with open(console, "ab") as log:
            enter_group = lambda: (group / "cgroup.procs").write_text("0")
            self.holder = subprocess.Popen([*self.namespaces(), "bash", "-c", script], stdin=subprocess.DEVNULL,
                                           stdout=log, stderr=log, preexec_fn=enter_group)

    def last_commands(self):
        units = "/etc/systemd/system"
        lines = [f"rm -rf {units}", f"mkdir -p {units}", "for place in /tmp /var/tmp /var/log; do mount -t tmpfs tmpfs $place; done"]
        lines += [f"printf '[Unit]\\nDescription={name}\\n{text}\\n' > {units}/{name}".replace("\n", "\\n") for name, text in self.TARGETS.items()]
        lines += ["mount -t tmpfs tmpfs /sys/fs/cgroup", f"mkdir {CGROUPS}", f"mount -t cgroup -o none,name=systemd cgroup {CGROUPS}"]
        return [*lines, "export container=lxc", "exec /lib/systemd/systemd --system --unit=machine.target"]

    def find(self):
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        wait(lambda: children.read_text().strip(), f"{self.name} has its first process")
        self.pid = int(children.read_text().split()[0])
        active = [*self.inside(), "systemctl", "is-active", "machine.target"]
        wait(lambda: subprocess.run(active, capture_output=True).returncode == 0, f"{self.name} runs systemd")

    def inside(self):
        return [*super().inside(), "-p"]


def wait(done, what):
    end = time.time() + BOOT_SECONDS_MAX
    while not done():
        if time.time() > end:
            raise Failed(f"not within {BOOT_SECONDS_MAX} s: {what}")
        time.sleep(0.02)


def write_stand_in(file, work):
    file.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(HERE)!r})\n"
                    f"import stand_ins\nstand_ins.run({file.name!r}, {str(work)!r}, sys.argv[1:])\n")
    file.chmod(0o755)


class YourMachine:
    """A checkout whose executable is built."""

    def __init__(self, work, broadgate):
        self.dir = work / "yours"
        (self.dir / "target" / "release").mkdir(parents=True)
        (self.dir / "deploy").symlink_to(HERE.parents[1] / "deploy")
        self.broadgate = broadgate
        self.stand_ins = work / "your-stand-ins"
        self.stand_ins.mkdir()
        for one in STAND_INS["your machine"]:
            write_stand_in(self.stand_ins / one, work)

    def run(self, script, seconds=60):
        environment = {"PATH": f"{self.stand_ins}:{PATH}", "HOME": str(self.dir), "BUILT": self.broadgate}
        return run_script([], script, environment, self.dir, seconds)
