"""kill -9, now this process, now that; or SIGTERM as an upgrade sends it, SIGSTOP for longer than a
lease, a PostgreSQL that crashes; and how long it takes until all is well again."""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults.installation import Installation, cgroup_of

RESTART = "restart of "
RESTARTED = (f"{RESTART}web", f"{RESTART}worker")
PAUSE = "pause of "
PAUSED = (f"{PAUSE}worker", f"{PAUSE}pool")
CRASH = "crash of postgresql"
DOWN = 3.0  # seconds of a PostgreSQL that crashed
PATIENCE = 90.0  # seconds for which one kill is followed


@dataclass
class Chaos:
    """Kills every ``pause`` seconds or so while it is open."""

    service: Installation
    dice: random.Random
    pause: float
    order: list[str] = field(default_factory=list)  # what to kill first; then at random
    kills: Counter[str] = field(default_factory=Counter)
    noticed: list[float] = field(default_factory=list)  # seconds until a lost lease was taken away
    again: list[float] = field(default_factory=list)  # ... and its pipeline ran again or had ended
    survived: list[float] = field(
        default_factory=list
    )  # seconds that a dead worker's sandboxes had
    stopped: float = 30.0  # seconds of a pause

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="chaos")
        self._watchers: list[threading.Thread] = []

    def __enter__(self) -> Chaos:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def settle(self) -> None:
        for watcher in self._watchers:
            watcher.join()

    def _work(self) -> None:
        while not self._stop.wait(self._pause()):
            processes = self.service.processes()
            more = [*RESTARTED, *PAUSED, *([CRASH] if self.service.database else [])]
            name = self.order[0] if self.order else self.dice.choice([*processes, *more])
            if name in RESTARTED:
                self.order = self.order[1:]
                self._restart(name, processes[name.removeprefix(RESTART)])
                continue
            if name == CRASH:
                self.order = self.order[1:]
                self._crash()
                continue
            if name in {"worker", "pool", *PAUSED} and self.order and not self._running():
                continue  # it is to be killed at work
            if name in PAUSED:
                if pids := self._at_work(processes, name.removeprefix(PAUSE)):
                    self.order = self.order[1:]
                    self._stop_for_a_while(name, self.dice.choice(pids))
                continue
            if not processes[name]:
                continue
            self.order = self.order[1:]
            self._kill(name, self.dice.choice(processes[name]))

    def _pause(self) -> float | None:
        """Seconds, or None for ever."""
        return self.pause * self.dice.uniform(0.5, 1.5) if math.isfinite(self.pause) else None

    def _restart(self, name: str, pids: list[int]) -> None:
        """In order, as an upgrade does: what is at work is handed back and fails nothing."""
        for pid in pids[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            self.kills[name] += 1

    def _crash(self) -> None:
        """As when its machine loses its power; whoever reads here waits as well."""
        database = self.service.database
        assert database is not None
        database.stop()
        time.sleep(DOWN)
        database.start()
        self.kills[CRASH] += 1

    def _at_work(self, processes: dict[str, list[int]], name: str) -> list[int]:
        """Of the pool those that run a pipeline, if there are any: others lose nothing."""
        busy = {int(worker.rpartition("/")[2]) for *_, worker in self._running()}
        found = processes[name]
        return [pid for pid in found if pid in busy] or found

    def _stop_for_a_while(self, name: str, pid: int) -> None:
        """Its lease ends meanwhile, and another takes the pipeline; then it goes on regardless."""
        hit = [row for row in self._running() if row[2].endswith(f"/{pid}")]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        self.kills[name] += 1
        for row in hit:
            self._watch(self._follow, row[0], row[1], time.monotonic())
        self._watch(self._wake, pid)

    def _wake(self, pid: int) -> None:
        time.sleep(self.stopped)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _kill(self, name: str, pid: int) -> None:
        works = self._running() if name in {"worker", "pool"} else []
        hit = [row for row in works if name == "worker" or row[2].endswith(f"/{pid}")]
        boxes = self.service.sandboxed() if name == "worker" else {}
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.kills[name] += 1
        for row in hit:
            self._watch(self._follow, row[0], row[1], time.monotonic())
        if boxes:
            self._watch(self._bury, boxes, time.monotonic())

    def _watch(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        thread.start()
        self._watchers.append(thread)

    def _running(self) -> list[tuple[int, int, str]]:
        query = "SELECT id, fence, worker FROM pipelines_pipeline WHERE state = 'running'"
        return [(row[0], row[1], row[2]) for row in self.service.rows(query)]

    def _follow(self, pipeline: int, fence: int, since: float) -> None:
        noticed = False
        while time.monotonic() - since < PATIENCE:
            query = "SELECT fence, state FROM pipelines_pipeline WHERE id = ?"
            now, state = self.service.rows(query, pipeline)[0]
            if state not in {"queued", "running"} and now == fence:
                return  # it had ended before it was hit
            if now != fence and not noticed:
                noticed = True
                self.noticed.append(time.monotonic() - since)
            if now != fence and state != "queued":
                self.again.append(time.monotonic() - since)
                return
            time.sleep(0.2)
        self.again.append(PATIENCE)

    def _bury(self, boxes: dict[int, str], since: float) -> None:
        while time.monotonic() - since < PATIENCE:
            if not any(cgroup_of(pid) == group for pid, group in boxes.items()):
                break
            time.sleep(0.05)
        self.survived.append(time.monotonic() - since)
