"""Ends a sandbox that overruns, and says which limit it was."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from runtime.cgroups.usage import Usage
from runtime.spec import MIB, NO_PARENT, Limits, Outcome

TICK = 0.1
CANCELLED = (Outcome.CANCELLED, "cancelled")
FULL = 0.9  # of the process limit
PIDS_PATIENCE = 3.0  # seconds at the limit, still asking for more: a bomb, not a busy moment
REFUSALS_FORGIVEN = 8  # a program that ends well after so many has coped
REFUSALS_FLOOD = 1000  # no program asks so often in vain, also when it dips below its limit
NEARLY = 0.9  # of its own limit: what is killed below it was killed for another's
SAMPLE = 1.0  # seconds
SAMPLES_MAXIMUM = 100
STUCK = 1.0  # seconds after a kill before the OCI runtime itself is killed


@dataclass(slots=True)
class BombDetector:
    """Tells a fork bomb from a program that once asked for one process too many.

    A bomb stays at the limit and goes on asking; a shell waits some seconds between two
    tries, so the asking alone is no sure sign, nor is being full.
    """

    limit: int
    refused: int = 0
    asked_again: bool = False
    full_since: float | None = None

    def look(self, now: float, refused: int, current: int) -> bool:
        """Whether it is one. ``refused`` only grows; ``now`` is in seconds."""
        if refused >= REFUSALS_FLOOD:
            return True
        if refused == 0 or current < FULL * self.limit:
            self.refused, self.asked_again, self.full_since = refused, False, None
            return False
        if self.full_since is None:
            self.full_since = now
        elif refused > self.refused:
            self.asked_again = True
        self.refused = refused
        return self.asked_again and now - self.full_since >= PIDS_PATIENCE


class Killable(Protocol):
    """The cgroup, as far as a watchdog needs it."""

    def oom_kills(self) -> int: ...
    def pids_refused(self) -> int: ...
    def pids_refused_above(self) -> int: ...
    def pids_current(self) -> int: ...
    def memory_current(self) -> int: ...
    def usage(self) -> Usage: ...
    def kill(self) -> None: ...


class Running(Protocol):
    """The OCI runtime's own process."""

    def kill(self) -> None: ...


class Wish(Protocol):
    """Whether somebody wants it to end, e.g. a threading.Event."""

    def is_set(self) -> bool: ...


class Victims(Protocol):
    """Who was killed for memory: ``look`` notes who is there, ``last`` names the last killed."""

    def look(self) -> None: ...
    def last(self) -> str: ...


class Nobody:
    """Victims where nobody can tell."""

    def look(self) -> None:
        pass

    def last(self) -> str:
        return ""


class Series:
    """A bounded time series: one sample a second, later one in two, in four, ..."""

    def __init__(self, cgroup: Killable) -> None:
        self._cgroup = cgroup
        self._every = SAMPLE
        self._next = SAMPLE
        self.samples: list[tuple[float, float, int, int]] = []

    def look(self, at: float) -> None:
        """Take a sample ``at`` seconds since the start, if it is time."""
        if at < self._next:
            return
        usage = self._cgroup.usage()
        cpu = round(usage.user + usage.system, 2)
        row = (round(at, 1), cpu, self._cgroup.memory_current(), self._cgroup.pids_current())
        self.samples.append(row)
        if len(self.samples) > SAMPLES_MAXIMUM:
            self.samples = self.samples[1::2]
            self._every *= 2
        while self._next <= at:  # by the clock, not from this sample on, which came a little late
            self._next += self._every


