"""What stands in for `cargo`, `ssh`, `scp` and `apt-get` on machines that are namespaces."""
import os, resource, shutil, subprocess, sys
from pathlib import Path

# Of Debian's packages: the program by which it is seen, and the user that it makes.
PACKAGES = {"etcd-server": ("etcd", "etcd"), "etcd-client": ("etcdctl", None), "haproxy": ("haproxy", None)}
# As the shipped haproxy.cfg needs.
PROXY_FILES = 210_000


def run(name, work, args):
    done = {"cargo": cargo, "ssh": ssh, "scp": scp, "apt-get": apt_get}[name](args, Path(work))
    sys.exit(done or 0)


def cargo(args, _work):
    """The executable under test is built already."""
    assert args == ["build", "--release"], args
    place = Path("target/release/broadgate")
    place.unlink(missing_ok=True)
    shutil.copy(os.environ["BUILT"], place)


def at(work, host):
    user, _, address = host.rpartition("@")
    assert user == "root", host
    return (work / "by-address" / address).read_text().split()


def ssh(args, work):
    """The shell there gets the words joined, as with ssh."""
    return subprocess.run([*at(work, args[0]), "sh", "-c", " ".join(args[1:])]).returncode


def scp(args, work):
    *files, target = args
    host, _, place = target.partition(":")
    assert place.startswith("/") and files, args
    return subprocess.run([*at(work, host), "cp", "--", *map(os.path.abspath, files), place]).returncode


def apt_get(args, _work):
    """Debian's packages are there; this does what installing them does besides: users, folders, starting etcd."""
    if args == ["update"]:
        return 0
    assert args[:2] == ["install", "--yes"], args
    for package in args[2:]:
        program, user = PACKAGES[package]
        assert shutil.which(program), f"{package} is not installed"
        if user:
            if subprocess.run(["id", user], capture_output=True).returncode != 0:
                subprocess.run(["useradd", "--system", "--home-dir", f"/var/lib/{user}", user], check=True)
            folder = Path("/var/lib") / user
            folder.mkdir()
            shutil.chown(folder, user, user)
            if program == "etcd":
                subprocess.run(["systemctl", "start", program], check=True)
        if program == "haproxy" and resource.getrlimit(resource.RLIMIT_NOFILE)[1] < PROXY_FILES:
            # This machine's root may not have the files of the page's LimitNOFILE.
            Path("/etc/default/haproxy").write_text("EXTRAOPTS=-n 1000\n")
    return 0
