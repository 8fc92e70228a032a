"""Starts a program by the OCI runtime and stays with it to its end: its output, its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime import asking, failures, process
from runtime.disk import DiskWatch
from runtime.outlets import Outlets, pipes
from runtime.output import Pump, Stream
from runtime.process import Command
from runtime.spec import NO_PARENT, Limits, Outcome
from runtime.watchdog import Killable, Victims, Watchdog, Wish

KILLED = 137  # what a shell says of a program that SIGKILL ended
RUNTIME_WAIT = 2.0  # seconds for the OCI runtime to end after its container was killed


class Followable(Killable, asking.Group, Protocol):
    """The cgroup, as far as it is needed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How it went. ``failure`` is why the program did not run at all, None where it did."""

    outcome: Outcome
    exit_code: int
    detail: str
    wall: float
    output_bytes: int
    read_bytes: int
    written_bytes: int
    samples: tuple[tuple[float, float, int, int], ...]
    failure: failures.Failure | None


def follow(
    command: Command,
    *,
    cgroup: Followable,
    limits: Limits,
    log: Path,
    on_output: Callable[[Stream, bytes], None] | None,
    cancel: Wish | None,
    on_end: Callable[[], None] | None = None,
    outlets: Outlets | None = None,
    budget: Limits = NO_PARENT.limits,
    victims: Victims | None = None,
    disk_watch: Callable[[Watchdog], DiskWatch | None] = lambda watchdog: None,
) -> Followed:
    """Run ``command``, whose program is in ``cgroup``, to its end. Blocks.

    ``log`` is the OCI runtime's; ``outlets`` are for its output, else that is in this process's
    hands alone. ``on_end`` is called when ``on_output`` was for the last time. No process of
    ``cgroup`` is alive that the OCI runtime waits for, also after an exception from either.
    """
    with ExitStack() as stack:
        started = time.monotonic()
        outlets = outlets or stack.enter_context(pipes())
        running = process.start(command, outlets)
        stack.callback(_end, running, cgroup, outlets)
        watchdog = stack.enter_context(
            Watchdog(
                limits, cgroup, running, cancel, budget, victims,
                ask=lambda: asking.ask_to_end(cgroup),
            )
        )  # fmt: skip
        written = disk_watch(watchdog)
        if written is not None:
            stack.enter_context(written)
        pump = _pump(limits, on_output, watchdog, log)
        pump.follow(outlets, watchdog.end)
        ended = running.wait_and_count()
        wall = time.monotonic() - started
        outcome, detail = watchdog.verdict(ended.exit_code)
        if outcome is Outcome.EXITED and written is not None and (over := written.judge()):
            outcome, detail = Outcome.DISK, over
        failure = failures.read(log) if outcome is Outcome.EXITED and ended.exit_code else None
        if failure is None:
            pump.flush()
        if on_end is not None:
            on_end()
    return Followed(
        outcome=outcome,
        exit_code=ended.exit_code if outcome is Outcome.EXITED else KILLED,
        detail=detail,
        wall=wall,
        output_bytes=pump.count,
        read_bytes=ended.read_bytes,
        written_bytes=ended.written_bytes,
        samples=tuple(watchdog.series.samples),
        failure=failure,
    )


def _pump(
    limits: Limits,
    on_output: Callable[[Stream, bytes], None] | None,
    watchdog: Watchdog,
    log: Path,
) -> Pump:
    def take(stream: Stream, data: bytes) -> None:
        if on_output is not None:
            on_output(stream, data)
        watchdog.heard()  # afterwards: a slow reader is not the sandbox's silence

    return Pump(limits.output, take, lambda: failures.read(log) is not None)


def _end(running: process.Started, cgroup: Killable, outlets: Outlets) -> None:
    """Leave no process: also when an exception ended the story early.

    The container before the OCI runtime, which then collects it, and must not wait for a reader
    of its output; killing is repeated, for a container that is just being made.
    """
    deadline = time.monotonic() + RUNTIME_WAIT
    while running.wait(0) is None and time.monotonic() < deadline:
        cgroup.kill()
        outlets.discard()
        running.wait(0.02)
    if running.wait(0) is None:
        running.kill()
        running.wait()
