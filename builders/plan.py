"""Dockerfile -> Plan: which stages there are, what each needs, which are needed at all. Pure."""

from __future__ import annotations

import platform as _platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from builders.dockerfile import Dockerfile
from builders.dockerfile.expand import Expander
from builders.dockerfile.flags import nearest
from builders.dockerfile.instructions import Arg, Copy, From, Instruction, Onbuild, Position, Run
from builders.dockerfile.mounts import parse_mount
from builders.errors import DockerfileError

SCRATCH = "scratch"
# Known without an ARG line, and never part of a cache key or of the history.
PROXY_ARGS = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
EPOCH_ARG = "SOURCE_DATE_EPOCH"  # the image's time, see builders.build
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Stage:
    """``base`` is an image name, ``scratch``, or empty when ``parent`` is a stage."""

    index: int
    name: str
    base: str
    parent: int | None
    at: Position
    instructions: tuple[Instruction, ...]
    needs: frozenset[int] = frozenset()
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """``targets`` maps each asked name to a stage; ``needed`` is in an order that can be run.

    ``platform`` is what the images are for; a stage may have another.
    """

    stages: tuple[Stage, ...]
    targets: Mapping[str | None, int]
    needed: tuple[int, ...]
    head_args: Mapping[str, str] = field(default_factory=dict)
    escape: str = "\\"
    warnings: tuple[str, ...] = ()
    platform: str = ""

    def stage_of(self, word: str, before: int) -> int | None:
        """The stage that ``--from=word`` means in stage ``before``, None for an image."""
        return _stage_of(self.stages, word, before)

    def targets_of(self, index: int) -> frozenset[str | None]:
        """The targets whose image holds the layers that a stage adds."""
        return frozenset(name for name, last in self.targets.items() if index in self._line(last))

    def _line(self, index: int | None) -> Iterator[int]:
        """A stage and those that it was made from, one from the other."""
        while index is not None:
            yield index
            index = self.stages[index].parent

    def with_triggers(self, triggers: Mapping[int, tuple[Instruction, ...]]) -> Plan:
        """The plan once the ONBUILD instructions of base images are known."""
        stages = list(self.stages)
        for index, extra in triggers.items():
            stage = stages[index]
            stages[index] = replace(stage, instructions=(*extra, *stage.instructions))
        return _finish(stages, self)


def host_platform() -> str:
    """This machine's own platform, e.g. ``linux/amd64``."""
    machine = _platform.machine()
    return f"linux/{_MACHINES.get(machine, machine)}"


def platform_args(target: str) -> dict[str, str]:
    """BuildKit's automatic platform ARGs; in a stage they need an ARG line."""
    found = {}
    for side, platform in (("BUILD", host_platform()), ("TARGET", target)):
        system, architecture, variant = (*platform.split("/"), "")[:3]
        values = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
        found.update({f"{side}{name}": value for name, value in values.items()})
    return found


DEFAULT_TARGET = "default"  # what TARGETSTAGE is without --target


def make_plan(
    dockerfile: Dockerfile,
    *,
    targets: Sequence[str | None] = (None,),
    build_args: Mapping[str, str] | None = None,
    platform: str = "",
) -> Plan:
    """Raise DockerfileError for a stage, target or platform that cannot be.

    ``platform`` is what stages are for that do not say, this machine's own by default.
    """
    given = dict(build_args or {})
    target_platform = checked_platform(platform) or host_platform()
    head = _head_args(dockerfile, given, target_platform)
    scope = {**platform_args(target_platform), **head}
    stages: list[Stage] = []
    for first, body in _split(dockerfile.instructions):
        stages.append(_stage(stages, first, body, scope, dockerfile.escape))
    draft = Plan(
        tuple(stages),
        {target: _target(stages, target, dockerfile.file) for target in targets},
        (),
        head,
        dockerfile.escape,
        (*dockerfile.warnings, *_named_twice(stages), *_unused(dockerfile, given)),
        target_platform,
    )
    return _finish(stages, draft)


def _finish(stages: Sequence[Stage], draft: Plan) -> Plan:
    linked = tuple(replace(stage, needs=_needs(stages, stage)) for stage in stages)
    needed: list[int] = []
    waiting = list(draft.targets.values())
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.append(index)
            waiting.extend(linked[index].needs)
    return replace(draft, stages=linked, needed=tuple(sorted(needed)))


def _head_args(dockerfile: Dockerfile, given: Mapping[str, str], platform: str) -> dict[str, str]:
    values: dict[str, str] = {}
    automatic = platform_args(platform)
    for arg in dockerfile.head:
        expander = Expander({**automatic, **values}, escape=dockerfile.escape, at=arg.at)
        for name, default in arg.pairs:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                values[name] = expander.word(default)
    return values


def _split(instructions: Iterable[Instruction]) -> list[tuple[From, tuple[Instruction, ...]]]:
    groups: list[tuple[From, list[Instruction]]] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            groups.append((instruction, []))
        else:
            groups[-1][1].append(instruction)
    return [(first, tuple(body)) for first, body in groups]


