"""Instructions that change only the image's config: no file, no layer, no cache entry."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import replace

from builders.dockerfile import instructions as spec
from builders.dockerfile.expand import Expander
from builders.dockerfile.instructions import Command, Position
from builders.errors import DockerfileError
from builders.images.config import Healthcheck
from builders.steps.state import StageState

# An address and a port of the host may stand before it: docker reads over them.
_HOST = r"(?:(?:\[[0-9a-f:]*\]|[0-9.]*):)?(?:\d{1,5}(?:-\d{1,5})?)?:"
_PORT = re.compile(
    rf"^(?:{_HOST})?(\d{{1,5}})(?:-(\d{{1,5}}))?(?:/(tcp|udp|sctp))?$", re.IGNORECASE | re.ASCII
)


def env(step: spec.Env, state: StageState, expander: Expander) -> StageState:
    pairs = {expander.word(key): expander.word(value) for key, value in step.pairs}
    merged = {**state.config.environment, **pairs}
    state = state.configured(env=tuple(f"{key}={value}" for key, value in merged.items()))
    return replace(state, env={**state.env, **pairs})


def arg(
    step: spec.Arg,
    state: StageState,
    expander: Expander,
    *,
    given: Mapping[str, str],
    inherited: Mapping[str, str],
) -> StageState:
    """``given`` wins over the default, which wins over ``inherited`` (ARGs before FROM)."""
    env, args = dict(state.env), dict(state.args)
    seen = expander.seeing(env)  # each sees those before it on the same line
    for name, default in step.pairs:
        value = given.get(name)
        if value is None:
            value = inherited.get(name) if default is None else seen.word(default)
        if value is not None:
            env[name] = value
        args[name] = value
    return replace(state, args=args, env=env)


def label(step: spec.Label, state: StageState, expander: Expander) -> StageState:
    pairs = {expander.word(key): expander.word(value) for key, value in step.pairs}
    return state.configured(labels={**state.config.labels, **pairs})


def user(step: spec.User, state: StageState, expander: Expander) -> StageState:
    return state.configured(user=_filled(expander.word(step.user), "user", step.at))


def cmd(step: spec.Cmd, state: StageState, _: Expander) -> StageState:
    return replace(state.configured(cmd=words_of(step.command, state)), cmd_set=True)


def entrypoint(step: spec.Entrypoint, state: StageState, _: Expander) -> StageState:
    words = words_of(step.command, state)
    # A base image's CMD was written for the base image's ENTRYPOINT.
    command = state.config.cmd if state.cmd_set else None
    return state.configured(entrypoint=words, cmd=command)


def expose(step: spec.Expose, state: StageState, expander: Expander) -> StageState:
    ports = set(state.config.exposed_ports)
    ranges: dict[str, list[tuple[int, int]]] = {}
    for written in step.ports:
        for word in expander.words(written):
            first, last, protocol = _ports(word, step.at)
            ranges.setdefault(protocol, []).append((first, last))
    for protocol, found in ranges.items():
        done = -1
        for first, last in sorted(found):  # each port once, however many ranges have it
            ports.update(f"{port}/{protocol}" for port in range(max(first, done + 1), last + 1))
            done = max(done, last)
    return state.configured(exposed_ports=tuple(sorted(ports)))


def volume(step: spec.Volume, state: StageState, expander: Expander) -> StageState:
    paths = {_filled(expander.word(path), "volume", step.at) for path in step.paths}
    return state.configured(volumes=tuple(sorted({*state.config.volumes, *paths})))


def stopsignal(step: spec.Stopsignal, state: StageState, expander: Expander) -> StageState:
    name = expander.word(step.signal)
    known = {item.name for item in signal.Signals}
    plain = name.upper().removeprefix("SIG")
    if not (name.isdecimal() and 0 < int(name[:9]) < 65) and not (
        f"SIG{plain}" in known or re.fullmatch(r"RT(MIN|MAX)([+-]\d+)?", plain)
    ):
        raise DockerfileError(
            f"{name[:80]!r} is no signal.", place=step.at.place, hint="Use a name such as SIGTERM."
        )
    return state.configured(stop_signal=name)


def shell(step: spec.Shell, state: StageState, _: Expander) -> StageState:
    return state.configured(shell=step.words)


def healthcheck(step: spec.Healthcheck, state: StageState, _: Expander) -> StageState:
    if step.command is None:
        return state.configured(healthcheck=Healthcheck(test=("NONE",)))
    kind = "CMD-SHELL" if step.command.shell else "CMD"
    check = Healthcheck(
        test=(kind, *step.command.words),
        interval=step.times.get("interval", 0),
        timeout=step.times.get("timeout", 0),
        start_period=step.times.get("start-period", 0),
        start_interval=step.times.get("start-interval", 0),
        retries=step.retries,
    )
    return state.configured(healthcheck=check)


def onbuild(step: spec.Onbuild, state: StageState, _: Expander) -> StageState:
    return state.configured(on_build=(*state.config.on_build, step.trigger))


def maintainer(step: spec.Maintainer, state: StageState, _: Expander) -> StageState:
    return state.configured(author=step.author)


def words_of(command: Command, state: StageState) -> tuple[str, ...]:
    """Shell form runs in the stage's SHELL, exec form as it is."""
    if command.shell:
        return (*state.shell, *(command.words or ("",)))
    return command.words


def _ports(word: str, at: Position) -> tuple[int, int, str]:
    """(first port, last port, protocol)."""
    match = _PORT.match(word)
    first = int(match.group(1)) if match else 0
    last = int(match.group(2) or first) if match else 0
    if not match or not 0 <= first <= last <= 65535:
        raise DockerfileError(
            f"{word[:80]!r} is no port.",
            place=at.place,
            hint="Write it like 8080, 53/udp or 8000-8010.",
            code="dockerfile.value",
        )
    return first, last, (match.group(3) or "tcp").lower()


def _filled(value: str, what: str, at: Position) -> str:
    if not value:
        raise DockerfileError(
            f"The {what} of `{at.text}` is empty after expansion.",
            place=at.place,
            code="dockerfile.value",
        )
    return value
