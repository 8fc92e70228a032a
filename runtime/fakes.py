"""A sandbox that runs nothing: for the tests of whoever calls ``runtime.sandbox.run``.

It keeps run's promises (order of calls, validation, outcomes, cancellation), so it can be
injected wherever ``run`` is a parameter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime import validation
from runtime.output import Stream
from runtime.spec import NO_PARENT, Outcome, Parent, Receipt, SandboxSpec
from runtime.state import StateDirectory

KILLED = 137


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command does: the output it gives, piece by piece, and how it ends."""

    output: Sequence[tuple[Stream, bytes]] = ()
    exit_code: int = 0
    outcome: Outcome = Outcome.EXITED
    detail: str = ""


@dataclass(slots=True)
class FakeSandboxes:
    """``answer`` decides what each spec does; ``specs`` is what was run, in order."""

    answer: Callable[[SandboxSpec], Answer] = lambda spec: Answer()
    specs: list[SandboxSpec] = field(default_factory=list)

    def run(
        self,
        spec: SandboxSpec,
        *,
        state: StateDirectory,
        on_output: Callable[[Stream, bytes], None] | None = None,
        on_end: Callable[[], None] | None = None,
        cancel: threading.Event | None = None,
        parent: Parent = NO_PARENT,
    ) -> Receipt:
        """As runtime.sandbox.run. Raises SpecError for what the real one would refuse."""
        validation.validate(spec)
        self.specs.append(spec)
        answer = self.answer(spec)
        count = 0
        for stream, data in answer.output:
            if cancel is not None and cancel.is_set():
                answer = Answer(outcome=Outcome.CANCELLED, detail="cancelled")
                break
            count += len(data)
            if on_output is not None:
                on_output(stream, data)
        if on_end is not None:
            on_end()
        killed = answer.outcome is not Outcome.EXITED
        return Receipt(
            outcome=answer.outcome,
            exit_code=KILLED if killed else answer.exit_code,
            wall=0.001,
            output_bytes=count,
            detail=answer.detail,
        )
