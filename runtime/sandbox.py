"""The story of one sandbox, from its spec to its receipt."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from runtime import bundle, cgroups, disk, failures, host, oci, oomlog, outlets, stubs, watcher
from runtime.checks import checked
from runtime.errors import RuntimeFailed
from runtime.following import Followed, follow
from runtime.network import NetworkHandle, Traffic, handle_of, open_network
from runtime.output import Piece, Stream, numbered
from runtime.process import Command
from runtime.sealed import sealed
from runtime.spec import NO_PARENT, Limits, Outcome, Parent, Receipt, SandboxSpec
from runtime.state import Box, StateDirectory
from runtime.watchdog import Watchdog
from runtime.watcher import Keeper

__all__ = ["Piece", "Stream", "numbered", "run"]

EMPTY_WAIT = 5.0  # seconds for killed processes to leave their cgroup


def run(
    spec: SandboxSpec,
    *,
    state: StateDirectory,
    on_output: Callable[[Stream, bytes], None] | None = None,
    on_end: Callable[[], None] | None = None,
    cancel: threading.Event | None = None,
    parent: Parent = NO_PARENT,
) -> Receipt:
    """Run ``spec`` to its end and say what it cost. Blocks.

    ``on_output`` gets the bytes of both streams as they come, from this thread; while it
    is busy the sandbox's writes wait. ``numbered`` counts them. ``on_end`` is called once they have
    ended: when this process is killed before that is done, all that was written is kept
    (``runtime.unread``), unless there is no limit of output. ``cancel``, set by another thread,
    ends it, as another process does by ``runtime.use.kill``. ``parent`` is a cgroup, with a
    budget, that several sandboxes share. Raises SpecError for what cannot be, HostError for what
    this machine lacks, RuntimeFailed when the OCI runtime cannot make the container. Nothing of
    the sandbox is left, also after an exception from them.
    """
    spec = checked(spec, parent)
    runtime = host.oci_runtime()
    with ExitStack() as stack:
        keeper = watcher.ensure(state.root)
        box = stack.enter_context(
            state.open_box(spec.id, parent=parent.name, command=" ".join(spec.args), note=spec.note)
        )
        network = stack.enter_context(_network(spec, state))
        cgroup = stack.enter_context(_cgroup(box, spec.limits, parent))
        _write_bundle(spec, box, cgroup.box, network)
        stack.enter_context(stubs.removed(spec.rootfs, bundle.targets(spec)))
        before = network.traffic() if network else Traffic()
        ends = stack.enter_context(_outlets(spec, box, keeper))
        done = follow(
            _sealed(
                oci.run_command(
                    runtime, id=spec.id, bundle=box.path, root=box.oci_root, log=box.oci_log
                ),
                runtime,
            ),
            cgroup=cgroup,
            limits=spec.limits,
            log=box.oci_log,
            on_output=on_output,
            on_end=on_end,
            cancel=_Cancel(box.cancel, cancel),
            outlets=ends,
            budget=parent.limits,
            victims=oomlog.Victims(box.record.cgroup_name.path, cgroup.processes),
            disk_watch=lambda watchdog: _disk_watch(spec, cgroup, watchdog),
        )
        usage = cgroup.usage()
        traffic = (network.traffic() if network else Traffic()).since(before)
    return _receipt(spec, done, usage, traffic)


@dataclass(frozen=True, slots=True)
class _Cancel:
    """The caller's own wish, or another process's (runtime.use.kill)."""

    file: Path
    event: threading.Event | None

    def is_set(self) -> bool:
        return (self.event is not None and self.event.is_set()) or self.file.exists()


def _sealed(command: Command, runtime: host.OciRuntime) -> Command:
    """crun costs too little for it to matter."""
    return replace(command, program=sealed(runtime.path)) if runtime.name == "runc" else command


def _receipt(spec: SandboxSpec, done: Followed, usage: cgroups.Usage, traffic: Traffic) -> Receipt:
    """Raises RuntimeFailed when the container could not be made."""
    code, detail = done.exit_code, done.detail
    if done.failure is not None:
        code, detail = _not_started(done.failure, spec)
    return Receipt(
        outcome=done.outcome,
        exit_code=code,
        wall=done.wall,
        user=usage.user,
        system=usage.system,
        peak_memory=usage.peak_memory,
        read_bytes=done.read_bytes,
        written_bytes=done.written_bytes,
        pids_peak=usage.pids_peak,
        output_bytes=done.output_bytes,
        throttled=usage.throttled,
        received_bytes=traffic.received,
        sent_bytes=traffic.sent,
        samples=done.samples,
        detail=detail,
    )


def _disk_watch(
    spec: SandboxSpec, cgroup: cgroups.Cgroup, watchdog: Watchdog
) -> disk.DiskWatch | None:
    limited = spec.limits.disk is not None or spec.limits.inodes is not None
    if not limited or spec.upper is None:
        return None
    return disk.DiskWatch(
        spec.limits,
        spec.upper,
        cgroup.processes,
        lambda sentence: watchdog.end(Outcome.DISK, sentence),
    )


def _not_started(failure: failures.Failure, spec: SandboxSpec) -> tuple[int, str]:
    """Exit code and detail, as a shell has them, when the program could not be executed."""
    if failure.exit_code is None:
        raise RuntimeFailed(
            f"The sandbox {spec.id} could not be started: {failure.words}",
            hint="Run `python -m runtime check` to see what the machine lacks.",
        )
    return failure.exit_code, f"{spec.args[0]}: {failure.words}"


@contextmanager
def _network(spec: SandboxSpec, state: StateDirectory) -> Iterator[NetworkHandle | None]:
    """The network to join: the caller's, or one for this sandbox alone."""
    if spec.netns is not None:
        yield handle_of(spec.netns)
    else:
        with open_network(spec.network, state=state) as handle:
            yield handle


