"""One function per instruction: a parsed line -> its dataclass, checked. ``FORMS`` lists them."""

from __future__ import annotations

import re
from collections.abc import Callable

from e2b_dockerfile_utils import (
    DockerfileHeredoc,
    DockerfileInstruction,
    chomp_heredoc_content,
    parse_heredoc,
)

from builders.dockerfile import instructions as spec
from builders.dockerfile.flags import Flags, duration
from builders.dockerfile.instructions import Command, Heredoc, Instruction, Position
from builders.dockerfile.mounts import FROM_BY_STAGE, parse_mount
from builders.errors import DockerfileError

Form = Callable[[DockerfileInstruction, Position, str], Instruction]

_STAGE_NAME = re.compile(r"^[a-z][a-z0-9._-]*$")
_HEALTH_TIMES = ("interval", "timeout", "start-period", "start-interval")


def _from(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    flags = Flags("FROM", node.flags, at)
    platform = flags.one("platform") or None
    flags.finish()
    words = node.args
    if len(words) not in {1, 3} or (len(words) == 3 and words[1].lower() != "as"):
        raise _wrong(at, "FROM takes an image, or `image AS name`")
    stage = words[2].lower() if len(words) == 3 else None
    if stage is not None and not _STAGE_NAME.match(stage):
        raise _wrong(
            at,
            f"{words[2]!r} cannot name a stage",
            "A name begins with a letter and goes on with letters, digits, '.', '_' or '-'.",
        )
    return spec.From(at=at, image=words[0], stage=stage, platform=platform)


def _arg(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    _no_flags(node, at)
    if not node.args:
        raise _wrong(at, "ARG needs a name")
    pairs: list[tuple[str, str | None]] = []
    for word in node.args:
        name, sep, value = word.partition("=")
        if not name:
            raise _wrong(at, "ARG needs a name before '='")
        pairs.append((name, value if sep else None))
    return spec.Arg(at=at, pairs=tuple(pairs))


def _pairs(node: DockerfileInstruction, at: Position) -> tuple[tuple[str, str], ...]:
    _no_flags(node, at)
    if not node.args:
        raise _wrong(at, f"{node.name} needs at least one name=value")
    pairs = tuple((node.args[i], node.args[i + 1]) for i in range(0, len(node.args), 3))
    if any(not name for name, _ in pairs):
        raise _wrong(at, f"{node.name} needs a name before '='")
    return pairs


def _env(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    return spec.Env(at=at, pairs=_pairs(node, at))


def _label(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    return spec.Label(at=at, pairs=_pairs(node, at))


def _run(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    flags = Flags("RUN", node.flags, at)
    mounts = flags.every("mount")
    network = flags.one("network", "default")
    security = flags.one("security", "sandbox")
    flags.finish()
    if network not in {"default", "none", "host"}:
        raise _wrong(at, f"--network is default or none, not {network!r}")
    if network == "host" or security != "sandbox":
        raise _wrong(at, "A build step never gets the host's network or more rights", "Remove it.")
    for mount in mounts:
        parse_mount(mount, at)
    return spec.Run(
        at=at,
        command=_command(node, at),
        heredocs=tuple(_heredoc(doc) for doc in node.heredocs),
        raw_heredocs=tuple((doc.name, doc.content) for doc in node.heredocs),
        mounts=mounts,
        network=network,
    )


def _copy(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    flags = Flags("COPY", node.flags, at)
    source = flags.one("from") or None
    if source is not None and "$" in source:
        raise _wrong(at, "COPY --from takes no variables", FROM_BY_STAGE)
    common = _copy_flags(flags)
    flags.finish()
    sources, dest, heredocs = _sources(node, at)
    if source is not None and heredocs:
        raise _wrong(at, "COPY --from cannot copy a heredoc")
    return spec.Copy(
        at=at,
        sources=sources,
        dest=dest,
        heredocs=heredocs,
        source=source,
        **common,  # type: ignore[arg-type]
    )


def _add(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    flags = Flags("ADD", node.flags, at)
    common = _copy_flags(flags)
    unpack = flags.boolean("unpack")
    checksum = flags.one("checksum")
    keep = flags.boolean("keep-git-dir")
    flags.finish()
    sources, dest, heredocs = _sources(node, at)
    return spec.Add(
        at=at,
        sources=sources,
        dest=dest,
        heredocs=heredocs,
        unpack=unpack,
        checksum=checksum,
        keep_git_dir=bool(keep),
        **common,  # type: ignore[arg-type]
    )


def _copy_flags(flags: Flags) -> dict[str, object]:
    return {
        "chown": flags.one("chown"),
        "chmod": flags.one("chmod"),
        "link": bool(flags.boolean("link")),
        "parents": bool(flags.boolean("parents")),
        "exclude": flags.every("exclude"),
    }


def _sources(
    node: DockerfileInstruction, at: Position
) -> tuple[tuple[str, ...], str, tuple[Heredoc, ...]]:
    if len(node.args) < 2:
        raise _wrong(at, f"{node.name} needs at least one source and a destination")
    if not node.json and any(len(word.split()) > 1 for word in node.args):
        # The port of the parser heeds quotes here; BuildKit splits at every blank.
        raise _wrong(
            at,
            "A path with blanks needs the JSON form",
            f'Write it like {node.name} ["a b", "/c/"].',
        )
    *words, dest = node.args
    bodies = {doc.name: _heredoc(doc) for doc in node.heredocs}
    sources: list[str] = []
    heredocs: list[Heredoc] = []
    for word in words:
        marker = None if node.json else parse_heredoc(word)
        if marker is not None and marker.name in bodies:
            heredocs.append(bodies[marker.name])
        else:
            sources.append(word)
    return tuple(sources), dest, tuple(heredocs)


def _workdir(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    return spec.Workdir(at=at, path=_single(node, at, "a path"))


def _user(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    return spec.User(at=at, user=_single(node, at, "a user name or id"))


def _stopsignal(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    return spec.Stopsignal(at=at, signal=_single(node, at, "a signal"))


def _maintainer(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    return spec.Maintainer(at=at, author=_single(node, at, "a name"))


def _cmd(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    _no_flags(node, at)
    return spec.Cmd(at=at, command=_command(node, at, empty=True))


def _entrypoint(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    _no_flags(node, at)
    return spec.Entrypoint(at=at, command=_command(node, at, empty=True))


def _expose(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    _no_flags(node, at)
    return spec.Expose(at=at, ports=_some(node, at, "at least one port"))


def _volume(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    _no_flags(node, at)
    return spec.Volume(at=at, paths=_some(node, at, "at least one path"))


def _shell(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    _no_flags(node, at)
    if not node.json or not node.args:
        raise _wrong(at, "SHELL needs the JSON form", 'Write it like SHELL ["/bin/sh", "-c"].')
    return spec.Shell(at=at, words=tuple(node.args))


def _healthcheck(node: DockerfileInstruction, at: Position, _: str) -> Instruction:
    flags = Flags("HEALTHCHECK", node.flags, at)
    times = {key: flags.one(key) for key in _HEALTH_TIMES}
    retries = flags.one("retries", "0")
    flags.finish()
    kind = node.args[0].upper() if node.args else ""
    if kind not in {"CMD", "NONE"}:
        raise _wrong(at, "HEALTHCHECK is followed by CMD or NONE")
    if not re.fullmatch(r"[0-9]{1,9}", retries):
        raise _wrong(at, f"--retries is a number below 1000000000, not {retries[:40]!r}")
    if kind == "NONE":
        if len(node.args) > 1:
            raise _wrong(at, "HEALTHCHECK NONE takes no arguments", "Remove them, or write CMD.")
        return spec.Healthcheck(at=at, command=None)
    if len(node.args) < 2:
        raise _wrong(at, "HEALTHCHECK CMD needs a command")
    return spec.Healthcheck(
        at=at,
        command=Command(tuple(node.args[1:]), shell=not node.json),
        times={key: duration(text, at) for key, text in times.items() if text},
        retries=int(retries),
    )


def _onbuild(node: DockerfileInstruction, at: Position, escape: str) -> Instruction:
    # Late, because a trigger is a Dockerfile line of its own.
    from builders.dockerfile.parse import parse_trigger

    trigger = at.text[len("ONBUILD") :].strip()
    if not trigger:
        raise _wrong(at, "ONBUILD needs an instruction")
    return spec.Onbuild(at=at, trigger=trigger, parsed=parse_trigger(trigger, at=at, escape=escape))


def _command(node: DockerfileInstruction, at: Position, *, empty: bool = False) -> Command:
    words = tuple(node.args)
    if not empty and (not words or not words[0]):
        raise _wrong(at, f"{node.name} needs a command")
    return Command(words, shell=not node.json)


def _heredoc(doc: DockerfileHeredoc) -> Heredoc:
    content = chomp_heredoc_content(doc.content) if doc.chomp else doc.content
    return Heredoc(doc.name, content, bool(doc.expand))


def _single(node: DockerfileInstruction, at: Position, what: str) -> str:
    _no_flags(node, at)
    if len(node.args) != 1 or not node.args[0].strip():
        raise _wrong(at, f"{node.name} needs {what}")
    return str(node.args[0])


def _some(node: DockerfileInstruction, at: Position, what: str) -> tuple[str, ...]:
    words = tuple(word for word in node.args if word)
    if not words:
        raise _wrong(at, f"{node.name} needs {what}")
    return words


def _no_flags(node: DockerfileInstruction, at: Position) -> None:
    Flags(node.name, node.flags, at).finish()


def _wrong(at: Position, message: str, hint: str = "") -> DockerfileError:
    line = at.text if len(at.text) <= 80 else at.text[:77] + "..."
    return DockerfileError(
        f"{message}, in `{line}`.", place=at.place, hint=hint, code="dockerfile.syntax"
    )


FORMS: dict[str, Form] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
