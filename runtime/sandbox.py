"""The story of one sandbox, from its spec to its receipt."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from runtime import (
    bundle,
    cgroups,
    disk,
    failures,
    host,
    oci,
    oomlog,
    paths,
    process,
    stubs,
    watcher,
)
from runtime.errors import RuntimeFailed, SpecError
from runtime.network import NetworkHandle, Traffic, handle_of, open_network
from runtime.output import Pump, Stream
from runtime.spec import NO_PARENT, BindMount, Limits, Outcome, Parent, Receipt, SandboxSpec
from runtime.state import Box, StateDirectory
from runtime.watchdog import Watchdog

__all__ = ["Stream", "run"]

KILLED = 137
EMPTY_WAIT = 5.0  # seconds for killed processes to leave their cgroup
RUNTIME_WAIT = 2.0  # seconds for the OCI runtime to end after its container was killed


def run(
    spec: SandboxSpec,
    *,
    state: StateDirectory,
    on_output: Callable[[Stream, bytes], None] | None = None,
    cancel: threading.Event | None = None,
    parent: Parent = NO_PARENT,
) -> Receipt:
    """Run ``spec`` to its end and say what it cost. Blocks.

    ``on_output`` gets the bytes of both streams as they come, from this thread; while it
    is busy the sandbox's writes wait. ``cancel``, set by another thread, ends it. ``parent``
    is a cgroup, with a budget, that several sandboxes share. Raises SpecError for what cannot be,
    HostError for what this machine lacks, RuntimeFailed when the OCI runtime cannot make
    the container. Nothing of the sandbox is left, also after an exception from ``on_output``.
    """
    spec = _checked(spec, parent)
    runtime = host.oci_runtime()
    with ExitStack() as stack:
        watcher.ensure(state.root)
        box = stack.enter_context(
            state.open_box(spec.id, parent=parent.name, command=" ".join(spec.args))
        )
        network = stack.enter_context(_network(spec, state))
        cgroup = stack.enter_context(_cgroup(box, spec.limits, parent))
        _write_bundle(spec, box, cgroup.box, network)
        stack.enter_context(stubs.removed(spec.rootfs, bundle.targets(spec)))
        command = oci.run_command(
            runtime, id=spec.id, bundle=box.path, root=box.oci_root, log=box.oci_log
        )
        before = network.traffic() if network else Traffic()
        started = time.monotonic()
        running = process.start(command)
        stack.callback(_end, running, cgroup)
        watchdog = stack.enter_context(
            Watchdog(
                spec.limits,
                cgroup,
                running,
                cancel,
                parent.limits,
                lambda: oomlog.killed_in(box.record.cgroup_name.path),
            )
        )
        written = _disk_watch(spec, cgroup, watchdog)
        if written is not None:
            stack.enter_context(written)

        def take(stream: Stream, data: bytes) -> None:
            if on_output is not None:
                on_output(stream, data)
            watchdog.heard()  # afterwards: a slow reader is not the sandbox's silence

        pump = Pump(spec.limits.output, take, lambda: failures.read(box.oci_log) is not None)
        pump.follow(running.stdout, running.stderr, watchdog.end)
        ended = running.wait_and_count()
        code = ended.exit_code
        wall = time.monotonic() - started
        outcome, detail = watchdog.verdict(code)
        if outcome is Outcome.EXITED and written is not None and (over := written.judge()):
            outcome, detail = Outcome.DISK, over
        usage = cgroup.usage()
        traffic = (network.traffic() if network else Traffic()).since(before)
        failure = failures.read(box.oci_log) if outcome is Outcome.EXITED and code else None
        if failure is not None:
            code, detail = _not_started(failure, spec)
        else:
            pump.flush()
    return Receipt(
        outcome=outcome,
        exit_code=code if outcome is Outcome.EXITED else KILLED,
        wall=wall,
        user=usage.user,
        system=usage.system,
        peak_memory=usage.peak_memory,
        read_bytes=ended.read_bytes,
        written_bytes=ended.written_bytes,
        pids_peak=usage.pids_peak,
        output_bytes=pump.count,
        throttled=usage.throttled,
        received_bytes=traffic.received,
        sent_bytes=traffic.sent,
        samples=tuple(watchdog.series.samples),
        detail=detail,
    )


def _checked(spec: SandboxSpec, parent: Parent) -> SandboxSpec:
    """``spec`` within its parent's budget. Raises SpecError for what cannot be."""
    bundle.validate(spec)
    if parent.name and not bundle.ID_FORM.fullmatch(parent.name):
        raise SpecError(f"{parent.name!r} is no name of a cgroup.")
    _check_rootfs(spec)
    return _within(spec, parent)


