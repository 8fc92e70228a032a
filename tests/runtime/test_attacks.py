"""What a hostile program tries.

The conftest's ``nothing_left`` looks after each test whether the sentinel is whole.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from runtime import bundle, host, hostroot
from runtime.cli.options import make_parser
from runtime.network import NetworkHandle, egress, ipv6, open_network
from runtime.snapshots import LowerDir, mount_rootfs
from runtime.spec import MIB, BindMount, Limits, Network, Outcome, SandboxSpec, User
from runtime.state import StateDirectory
from tests.runtime.conftest import IDS, Ran, Sandboxes, processes_of, wait_until

pytestmark = pytest.mark.root
Python = Callable[..., Ran]

# Numbers of x86_64 (asm/unistd_64.h): what no build needs and holes have been found in.
CALLS = {
    "keyctl": 250, "add_key": 248, "request_key": 249, "bpf": 321, "perf_event_open": 298,
    "userfaultfd": 323, "io_uring_setup": 425, "kexec_load": 246, "kexec_file_load": 320,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "open_by_handle_at": 304,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "mount_setattr": 442, "mount": 165, "umount2": 166, "pivot_root": 155,
    "unshare": 272, "setns": 308, "clone3": 435, "swapon": 167, "swapoff": 168, "reboot": 169,
    "settimeofday": 164, "clock_settime": 227, "syslog": 103, "acct": 163, "quotactl": 179,
    "iopl": 172, "ioperm": 173, "lookup_dcookie": 212, "uselib": 134, "ustat": 136, "sysfs": 139,
    "vhangup": 153, "move_pages": 279, "fanotify_init": 300, "_sysctl": 156, "nfsservctl": 180,
}  # fmt: skip
SYSCALLS = CALLS if host.machine() == "x86_64" else {}
TRY_CALLS = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for name, number in {SYSCALLS!r}.items():
    ctypes.set_errno(0)
    answer = libc.syscall(number, 0, 0, 0, 0, 0, 0)
    if answer != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
        print(name, answer, errno.errorcode.get(ctypes.get_errno()))
"""
TRY_SOCKETS = """
import socket
for family, kind in ((17, 3), (17, 2), (2, 3), (10, 3), (40, 1)):
    try:
        socket.socket(family, kind).close()
    except OSError as error:
        continue
    print("socket", family, kind)
"""
TRY_FILES = """
import os
for path in ("/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/fuse", "/dev/kvm",
             "/dev/net/tun", "/proc/kcore", "/proc/1/mem", "/proc/sysrq-trigger",
             "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
             "/sys/kernel/uevent_helper",
             "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent",
             "/sys/fs/cgroup/cgroup.procs", "/var/run/docker.sock", "/run/docker.sock",
             "/run/podman/podman.sock", "/run/containerd/containerd.sock", "/etc/shadow",
             "/root/.ssh", "/home/gantry"):
    try:
        fd = os.open(path, os.O_RDWR if not path.endswith(("ssh", "gantry")) else os.O_RDONLY)
    except OSError:
        continue
    if path != "/proc/1/mem" and os.read(fd, 1):
        print("opened", path)
"""


@pytest.fixture
def python(area: Path, state: StateDirectory, nothing_left: None) -> Iterator[Python]:
    """Runs a Python program in a sandbox that sees the host's /usr and nothing else of it."""
    lower = area / "hostroot"
    lower.mkdir()
    (area / "layers").mkdir()
    usr = hostroot.make(lower)
    with mount_rootfs(
        [LowerDir(lower)], ids=IDS, scratch=area / "layers", target=area / "python"
    ) as rootfs:
        sandboxes = Sandboxes(state, rootfs)
        yield lambda program, **fields: sandboxes.run(
            "/usr/bin/python3", "-c", program, mounts=usr, **fields
        )


@pytest.mark.parametrize("user", [User(), User(uid=1000, gid=1000)])
@pytest.mark.parametrize("confined", [True, False])
def test_no_way_into_the_kernel_is_open(user: User, confined: bool, python: Python) -> None:
    """As root and as another user, in a test and in a build step."""
    for program in (TRY_CALLS, TRY_SOCKETS, TRY_FILES):
        ran = python(program, user=user, no_new_privileges=confined)
        assert (ran.receipt.ok, ran.out) == (True, ""), ran.err


