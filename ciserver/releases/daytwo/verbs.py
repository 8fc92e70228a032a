"""What can be done with an environment's containers, by whoever may reach their hosts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import IO, Any

from ciserver.lib.crypto import SealBroken
from ciserver.lib.masking import Masker
from ciserver.releases import health, leases, preview, rolling
from ciserver.releases.daytwo.asking import Options
from ciserver.releases.daytwo.wire import PIECE, Line
from ciserver.releases.hosts import opened
from ciserver.releases.models import (
    ContainerCommand,
    DeploymentState,
    Environment,
    Host,
    Running,
)
from ciserver.releases.naming import installation, labels_of
from ciserver.releases.restoring import route
from ciserver.releases.targets import Target
from ciserver.releases.targets.base import GRACE
from ciserver.releases.targets.commands import QUICK
from ciserver.releases.targets.engine import END_MARKED, MARK
from ciserver.releases.targets.errors import TargetError
from ciserver.releases.targets.spec import Container, check_as

FIRST_READER = 20.0  # seconds until somebody must read
PATIENCE, BETWEEN_TRIES = 20.0, 0.2  # seconds
HELD_BACK = 0.3  # seconds that a line may lack its end before it is shown as it is


class CannotBe(Exception):
    """What is asked cannot be done now; says why and what to do."""


def carry_out(command: ContainerCommand, line: Line) -> int | None:
    """The exit code, where it has one. Raises CannotBe, TargetError, RedisError."""
    match command.verb:
        case "ps":
            _list(command, line)
            return None
        case "stop" | "start" | "restart":
            _change(command, line)
            return None
    with opened(_host(command)) as target:
        container = _container(command, target)
        before = _before(command, target, container)
        return _converse(command, line, target, _argv(command, target, container), before)


def mark_of(command: ContainerCommand) -> str:
    """What the processes of an ``exec`` are known by on its host."""
    return f"{installation()}-{command.pk}"


def _argv(command: ContainerCommand, target: Target, container: Container) -> list[str]:
    options = Options(**command.options)
    engine, words = target.engine, command.words
    match command.verb:
        case "logs":
            return engine.tell(
                container.id, tail=options.tail, since=options.since, follow=options.follow
            )
        case "attach":
            return engine.tell(container.id, tail=0, since="", follow=True)
        case "get":
            return engine.get(container.id, words[0])
        case "put":
            return engine.put(container.id, words[0])
    return engine.enter(container.id, words, mark=mark_of(command), stdin=options.stdin)


def _host(command: ContainerCommand) -> Host:
    if command.host is None:
        raise CannotBe("Its host was removed meanwhile. Ask again.")
    return command.host


def _container(command: ContainerCommand, target: Target) -> Container:
    """The one that serves there. Raises CannotBe."""
    row = Running.objects.filter(environment=command.environment, host=command.host).first()
    found = target.find(row.container_id) if row else None
    if row is None or found is None:
        raise CannotBe(
            f"The container of {command.environment} on {command.host} is gone."
            " Deploy its release again."
        )
    if not found.running and command.verb == "exec":
        by = f" by {row.stopped_by}" if row.stopped_by else ""
        raise CannotBe(f"The container is stopped{by}. Start it first.")
    return found


# --- programs whose words pass by -----------------------------------------------------------


def _before(command: ContainerCommand, target: Target, container: Container) -> tuple[int, int]:
    """How many lines of each output are before those that were asked for, and come all the same."""
    options = Options(**command.options)
    if command.verb != "logs":
        return 0, 0
    count = target.engine.count(container.id, tail=options.tail, since=options.since)
    if not count:
        return 0, 0
    said = target.machine.attempt(count, timeout=QUICK).out.split()
    out, err = map(int, said) if len(said) == 2 else (0, 0)
    return max(out - options.tail, 0), max(err - options.tail, 0)


def _converse(
    command: ContainerCommand, line: Line, target: Target, argv: list[str], before: tuple[int, int]
) -> int | None:
    """Pass on what ``argv`` says, but for the lines ``before``, and, for ``exec`` and ``put``, what
    it is given."""
    fed = command.verb == "put" or bool(command.options.get("stdin"))
    mask = None if command.verb == "get" else _masker(command.environment)
    process = target.machine.stream(
        argv, stdin=subprocess.PIPE if fed else subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    left = threading.Event()  # nobody reads any more
    pumps = [
        threading.Thread(target=_pump, args=(stream, kind, line, left, mask, skip), daemon=True)
        for stream, kind, skip in zip(
            (process.stdout, process.stderr), (b"o", b"e"), before, strict=True
        )
    ]
    feeder = threading.Thread(target=_feed, args=(process, line, left), daemon=True)
    for thread in [*pumps, *([feeder] if fed else [])]:
        thread.start()
    try:
        _attend(process, line, left, pumps)
    finally:
        left.set()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if command.verb == "exec":
            with suppress(TargetError):
                there = ["sh", "-c", END_MARKED, MARK, mark_of(command)]
                target.machine.attempt(there, timeout=QUICK)
        for thread in pumps:
            thread.join(QUICK)
    return process.returncode & 0xFF


def _attend(
    process: subprocess.Popen[bytes],
    line: Line,
    left: threading.Event,
    pumps: list[threading.Thread],
) -> None:
    """Until it has ended and all it said is sent. Raises CannotBe when nobody reads."""
    began = time.monotonic()
    seen = False
    while process.poll() is None or any(pump.is_alive() for pump in pumps):
        here = line.read()
        seen = seen or here
        if not here and (seen or time.monotonic() - began > FIRST_READER):
            left.set()
            raise CannotBe("Nobody reads it any more.")
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        for pump in pumps:
            pump.join(0.05)


def _pump(
    stream: IO[bytes] | None,
    kind: bytes,
    line: Line,
    left: threading.Event,
    mask: Masker | None,
    skip: int,
) -> None:
    if stream is None:
        return
    with suppress(OSError, ValueError):
        for piece in _after(skip, _masked(stream, mask) if mask else _pieces(stream)):
            line.send(kind, piece, until=left.is_set)
            if left.is_set():
                return


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while data := os.read(stream.fileno(), PIECE):
        yield data


def _after(skip: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """``pieces`` without their first ``skip`` lines."""
    for piece in pieces:
        left = piece
        while skip and left:
            _, end, left = left.partition(b"\n")
            skip -= len(end)
        if left:
            yield left


def _masked(stream: IO[bytes], mask: Masker) -> Iterator[bytes]:
    """Line by line; of a line without an end, all but what might be the start of a secret."""
    kept = b""
    for data in _pieces(stream):
        kept += data
        whole = kept.rfind(b"\n") + 1
        if not whole and len(kept) > PIECE:
            whole = len(kept) - mask.longest
        if whole > 0:
            yield b"".join(mask.mask(each) for each in kept[:whole].splitlines(keepends=True))
            kept = kept[whole:]
    if kept:
        yield mask.mask(kept)


def _masker(environment: Environment) -> Masker | None:
    values = []
    for row in environment.secrets.all():
        with suppress(SealBroken, ValueError):
            values.append(row.value())
    return Masker(values) if values else None


def _feed(process: subprocess.Popen[bytes], line: Line, left: threading.Event) -> None:
    stdin = process.stdin
    if stdin is None:
        return
    with suppress(OSError, ValueError):
        while not left.is_set() and process.poll() is None:
            frame = line.receive(1)
            if frame and frame[0] == b"c":
                break
            if frame:
                stdin.write(frame[1])
                stdin.flush()
    with suppress(OSError):
        stdin.close()


# --- listing ---------------------------------------------------------------------------------


def _list(command: ContainerCommand, line: Line) -> None:
    """One JSON document: a row for each container, and why a host could not be looked at."""
    hosts = [command.host] if command.host else _hosts(command.environment)
    rows = rolling.side_by_side(hosts, partial(_rows, command.environment))
    said = json.dumps([row for found in rows for row in found])
    line.send(b"o", said.encode(), until=lambda: not line.read())


def _hosts(environment: Environment) -> list[Host]:
    serving = Host.objects.filter(running__environment=environment)
    return list((serving | environment.hosts.all()).distinct())


def _rows(environment: Environment, host: Host) -> list[dict[str, Any]]:
    known = Running.objects.filter(environment=environment, host=host).first()
    try:
        with opened(host) as target:
            there = target.containers(labels_of(environment))
            usage = _usage(target, there)
    except TargetError as error:
        return [{"host": host.name, "problem": str(error)}]
    return [
        {
            "host": host.name,
            "name": one.name,
            "id": one.id,
            "release": one.labels.get("release", ""),
            "state": "running" if one.running else "stopped",
            "serves": known is not None and known.container_id == one.id,
            "stopped_by": known.stopped_by if known and known.container_id == one.id else "",
            "restarts": one.restarts,
            "started": one.started,
            "address": one.address,
            **usage.get(one.id[:12], {"cpu": "", "memory": ""}),
        }
        for one in there
    ]


def _usage(target: Target, there: list[Container]) -> dict[str, dict[str, str]]:
    """By the first twelve characters of an id; empty where the engine cannot tell."""
    running = [one.id for one in there if one.running]
    if not running:
        return {}
    answer = target.machine.attempt(target.engine.usage(running), timeout=QUICK)
    rows = (each.split("\t") for each in answer.out.splitlines())
    return {row[0][:12]: {"cpu": row[1], "memory": row[2]} for row in rows if len(row) == 3}


# --- stopping and starting -------------------------------------------------------------------


def _change(command: ContainerCommand, line: Line) -> None:
    """Host after host, so that of several one serves at any time during a restart."""
    rows = Running.objects.filter(environment=command.environment).select_related("host")
    if command.host:
        rows = rows.filter(host=command.host)
    if not rows:
        raise CannotBe(f"Nothing runs in {command.environment} any more.")
    with ExitStack() as stack:
        lease = _lease(command.environment, stack)
        for row in rows:
            with opened(row.host) as target:
                told = _VERBS[command.verb](command, row, target, lease)
            line.send(b"o", f"{row.host}: {told}\n".encode(), until=lambda: True)


def _lease(environment: Environment, stack: ExitStack) -> leases.Lease:
    """A chore, such as the removal of images after a deployment, is waited for."""
    deadline = time.monotonic() + PATIENCE
    while (lease := stack.enter_context(leases.tend(environment))) is None:
        deploying = environment.deployments.filter(state=DeploymentState.RUNNING).exists()
        if deploying or time.monotonic() > deadline:
            raise CannotBe(
                f"A deployment to {environment} is under way. Ask again when it has ended."
                if deploying
                else f"A worker is busy with {environment}. Ask again in a minute."
            )
        time.sleep(BETWEEN_TRIES)
    return lease


def _stop(command: ContainerCommand, row: Running, target: Target, lease: leases.Lease) -> str:
    """What is wanted is written down first, or it would be started again at once."""
    container = _container(_on(command, row), target)
    _want(row, stopped_by=command.asked_by)
    lease.check()
    target.machine.run(target.engine.stop(container.id, GRACE), timeout=GRACE + QUICK)
    return f"{row.release.name} is stopped"


def _start(command: ContainerCommand, row: Running, target: Target, lease: leases.Lease) -> str:
    container = _container(_on(command, row), target)
    _want(row, stopped_by="")
    if not route(target, command.environment, row, lease):
        raise CannotBe(f"{container.name} does not start. See its log.")
    _healthy(row, target, lease)
    return f"{row.release.name} serves"


def _restart(command: ContainerCommand, row: Running, target: Target, lease: leases.Lease) -> str:
    _stop(command, row, target, lease)
    return _start(command, row, target, lease)


def _healthy(row: Running, target: Target, lease: leases.Lease) -> None:
    """Wait for the check that a deployment waits for. Raises CannotBe."""
    environment, facts = row.environment, preview.facts(row.release)
    container = target.find(row.container_id)
    if container is None:
        raise CannotBe("The container is gone. Deploy its release again.")
    gate = health.Gate(
        target,
        check_as(environment.health, environment.health_passes, facts.check),
        environment.health_timeout,
        pulse=lease.check,
        stable_for=0,
        mask=_text_masker(environment),
    )
    try:
        gate.wait(container)
    except health.Unhealthy as error:
        Running.objects.filter(pk=row.pk).update(healthy=False)
        raise CannotBe(f"It is started, and {error}") from error
    Running.objects.filter(pk=row.pk).update(healthy=True, drift="")


def _text_masker(environment: Environment) -> Callable[[str], str]:
    mask = _masker(environment)
    return mask.mask_text if mask else str


def _want(row: Running, *, stopped_by: str) -> None:
    row.stopped_by = stopped_by
    healthy = {"healthy": False} if stopped_by else {}
    Running.objects.filter(pk=row.pk, container_id=row.container_id).update(
        stopped_by=stopped_by, **healthy
    )


def _on(command: ContainerCommand, row: Running) -> ContainerCommand:
    """The same for one of its hosts."""
    return ContainerCommand(
        pk=command.pk, environment=command.environment, host=row.host, verb=command.verb
    )


_VERBS = {"stop": _stop, "start": _start, "restart": _restart}
