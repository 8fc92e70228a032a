"""Running the stages of a plan: a thread each, waiting for one another only where they must."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from builders.ahead import AT_ONCE, Ahead
from builders.dockerfile.flags import nearest
from builders.dockerfile.instructions import Instruction, Onbuild, Position
from builders.errors import BuildCancelled, BuildError, ServiceError, StoreError, UserError
from builders.events import BuildListener, StepInfo, StepResult
from builders.images.config import ImageConfig
from builders.images.layerstore import Layer
from builders.images.reference import Reference
from builders.images.store import Image
from builders.plan import SCRATCH, Plan, Stage, host_platform
from builders.steps import act
from builders.steps.bench import Bench, Done
from builders.steps.state import DEFAULT_PATH, StageState
from runtime.errors import SandboxError, SpecError
from runtime.sandbox import Stream

_DISK = {
    errno.ENOSPC: "The disk that holds the store is full.",
    errno.EDQUOT: "The quota of the disk that holds the store is used up.",
}
_ROOM = "Free some of it, or prune the store: python -m builders prune --max-size SIZE."
Resolve = Callable[[Reference], Image]


class Bases:
    """Images by name, each resolved once per build; safe for threads."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._lock = threading.Lock()
        self._known: dict[Reference, Image] = {}

    def get(self, name: str, at: Position, platform: str) -> Image:
        """The image for ``platform``."""
        with self._lock, located(at):
            reference = _reference(name, platform)
            if reference not in self._known:
                self._known[reference] = self._resolve(reference)
            return self._known[reference]

    def has(self, name: str, platform: str) -> bool:
        """Whether ``get`` would give it at once. Never waits."""
        with suppress(BuildError):
            return _reference(name, platform) in self._known
        return False


def _reference(name: str, platform: str) -> Reference:
    foreign = "" if platform == host_platform() else platform
    return replace(Reference.parse(name), platform=foreign)


