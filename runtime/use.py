"""What any process of root can do with a sandbox that runs: exec, pause, resume, kill, list."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from runtime import bundle, cgroups, host, oci, owner, security, validation, watcher
from runtime.cgroups.part import Part
from runtime.entering import entrance
from runtime.errors import HostError, RuntimeFailed, SpecError
from runtime.following import Followed, follow
from runtime.output import Stream
from runtime.process import Command
from runtime.spec import Limits, Receipt, User
from runtime.state import Box, StateDirectory

FREEZE_WAIT = 5.0  # seconds
END_WAIT = 5.0  # seconds for whoever runs it to clear up


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One sandbox on record. ``state``: running, paused, or dead (its owner is; see reap)."""

    id: str
    state: str
    owner: int  # pid
    processes: int
    memory: int  # bytes now, page cache included
    cpu: float  # seconds so far
    started: float  # seconds since the epoch
    command: str


def listed(state: StateDirectory) -> list[Listed]:
    """Every sandbox on record, in the order of their ids."""
    return [_describe(box) for box in state.boxes()]


def _describe(box: Box) -> Listed:
    record = box.record
    cgroup = cgroups.open_cgroup(record.cgroup_name)
    usage = cgroup.usage()
    running = "paused" if cgroup.frozen() else "running"
    return Listed(
        id=record.id,
        state=running if owner.is_alive(record.owner) else "dead",
        owner=int(record.owner.partition(".")[0]),
        processes=len(cgroup.processes()),
        memory=cgroup.memory_current(),
        cpu=round(usage.user + usage.system, 3),
        started=record.started,
        command=record.command,
    )


def find(state: StateDirectory, id: str) -> Box:
    """The sandbox called ``id`` that runs now. Raises SpecError where there is none."""
    for box in state.boxes():
        if box.record.id == id and owner.is_alive(box.record.owner):
            return box
    raise SpecError(
        f"No sandbox called {id} is running.", hint="`python -m runtime list` shows those that are."
    )


def processes(state: StateDirectory, id: str) -> int:
    """How many there are in a running sandbox. Raises SpecError where there is none."""
    return len(cgroups.open_cgroup(find(state, id).record.cgroup_name).processes())


def pause(state: StateDirectory, id: str) -> None:
    """Stop every process of a sandbox where it is. Its limits of time go on. May be repeated.

    Raises SpecError for an unknown one, HostError when it does not stop.
    """
    _freeze(find(state, id), True)


def resume(state: StateDirectory, id: str) -> None:
    """Let a paused sandbox go on. May be repeated. Raises as pause does."""
    _freeze(find(state, id), False)


def _freeze(box: Box, frozen: bool) -> None:
    cgroup = cgroups.open_cgroup(box.record.cgroup_name)
    deadline = time.monotonic() + FREEZE_WAIT
    while True:
        cgroup.freeze(frozen)  # again and again: v1 may need it (see its "FREEZING")
        if cgroup.frozen() is frozen:
            return
        if time.monotonic() > deadline:
            cgroup.freeze(False)
            verb = "paused" if frozen else "resumed"
            raise HostError(
                f"The sandbox {box.record.id} could not be {verb} within {FREEZE_WAIT:g} s.",
                hint="A process of it may be waiting for a disk: try again.",
            )
        time.sleep(0.005)


def kill(state: StateDirectory, id: str) -> None:
    """End a sandbox at once and whole; whoever runs it is told that it was cancelled. Blocks until
    nothing of it is left, or for as long as its owner does not clear up (see END_WAIT).

    Raises SpecError for an unknown one, HostError for one with a process that does not die.
    """
    box = find(state, id)
    with suppress(FileNotFoundError):  # it has ended since
        box.cancel.touch()
    cgroup = cgroups.open_cgroup(box.record.cgroup_name)
    deadline = time.monotonic() + END_WAIT
    while box.path.exists() and time.monotonic() < deadline:
        cgroup.kill()
        time.sleep(0.005)
    if cgroup.processes():
        raise HostError(
            f"The sandbox {id} has a process that does not die.",
            hint="It may be waiting for a disk: try again.",
        )


