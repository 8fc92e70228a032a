"""Escapes that worked elsewhere, each followed by the sentinel's check."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from runtime import host, use
from runtime.sandbox import Stream
from runtime.spec import MIB, Limits, Outcome, Receipt
from tests.runtime.conftest import IDS, PREFIX, Sandboxes, fingerprint, mounts, processes_of

pytestmark = pytest.mark.root

RACES = int(os.environ.get("SANDBOX_TEST_RACES", "60"))  # 2000 for the long form
ENTRIES = int(os.environ.get("SANDBOX_TEST_ENTRIES", "4"))  # 100 for the long form
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def of_the_host() -> tuple[object, ...]:
    """What no sandbox may change: the OCI runtime, a kernel setting, the devices of /dev."""
    nodes = [Path(path).stat() for path in ("/dev/null", "/dev/zero")]
    devices = [(node.st_rdev, node.st_mode) for node in nodes]
    return fingerprint(host.oci_runtime().path), CORE_PATTERN.read_bytes(), devices


@pytest.mark.timeout(600)
def test_replacing_devices_while_another_starts_gains_nothing(sandboxes: Sandboxes) -> None:
    """CVE-2025-31133, -52565, -52881: /dev/null or /dev/console swapped for a link into /proc."""
    before = of_the_host()
    attack = """
    i=0
    while [ $i -lt $races ]; do
        for d in /dev/null /dev/pts/0 /dev/console /dev/ptmx; do
            rm -f $d; ln -s /proc/sys/kernel/core_pattern $d; echo '|/evil' > $d
            rm -f $d; ln -s /proc/sysrq-trigger $d; echo h > $d
        done
        i=$((i + 1))
    done 2>/tmp/errors
    echo $i races
    ours=' /etc/(hosts|hostname|resolv.conf) '
    nodes=' /(null|zero|full|random|urandom|tty) /(dev|proc)/[a-z_]* '
    grep -E ' - (ext4|xfs|btrfs|devtmpfs) ' /proc/self/mountinfo | grep -vE "$ours|$nodes"
    true
    """
    attack = f"races={RACES}\n{attack}"
    limits = Limits(memory=64 * MIB, pids=64, timeout=20 + RACES / 10)
    with ThreadPoolExecutor(2) as pool:
        for ran in pool.map(lambda _: sandboxes.sh(attack, limits=limits), range(2)):
            assert ran.receipt.ok
            said, *mounted = ran.out.splitlines()
            assert said == f"{RACES} races"
            assert mounted == [], "a file system of the host is mounted in it"
    assert of_the_host() == before


def test_the_runtime_cannot_be_overwritten_by_what_it_starts(sandboxes: Sandboxes) -> None:
    """CVE-2019-5736: a program that is /proc/self/exe, and one that holds its starter open."""
    before = of_the_host()
    root = sandboxes.rootfs.path
    (root / "self").symlink_to("/proc/self/exe")
    (root / "again").write_text("#!/proc/self/exe\n")
    (root / "again").chmod(0o755)
    for _ in range(5):
        sandboxes.run("/self")
        sandboxes.run("/again")
    entered, over = list[Receipt](), Event()

    def enter(stream: Stream, data: bytes) -> None:
        for _ in range(ENTRIES):
            for program in ("/self", "/again", "/proc/self/exe"):
                entered.append(use.execute(sandboxes.state, f"{PREFIX}open", [program]))
        over.set()

    held = sandboxes.sh(
        "echo up; exec sleep 900",
        id=f"{PREFIX}open",
        limits=Limits(memory=64 * MIB, pids=64),
        on_output=enter,
        cancel=over,
    )
    assert held.receipt.outcome is Outcome.CANCELLED
    assert len(entered) == 3 * ENTRIES
    script = """
    for p in /proc/[0-9]*; do (echo evil > $p/exe) 2>/dev/null && echo "wrote $p/exe"; done
    for n in $(seq 0 20); do (echo evil > /proc/1/fd/$n) 2>/dev/null; done
    readlink /proc/1/exe
    """
    assert sandboxes.sh(script).out.split()[-1] == "/bin/busybox"
    assert of_the_host() == before


@pytest.mark.parametrize(
    "program",
    [
        "setsid sh -c 'exec >/dev/null 2>&1 </dev/null; while :; do sleep 1; done' &",
        "for i in $(seq 20); do (setsid setsid sleep 60 &) & done",
        "(exec -a init sleep 60 &) ; (exec -a '[kworker]' sleep 60 &)",
        "sh -c 'trap \"\" 1 2 3 13 15; sleep 60' & (kill -STOP $! &)",
        "mkfifo /tmp/f; cat /tmp/f & (sleep 60 > /tmp/f &)",
        "nc -l -p 99 & (nc -l -p 98 &)",
        "while :; do (sleep 0.01 &); done & sleep 0.3",
        "flock /tmp sleep 60 & (tail -f /dev/null &)",
        "unshare -p -f sleep 60 & (unshare -U sleep 60 &) ; sleep 60 &",
        "su -c 'sleep 60 & sleep 60' & (chroot / sleep 60 &)",
        "trap 'sleep 60 & sleep 60 &' EXIT; (trap '' TERM; sleep 60) &",
        "script='sleep 60 & exec sh -c \"$0\" x'; sh -c \"$script\" 'sleep 60' & sleep 0.1",
        "watch -n 1 true >/dev/null 2>&1 & (timeout 60 sleep 60 &)",
        "(while :; do sleep 60; done) </dev/tty >/dev/null 2>&1 & (nice -n 19 sleep 60 &)",
        "nohup sleep 60 >/dev/null 2>&1 & (setsid nohup sh -c 'sleep 60; sleep 60' &)",
        "start-stop-daemon -S -b -m -p /tmp/pid -x /bin/sleep -- 60; sleep 0.1; cat /tmp/pid",
        "httpd -p 97 -h /tmp; telnetd -p 96 -l /bin/sh; crond -L /tmp/log -c /tmp; syslogd",
        "mkfifo /tmp/g; (sleep 60 <> /tmp/g >&0 2>&0 &) ; (exec 3<>/tmp/g; sleep 60 &)",
        "printf '#!/bin/sh\n/tmp/s & sleep 60' > /tmp/s; chmod 700 /tmp/s; /tmp/s &",
        "for d in / /tmp /dev /proc; do (cd $d && exec setsid sleep 60) & done; sleep 0.1",
    ],
)
def test_nothing_of_it_is_left_whatever_it_started(program: str, sandboxes: Sandboxes) -> None:
    before = len(mounts())
    ran = sandboxes.sh(f"{program}\necho end", limits=Limits(memory=64 * MIB, pids=64, timeout=20))
    assert "end" in ran.out or not ran.receipt.ok
    assert processes_of(IDS) == []
    assert abs(len(mounts()) - before) <= 20, "others may be at work, but no mount of each was left"


def test_what_it_sees_is_on_the_list(sandboxes: Sandboxes) -> None:
    """A probe of itself: each line that is not on the list is a hole, or news worth a look."""
    probe = """
    echo user $(id -u):$(id -g)
    echo groups $(id -G)
    echo hostname $(hostname)
    echo umask $(umask)
    echo pwd $(pwd)
    echo processes $(ls /proc | grep -c '^[0-9]')
    echo devices $(ls /sys/class/net)
    echo kinds $(sed 's/.* - //; s/ .*//' /proc/self/mountinfo | sort -u)
    top='{ top[$5] = $6 } END { for (at in top) if (top[at] ~ /^rw/) print at }'
    echo writable $(awk "$top" /proc/self/mountinfo)
    echo cgroups $(touch /sys/fs/cgroup/x 2>/dev/null && echo written)
    echo block $(ls /sys/block /sys/class/block 2>/dev/null | grep -c loop_mounted)
    echo variables $(env | cut -d= -f1 | sort)
    echo keys $(cat /proc/keys 2>/dev/null | wc -l)
    echo sockets $(find / -xdev -type s 2>/dev/null)
    echo setuid $(find / -xdev -perm -4000 2>/dev/null)
    """
    seen = dict(line.partition(" ")[::2] for line in sandboxes.sh(probe).out.splitlines() if line)
    kinds = set(seen.pop("kinds").split())
    assert kinds <= {
        *("cgroup", "cgroup2", "devpts", "devtmpfs", "ext4", "mqueue", "overlay", "proc"),
        *("sysfs", "tmpfs", "xfs", "btrfs"),
    }
    assert int(seen.pop("processes")) <= 4
    writable = set(seen.pop("writable").split())
    assert writable <= {
        *("/", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc"),
        *("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/dev/null"),
        *("/dev/zero", "/dev/full", "/dev/tty", "/dev/random", "/dev/urandom"),
        *("/proc/latency_stats", "/proc/sched_debug", "/proc/timer_stats"),
    }
    assert seen == {
        "user": "0:0",
        "groups": "0",
        "hostname": "sandbox",
        "umask": "0022",
        "pwd": "/",
        "devices": "lo",
        "block": "0",
        "variables": "HOME PATH PWD SHLVL",
        "keys": "0",
        "sockets": "",
        "setuid": "",
        "cgroups": "",
    }
