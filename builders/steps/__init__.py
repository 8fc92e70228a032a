"""One file per instruction that acts, and the table that says who handles what.

A handler takes an instruction, the state of its stage and the workbench, and
returns the state after it. Adding an instruction is adding a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from builders.dockerfile import instructions as spec
from builders.dockerfile.instructions import Instruction
from builders.steps import config
from builders.steps.add import add
from builders.steps.bench import Bench, Done
from builders.steps.copy import copy
from builders.steps.run import run
from builders.steps.state import StageState
from builders.steps.workdir import workdir

Handler = Callable[[Any, StageState, Bench], Done]


def _plain(change: Callable[..., StageState]) -> Handler:
    def handle(step: Instruction, state: StageState, bench: Bench) -> Done:
        return Done(change(step, state, bench.expander(step, state)), acted=False)

    return handle


def _arg(step: spec.Arg, state: StageState, bench: Bench) -> Done:
    after = config.arg(
        step,
        state,
        bench.expander(step, state),
        given=bench.build_args,
        inherited=bench.head_args,
    )
    return Done(after, acted=False)


HANDLERS: dict[type[Instruction], Handler] = {
    spec.Add: add,
    spec.Arg: _arg,
    spec.Cmd: _plain(config.cmd),
    spec.Copy: copy,
    spec.Entrypoint: _plain(config.entrypoint),
    spec.Env: _plain(config.env),
    spec.Expose: _plain(config.expose),
    spec.Healthcheck: _plain(config.healthcheck),
    spec.Label: _plain(config.label),
    spec.Maintainer: _plain(config.maintainer),
    spec.Onbuild: _plain(config.onbuild),
    spec.Run: run,
    spec.Shell: _plain(config.shell),
    spec.Stopsignal: _plain(config.stopsignal),
    spec.User: _plain(config.user),
    spec.Volume: _plain(config.volume),
    spec.Workdir: workdir,
}


def act(step: Instruction, state: StageState, bench: Bench) -> Done:
    """Carry out one instruction. Raises ``builders.errors`` with the instruction's place."""
    return HANDLERS[type(step)](step, state, bench)
