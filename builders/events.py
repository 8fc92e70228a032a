"""What a build tells while it runs: steps that start, write and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from builders.errors import BuildError
from builders.images.layerstore import Layer
from runtime.sandbox import Stream
from runtime.spec import Receipt


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One instruction. ``index`` counts from 1 over the whole build and is unique in it.

    ``targets`` are those of the build's targets whose image holds what the step adds.
    """

    index: int
    total: int
    stage: str
    text: str
    place: str
    targets: frozenset[str | None] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """``layer_size`` is the tar's, in bytes; ``receipt`` is there when a sandbox ran.

    ``acted`` is False for what neither ran nor was spared that: FROM, and lines about settings.
    """

    cached: bool
    acted: bool = True
    layer_size: int = 0
    receipt: Receipt | None = None
    seconds: float = 0.0
    error: BuildError | None = None
    layer: Layer | None = None


class BuildListener(Protocol):
    """Hears of every step. Called from several threads, but of one step in order."""

    def step_started(self, step: StepInfo) -> None: ...

    def step_output(self, step: StepInfo, stream: Stream, data: bytes) -> None:
        """No data: what the step ran has ended and will write no more."""

    def step_finished(self, step: StepInfo, result: StepResult) -> None: ...
