"""The story of a build: Dockerfile -> plan -> stages -> images."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from builders.cache import Shared, StepCache
from builders.context import Context
from builders.context.ignore import MAX_BYTES as MAX_IGNORE
from builders.context.ignore import Ignore
from builders.context.tree import ContextTree, read_file
from builders.dockerfile import parse_dockerfile, parse_trigger
from builders.dockerfile.excerpt import point_at
from builders.dockerfile.instructions import Instruction
from builders.dockerfile.parse import MAX_BYTES as MAX_DOCKERFILE
from builders.emulation import check_runnable
from builders.errors import BuildCancelled, BuildError, DockerfileError, StepFailed, UserError
from builders.events import BuildListener, StepInfo, StepResult
from builders.images.store import Image, Store
from builders.networks import LazyNetwork
from builders.plan import DEFAULT_TARGET, EPOCH_ARG, SCRATCH, Plan, make_plan, platform_args
from builders.stages import Bases, Resolve, Stages
from builders.steps.agents import Agents
from builders.steps.bench import Bench, raise_if_cancelled
from builders.steps.state import StageState, timestamp
from runtime.spec import NO_PARENT, IdRange, Limits, Network, Parent
from runtime.state import StateDirectory

__all__ = ["BuildListener", "BuildRequest", "StepInfo", "StepResult", "build"]


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """All that one build is asked. Its images depend on nothing else.

    ``dockerfile_data`` is the content of a Dockerfile that lies outside the context, and
    ``ignore_data`` that of the ``.dockerignore`` of its name beside it.
    ``targets`` are stage names, None the last stage. ``platform`` is what stages are for
    that do not say, this machine's own by default. ``epoch`` (seconds) is the
    images' creation time, the commit's, unless the build argument SOURCE_DATE_EPOCH is one.
    ``scope`` is the cache lane that is
    written, ``also_read`` are lanes that are read too; ``shared`` has them for all
    machines. ``ssh`` is the socket of an agent, or a private key, for each id of RUN
    --mount=type=ssh (ADD of git takes ``default``); ``ssh_hint`` is the next step for an id that is
    not given (``{id}`` in it). ``extra_ca`` is a bundle of the
    machine's certificates and ``step_env`` are variables that RUN steps see; neither
    leaves a trace in image or cache key.
    ``parent`` is a cgroup with a budget. Of cache mounts of more than
    ``cache_mount_bytes`` in all after a step, those not used for longest are emptied.
    With ``pack`` large layers are compressed while they are made, since they will be pushed.
    What a failed RUN left can be looked at for ``keep_failed`` seconds (``runtime.kept``).
    ``note``, asked as a RUN is about to write, is for its sandbox (``SandboxSpec.note``).
    """

    context: Context
    ids: IdRange
    dockerfile: str = "Dockerfile"
    dockerfile_data: bytes | None = None
    ignore_data: bytes | None = None
    targets: tuple[str | None, ...] = (None,)
    platform: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, Path | bytes] = field(default_factory=dict, repr=False)
    ssh_hint: str = ""
    epoch: int = 0
    limits: Limits = field(default_factory=Limits)
    network: Network = Network.EGRESS
    egress_allow: Sequence[str] = ()
    keep_failed: float = 0
    note: Callable[[StepInfo], str] = lambda step: ""
    scope: str = "default"
    also_read: Sequence[str] = ()
    shared: Shared | None = field(default=None, repr=False)
    no_cache: bool = False
    extra_ca: Path | None = None
    step_env: Mapping[str, str] = field(default_factory=dict)
    parent: Parent = NO_PARENT
    cache_mount_bytes: int = 10 << 30
    pack: bool = False
    parallel: int = field(default_factory=lambda: max(4, 2 * (os.cpu_count() or 1)))


def build(
    request: BuildRequest,
    *,
    store: Store,
    state: StateDirectory,
    resolve: Resolve,
    listener: BuildListener,
    cancel: threading.Event | None = None,
) -> dict[str | None, Image]:
    """Build every target of ``request``. Blocks; raises ``builders.errors``.

    ``resolve`` finds base images. After ``cancel`` is set, or one stage has failed,
    the others end within seconds, and nothing is left running or mounted.
    """
    request = _dated(request)
    with store.in_use(), _pointing(request):
        bases = Bases(resolve)
        plan = check_runnable(with_triggers(check_runnable(plan_of(request)), bases))
        with (
            LazyNetwork(request.network, state=state, allow=request.egress_allow) as network,
            Agents(request.ssh, hint=request.ssh_hint) as agents,
        ):
            bench = _bench(request, plan, store, state, network, agents, _Stop(cancel))
            states = Stages(plan, bases, bench, listener, request.note).run()
        return {
            target: _save(states[index], request, store) for target, index in plan.targets.items()
        }


def plan_of(request: BuildRequest) -> Plan:
    """Read and plan the request's Dockerfile. Raises DockerfileError."""
    data = _read(request)
    if data is None:
        raise DockerfileError(
            f"There is no {request.dockerfile} in the build context.",
            hint="Add one, or name another.",
            code="dockerfile.missing",
        )
    dockerfile = parse_dockerfile(data, file=request.dockerfile)
    return make_plan(
        dockerfile,
        targets=request.targets,
        build_args=request.build_args,
        platform=request.platform,
    )