def execute(
    state: StateDirectory,
    id: str,
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: User | None = None,
    timeout: float | None = None,
    output: int | None = None,
    with_secrets: bool = False,
    on_output: Callable[[Stream, bytes], None] | None = None,
    cancel: Event | None = None,
) -> Receipt:
    """Run one more program in a running sandbox, to its end: same namespaces, limits, mounts,
    seccomp, and, unless said otherwise, user, variables and working directory. Blocks.

    What it started ends with it, by ``timeout``, ``output`` or ``cancel`` too; the sandbox goes
    on. A sandbox that holds secrets is refused unless ``with_secrets``: whoever is inside can
    read them from its files and processes. Raises SpecError, HostError, RuntimeFailed. The
    receipt counts time and output; memory and processor are in the sandbox's own.
    """
    box = find(state, id)
    limits = Limits(timeout=timeout, output=output)
    validation.validate_limits(limits)
    config = _open_config(box, with_secrets)
    if cgroups.open_cgroup(box.record.cgroup_name).frozen():
        raise SpecError(f"The sandbox {id} is paused.", hint="Resume it first.")
    watcher.ensure(state.root)
    with _entered(box, config, other_process(config, args, env, cwd, user)) as way:
        done = follow(
            way.command,
            cgroup=way.part,
            limits=limits,
            log=way.log,
            on_output=on_output,
            cancel=cancel,
        )
    return _receipt(id, args[0], done)


@dataclass(frozen=True, slots=True)
class _Way:
    """What starts a program in a sandbox, the cgroup it will be in, and the OCI runtime's log."""

    command: Command
    part: Part
    log: Path


@contextmanager
def _entered(box: Box, config: dict[str, Any], process: dict[str, Any]) -> Iterator[_Way]:
    """Ready to run ``process`` (as in config.json) there; nothing is left of it at the end.
    Raises SpecError for a sandbox that has just ended."""
    name = f"{cgroups.PART}{owner.token()}-{secrets.token_hex(4)}"
    runtime, id = host.oci_runtime(), box.record.id
    with ExitStack() as stack:
        file = stack.enter_context(_scrap(box.path / f"{name}.json"))
        log = stack.enter_context(_scrap(box.path / f"{name}.log"))
        _write_process(box, file, process)
        try:
            way = stack.enter_context(
                entrance(runtime, id, box.oci_root, config, box.path / f"{name}-state")
            )
        except (FileNotFoundError, ValueError):
            raise just_ended(id) from None
        part = cgroups.open_cgroup(box.record.cgroup_name).part(name)
        stack.callback(part.remove)  # with what the program left running in the background
        part.create()
        command = oci.exec_command(
            runtime, id=id, root=way.root, log=log, process=file, part=part.argument
        )
        yield _Way(way.command(command), part, log)


def _receipt(id: str, program: str, done: Followed) -> Receipt:
    """Raises RuntimeFailed if ``program`` did not run, for no reason of its own."""
    code, detail = done.exit_code, done.detail
    if done.failure is not None:
        if done.failure.exit_code is None:
            raise RuntimeFailed(
                f"Nothing could be run in the sandbox {id}: {done.failure.words}.",
                hint="It may have just ended: `python -m runtime list` shows those that run.",
            )
        code, detail = done.failure.exit_code, f"{program}: {done.failure.words}"
    return Receipt(
        outcome=done.outcome,
        exit_code=code,
        wall=done.wall,
        output_bytes=done.output_bytes,
        detail=detail,
    )


def _open_config(box: Box, with_secrets: bool) -> dict[str, Any]:
    """The config.json of a sandbox that may be looked into. Raises SpecError."""
    try:
        config: dict[str, Any] = json.loads((box.path / bundle.CONFIG).read_text())
    except (FileNotFoundError, ValueError):  # being made, or being removed
        raise just_ended(box.record.id) from None
    if bundle.SECRETS in config.get("annotations", {}) and not with_secrets:
        raise SpecError(
            f"The sandbox {box.record.id} holds secrets, and whoever runs a program in it could "
            "read them.",
            hint="Ask with secrets if you may see them.",
        )
    return config


def _write_process(box: Box, file: Path, words: dict[str, Any]) -> None:
    try:
        file.touch(mode=0o600)
        file.write_text(json.dumps(words))
    except FileNotFoundError:
        raise just_ended(box.record.id) from None


def just_ended(id: str) -> SpecError:
    """For what is on record but has no process yet, or none any more."""
    return SpecError(f"The sandbox {id} is just starting or ending.", hint="Try again.")


def other_process(
    config: dict[str, Any],
    args: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: User | None,
) -> dict[str, Any]:
    """``process`` for another program in the sandbox of ``config``. Raises SpecError."""
    own: dict[str, Any] = config["process"]
    validation.validate_args(args)
    found = own | {"args": list(args)}
    if env:
        validation.validate_env(env)
        before = dict(pair.split("=", 1) for pair in own["env"])
        found["env"] = [f"{name}={value}" for name, value in (before | dict(env)).items()]
    if cwd is not None:
        validation.validate_cwd(cwd)
        found["cwd"] = cwd
    if user is not None:
        validation.validate_user(user, config["linux"]["uidMappings"][0]["size"])
        found["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
        found["capabilities"] = security.capabilities(user.uid)
    return found


@contextmanager
def _scrap(path: Path) -> Iterator[Path]:
    """A file of the box; the whole box may be gone by the end."""
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()
