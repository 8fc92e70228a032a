"""The commands of ``python -m runtime``. Each returns the exit code; SandboxErrors pass through."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime import copying, host, hostroot, kept, use, watcher
from runtime.cli.showing import check_receipt, printer, shown, tell
from runtime.errors import SandboxError, SpecError
from runtime.network import NetworkHandle, join_private, open_network
from runtime.reap import reap
from runtime.snapshots import LowerDir, RootFs, mount_rootfs
from runtime.spec import (
    ID_RANGE_SIZE,
    IDS_END,
    MIB,
    NO_PARENT,
    IdRange,
    Limits,
    Mount,
    Network,
    Parent,
    Receipt,
    SandboxSpec,
)
from runtime.state import StateDirectory


def run(arguments: argparse.Namespace) -> int:
    if missing := host.check():
        raise SandboxError(missing[0], hint="`python -m runtime check` tells all that is missing.")
    if arguments.keep and arguments.rootfs is None:
        raise SpecError("Only a sandbox with a root of its own can be kept.", hint="Give --rootfs.")
    parent = _parent(arguments)
    check_receipt(arguments.receipt)
    state = _state(arguments.state)
    cancel = _cancel_by_signal()
    ids = _id_range(arguments.ids)
    kind: Network = arguments.network.kind
    id = f"run-{secrets.token_hex(4)}" if arguments.name is None else arguments.name
    with ExitStack() as stack:
        rootfs, mounts = stack.enter_context(_rootfs(arguments, state, ids))
        network = stack.enter_context(_network(arguments, state, id))
        spec = SandboxSpec(
            id=id,
            rootfs=rootfs.path,
            args=tuple(arguments.command),
            ids=ids,
            env=_environment(arguments.env),
            cwd=arguments.workdir,
            user=arguments.user,
            hostname=arguments.hostname,
            limits=Limits(
                memory=arguments.memory,
                cpus=arguments.cpus,
                pids=arguments.pids,
                timeout=arguments.timeout,
                output=arguments.output,
                silence=arguments.silence,
                grace=arguments.stop_timeout,
                disk=arguments.disk,
                inodes=arguments.inodes,
                io_weight=arguments.io_weight,
                io_read=arguments.io_read,
                io_write=arguments.io_write,
                shm=arguments.shm,
            ),
            mounts=mounts,
            network=kind,
            netns=network.netns if network else None,
            upper=rootfs.upper,
            read_only=arguments.read_only,
        )
        receipt = kept.run_and_keep(
            spec, rootfs, arguments.keep,
            state=state, allow=arguments.allow, on_output=printer(arguments), cancel=cancel,
            parent=parent,
        )  # fmt: skip
    tell(receipt, arguments)
    if arguments.keep and not receipt.ok and not receipt.kept:
        print("runtime: what it left could not be kept, or it was cancelled", file=sys.stderr)
    return receipt.exit_code


def _parent(arguments: argparse.Namespace) -> Parent:
    parent = Parent(arguments.cgroup_parent, arguments.budget)
    if parent.limits != NO_PARENT.limits and not parent.name:
        raise SpecError(
            "A budget is of a cgroup that sandboxes share.", hint="Give --cgroup-parent."
        )
    return parent


def _network(
    arguments: argparse.Namespace, state: StateDirectory, id: str
) -> AbstractContextManager[NetworkHandle | None]:
    asked = arguments.network
    if asked.private:
        return join_private(
            asked.private, id, state=state, aliases=arguments.network_alias,
            with_egress=asked.with_egress, allow=arguments.allow,
        )  # fmt: skip
    if arguments.network_alias:
        raise SpecError(
            "Names are those of members of a private network.", hint="Give --network private:NAME."
        )
    return open_network(asked.kind, state=state, allow=arguments.allow)


def _id_range(base: int) -> IdRange:
    try:
        return IdRange(base)
    except ValueError as error:
        raise SpecError(
            f"{error}.".capitalize(), hint="Leave --ids out, or name the first of 65536 free ones."
        ) from error


@contextmanager
def _rootfs(
    arguments: argparse.Namespace, state: StateDirectory, ids: IdRange
) -> Iterator[tuple[RootFs, tuple[Mount, ...]]]:
    """A writable view of the asked directory; what is written is thrown away."""
    with state.scratch() as home:
        mounts: tuple[Mount, ...] = ()
        lower, base = arguments.rootfs, arguments.rootfs_base
        if lower is None:
            lower, base = home / "hostroot", 0
            lower.mkdir()
            mounts = hostroot.make(lower)
        elif not lower.is_dir():
            raise SpecError(
                f"The root file system {lower} is no directory.", hint="Unpack or mount it first."
            )
        elif home.resolve().is_relative_to(lower.resolve()):
            raise SpecError(
                f"The root file system {lower} holds {state.root}, where sandboxes are made.",
                hint="Name a directory outside it with --state.",
            )
        if not 0 <= base < IDS_END - ID_RANGE_SIZE:
            raise SpecError(
                f"The owner of a root file system cannot be {base}.",
                hint="Give --rootfs-base the number that `stat -c %u` tells of it.",
            )
        layers = [LowerDir(lower.absolute(), base)]
        scratch = home / "layers"
        scratch.mkdir()
        with mount_rootfs(layers, ids=ids, scratch=scratch, target=home / "root") as rootfs:
            yield rootfs, mounts


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if equals:
            found[name] = value
        elif name in os.environ:  # as docker has it: the caller's own, or none
            found[name] = os.environ[name]
    return found


def execute(arguments: argparse.Namespace) -> int:
    """In one that runs, else in one that is kept."""
    check_receipt(arguments.receipt)
    state = _state(arguments.state)
    how: dict[str, Any] = {"with_secrets": arguments.with_secrets}
    execute: Callable[..., Receipt] = use.execute
    if kept.is_kept(state, arguments.id):
        execute, how = kept.execute, {}
    receipt = execute(
        state,
        arguments.id,
        arguments.command,
        env=_environment(arguments.env),
        cwd=arguments.workdir,
        user=arguments.user,
        timeout=arguments.timeout,
        output=arguments.output,
        on_output=printer(arguments),
        cancel=_cancel_by_signal(),
        **how,
    )
    tell(receipt, arguments)
    return receipt.exit_code


def _cancel_by_signal() -> threading.Event:
    cancel = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: cancel.set())
    return cancel


def copy(arguments: argparse.Namespace) -> int:
    state = _state(arguments.state)
    cancel = _cancel_by_signal()
    out, inside = arguments.source.partition(":"), arguments.target.partition(":")
    if bool(out[1]) is bool(inside[1]):
        raise SpecError(
            "One of the two is a file of here, one is in a sandbox.", hint="Write that as ID:PATH."
        )
    if out[1]:
        copying.copy_out(
            state, out[0], out[2], Path(arguments.target),
            with_secrets=arguments.with_secrets, cancel=cancel,
        )  # fmt: skip
    else:
        copying.copy_in(state, inside[0], Path(arguments.source), inside[2], cancel=cancel)
    return 0


def on_running(arguments: argparse.Namespace) -> int:
    arguments.verb(_state(arguments.state), arguments.id)
    return 0


def drop(arguments: argparse.Namespace) -> int:
    state = _existing_state(arguments.state)
    if state is None:
        raise SpecError(
            f"No failed sandbox called {arguments.id} is kept.",
            hint="`python -m runtime list` shows those that are.",
        )
    kept.drop(state, arguments.id)
    return 0


def show_list(arguments: argparse.Namespace) -> int:
    state = _existing_state(arguments.state)
    found = use.listed(state) if state else []
    left = kept.listed(state) if state else []
    if arguments.json:
        rows = [asdict(each) for each in found]
        print(json.dumps(rows + [{"state": "kept"} | asdict(each) for each in left], indent=2))
        return 0
    for each in found:
        print(
            f"{each.id}\t{each.state}\towner {each.owner}\t{each.processes} processes"
            f"\t{each.memory / MIB:.1f} MiB\t{each.cpu:.1f} s of CPU\t{shown(each.command)}"
        )
    for old in left:
        print(
            f"{old.id}\tkept for {old.until - time.time():.0f} s\t{old.outcome}"
            f"\t{shown(old.command)}"
        )
    return 0


def reap_dead(arguments: argparse.Namespace) -> int:
    state = _existing_state(arguments.state)
    done = reap(state) if state else []
    if state:
        watcher.dismiss(state.root)
    for sentence in [json.dumps(done, indent=2)] if arguments.json else done:
        print(sentence)
    return 0


def check(arguments: argparse.Namespace) -> int:
    missing, notes = host.check(), host.notes()
    version = "v2" if host.cgroup_version() is host.CgroupVersion.V2 else "v1"
    if arguments.json:
        found = {"ready": not missing, "missing": missing, "notes": notes, "cgroups": version}
        if not missing:
            found["runtime"] = str(host.oci_runtime().path)
        print(json.dumps(found, indent=2))
        return 1 if missing else 0
    for sentence in (*missing, *notes):
        print(sentence)
    if missing:
        return 1
    runtime = host.oci_runtime()
    print(
        f"Ready: sandboxes run by {runtime.path} with cgroups {version}, {ID_RANGE_SIZE} ids each."
    )
    return 0


def _state(root: Path) -> StateDirectory:
    try:
        return StateDirectory(root)
    except PermissionError:
        raise  # told by main, with what to do
    except OSError as error:
        raise SpecError(
            f"The state directory {root} cannot be made: {error.strerror}.",
            hint="Name another with --state.",
        ) from error


def _existing_state(root: Path) -> StateDirectory | None:
    """The state directory, None where none has ever been made: looking must not make one."""
    if root.is_dir():
        return StateDirectory(root)
    if root.exists():
        raise SpecError(f"The state {root} is no directory.", hint="Name one with --state.")
    return None
