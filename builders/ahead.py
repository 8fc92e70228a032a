"""``COPY --link`` before its turn: it depends on no step before it, so it waits for none.

Only what the config says is followed on the way there: variables, and the working directory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from builders.dockerfile.instructions import Add, Copy, Instruction, Run, Workdir
from builders.errors import BuildError
from builders.plan import Stage
from builders.steps import act
from builders.steps.bench import Bench, Done
from builders.steps.state import StageState
from builders.steps.workdir import directory_of
from runtime.sandbox import Stream

AT_ONCE = 4  # of all stages together


@dataclass(frozen=True)
class Early:
    """A step under way. Its layer holds upon any state; what it said waits for its turn."""

    future: Future[Done]
    said: list[tuple[Stream, bytes]] = field(default_factory=list)


def begin(
    stage: Stage,
    state: StageState,
    bench_of: Callable[[int, Instruction], Bench],
    pool: ThreadPoolExecutor,
) -> Mapping[int, Early]:
    """Have ``pool`` carry out the linked copies of a stage that begins with ``state``, by number.

    A step that cannot be followed ends the look ahead: its turn tells what is wrong with it.
    """
    found: dict[int, Early] = {}
    first = True  # there is nothing yet that would be waited for
    for number, step in enumerate(stage.instructions, 1):
        bench = replace(bench_of(number, step), output=lambda *_: None)
        try:
            if isinstance(step, Copy) and step.link and not first and _is_free(step, state, bench):
                found[number] = _early(step, state, bench, pool)
            elif isinstance(step, Workdir):
                state = state.configured(working_dir=directory_of(step, state, bench))
            elif not isinstance(step, Copy | Run):
                state = act(step, state, bench).state
                continue
        except BuildError:
            break
        first = False
    return found


def take(early: Early, state: StageState, bench: Bench) -> Done | None:
    """What came of it, upon ``state``; None when it was not begun and is left to the caller."""
    if early.future.cancel():
        return None
    try:
        done = early.future.result()
    finally:
        for stream, data in early.said:
            bench.output(stream, data)
    return replace(done, state=state.with_layer(done.layer))


def _early(step: Copy | Add, state: StageState, bench: Bench, pool: ThreadPoolExecutor) -> Early:
    said: list[tuple[Stream, bytes]] = []
    bench = replace(bench, output=lambda stream, data: said.append((stream, data)))
    return Early(pool.submit(act, step, state, bench), said)


def _is_free(step: Copy | Add, state: StageState, bench: Bench) -> bool:
    """Names of --chown are looked up in what the steps before have made."""
    return re.fullmatch(r"(\d+(:\d+)?)?", bench.expander(step, state).word(step.chown)) is not None
