"""Machines as network namespaces on one bridge, each with an /etc, /run, /var/lib and /usr/local/bin of its own.

Call `enter()` first: it starts the program again in namespaces in which nothing can leave, and which take all
processes with them when it ends. There, "your machine" is the program's own place, with the bridge.
"""
import os, shutil, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENTERED = "BROADGATE_TEST_MACHINES"
YOURS = "10.0.0.99"
# What a machine does not share with the others, and what it begins with.
OWN = {"/etc": "a copy", "/var/lib": "empty", "/usr/local/bin": "empty", "/usr/share/doc": "empty", "/run": "empty"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Commands of the page for which there are stand-ins.
STAND_INS = {"your machine": ["ssh", "scp", "cargo"], "a node": ["systemctl", "apt-get"]}


def enter():
    if os.environ.get(ENTERED):
        return
    if os.geteuid() != 0:
        sys.exit("namespaces are made by root")
    unshare = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ[ENTERED] = "1"
    os.execvp("unshare", [*unshare, sys.executable, *sys.argv])


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
        stand_ins = self.dir / "stand-ins"
        stand_ins.mkdir()
        for one in STAND_INS["a node"]:
            write_stand_in(stand_ins / one, work)
        ready = self.dir / "ready"
        script = "\n".join(["set -e", "mount --make-rprivate /", *mounts, f"hostname {name}", "ip link set lo up",
                            f"touch {ready}", *(seals if read_only else []), "exec sleep infinity"])
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "--uts", "sh", "-c", script], stdin=subprocess.DEVNULL)
        end = time.time() + 10
        while not ready.exists():
            if time.time() > end:
                raise Failed(f"{name} is not there")
            time.sleep(0.01)
        self.connect()
        (work / "by-address").mkdir(exist_ok=True)
        (work / "by-address" / address).write_text(str(self.holder.pid))

    def connect(self):
        # Interface names have 15 bytes at most.
        port = f"to-{self.name}"[:15]
        command("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", self.holder.pid)
        command("ip", "link", "set", port, "master", "br0", "up")
        inside = ["nsenter", "-t", self.holder.pid, "-n", "ip"]
        command(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        command(*inside, "link", "set", "eth0", "up")

    def remove(self):
        command("ip", "link", "del", f"to-{self.name}"[:15])
        self.holder.kill()
        self.holder.wait()

    def inside(self):
        return ["nsenter", "-t", str(self.holder.pid), "-n", "-m", "-u", "--wd=/"]

    def run(self, script, seconds=60):
        path = f"{self.dir / 'stand-ins'}:{PATH}"
        return run_script(self.inside(), script, {"PATH": path, "HOME": "/"}, "/", seconds)


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