def _dated(request: BuildRequest) -> BuildRequest:
    """As BuildKit has it, the build argument SOURCE_DATE_EPOCH says the images' time."""
    text = request.build_args.get(EPOCH_ARG, "")
    if not text:
        return request
    if not re.fullmatch(r"[0-9]{1,11}", text):
        raise UserError(
            f"{EPOCH_ARG} {text[:80]!r} is no time in seconds since 1970.",
            hint="Give it as `git log -1 --format=%ct` prints it.",
            code="build.epoch",
        )
    return replace(request, epoch=int(text))


def _read(request: BuildRequest) -> bytes | None:
    if request.dockerfile_data is not None:
        return request.dockerfile_data
    return read_file(request.context, request.dockerfile, MAX_DOCKERFILE)


@contextmanager
def _pointing(request: BuildRequest) -> Iterator[None]:
    """Errors get the line of the Dockerfile, with a caret under what is wrong."""
    try:
        yield
    except (StepFailed, BuildCancelled):
        raise  # the line is right: what it ran went wrong
    except BuildError as error:
        with suppress(BuildError):
            point_at(error, _read(request) or b"", request.dockerfile)
        raise


def with_triggers(plan: Plan, bases: Bases) -> Plan:
    """Resolve the base images of needed stages; their ONBUILD lines join the stages."""
    triggers: dict[int, tuple[Instruction, ...]] = {}
    for index in plan.needed:
        stage = plan.stages[index]
        if stage.parent is None and stage.base != SCRATCH:
            on_build = bases.get(stage.base, stage.at, stage.platform).config.on_build
            triggers[index] = tuple(
                parse_trigger(text, at=replace(stage.at, text=text)) for text in on_build
            )
    return plan.with_triggers({index: found for index, found in triggers.items() if found})


def _ignore(request: BuildRequest) -> Ignore:
    """``<Dockerfile>.dockerignore`` beside the Dockerfile, else ``.dockerignore``."""
    name = f"{request.dockerfile}.dockerignore"
    if request.dockerfile_data is None:
        data = read_file(request.context, name, MAX_IGNORE)
    else:
        data = request.ignore_data
    if data is None:
        name = ".dockerignore"
        data = read_file(request.context, name, MAX_IGNORE)
    return Ignore.parse(data or b"", file=name)


def _bench(
    request: BuildRequest,
    plan: Plan,
    store: Store,
    state: StateDirectory,
    network: LazyNetwork,
    agents: Agents,
    stop: threading.Event,
) -> Bench:
    return Bench(
        store=store,
        state=state,
        cache=StepCache(
            store.root / "steps",
            scope=request.scope,
            also_read=request.also_read,
            shared=request.shared,
            cancel=stop,
        ),
        tree=ContextTree(
            request.context, lambda: _ignore(request), lambda: raise_if_cancelled(stop)
        ),
        notices=(*plan.warnings, *request.context.notices),
        ids=request.ids,
        limits=request.limits,
        network=network.get,
        turns=threading.BoundedSemaphore(max(1, request.parallel)),
        cancel=stop,
        escape=plan.escape,
        build_args=request.build_args,
        head_args={
            **platform_args(plan.platform),
            "TARGETSTAGE": next(iter(plan.targets), None) or DEFAULT_TARGET,
            **plan.head_args,
        },
        secrets=request.secrets,
        agents=agents,
        step_env=request.step_env,
        extra_ca=request.extra_ca,
        use_cache=not request.no_cache,
        parent_cgroup=request.parent,
        scope=request.scope,
        epoch=request.epoch,
        cache_mount_bytes=request.cache_mount_bytes,
        pack=request.pack,
        may_fetch=request.network is not Network.NONE,
        egress_allow=request.egress_allow,
        keep_failed=request.keep_failed,
    )


def _save(state: StageState, request: BuildRequest, store: Store) -> Image:
    config = replace(
        state.config,
        created=timestamp(request.epoch),
        labels={**state.config.labels, **request.labels},
    )
    return store.save_image(config, state.layers)


class _Stop(threading.Event):
    """Set by a failing stage to stop the others, or when the caller's event is set.

    The caller's event is not ours to set.
    """

    def __init__(self, outer: threading.Event | None) -> None:
        super().__init__()
        self._outer = outer

    def is_set(self) -> bool:
        return super().is_set() or (self._outer is not None and self._outer.is_set())
