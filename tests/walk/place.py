"""The machine that the documentation is followed on, and how a command is typed there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.machines import Machine, machine

CHECKOUT = Path(__file__).resolve().parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# No systemd runs there: what the documented unit says is done by this.
SYSTEMCTL = r"""#!/bin/bash
set -e
verb=$1; shift
[ "$1" != --now ] || shift
unit=/etc/systemd/system/$1.service pid=/run/$1.pid
case $verb in
daemon-reload) exit 0 ;;
enable | start)
    grep -qx KillMode=process $unit
    set -a; [ ! -e /etc/gantry.env ] || . /etc/gantry.env; set +a
    cd /; setsid $(sed -n s/^ExecStart=//p $unit) </dev/null >>/var/log/$1.log 2>&1 &
    echo $! >$pid ;;
stop)
    kill -TERM $(cat $pid)
    while readlink /proc/$(cat $pid)/exe >/dev/null; do sleep 0.1; done ;;
*) echo "systemctl $verb is nothing that is done here" >&2; exit 1 ;;
esac
"""


@dataclass
class Said:
    code: int
    text: str


@dataclass
class Place:
    """``env`` is what the person's shell has beside the usual."""

    machine: Machine
    env: dict[str, str] = field(default_factory=dict)

    def path(self, inside: str) -> Path:
        """Where a file of the machine is seen from here."""
        return Path(f"/proc/{self.machine.pid}/root") / inside.removeprefix("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def type(
        self,
        line: str,
        *,
        cwd: str = "/root",
        given: str = "",
        until: str | Callable[[], bool] = "",
        after: float = 0,
        stays: bool = False,
        user: str = "",
        env: dict[str, str] | None = None,
        seconds: float = 240,
    ) -> Said:
        """Run a line by bash.

        Ctrl-C comes once ``until`` has been said, or is so, or ``after`` seconds; with ``stays``
        it goes on instead.
        """
        enter = ["nsenter", "-t", str(self.machine.pid), "-m", "-p", "-u", "-i", "-n"]
        who = {"PATH": PATH, "HOME": "/root", "USER": "root", "TERM": "dumb", "LANG": "C.UTF-8"}
        more = self.env | (env or {})
        if user:
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            who["HOME"] = "/tmp"
        words = [*enter, "env", "-i", f"--chdir={cwd}"]
        words += [f"{name}={value}" for name, value in (who | more).items()]
        run = subprocess.Popen(
            [*words, "bash", "-c", line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return _listen(run, given, until, after, seconds, stays=stays)


def _listen(
    run: subprocess.Popen[bytes],
    given: str,
    until: str | Callable[[], bool],
    after: float,
    seconds: float,
    *,
    stays: bool,
) -> Said:
    assert run.stdin
    assert run.stdout
    run.stdin.write(given.encode())
    run.stdin.close()
    os.set_blocking(run.stdout.fileno(), False)
    text, began, ended = "", time.monotonic(), False
    deadline = began + seconds
    while True:
        piece = run.stdout.read()
        text += (piece or b"").decode(errors="replace")
        # What it left running may hold the pipe; what was interrupted has not ended before that.
        if piece == b"" or (piece is None and not ended and run.poll() is not None):
            break
        waited = time.monotonic() - began
        enough = bool(after) and waited > after
        if until and not (ended or enough):
            enough = until() if callable(until) else bool(re.search(until, text))
        if enough and not ended:
            if stays:
                threading.Thread(target=_drain, args=(run,), daemon=True).start()
                return Said(0, text)
            os.killpg(run.pid, signal.SIGINT)
            ended = True
        if time.monotonic() > deadline:
            os.killpg(run.pid, signal.SIGKILL)
            return Said(-1, f"{text}\n(nothing more within {seconds} s)")
        time.sleep(0.05)
    return Said(run.wait(30), text)


def _drain(run: subprocess.Popen[bytes]) -> None:
    """What goes on must have somebody who reads what it says."""
    assert run.stdout
    os.set_blocking(run.stdout.fileno(), True)
    while run.stdout.read(65536):
        pass
    run.wait()


@contextmanager
def place() -> Iterator[Place]:
    """A machine with what the distribution's packages bring, and Gantry's repository at an address.

    What is of the machine below is seen there, as it is while the tests run: packages, and the
    virtual environment, from which the one of its checkout is made, so that nothing is fetched.
    """
    with machine() as made:
        here = Place(made)
        _furnish(here)
        yield here


def _furnish(here: Place) -> None:
    for folder in ("/home/state", "/var/lib/gantry", "/backup", "/elsewhere", "/srv", "/root/shop"):
        here.path(folder).mkdir(parents=True, exist_ok=True)
    # An overlay cannot lie on an overlay.
    here.machine.sh("mount --bind /home/state /var/lib/gantry && chmod 755 /root /home/state")
    here.write("/usr/local/bin/systemctl", SYSTEMCTL, 0o755)
    here.write(
        "/etc/gitconfig",
        '[url "file:///srv/origin"]\n\tinsteadOf = https://…\n[safe]\n\tdirectory = *\n'
        "[user]\n\tname = Alice\n\temail = alice@example.org\n[init]\n\tdefaultBranch = main\n"
        "[credential]\n\thelper = store\n[pull]\n\trebase = false\n",
    )
    origin = here.path("/srv/origin")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        cwd=CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source, target = CHECKOUT / name, origin / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    here.machine.sh("cd /srv/origin && git init -q && git add -A && git commit -q -m Gantry")


def connect(here: Machine, there: Machine) -> str:
    """A cable between two machines; the address of the second."""
    ours, theirs = f"{here.name}a", f"{here.name}b"
    ends = [*("type", "veth", "peer", "name", theirs, "netns", str(there.pid))]
    subprocess.run(["ip", "link", "add", ours, "netns", str(here.pid), *ends], check=True)
    here.sh(f"ip addr add 10.214.0.1/30 dev {ours} && ip link set {ours} up")
    there.sh(f"ip addr add 10.214.0.2/30 dev {theirs} && ip link set {theirs} up")
    return "10.214.0.2"


def make_venv(here: Place) -> None:
    """The checkout's virtual environment, as the start leaves it: the same packages, by links."""
    below = (CHECKOUT / ".venv").resolve()
    assert here.path(str(below)).exists(), "The checkout has to be on the file system of /."
    links = "".join(f"ln -s {below}/{name} .venv/{name};" for name in ("bin", "lib", "pyvenv.cfg"))
    stamp = (
        "{ cat requirements.txt; /usr/bin/python3 -V; echo /root/gantry/.venv; } | sha256sum"
        ' | sed "s/^/service /; s/ *-$//" >.venv/.gantry-installed'
    )
    here.machine.sh(f"cd /root/gantry && mkdir .venv && {links} {stamp}")