@contextmanager
def _outlets(spec: SandboxSpec, box: Box, keeper: Keeper) -> Iterator[outlets.Outlets]:
    """The limit of output is the limit of the files: without one there are none."""
    if spec.limits.output is None:
        with outlets.pipes() as ends:
            yield ends
    else:
        with outlets.kept(box.path) as ends, keeper.keeping(ends.readers):
            yield ends


@contextmanager
def _cgroup(box: Box, limits: Limits, parent: Parent) -> Iterator[cgroups.Cgroup]:
    cgroup = cgroups.open_cgroup(box.record.cgroup_name)
    try:
        cgroup.create()
        if parent.name:
            cgroups.set_budget(parent)
        cgroup.set_limits(
            Limits(io_weight=limits.io_weight, io_read=limits.io_read, io_write=limits.io_write)
        )
        yield cgroup
    finally:
        remove_cgroup(cgroup)
        cgroups.remove_parent(box.record.cgroup_parent)


def remove_cgroup(cgroup: cgroups.Cgroup) -> bool:
    """Kill what is in it, wait until it has left, remove it. False if something did not leave."""
    deadline = time.monotonic() + EMPTY_WAIT
    pause = 0.0005
    while not cgroup.remove():
        if time.monotonic() > deadline:
            return False
        cgroup.kill()
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def _write_bundle(
    spec: SandboxSpec, box: Box, cgroup_path: str, network: NetworkHandle | None
) -> None:
    hosts = network.hosts if network else None
    hosts = hosts or _write(box.path / "hosts", etc_hosts(spec.hostname), spec.ids.base)
    hostname = _write(box.path / "hostname", f"{spec.hostname}\n", spec.ids.base)
    resolv_conf = network.resolv_conf if network else _write(box.path / "resolv.conf", "")
    around = bundle.Surroundings(
        cgroup_path=cgroup_path,
        cgroup_version=host.cgroup_version(),
        machine=host.machine(),
        thermal_cpus=_thermal_cpus(),
        hosts=hosts,
        hostname=hostname,
        resolv_conf=resolv_conf,
        netns=network.netns if network else None,
        sysfs=network.sysfs if network else None,
    )
    config = box.path / bundle.CONFIG
    config.touch(mode=0o600)  # variables may be secret
    config.write_text(json.dumps(bundle.build(spec, around)))


def etc_hosts(hostname: str) -> str:
    return (
        f"127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback {hostname}\n"
    )


def _write(path: Path, text: str, uid: int = 0) -> Path:
    path.write_text(text)
    path.chmod(0o644)
    os.chown(path, uid, uid)
    return path


@lru_cache(maxsize=1)
def _thermal_cpus() -> int:
    """How many processors tell how hot they were."""
    return len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")))