def test_a_user_namespace_inside_would_be_no_way_out(python: Python) -> None:
    """Clone's flags are looked at too: no namespace of its own, in which root has all rights."""
    ran = python("""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x02000000, 0x04000000, 0x08000000):
    child = libc.syscall(56, flag | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    print(hex(flag), "made" if child > 0 else "refused")
""")
    assert "made" not in ran.out and ran.out.count("refused") == 7


def test_leaving_the_root_by_chroot_leads_nowhere(python: Python) -> None:
    """Root inside may chroot; the way up from a directory outside the new root ends at ours."""
    ran = python("""
import os
os.mkdir("/tmp/jail"); above = os.open("/", os.O_RDONLY)
os.chroot("/tmp/jail"); os.fchdir(above)
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print(sorted(os.listdir("/"))[:3], os.path.exists("/boot"), os.path.exists("/var/lib/dpkg"))
""")
    assert ran.out.endswith("False False\n") and "dev" not in ran.err


@pytest.mark.parametrize(
    "kind",
    [
        "while :; do :; done",
        "trap '' TERM INT HUP QUIT; while :; do sleep 1; done",
        "sleep 60",
        "kill -STOP $$; sleep 60",
        "while :; do (while :; do :; done) & sleep 0.5; done",
        "mkfifo /tmp/never; cat /tmp/never",
    ],
)
def test_whatever_never_ends_is_ended_in_time(kind: str, sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh(kind, limits=Limits(timeout=0.6, pids=40, cpus=1))
    assert ran.receipt.outcome in (Outcome.TIMEOUT, Outcome.PIDS)
    assert ran.receipt.wall < 10
    assert processes_of(IDS) == []


@pytest.mark.skipif(host.machine() != "x86_64", reason="the number of clone(2)")
def test_one_that_sleeps_in_state_d_is_ended_in_time(python: Python) -> None:
    """As who waits for a child of vfork: no signal that it handles wakes it, only the kill does.

    A sleep that outlasts even that needs a disk or server that does not answer (a frozen file
    system, NFS, FUSE), none of which a sandbox can mount. Should the host's own be such a one,
    the sandbox's cgroup cannot be removed, and the reaper says so and tries again.
    """
    ran = python(
        """
import ctypes, os, signal, time
signal.signal(signal.SIGTERM, print)
if ctypes.CDLL(None).syscall(56, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:  # CLONE_VFORK
    time.sleep(0.2)
    print(open("/proc/1/stat").read().split()[2], flush=True)
    time.sleep(60)
""",
        limits=Limits(timeout=1, grace=0.5, memory=64 * MIB, pids=20),
    )
    assert (ran.out, ran.receipt.outcome) == ("D\n", Outcome.TIMEOUT)
    assert ran.receipt.wall < 5
    assert processes_of(IDS) == []


@pytest.mark.parametrize(
    "bomb",
    [
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=200; sleep 9",
        "dd if=/dev/zero of=/dev/x bs=1M count=200; sleep 9",
        "x=x; while :; do x=$x$x; done",
        "while :; do (dd if=/dev/zero bs=8M of=/dev/null & ); done",
    ],
)
def test_memory_ends_in_memory_or_at_the_size_of_a_tmpfs(bomb: str, sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh(bomb, limits=Limits(memory=48 * MIB, shm=256 * MIB, pids=64, timeout=3))
    full = "No space left" in ran.err and ran.receipt.outcome is Outcome.TIMEOUT
    assert full or ran.receipt.outcome in (Outcome.OOM, Outcome.PIDS), ran.receipt
    assert ran.receipt.peak_memory <= 49 * MIB


def test_reading_big_files_is_no_overrun(sandboxes: Sandboxes) -> None:
    """The page cache counts as its memory, and gives way."""
    ran = sandboxes.sh(
        "dd if=/dev/zero of=/tmp/x bs=1M count=100 && cat /tmp/x > /dev/null && rm /tmp/x",
        limits=Limits(memory=48 * MIB, timeout=60),
    )
    assert ran.receipt.ok, ran.receipt


def test_the_host_forks_as_ever_while_a_bomb_goes_off(sandboxes: Sandboxes) -> None:
    with ThreadPoolExecutor(1) as pool:
        bomb = pool.submit(
            sandboxes.sh,
            "bomb() { bomb | bomb & bomb; }; bomb",
            limits=Limits(pids=40, memory=64 * MIB, timeout=2),
        )
        took = []
        while not bomb.done():
            started = time.monotonic()
            child = os.posix_spawn("/bin/true", ["/bin/true"], {})
            os.waitpid(child, 0)
            took.append(time.monotonic() - started)
    over = time.monotonic()
    assert bomb.result().receipt.pids_peak > 30
    assert wait_until(lambda: processes_of(IDS) == [])
    assert time.monotonic() - over < 5
    assert statistics.quantiles(took, n=100)[-2] < 0.2


FORBIDDEN = (
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "10.211.0.1", "100.64.0.1", "169.254.1.1"),
    *("169.254.169.254", "169.254.170.2", "172.16.0.1", "172.17.0.1", "100.100.100.200"),
    *("172.31.254.1", "192.0.0.192", "192.168.0.1", "192.168.122.1", "198.18.0.1", "224.0.0.1"),
    *("255.255.255.255", "::1", "fe80::1", "fd00::1", "fd00:ec2::254", "ff02::1"),
    *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1"),
)
KNOCK = """
import socket
for address in {addresses!r}:
    for port in {ports!r}:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(0.3)
            if knocking.connect_ex((address, port)) == 0:
                print(address, port)
"""


def test_no_service_of_the_host_or_its_neighbours_answers(
    python: Python, state: StateDirectory
) -> None:
    """S8: 25 addresses, the metadata services' among them, at a port of ours that listens."""
    with listening() as (port, heard), open_network(Network.EGRESS, state=state) as network:
        assert network is not None
        own = gateway_of(network)
        addresses = [*FORBIDDEN, *own]
        ran = python(
            KNOCK.format(addresses=addresses, ports=[port]),
            network=Network.EGRESS, netns=network.netns,
            limits=Limits(memory=128 * MIB, pids=64, timeout=60),
        )  # fmt: skip
        assert (ran.out, heard) == ("", [])
        assert ran.receipt.ok, ran.err
        ran = python(KNOCK.format(addresses=addresses, ports=[port]))
        assert (ran.out, heard) == ("", []), "without a network"


@contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """A port that is open on every address of the host, and who has knocked there."""
    heard: list[object] = []
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    heard.append(listener.accept())

        Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert wait_until(lambda: len(heard) == 1), "it does listen"
        heard.clear()
        yield port, heard
        listener.shutdown(socket.SHUT_RDWR)


def gateway_of(network: NetworkHandle) -> list[str]:
    assert network.netns is not None
    number = int(network.netns.parent.name)
    return [egress.addresses(number)[0], ipv6.addresses(number)[0]]


def test_nothing_in_a_spec_or_on_the_command_line_gives_rights() -> None:
    """S10: there is no such field; one that comes is a decision for this list."""
    assert {field.name for field in dataclasses.fields(SandboxSpec)} == {
        *("id", "rootfs", "args", "ids", "env", "cwd", "user", "hostname", "limits", "mounts"),
        *("network", "netns", "upper", "read_only", "no_new_privileges", "secrets", "note"),
    }
    assert {field.name for field in dataclasses.fields(BindMount)} == {
        "source",
        "target",
        "read_only",
    }
    words = make_parser().format_help()
    run = next(action for action in make_parser()._actions if action.choices).choices
    assert run is not None
    words += run["run"].format_help()  # type: ignore[index] # argparse: a dict of parsers
    for word in ("privileged", "device", "cap-add", "volume", "pid=", "security", "sock"):
        assert word not in words.lower()


@pytest.mark.parametrize("socket_name", ["docker.sock", "podman/podman.sock"])
def test_the_engines_socket_is_not_in_it(socket_name: str, sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh(f"ls /run/{socket_name} /var/run/{socket_name}; find / -type s")
    assert ran.out == ""


def test_every_mount_of_the_host_is_asked_for(area: Path) -> None:
    """A config.json shows of the host only its root, our files, and what the caller named."""
    spec = SandboxSpec(id="x", rootfs=area, args=("a",), ids=IDS)
    around = bundle.Surroundings(
        cgroup_path="/x", cgroup_version=host.cgroup_version(), machine=host.machine(),
        thermal_cpus=0, hosts=area / "hosts", hostname=area / "hostname", resolv_conf=area / "r",
    )  # fmt: skip
    sources = [m["source"] for m in bundle.mounts(spec, around) if m["type"] == "bind"]
    assert sources == [str(area / "hosts"), str(area / "hostname"), str(area / "r")]