class Stages:
    """The stages a plan needs, and their states as they get ready.

    The first failure stops the others (``bench.cancel`` is set) and is what
    ``run`` raises.
    """

    def __init__(
        self,
        plan: Plan,
        bases: Bases,
        bench: Bench,
        listener: BuildListener,
        note: Callable[[StepInfo], str],
    ) -> None:
        self._plan = plan
        self._bases = bases
        self._bench = bench
        self._listener = listener
        self._note = note
        self._changed = threading.Condition()
        self._states: dict[int, StageState] = {}
        self._failure: BaseException | None = None
        self._ahead = ThreadPoolExecutor(AT_ONCE, "ahead")
        self._first: dict[int, int] = {}
        self._total = 0
        for index in plan.needed:
            self._first[index] = self._total + 1
            self._total += 1 + len(plan.stages[index].instructions)

    def run(self) -> dict[int, StageState]:
        """The states of all needed stages. The last one runs in the caller's thread."""
        *others, last = (self._plan.stages[index] for index in self._plan.needed)
        threads = [
            threading.Thread(target=self._guarded, args=(stage,), name=f"stage-{stage.index}")
            for stage in others
        ]
        # It is left last: whoever waits in it for a stage is told when that has failed.
        with self._ahead:
            for thread in threads:
                thread.start()
            self._guarded(last)
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure
        return self._states

    def _guarded(self, stage: Stage) -> None:
        try:
            state = self._run_stage(stage)
        except BaseException as error:  # carried to the caller's thread
            with self._changed:
                if self._failure is None:
                    self._failure = error
                self._bench.cancel.set()
                self._changed.notify_all()
        else:
            with self._changed:
                self._states[stage.index] = state
                self._changed.notify_all()

    def _wait(self, index: int) -> StageState:
        if index not in self._first:  # nobody runs it: waiting would never end
            raise ServiceError(f"Stage {index} is not part of the plan.", code="build.plan")
        with self._changed:
            self._changed.wait_for(lambda: index in self._states or self._failure is not None)
            if index not in self._states:
                raise BuildCancelled("The build was stopped.")
            return self._states[index]

    def _run_stage(self, stage: Stage) -> StageState:
        state = self._begin(stage)
        bench = replace(self._bench, origin=self._origin(stage), platform=stage.platform)
        bench = bench.for_base(state.config.created)
        ahead = Ahead(stage, bench, self._ahead, partial(self._at_hand, stage))
        for number, step in enumerate(stage.instructions, 1):
            bench.check_cancelled()
            state = self._act(stage, number, step, state, bench, ahead)
        return state

    def _at_hand(self, stage: Stage, word: str) -> bool:
        """Whether ``--from=word`` is a stage, or an image that this build has already used."""
        return self._plan.stage_of(word, stage.index) is not None or self._bases.has(
            word, stage.platform
        )

    def _begin(self, stage: Stage) -> StageState:
        info = self._info(stage, 0, stage.at)
        started = time.monotonic()
        self._listener.step_started(info)
        if info.index == 1:
            for notice in self._bench.notices:
                self._listener.step_output(info, Stream.STDERR, f"Notice: {notice}\n".encode())
        with self._reporting(info, started):
            state = self._base(stage)
        result = StepResult(cached=False, acted=False, seconds=time.monotonic() - started)
        self._listener.step_finished(info, result)
        return state

    def _base(self, stage: Stage) -> StageState:
        if stage.parent is not None:
            parent = self._wait(stage.parent)
            return replace(parent.configured(on_build=()), cmd_set=False)
        if stage.base == SCRATCH:
            return StageState.of_image(empty_config(stage.platform), ())
        image = self._bases.get(stage.base, stage.at, stage.platform)
        return StageState.of_image(replace(image.config, on_build=()), image.layers)

    def _act(
        self,
        stage: Stage,
        number: int,
        step: Instruction,
        state: StageState,
        bench: Bench,
        ahead: Ahead,
    ) -> StageState:
        info = self._info(stage, number, step.at)
        meanwhile = partial(ahead.begin, number, state)
        bench = replace(
            bench,
            origin=self._origin(stage, meanwhile),
            output=lambda stream, data: self._listener.step_output(info, stream, data),
            note=lambda: self._note(info),
            meanwhile=meanwhile,
        )
        started = time.monotonic()
        self._listener.step_started(info)
        with self._reporting(info, started), located(step.at):
            done = ahead.take(number, state, bench) or act(step, state, bench)
        self._listener.step_finished(info, _result(done, time.monotonic() - started))
        if isinstance(step, Onbuild):
            return done.state  # told when it is carried out, as BuildKit has it
        return done.state.remembered(step.at.text, epoch=bench.epoch, empty=done.layer is None)

    @contextmanager
    def _reporting(self, info: StepInfo, started: float) -> Iterator[None]:
        try:
            yield
        except BuildError as error:
            receipt = getattr(error, "receipt", None)
            self._listener.step_finished(
                info,
                StepResult(
                    cached=False,
                    receipt=receipt,
                    seconds=time.monotonic() - started,
                    error=error,
                ),
            )
            raise

    def _info(self, stage: Stage, number: int, at: Position) -> StepInfo:
        return StepInfo(
            self._first[stage.index] + number,
            self._total,
            stage.name or str(stage.index),
            " ".join(at.text.split()),  # the blanks of continued lines are nobody's
            at.place,
            self._plan.targets_of(stage.index),
        )

    @contextmanager
    def _naming(self, word: str, before: int) -> Iterator[None]:
        """An image that nobody has may be a stage that is misspelled."""
        try:
            yield
        except BuildError as error:
            names = [stage.name for stage in self._plan.stages[:before] if stage.name]
            near = nearest(word, names)
            if near:
                error.hint = f"{near.removesuffix('?')}, the stage? {error.hint}".strip()
            raise

    def _origin(
        self, stage: Stage, meanwhile: Callable[[], None] = lambda: None
    ) -> Callable[[str, Instruction], Sequence[Layer]]:
        def origin(word: str, step: Instruction) -> Sequence[Layer]:
            index = self._plan.stage_of(word, stage.index)
            if index is not None:
                if index not in self._states:
                    meanwhile()
                return self._wait(index).layers
            with self._naming(word, stage.index):
                return self._bases.get(word, step.at, stage.platform).layers

        return origin


def empty_config(platform: str) -> ImageConfig:
    """What ``FROM scratch`` begins with."""
    system, architecture, variant = (*platform.split("/"), "")[:3]
    return ImageConfig(
        architecture=architecture,
        os=system,
        variant=variant,
        env=(f"PATH={DEFAULT_PATH}",),
        working_dir="/",
    )


@contextmanager
def located(at: Position) -> Iterator[None]:
    """Give errors that know no place the one of the instruction at work."""
    try:
        yield
    except BuildError as error:
        error.place = error.place or at.place
        raise
    except SpecError as error:
        # Asked for by the Dockerfile: a user id out of range, links that lead round in circles.
        raise UserError(error.message, place=at.place, hint=error.hint, code=error.code) from error
    except SandboxError as error:
        raise ServiceError(
            error.message, place=at.place, hint=error.hint, code=error.code
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(
                "A name is longer than 255 bytes, or a path longer than 4095.",
                place=at.place,
                hint="Shorten what this line names.",
                code="context.name",
            ) from error
        words = _DISK.get(error.errno or 0, f"{error}.")
        hint = _ROOM if error.errno in _DISK else ""
        raise StoreError(words, place=at.place, hint=hint, code="store.os") from error


def _result(done: Done, seconds: float) -> StepResult:
    return StepResult(
        cached=done.cached,
        acted=done.acted,
        layer_size=done.layer.size if done.layer else 0,
        receipt=done.receipt,
        seconds=seconds if done.seconds is None else done.seconds,
        layer=done.layer,
    )
