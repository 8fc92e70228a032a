"""Removes what dead owners left: processes, cgroups, mounts, networks, directories.

Runs when a worker dies (runtime.watcher), at each start and now and then. Whatever has a
living owner is not touched; two reapers take turns.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime import cgroups, failures, kept, outlets, owner, unread, watcher
from runtime.following import RUNTIME_WAIT
from runtime.network import directory, egress, named
from runtime.removal import remove_path
from runtime.sandbox import remove_cgroup
from runtime.snapshots import overlay
from runtime.state import Box, StateDirectory
from runtime.watcher import Keeper


def reap(state: StateDirectory) -> list[str]:
    """Remove what is dead; one sentence for each thing that was. Needs root."""
    with _turn(state):
        dead = [box for box in state.boxes() if not owner.is_alive(box.record.owner)]
        # Should we be killed as well, another goes on from there.
        done = [_reap_box(state, box, watcher.ensure(state.root)) for box in dead]
        done += [sentence for box in state.boxes() for sentence in _reap_parts(box)]
        for path in state.abandoned():
            done.append(_remove(path, f"the unfinished directory {path.name}"))
        done += _reap_networks(state)
        done += [f"unmounted {target}" for target in overlay.unmount_dead()]
        done += kept.prune(state)
        done += unread.prune(state)
        for path in state.dead_scratch():
            done.append(_remove(path, f"the directory {path}"))
    return done


def _remove(path: Path, what: str) -> str:
    """One that cannot be removed now must not keep the reaper from the next."""
    try:
        remove_path(path)
    except OSError as error:
        return f"{what} cannot be removed ({error.strerror}); it is tried again later"
    return f"removed {what}"


@contextmanager
def _turn(state: StateDirectory) -> Iterator[None]:
    with (state.root / "reap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reap_box(state: StateDirectory, box: Box, keeper: Keeper) -> str:
    cgroup = cgroups.open_cgroup(box.record.cgroup_name)
    ran = failures.read(box.oci_log) is None  # else it is the OCI runtime's own words
    _end(box, cgroup, keeper)
    if not remove_cgroup(cgroup):
        return f"sandbox {box.record.id} has processes that do not die; it is tried again later"
    cgroups.remove_parent(box.record.cgroup_parent)
    if ran and unread.keep(state, box):
        return f"removed sandbox {box.record.id}, whose output is kept"
    state.remove(box)
    return f"removed sandbox {box.record.id}"


def _end(box: Box, cgroup: cgroups.Cgroup, keeper: Keeper) -> None:
    """The container first: the OCI runtime then passes on what it has of its output, and ends.

    It may be about to make the container, so killing is repeated.
    """
    with outlets.rest_of(box.path) as rest, keeper.keeping(rest.readers):
        deadline = time.monotonic() + RUNTIME_WAIT
        cgroup.kill()
        while not rest.move() and time.monotonic() < deadline:
            time.sleep(0.01)
            cgroup.kill()
        for pid in _runtimes_of(box):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cgroup.kill()
        rest.move()


def _reap_parts(box: Box) -> list[str]:
    """Programs that were run in a living sandbox by someone who is dead."""
    done = []
    cgroup = cgroups.open_cgroup(box.record.cgroup_name)
    for name in cgroup.parts():
        if owner.is_alive(name.removeprefix(cgroups.PART).partition("-")[0]):
            continue
        cgroup.part(name).remove()
        done.append(f"ended what was left running in sandbox {box.record.id}")
    return done


def _runtimes_of(box: Box) -> list[int]:
    """Pids of OCI runtimes that were started for ``box``, by their --root argument."""
    marker = b"--root\0" + os.fsencode(box.oci_root) + b"\0"
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            if marker in Path(entry.path, "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def _reap_networks(state: StateDirectory) -> list[str]:
    done = []
    with named.turn(state):
        for path in sorted(state.networks_dir.iterdir()):
            if not named.is_alive(path):
                egress.take_down(path)
                done.append(f"removed network {path.name}")
                continue
            for member in named.dead_members(path):
                directory.clear(member)
                done.append(f"removed {member.name} of network {path.name}")
    return done