class Watchdog:
    """A thread that looks every 100 ms, between ``with`` and its end.

    It kills for memory (v1 kills one process of many; v2 the group), for a fork bomb, for
    wall time, silence and cancellation; ``end`` is for limits that others see. The first reason
    counts. For the last three what runs is asked first, by ``ask``; if that gives something that
    tells whether it is still ending, it has ``limits.grace`` for it. Killing is repeated until the
    block ends: a container that was just being made at the first kill does not slip through.
    """

    def __init__(
        self,
        limits: Limits,
        cgroup: Killable,
        running: Running,
        cancel: Wish | None,
        budget: Limits = NO_PARENT.limits,
        victims: Victims | None = None,
        ask: Callable[[], Callable[[], bool] | None] = lambda: None,
    ) -> None:
        self._limits = limits
        self._budget = budget
        self._victims = victims or Nobody()
        self._cgroup = cgroup
        self._running = running
        self._cancel = cancel
        self._ask = ask
        self._started = time.monotonic()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._verdict: tuple[Outcome, str] | None = None
        self._kill_at = 0.0
        self._ending: Callable[[], bool] = lambda: False
        self._heard = self._started
        self.series = Series(cgroup)
        self._bomb = BombDetector(limits.pids or 0)
        self._thread = threading.Thread(target=self._loop, name="sandbox-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def end(self, outcome: Outcome, detail: str) -> None:
        """Kill the sandbox for this reason, unless another was first."""
        with self._lock:
            if self._verdict is None:
                self._verdict = (outcome, detail)
            self._kill_at = min(self._kill_at or math.inf, time.monotonic())
        self._cgroup.kill()

    def heard(self) -> None:
        """There was output: the time of silence begins again."""
        self._heard = time.monotonic()

    def verdict(self, exit_code: int) -> tuple[Outcome, str]:
        """(outcome, detail) once the process has ended with ``exit_code``."""
        self._done.set()
        self._thread.join()
        if self._verdict is not None:
            return self._verdict
        if exit_code != 0 and self._is_cancelled():  # since the last look
            return CANCELLED
        if self._cgroup.oom_kills():
            return Outcome.OOM, self._memory_words()
        refused = self._cgroup.pids_refused()
        if exit_code != 0:  # else a neighbour's bomb would fail those that passed
            refused += self._cgroup.pids_refused_above() + self._was_full()
        if refused > (REFUSALS_FORGIVEN if exit_code == 0 else 0):
            return Outcome.PIDS, self._pids_words()
        return Outcome.EXITED, ""

    def _was_full(self) -> bool:
        """Before Linux 6.11 crun removes the count of refusals with its cgroup; the peak stays."""
        limit = self._limits.pids
        return limit is not None and self._cgroup.usage().pids_peak >= limit

    def _stop(self, outcome: Outcome, detail: str) -> None:
        """End it, after its grace where it was asked to end by itself."""
        ending = self._ask() if self._limits.grace > 0 else None
        if ending is None:
            self.end(outcome, detail)
            return
        with self._lock:
            if self._verdict is None:
                self._verdict = (outcome, detail)
                self._kill_at = time.monotonic() + self._limits.grace
                self._ending = ending

    def _loop(self) -> None:
        while not self._done.wait(TICK):
            now = time.monotonic()
            if self._verdict is None:
                self._victims.look()
                self._look(now)
                self.series.look(now - self._started)
            elif now >= self._kill_at or not self._ending():
                self.end(*self._verdict)
                if now - self._kill_at > STUCK:
                    self._running.kill()

    def _look(self, now: float) -> None:
        limits = self._limits
        if self._is_cancelled():
            self._stop(*CANCELLED)
        elif self._cgroup.oom_kills():
            self.end(Outcome.OOM, self._memory_words())
        elif limits.pids is not None and self._bomb.look(
            now, self._cgroup.pids_refused(), self._cgroup.pids_current()
        ):
            self.end(Outcome.PIDS, self._pids_words())
        elif limits.timeout is not None and now - self._started >= limits.timeout:
            self._stop(Outcome.TIMEOUT, f"time limit of {limits.timeout:g} s reached")
        elif limits.silence is not None and now - self._heard >= limits.silence:
            self._stop(Outcome.SILENT, f"no output for {limits.silence:g} s")

    def _is_cancelled(self) -> bool:
        return self._cancel is not None and self._cancel.is_set()

    def _memory_words(self) -> str:
        own, whole = self._limits.memory, self._budget.memory
        peak = self._cgroup.usage().peak_memory
        if whole is not None and (own is None or peak < NEARLY * own):
            words = f"memory limit of {whole / MIB:g} MiB for the whole pipeline reached"
        elif own is None:
            words = "the host ran out of memory"
        else:
            words = f"memory limit of {own / MIB:g} MiB reached"
        name = self._victims.last()
        return f"{words}, {name} was killed" if name else f"{words}, by which process is unknown"

    def _pids_words(self) -> str:
        own, whole = self._limits.pids, self._budget.pids
        peak = self._cgroup.usage().pids_peak
        if whole is not None and (own is None or peak < NEARLY * own):
            return f"limit of {whole} processes for the whole pipeline reached"
        return f"limit of {own} processes reached"