def _stage(
    earlier: Sequence[Stage],
    first: From,
    body: tuple[Instruction, ...],
    scope: Mapping[str, str],
    escape: str,
) -> Stage:
    expander = Expander(scope, escape=escape, at=first.at)
    platform = checked_platform(expander.word(first.platform or ""), first.at)
    base = expander.word(first.image)
    if not base:
        raise DockerfileError(
            f"The image of `{first.at.text}` is empty.",
            place=first.at.place,
            hint="Give the ARG a default before the first FROM, or pass --build-arg.",
            code="dockerfile.from",
        )
    parent = next((s.index for s in reversed(earlier) if s.name and s.name == base.lower()), None)
    return Stage(
        index=len(earlier),
        name=first.stage or "",
        base="" if parent is not None else base,
        parent=parent,
        at=first.at,
        instructions=(*_inherited(earlier, parent), *body),
        platform=_platform_of(platform, None if parent is None else earlier[parent], scope),
    )


def _inherited(stages: Sequence[Stage], parent: int | None) -> tuple[Instruction, ...]:
    """ONBUILD of a stage acts in the stages made from it."""
    if parent is None:
        return ()
    return tuple(i.parsed for i in stages[parent].instructions if isinstance(i, Onbuild))


def _platform_of(asked: str, parent: Stage | None, scope: Mapping[str, str]) -> str:
    """A stage made from another is of the other's platform, whatever it says."""
    if parent is not None:
        return parent.platform
    return asked or normal_platform(scope["TARGETPLATFORM"])


def checked_platform(platform: str, at: Position | None = None) -> str:
    """Its normal form, "" where nothing is asked. Raises DockerfileError for what is no Linux."""
    normal = normal_platform(platform) if platform else ""
    if normal and not re.fullmatch(r"linux/[a-z0-9]+(/[a-z0-9]+)?", normal):
        raise DockerfileError(
            f"The platform {platform} cannot be built on this machine.",
            place=at.place if at else "",
            hint=f"It builds linux images, by default {host_platform()}.",
            code="dockerfile.platform",
        )
    return normal


def normal_platform(text: str) -> str:
    """``linux/x86_64``, ``amd64`` or ``local`` as ``linux/amd64`` (containerd's platforms)."""
    host = host_platform()
    if text.lower() == "local":
        return host
    first, *rest = text.lower().split("/")
    if not rest:
        first, rest = ("linux", [first]) if first != "linux" else (first, [host.split("/")[1]])
    machine = _MACHINES.get(rest[0], rest[0])
    variant = "/".join(rest[1:])
    plain = {("amd64", "v1"), ("arm64", "v8"), ("arm", "v7")}
    return "/".join(
        [first, machine, *([variant] if variant and (machine, variant) not in plain else [])]
    )


def _needs(stages: Sequence[Stage], stage: Stage) -> frozenset[int]:
    needs = set() if stage.parent is None else {stage.parent}
    for instruction in stage.instructions:
        for word in origins(instruction):
            found = _stage_of(stages, word, stage.index)
            if found is not None:
                needs.add(found)
            elif word.isdecimal():
                raise DockerfileError(
                    f"There is no stage {word[:40]} before this one.",
                    place=instruction.at.place,
                    hint="Stages count from 0, and only earlier ones can be used.",
                    code="dockerfile.stage",
                )
    return frozenset(needs)


def origins(instruction: Instruction) -> tuple[str, ...]:
    """Stages or images an instruction reads from, as written."""
    if isinstance(instruction, Copy) and instruction.source:
        return (instruction.source,)
    if isinstance(instruction, Run):
        mounts = (parse_mount(value, instruction.at) for value in instruction.mounts)
        return tuple(mount.origin for mount in mounts if mount.origin)
    return ()


def _stage_of(stages: Sequence[Stage], word: str, before: int) -> int | None:
    for stage in reversed(stages[:before]):
        if stage.name and stage.name == word.lower():
            return stage.index
    if _is_index(word) and int(word) < before:
        return int(word)
    return None


def _is_index(word: str) -> bool:
    """Whether a stage could be meant by its number; Python reads no thousands of digits."""
    return word.isdecimal() and len(word) < 10


def _target(stages: Sequence[Stage], target: str | None, file: str) -> int:
    if target is None:
        return len(stages) - 1
    found = _stage_of(stages, target, len(stages))
    if found is None:
        names = [stage.name for stage in stages if stage.name]
        hint = nearest(target, names) or (
            f"It has the stages {', '.join(names)}." if names else "It names no stage."
        )
        raise DockerfileError(
            f"There is no stage {target!r}.", place=file, hint=hint, code="dockerfile.target"
        )
    return found


def _named_twice(stages: Sequence[Stage]) -> list[str]:
    """As in BuildKit, a name means the last stage before that has it."""
    seen: set[str] = set()
    found = []
    for stage in stages:
        if stage.name in seen:
            found.append(
                f"{stage.at.place}: {stage.name} names an earlier stage, too; after this line it "
                "means this one."
            )
        seen |= {stage.name} - {""}
    return found


def _unused(dockerfile: Dockerfile, given: Mapping[str, str]) -> list[str]:
    declared = {name for arg in dockerfile.head for name, _ in arg.pairs}
    for instruction in dockerfile.instructions:
        if isinstance(instruction, Arg):
            declared.update(name for name, _ in instruction.pairs)
    unused = sorted(
        set(given) - declared - PROXY_ARGS - {EPOCH_ARG} - set(platform_args(host_platform()))
    )
    return [f"The build argument {name} is not used by any ARG." for name in unused]
