"""What a process in a sandbox can see and do, asked of the process itself."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from threading import Event

import pytest

from runtime import use
from runtime.errors import RuntimeFailed, SpecError
from runtime.sandbox import Stream
from runtime.spec import MIB, BindMount, Limits, Network, Outcome, TmpfsMount, User
from tests.runtime.conftest import BUSYBOX, IDS, PREFIX, Sandboxes

pytestmark = pytest.mark.root

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
ALLOWED_CAPABILITIES = 0x800405FB  # Moby's fourteen less MKNOD, NET_RAW and AUDIT_WRITE


def status_of(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_every_namespace_differs_from_the_hosts(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh(f"for n in {' '.join(KINDS)}; do readlink /proc/self/ns/$n; done")
    inside = ran.out.split()
    assert len(inside) == len(KINDS)
    assert not {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in KINDS} & set(inside)


def test_host_root_has_no_name_inside(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("cat /proc/self/uid_map /proc/self/gid_map")
    rows = [[int(field) for field in line.split()] for line in ran.out.splitlines()]
    assert rows == [[0, IDS.base, 65536], [0, IDS.base, 65536]]


def test_root_inside_holds_only_the_listed_capabilities(sandboxes: Sandboxes) -> None:
    status = status_of(sandboxes.sh("cat /proc/self/status").out)
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {
        ALLOWED_CAPABILITIES
    }
    assert {int(status[name], 16) for name in ("CapInh", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_another_user_holds_no_capability(sandboxes: Sandboxes) -> None:
    user = User(uid=1000, gid=1001, groups=(7,))
    ran = sandboxes.sh("id -u; id -g; id -G; cat /proc/self/status", user=user)
    assert ran.out.splitlines()[:3] == ["1000", "1001", "1001 7"]
    status = status_of(ran.out)
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapAmb")} == {0}


def test_new_privileges_can_be_allowed_for_build_steps(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("cat /proc/self/status", no_new_privileges=False)
    assert status_of(ran.out)["NoNewPrivs"] == "0"


@pytest.mark.parametrize("confined", [True, False])
def test_a_setuid_program_of_the_root_gains_roots_rights_where_it_may(
    confined: bool, sandboxes: Sandboxes
) -> None:
    """``su`` itself. Root of the range is what it gains: no other is mapped."""
    program = sandboxes.rootfs.path / "busybox-setuid"
    shutil.copy(BUSYBOX, program)
    os.chown(program, IDS.base, IDS.base)
    program.chmod(0o4755)
    (sandboxes.rootfs.path / "etc/passwd").write_text("root::0:0::/:/bin/sh\n")
    ran = sandboxes.run(
        "/busybox-setuid", "su", "-c", "id -u; cat /proc/self/uid_map",
        user=User(uid=1000, gid=1000), no_new_privileges=confined,
    )  # fmt: skip
    assert ran.out.split() == ([] if confined else ["0", "0", str(IDS.base), "65536"]), ran.err


def test_only_three_descriptors_are_open_and_stdin_is_empty(sandboxes: Sandboxes) -> None:
    leaked = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        ran = sandboxes.sh("cd /proc/self/fd && echo *; cat")
    finally:
        os.close(leaked)
    assert ran.out.split() in (["0", "1", "2"], ["0", "1", "2", "3"])  # 3: the shell's own listing


def test_no_descriptor_leads_out_of_the_root(sandboxes: Sandboxes) -> None:
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leaked, True)
    script = "for n in $(seq 0 64); do (cd /proc/self/fd/$n 2>/dev/null && /bin/pwd); done"
    try:
        assert sandboxes.sh(script).out == ""
    finally:
        os.close(leaked)


def test_it_is_alone_in_its_pid_namespace_and_process_one(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("echo $$; echo /proc/[0-9]*")
    assert ran.out.split() == ["1", "/proc/1"]


def test_kernel_secrets_are_hidden(sandboxes: Sandboxes) -> None:
    script = """
    for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug \
        /proc/timer_stats /proc/latency_stats
    do [ -e $f ] && [ -n "$(head -c 1 $f 2>/dev/null)" ] && echo "can read $f"; done
    for d in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap \
        /sys/devices/system/cpu/cpu*/thermal_throttle
    do [ -d $d ] && [ -n "$(ls $d)" ] && echo "can list $d"; done
    true
    """
    assert sandboxes.sh(script).out == ""


def test_kernel_settings_cannot_be_written(sandboxes: Sandboxes) -> None:
    script = """
    for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches \
        /proc/sys/kernel/hostname /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max \
        /sys/power/state /proc/irq/default_smp_affinity
    do [ -e $f ] && (echo 1 > $f) 2>/dev/null && echo "can write $f"; done
    mount -o remount,rw /proc/sys 2>/dev/null && echo "can remount"
    mount -o remount,rw /sys 2>/dev/null && echo "can remount"
    true
    """
    assert sandboxes.sh(script).out == ""


@pytest.fixture
def temptations(sandboxes: Sandboxes, area: Path) -> tuple[BindMount | TmpfsMount, ...]:
    """What a program with the right to it would need: devices, a swap file, a module, a root."""
    for name, kind, device in (
        ("loop0", stat.S_IFBLK, (7, 0)),
        ("tty0", stat.S_IFCHR, (4, 0)),
        ("mem", stat.S_IFCHR, (1, 1)),
    ):
        os.mknod(sandboxes.rootfs.path / name, kind | 0o666, os.makedev(*device))
    (sandboxes.rootfs.path / "disk").write_bytes(bytes(MIB))
    modules = Path(f"/lib/modules/{os.uname().release}").rglob("*.ko")
    module = next(modules, BUSYBOX)  # with the right to load it, that would be a wrong format
    shutil.copy(module, sandboxes.rootfs.path / "module.ko")
    swap = area / "swap"
    swap.write_bytes(bytes(MIB))
    subprocess.run([BUSYBOX, "mkswap", swap], check=True, capture_output=True)
    for path in (swap, *(sandboxes.rootfs.path / n for n in ("loop0", "tty0", "mem", "disk"))):
        os.chown(path, IDS.base, IDS.base)
    return (
        BindMount(source=swap, target="/swap", read_only=False),  # an overlay could hold none
        TmpfsMount(target="/new", size=MIB),
    )


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /tmp",
        "mount -t proc none /tmp",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "unshare -n true",
        "nsenter -t 1 -m true",
        "mkdir /new/old; pivot_root /new /new/old",
        "mknod /tmp/disk b 254 0",
        "mknod /dev/mem c 1 1",
        "hostname intruder",
        "ip link add dummy0 type dummy",
        "ip link set lo down",
        "ping -c 1 127.0.0.1",
        "swapon /swap",
        "insmod /module.ko",
        "dmesg",
        "date -s 2001-01-01",
        "reboot -f",
        "losetup /loop0 /disk",
        "cat /loop0",
        "cat /mem",
        "echo x > /tty0",
        "sysctl -w kernel.hostname=x",
    ],
)
def test_it_is_refused(
    command: str, sandboxes: Sandboxes, temptations: tuple[BindMount | TmpfsMount, ...]
) -> None:
    """By the kernel for want of a right, and for no other reason."""
    ran = sandboxes.sh(f"{command} >/dev/null", mounts=temptations)
    assert re.search("[Pp]ermission denied|not permitted|Read-only file system", ran.err), ran.err
    assert ran.receipt.outcome is Outcome.EXITED


def test_devices_are_the_harmless_ones(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("ls /dev; echo x > /dev/null; head -c 4 /dev/urandom | wc -c")
    assert set(ran.out.split()) <= {
        *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero", "4"),
    }
    assert ran.receipt.ok


def test_limits_are_written_in_its_own_cgroup(sandboxes: Sandboxes) -> None:
    script = """
    cat /proc/self/cgroup
    cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
    cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null
    cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null
    true
    """
    limits = Limits(memory=48 * MIB, pids=33, cpus=0.5, timeout=20)
    lines = sandboxes.sh(script, limits=limits).out.splitlines()
    groups = [line for line in lines if ":" in line]
    assert all(line.endswith(":/") for line in groups), "its cgroup namespace hides the host's path"
    assert [line.split()[0] for line in lines if ":" not in line] == [
        str(48 * MIB),
        "33",
        "50000",
    ]


def test_without_a_network_there_is_only_loopback(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("ls /sys/class/net; cat /etc/resolv.conf; cat /proc/net/route | wc -l")
    assert ran.out.split() == ["lo", "1"]


def test_loopback_works_and_low_ports_are_free(sandboxes: Sandboxes) -> None:
    script = "nc -l -p 80 -e echo hello & sleep 0.2; nc -w 2 localhost 80"
    assert sandboxes.sh(script, user=User(uid=1000, gid=1000)).out == "hello\n"


def test_names_of_its_own_are_known(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("hostname; cat /etc/hostname; grep -c forge /etc/hosts", hostname="forge")
    assert ran.out.split() == ["forge", "forge", "2"]


def test_binds_and_tmpfs_are_mounted_as_asked(sandboxes: Sandboxes, area: Path) -> None:
    source = area / "given"
    source.mkdir()
    source.chmod(0o755)
    (source / "file").write_text("given")
    mounts = (
        BindMount(source=source, target="/given"),
        TmpfsMount(target="/fast", size=MIB, mode=0o700, uid=1000, gid=1000),
    )
    ran = sandboxes.sh(
        "cat /given/file; touch /given/x 2>&1; stat -c '%a %u' /fast; df -k /fast | tail -1",
        mounts=mounts,
    )
    assert "given" in ran.out and "Read-only file system" in ran.out and "700 1000" in ran.out
    assert " 1024 " in ran.out


def test_a_read_only_root_cannot_be_written(sandboxes: Sandboxes) -> None:
    ran = sandboxes.sh("touch /tmp/x; touch /dev/shm/y && echo shm", read_only=True)
    assert "Read-only file system" in ran.err and ran.out == "shm\n"


@pytest.mark.parametrize(
    "place", ["/proc/self/fd/{}", "/proc/1/fd/{}", "/proc/{}/cwd", "/dev/fd/{}"]
)
def test_a_working_directory_in_proc_is_refused(place: str, sandboxes: Sandboxes) -> None:
    """CVE-2024-21626 for every descriptor from 0 to 64, as root and as another user."""
    for number in range(65):
        for user in (User(), User(uid=1000, gid=1000)):
            with pytest.raises(SpecError, match="belongs to the kernel"):
                sandboxes.sh("pwd", cwd=place.format(number), user=user)


def test_exec_has_no_working_directory_in_proc_either(sandboxes: Sandboxes) -> None:
    """Named, through a link of the image, and through one that is made meanwhile."""
    said: list[str] = []
    over = Event()

    def enter(stream: Stream, data: bytes) -> None:
        for place in ("/proc/self/fd/7", "/proc/1/cwd"):
            with pytest.raises(SpecError, match="belongs to the kernel"):
                use.execute(sandboxes.state, f"{PREFIX}cwd", ["/bin/pwd"], cwd=place)
        for number in range(12):
            try:
                entered = use.execute(
                    sandboxes.state, f"{PREFIX}cwd", ["/bin/sh", "-c", "pwd; ls ../../root"],
                    cwd=f"/traps/{number}", on_output=lambda stream, data: said.append(str(data)),
                )  # fmt: skip
            except RuntimeFailed as error:
                said.append(error.message)
            else:
                said.append(entered.detail)
        over.set()

    script = (
        "mkdir /traps; for n in $(seq 0 11); do ln -s /proc/self/fd/$n /traps/$n; done;"
        "echo up; exec sleep 60"
    )
    sandboxes.sh(script, id=f"{PREFIX}cwd", on_output=enter, cancel=over)
    assert said and not any("sentinel" in word or "vmlinuz" in word for word in said)


def test_a_working_directory_that_leads_to_proc_is_refused(sandboxes: Sandboxes) -> None:
    (sandboxes.rootfs.path / "trap").symlink_to("/proc/self/fd/7")
    with pytest.raises(SpecError, match="leads to /proc/self/fd/7"):
        sandboxes.sh("pwd", cwd="/trap")


@pytest.mark.parametrize("target", ["/trap/sys", "/dev", "/dev/shm", "/proc/sys"])
def test_nothing_is_mounted_over_what_the_kernel_shows(target: str, sandboxes: Sandboxes) -> None:
    (sandboxes.rootfs.path / "trap").symlink_to("/proc")
    with pytest.raises(SpecError, match="Nothing can be mounted at"):
        sandboxes.sh("true", mounts=(TmpfsMount(target=target, size=4096),))


def test_a_working_directory_that_is_missing_is_named(sandboxes: Sandboxes) -> None:
    with pytest.raises(SpecError, match="/nowhere is not there"):
        sandboxes.sh("pwd", cwd="/nowhere")


def test_a_root_that_its_users_cannot_reach_is_named(sandboxes: Sandboxes, area: Path) -> None:
    area.chmod(0o700)
    try:
        with pytest.raises(SpecError, match=rf"chmod o\+x {area}"):
            sandboxes.sh("true")
    finally:
        area.chmod(0o711)


def devices_here() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def test_the_hosts_network_is_for_administrators_only_and_then_real(sandboxes: Sandboxes) -> None:
    before = devices_here()
    ran = sandboxes.sh("readlink /proc/self/ns/net; ls /sys/class/net", network=Network.HOST)
    namespace, *devices = ran.out.split()
    after = devices_here()  # tests beside this one make and remove some
    assert namespace == str(Path("/proc/self/ns/net").readlink())
    assert before & after <= set(devices) <= before | after


def test_the_upper_directory_stays_clean(sandboxes: Sandboxes) -> None:
    assert sandboxes.sh("true").receipt.ok
    assert list(sandboxes.rootfs.upper.iterdir()) == []


def test_a_mount_point_made_for_the_run_is_gone_after_it(sandboxes: Sandboxes, area: Path) -> None:
    source = area / "secret"
    source.write_text("s")
    mounts = (
        BindMount(source=source, target="/run/secrets/token"),
        TmpfsMount(target="/cache/deep", size=MIB),
    )
    ran = sandboxes.sh("cat /run/secrets/token; mkdir /made", mounts=mounts)
    assert ran.out == "s"
    assert [path.name for path in sandboxes.rootfs.upper.iterdir()] == ["made"]
