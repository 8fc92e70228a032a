"""Machines to deploy to, on this one: a root, a network, processes and a real sshd each.

Each is a pid, mount, network, uts and ipc namespace over an overlay of this machine's root. Its
processes end with its first one, its mounts with its namespace, its network with its veth pair;
what podman made in the cgroups is removed by name.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

UID = 1000  # of the user "deploy"
PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin")
INIT = """
set -e
mount --make-rprivate /
mount -t overlay overlay -o lowerdir=/,upperdir=$D/up,workdir=$D/work $D/root
cd $D/root
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p var/lib/containers && mount --bind $D/containers var/lib/containers
mkdir -p var/lib/docker && mount --bind $D/docker var/lib/docker
mkdir -p home && mount --bind $D/home home
rm -rf root/.ssh root/.bashrc var/lib/gantry
mkdir -p run/sshd run/user/1000 run/netns etc/ssh/allowed root home/deploy
mkdir -p old && pivot_root . old && umount -l /old
mount --make-rshared /  # as systemd has it; podman's monitors would not see each other's mounts
hostname $NAME
mknod -m 666 /tmp/tun c 10 200 && mount --bind /tmp/tun /dev/net/tun
for file in subuid subgid; do echo "deploy:3000000:65536" > /etc/$file; done
grep -v '^deploy:' /etc/passwd > /tmp/passwd
echo "deploy:x:1000:1000::/home/deploy:/bin/sh" >> /tmp/passwd && cat /tmp/passwd > /etc/passwd
grep -q '^deploy:' /etc/group || echo "deploy:x:1000:" >> /etc/group
sed -i '/^deploy:/d' /etc/shadow && echo "deploy:*:19000:0:99999:7:::" >> /etc/shadow
chown -R 1000:1000 /home/deploy /run/user/1000 && chmod 700 /run/user/1000
rm -f /etc/ssh/ssh_host_* && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
mkdir -p /etc/containers && printf '[engine]\\ncgroup_manager="cgroupfs"\\n%s\\n' "$RUNTIME" \
  > /etc/containers/containers.conf
cat > /etc/ssh/gantry_sshd <<END
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/allowed/%u
UsePAM no
PasswordAuthentication no
PidFile none
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
END
touch /tmp/booted
while [ ! -e /tmp/network ]; do sleep 0.02; done
eval "$MORE"
/usr/sbin/sshd -f /etc/ssh/gantry_sshd -E /tmp/sshd.log
exec sleep infinity
"""
DOCKERD = (
    "setsid dockerd --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2"
    " --cgroup-parent $NAME --pidfile /run/docker.pid >/tmp/dockerd.log 2>&1 &"
)


@dataclass
class Machine:
    """``pid`` is its first process; ``ip`` is where its sshd listens."""

    name: str
    folder: Path
    pid: int
    ip: str
    device: str
    hides: list[str] = field(default_factory=list)

    def run(self, *argv: str, check: bool = True, user: str = "root") -> str:
        """Run inside, as somebody who sits at the machine."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-u", "-i", "--"]
        if user != "root":
            enter += ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "env"]
            enter += [f"HOME=/home/{user}", f"XDG_RUNTIME_DIR=/run/user/{UID}"]
        done = subprocess.run(
            [*enter, *argv], check=False, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stdout} {done.stderr}"
        return done.stdout

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.run("sh", "-c", script, check=check)

    def allow(self, public_key: str, user: str = "root") -> None:
        self.sh(f"echo '{public_key}' >> /etc/ssh/allowed/{user}; chmod 644 /etc/ssh/allowed/*")

    def new_host_key(self) -> None:
        self.sh(
            "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f"
            " /etc/ssh/ssh_host_ed25519_key"
        )
        self.restart_sshd()

    def restart_sshd(self) -> None:
        """The next one finds its port free, or it would end without a word."""
        free = "while ss -Hltn 'sport = :22' | grep -q .; do sleep 0.02; done"
        start = "/usr/sbin/sshd -f /etc/ssh/gantry_sshd -E /tmp/sshd.log"
        self.sh(f"pkill -x sshd; {free}; {start}")

    def unplug(self) -> None:
        _ip("link", "set", self.device, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self.device, "up")

    @contextmanager
    def narrow(self, rate: str) -> Iterator[None]:
        """For the block no more than ``rate`` (as tc has it) reaches it."""
        bucket = ["tbf", "rate", rate, "burst", "16kb", "latency", "500ms"]
        where = ["dev", self.device, "root"]
        subprocess.run(["tc", "qdisc", "add", *where, *bucket], check=True)
        try:
            yield
        finally:
            subprocess.run(["tc", "qdisc", "del", *where], check=True)

    def hide(self, *programs: str) -> None:
        """As if they were not installed."""
        for program in programs:
            for place in PLACES:
                self.sh(f"cd {place} && [ ! -e {program} ] || mv {program} {program}.away")
            self.hides.append(program)

    def show(self) -> None:
        """Undo ``hide``."""
        for program in self.hides:
            for place in PLACES:
                self.sh(f"cd {place} && [ ! -e {program}.away ] || mv {program}.away {program}")
        self.hides.clear()


