"""``COPY --link`` before its turn: it depends on no step before it, so it waits for none.

Only what the config says is followed on the way there: variables, and the working directory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from builders.dockerfile.instructions import Add, Copy, Instruction, Run, Workdir
from builders.errors import BuildError
from builders.plan import Stage
from builders.steps import act
from builders.steps.add import is_elsewhere
from builders.steps.bench import Bench, Done
from builders.steps.copy import is_numeric
from builders.steps.state import StageState
from builders.steps.workdir import directory_of
from runtime.sandbox import Stream

AT_ONCE = 4  # of all stages together


@dataclass(frozen=True)
class _Early:
    """A step under way. Its layer holds upon any state; what it said waits for its turn."""

    future: Future[Done]
    said: list[tuple[Stream, bytes]] = field(default_factory=list)


class Ahead:
    """The linked copies of one stage that ``pool`` carries out before their turn.

    They begin with the first step that takes a while, so that none before it waits for what they
    read. ``at_hand`` tells whether the image or stage that a step names need not be fetched.
    """

    def __init__(
        self,
        stage: Stage,
        bench: Bench,
        pool: ThreadPoolExecutor,
        at_hand: Callable[[str], bool],
    ) -> None:
        self._stage = stage
        self._bench = bench
        self._pool = pool
        self._at_hand = at_hand
        self._early: dict[int, _Early] = {}
        self._begun = False

    def begin(self, number: int, state: StageState) -> None:
        """The step ``number`` (from 1), upon ``state``, takes a while: begin those after it.

        A step that cannot be followed ends the look ahead: its turn tells what is wrong with it.
        """
        if self._begun:
            return
        self._begun = True
        for later, step in enumerate(self._stage.instructions[number:], number + 1):
            try:
                if isinstance(step, Copy) and self._is_free(step, state):
                    self._early[later] = self._submit(step, state)
                state = _settings_after(step, state, self._bench)
            except BuildError:
                return

    def take(self, number: int, state: StageState, bench: Bench) -> Done | None:
        """What the step came to, upon ``state``; None when it is left to the caller.

        Waits for its end and raises what it raised.
        """
        early = self._early.pop(number, None)
        if early is None or early.future.cancel():
            return None
        try:
            done = early.future.result()
        finally:
            for stream, data in early.said:
                bench.output(stream, data)
        return replace(done, state=state.with_layer(done.layer))

    def _submit(self, step: Copy, state: StageState) -> _Early:
        said: list[tuple[Stream, bytes]] = []
        bench = replace(self._bench, output=lambda stream, data: said.append((stream, data)))
        return _Early(self._pool.submit(_timed, step, state, bench), said)

    def _is_free(self, step: Copy, state: StageState) -> bool:
        """Names of --chown are looked up in what the steps before have made. What must be fetched
        ends when others like, and a step that fails meanwhile would wait for that."""
        word = self._bench.expander(step, state).word
        if not step.link or not is_numeric(word(step.chown)):
            return False
        if step.source is not None:
            return self._at_hand(step.source)
        return not (isinstance(step, Add) and any(is_elsewhere(word(s)) for s in step.sources))


def _settings_after(step: Instruction, state: StageState, bench: Bench) -> StageState:
    if isinstance(step, Copy | Run):
        return state
    if isinstance(step, Workdir):
        return state.configured(working_dir=directory_of(step, state, bench))
    return act(step, state, bench).state


def _timed(step: Copy, state: StageState, bench: Bench) -> Done:
    bench.check_cancelled()
    started = time.monotonic()
    return replace(act(step, state, bench), seconds=time.monotonic() - started)
