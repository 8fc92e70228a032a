"""The gate that a new container must pass before it gets traffic."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from ciserver.releases.targets import Target
from ciserver.releases.targets.spec import Check, Container

BETWEEN_TRIES = 0.5  # seconds
STABLE_FOR = 6.0  # seconds that it must stay up after the last pass
SHORTEST_TRY = 1.0  # seconds; less says nothing about a container
LOG_LINES = 10
MOST_WHY, MOST_LOG = 400, 4000  # characters of what a check said, and of the log


class Unhealthy(Exception):
    """The container did not pass. The message says why and ends with its last log lines."""


@dataclass(frozen=True, slots=True)
class Gate:
    """``passes`` of ``check`` in a row within ``timeout`` seconds, then a quiet while.

    One try takes no longer than what is left of them, whatever the image's HEALTHCHECK allows.

    ``pulse`` is called between tries and while one goes on; what it raises ends the wait.
    ``mask`` takes secrets out of what the container says, before that is cut: half a secret would
    not be known as one.
    """

    target: Target
    check: Check
    timeout: float
    pulse: Callable[[], None] = lambda: None
    stable_for: float | None = None  # seconds; STABLE_FOR if not given
    mask: Callable[[str], str] = str

    def wait(self, container: Container) -> Container:
        """``container`` as its engine tells of it, once it is healthy. Raises Unhealthy."""
        container = self._until_healthy(container)
        quiet_until = time.monotonic() + (
            STABLE_FOR if self.stable_for is None else self.stable_for
        )
        while time.monotonic() < quiet_until:
            time.sleep(BETWEEN_TRIES)
            self._lives(container)
        if wrong := self._try(container, self.timeout):
            raise Unhealthy(self._with_log(container, f"it was healthy, then {wrong}"))
        return self._still_up(container)  # the one that passed, and not again since a restart

    def _until_healthy(self, container: Container) -> Container:
        """As the engine tells of it. It is asked while the first try goes on, not before."""
        with ThreadPoolExecutor(1, "look") as beside:
            looked = beside.submit(self.target.find, container.name)
            return self._tries(container, looked)

    def _tries(self, container: Container, looked: Future[Container | None]) -> Container:
        deadline = time.monotonic() + self.timeout
        passed, ever = 0, False
        while passed < self.check.passes:
            self.pulse()
            wrong = self._try(container, deadline - time.monotonic())
            there = self._same(looked.result(), container)
            container = replace(
                there, restarts=container.restarts, started=container.started or there.started
            )
            passed = 0 if wrong else passed + 1
            ever = ever or not wrong
            if passed >= self.check.passes:
                break
            if wrong:
                self._lives(container)
            if time.monotonic() > deadline:
                self._still_up(container)
                if ever:
                    row = f"did not pass {self.check.passes} times in a row"
                    wrong = f"{self.check.describe()} {row}" + (f": {wrong}" if wrong else "")
                message = f"not healthy within {self.timeout:g} s: {wrong}"
                raise Unhealthy(self._with_log(container, message))
            time.sleep(BETWEEN_TRIES)
        return container

    def _try(self, container: Container, seconds: float) -> str:
        timeout = min(self.check.timeout, max(seconds, SHORTEST_TRY))
        check = replace(self.check, timeout=timeout)
        return self.target.probe(container, check, pulse=self.pulse)

    def _lives(self, container: Container) -> None:
        """A look at its process. The engine, which takes ten times as long, is asked when that has
        ended, and once at the end, well or not, when it also tells what became of other processes
        there."""
        self.pulse()
        if not container.pid or not self.target.checked([container])[0].running:
            self._still_up(container)

    def _still_up(self, container: Container) -> Container:
        self.pulse()
        now = self._same(self.target.find(container.name), container)
        if now.oom_killed:
            raise Unhealthy(self._with_log(now, "it ran out of memory"))
        if not now.running or (now.restarts, now.started) != (
            container.restarts,
            container.started,
        ):
            raise Unhealthy(self._with_log(now, self._how_it_ended(now)))
        return now

    @staticmethod
    def _same(now: Container | None, container: Container) -> Container:
        if now is None or now.id != container.id:
            raise Unhealthy("somebody removed the container")
        return now

    def _how_it_ended(self, container: Container) -> str:
        code = self.target.exit_code(container)
        return "it ended by itself" if code is None else f"it ended with exit code {code}"

    def _with_log(self, container: Container, message: str) -> str:
        lines = self.mask(self.target.last_lines(container, LOG_LINES))[-MOST_LOG:]
        message = _shortened(self.mask(message))
        return f"{message}. Its last words: {lines}" if lines else f"{message}. It logged nothing"


def _shortened(message: str) -> str:
    """What went wrong stands at its beginning, and why at its end."""
    if len(message) <= MOST_WHY:
        return message
    return f"{message[:100]} \u2026 {message[-(MOST_WHY - 103) :]}"