@contextmanager
def machine(*, docker: bool = False, hide: Sequence[str] = ()) -> Iterator[Machine]:
    """A machine that runs until the block ends. With ``docker`` its daemon runs, too."""
    number = 1 + secrets.randbelow(16000)  # hypothesis seeds ``random``, alike in each process
    name, device = f"gtm{number}", f"gtm{number}h"
    folder = Path(tempfile.mkdtemp(prefix="gantry-machine-"))
    folder.chmod(0o755)
    for part in ("up", "work", "root", "containers", "docker", "home"):
        (folder / part).mkdir()
    runtime = "" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 'runtime="runc"'
    env = {"PATH": os.environ["PATH"], "D": str(folder), "NAME": name, "RUNTIME": runtime}
    env["MORE"] = DOCKERD if docker else ""
    log = (folder / "log").open("wb")
    namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
    outer = subprocess.Popen(
        ["unshare", *namespaces, "sh", "-c", INIT], env=env, stdout=log, stderr=log
    )
    try:
        _until(lambda: (folder / "root").exists() and _child(outer.pid) > 0, folder)
        first = _child(outer.pid)
        inside = Path(f"/proc/{first}/root/tmp/booted")
        _until(inside.exists, folder)
        made = Machine(name, folder, first, _plug(number, device, first), device)
        made.sh("touch /tmp/network")
        _until(lambda: _answers(made.ip), folder)
        if docker:
            _until(
                lambda: bool(made.sh("docker version -f ok 2>&1 || true").strip() == "ok"), folder
            )
        made.hide(*hide)
        yield made
    finally:
        outer.send_signal(signal.SIGKILL)
        outer.wait()
        subprocess.run(["ip", "link", "del", device], check=False, capture_output=True)
        log.close()
        _remove(folder, name)


def _plug(number: int, device: str, pid: int) -> str:
    third, fourth = divmod(number * 4, 256)
    inner = f"{device[:-1]}m"
    _ip("link", "add", device, "type", "veth", "peer", "name", inner, "netns", str(pid))
    _ip("addr", "add", f"10.213.{third}.{fourth + 1}/30", "dev", device)
    _ip("link", "set", device, "up")
    ip = f"10.213.{third}.{fourth + 2}"
    for words in (["link", "set", "lo", "up"], ["addr", "add", f"{ip}/30", "dev", inner],
                  ["link", "set", inner, "up"]):  # fmt: skip
        subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", *words], check=True)
    return ip


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _child(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except (OSError, IndexError):
        return 0


def _answers(ip: str) -> bool:
    try:
        with socket.create_connection((ip, 22), 1) as conn:
            return conn.recv(4) == b"SSH-"
    except OSError:
        return False


def _until(ready: Callable[[], bool], folder: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.02)


def _remove(folder: Path, name: str) -> None:
    """Its mounts went with its namespace, a moment after its processes."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.05)
    for controller in Path("/sys/fs/cgroup").iterdir():
        for place in (controller / name, Path("/sys/fs/cgroup") / name):
            if place.is_dir():
                for one in sorted(place.rglob("*"), reverse=True):
                    if one.is_dir():
                        one.rmdir()
                place.rmdir()


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Some at once; the first one has docker, too."""
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        made = [machine(docker=number == 0) for number in range(count)]
        for one in made:
            stack.push(one)  # each ends with the block, also if another did not start
        yield list(pool.map(lambda one: one.__enter__(), made))
