"""Build progress as plain lines: steps as they end, their output as it comes."""

from __future__ import annotations

import sys
import threading
from typing import TextIO

from builders.events import StepInfo, StepResult
from runtime.sandbox import Stream
from runtime.spec import Receipt


class PlainProgress:
    """A BuildListener for a terminal or a file. ``quiet`` shows failures only."""

    def __init__(self, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self._quiet = quiet
        self._out = out if out is not None else sys.stderr
        self._lock = threading.Lock()
        self._rests: dict[int, bytes] = {}

    def step_started(self, step: StepInfo) -> None:
        pass

    def step_output(self, step: StepInfo, stream: Stream, data: bytes) -> None:
        with self._lock:
            *lines, rest = (self._rests.get(step.index, b"") + data).split(b"\n")
            self._rests[step.index] = rest
            for line in lines:
                self._say(f"{self._head(step)} | {line.decode('utf-8', 'replace')}")

    def step_finished(self, step: StepInfo, result: StepResult) -> None:
        with self._lock:
            rest = self._rests.pop(step.index, b"")
            if rest:
                self._say(f"{self._head(step)} | {rest.decode('utf-8', 'replace')}")
            if result.error is not None:
                word = "failed"
            elif not result.acted:
                word = "done"
            elif result.cached:
                word = "cached"
            else:
                word = f"{result.seconds:.2f} s{_cost(result.receipt)}"
            text = step.text if len(step.text) <= 100 else step.text[:97] + "..."
            self._say(f"{self._head(step)} {text}  [{word}]")

    def _head(self, step: StepInfo) -> str:
        return f"[{step.index}/{step.total} {step.stage}]"

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, file=self._out, flush=True)


def say(line: str) -> None:
    """One line of progress, where it does not mix with results."""
    print(line, file=sys.stderr, flush=True)


def _cost(receipt: Receipt | None) -> str:
    if receipt is None:
        return ""
    cpu = receipt.user + receipt.system
    return f", {cpu:.2f} s CPU, {receipt.peak_memory / 2**20:.0f} MiB"
