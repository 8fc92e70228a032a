"""The directory of one network, with its network namespace and /sys mounted in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime import owner, syscalls
from runtime.errors import HostError
from runtime.network import subnets
from runtime.removal import remove_path
from runtime.state import UNFINISHED, StateDirectory

OWNER = "owner"
NETNS = "netns"
SYSFS = "sysfs"
RESOLV_CONF = "resolv.conf"
HOSTS = "hosts"
ABOUT = "private.json"
MEMBERS = "member-*"
SYSFS_FLAGS = (
    syscalls.MOUNT_ATTR_RDONLY
    | syscalls.MOUNT_ATTR_NOSUID
    | syscalls.MOUNT_ATTR_NODEV
    | syscalls.MOUNT_ATTR_NOEXEC
)


def claim(
    state: StateDirectory, taken: Collection[str] = (), most: int = subnets.NETWORKS
) -> tuple[int, Path]:
    """A number that no other network of this state directory has, and its new directory."""
    taken = {path.name for path in state.networks_dir.iterdir()}.union(taken)
    for number in range(most):
        if str(number) in taken:
            continue
        new = state.networks_dir / f"{UNFINISHED}{owner.token()}-{threading.get_ident()}"
        new.mkdir(mode=0o711)
        new.chmod(0o711)
        (new / OWNER).write_text(owner.token())
        path = state.networks_dir / str(number)
        try:
            new.rename(path)
        except OSError:  # another process was faster
            remove_path(new)
            continue
        return number, path
    raise HostError(
        f"All {most} sandbox networks are in use.",
        hint="Run `python -m runtime reap`, or widen GANTRY_EGRESS_SUBNET.",
    )


def populate(path: Path, *, fresh: bool, inside: Callable[[], None] = lambda: None) -> None:
    """Mount ``sysfs`` and, for a ``fresh`` network namespace, ``netns``; run ``inside`` in it.

    The work is done by a thread of its own, because entering a namespace is for good. What
    programs ``inside`` starts are in the namespace too.
    """

    def work() -> None:
        if fresh:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            (path / NETNS).touch(mode=0o444)
            source = "/proc/thread-self/ns/net"
            syscalls.mount(source, path / NETNS, "", syscalls.MS_BIND)
        _mount_sysfs(path / SYSFS)
        inside()

    in_thread(work)


def in_thread(work: Callable[[], None]) -> None:
    """Do ``work``, which may enter a namespace, by a thread that ends after it; raise its error."""
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # handed to the caller below
            failed.append(error)

    thread = threading.Thread(target=guarded, name="sandbox-network")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _mount_sysfs(at: Path) -> None:
    """/sys shows the network devices of the namespace in which it was mounted."""
    at.mkdir(mode=0o755)
    fd = syscalls.new_mount("sysfs", SYSFS_FLAGS)
    try:
        syscalls.move_mount(fd, syscalls.AT_FDCWD, at)
    finally:
        os.close(fd)


def has_cable(path: Path) -> bool:
    """Whether an egress network's inner end is there, and so its other end on the host.

    Not after a reboot, or once it was cut: then a device of that number is another installation's.
    """
    return (path / SYSFS / "class/net/eth0").exists()


def clear(path: Path) -> None:
    """Unmount and remove everything of a network's directory; may be repeated."""
    for member in path.glob(MEMBERS):
        clear(member)
    for name in (SYSFS, NETNS):
        with suppress(OSError):
            syscalls.umount2(path / name)
    for name in (SYSFS, NETNS, RESOLV_CONF, HOSTS, ABOUT):
        _remove(path / name)
    _remove(path / OWNER)
    with suppress(FileNotFoundError):
        path.rmdir()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        path.rmdir()


@contextmanager
def opened(state: StateDirectory) -> Iterator[tuple[int, Path]]:
    """A claimed directory for the block; its mounts go with it."""
    number, path = claim(state)
    try:
        yield number, path
    finally:
        clear(path)