def _within(spec: SandboxSpec, parent: Parent) -> SandboxSpec:
    """No more processors than its parent: cgroups v1 refuse that, v2 would not give them."""
    whole, own = parent.limits.cpus, spec.limits.cpus
    if whole is None or own is None or own <= whole:
        return spec
    return replace(spec, limits=replace(spec.limits, cpus=whole))


def _disk_watch(
    spec: SandboxSpec, cgroup: cgroups.Cgroup, watchdog: Watchdog
) -> disk.DiskWatch | None:
    limited = spec.limits.disk is not None or spec.limits.inodes is not None
    if not limited or spec.upper is None:
        return None
    return disk.DiskWatch(
        spec.limits,
        spec.upper,
        spec.rootfs,
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


def _check_rootfs(spec: SandboxSpec) -> None:
    """Raise SpecError for a root or working directory that runc would stumble over."""
    if not spec.rootfs.is_dir():
        raise SpecError(f"The root file system {spec.rootfs} is no directory.")
    closed = paths.readable_by_mapped(spec.rootfs.absolute())
    if closed is not None:
        raise SpecError(
            f"The sandbox's users cannot walk through {closed}, which is on the way to its root.",
            hint=f"Allow it: chmod o+x {closed}",
        )
    for mount in spec.mounts:
        if isinstance(mount, BindMount) and not mount.source.exists():
            raise SpecError(f"The mount source {mount.source} does not exist.")
    _check_targets(spec)
    if not bundle.within(spec.cwd, tuple(mount.target for mount in spec.mounts)):
        _check_cwd(spec)


def _check_targets(spec: SandboxSpec) -> None:
    """No mount may get to what the kernel shows through a link of the image's own: masked paths
    are mounted from /dev/null, and /proc is masked by name (CVE-2025-31133)."""
    with paths.open_root(spec.rootfs) as root:
        for mount in spec.mounts:
            if bundle.within(mount.target, bundle.IN_DEV):
                continue  # in our own fresh /dev, where the image has no links
            real = paths.resolve_in_root(root, mount.target)
            if bundle.within(real, bundle.MOUNTED_BY_US):
                raise SpecError(f"Nothing can be mounted at {mount.target}: it leads to {real}.")


def _check_cwd(spec: SandboxSpec) -> None:
    """The working directory must be there, and be no link into /proc (CVE-2024-21626)."""
    with paths.open_root(spec.rootfs) as root:
        real = paths.resolve_in_root(root, spec.cwd)
        if bundle.within(real, bundle.MOUNTED_BY_US):
            raise SpecError(f"The working directory {spec.cwd} leads to {real}.")
        try:
            os.close(paths.open_in_root(root, spec.cwd, os.O_PATH | os.O_DIRECTORY))
        except OSError as error:
            raise SpecError(
                f"The working directory {spec.cwd} is not there: {error.strerror}.",
                hint="Make it first.",
            ) from error


@contextmanager
def _network(spec: SandboxSpec, state: StateDirectory) -> Iterator[NetworkHandle | None]:
    """The network to join: the caller's, or one for this sandbox alone."""
    if spec.netns is not None:
        yield handle_of(spec.netns)
    else:
        with open_network(spec.network, state=state) as handle:
            yield handle


@contextmanager
def _cgroup(box: Box, limits: Limits, parent: Parent) -> Iterator[cgroups.Cgroup]:
    cgroup = cgroups.open_cgroup(box.record.cgroup_name)
    try:
        cgroup.create()
        if parent.name:
            cgroups.set_budget(parent)
        cgroup.set_limits(Limits(io_weight=limits.io_weight))
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


def _end(running: process.Piped, cgroup: cgroups.Cgroup) -> None:
    """Leave no process: also when an exception ended the story early.

    The container before the OCI runtime, which then collects it. Its pipes are closed first,
    or it could wait for a reader; killing is repeated, for a container that is just being made.
    """
    running.close()
    deadline = time.monotonic() + RUNTIME_WAIT
    while running.wait(0) is None and time.monotonic() < deadline:
        cgroup.kill()
        running.wait(0.02)
    if running.wait(0) is None:
        running.kill()
        running.wait()


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
