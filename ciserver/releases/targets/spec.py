"""Values that runners and targets hand each other. Pure data, no engine and no database."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

PREFIX = "gantry."


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How to tell that a container is healthy.

    ``command`` (argv, run inside it) comes first, then ``path`` by HTTP, then a TCP connection.
    """

    command: tuple[str, ...] = ()
    path: str = ""
    tcp: bool = False
    timeout: float = 5.0  # seconds for one try
    passes: int = 2  # in a row

    def describe(self) -> str:
        if self.command:
            return "the HEALTHCHECK"
        return f"GET {self.path}" if self.path else "its port" if self.tcp else "its process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """``digest`` and ``size`` (bytes) are those of the compressed blob."""

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What a manifest and its config say about an image (OCI image-spec)."""

    digest: str  # of the manifest
    config_digest: str
    layers: tuple[Layer, ...]
    port: int | None  # lowest exposed TCP port
    check: Check

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ImageFacts:
        """What ``as_json`` gave. Raises KeyError or TypeError for anything else."""
        check = dict(raw["check"])
        return cls(
            digest=raw["digest"],
            config_digest=raw["config_digest"],
            layers=tuple(Layer(**layer) for layer in raw["layers"]),
            port=raw["port"],
            check=Check(**(check | {"command": tuple(check["command"])})),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A container to start. ``labels`` carry no prefix; ``memory`` is in bytes."""

    name: str
    reference: str  # REPOSITORY@DIGEST
    port: int | None
    memory: int
    cpus: float
    pids: int
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # /run/secrets/NAME: what is in it
    network: str = ""  # made if it is not there; the engine's default if empty
    id_base: int | None = None  # first of the host ids that the container's are mapped to


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A host as its row tells. ``private_key`` (OpenSSH) is asked for when a connection begins;
    ``host_key`` is a known_hosts entry without its names, empty until it was seen first, and
    ``pin`` is told then; ``expected`` is the fingerprint that it must have, if one is known.
    ``engine`` is the one that worked the last time, if it need not be asked for again."""

    name: str
    kind: str
    address: str = ""
    host_key: str = ""
    private_key: Callable[[], str] = str
    public_key: str = ""
    expected: str = ""
    engine: str = ""
    pin: Callable[[str], None] = lambda key: None


def wrong_health(text: str) -> str:
    """Why ``text`` cannot be an environment's health check; empty when it can."""
    kind, _, rest = text.strip().partition(" ")
    match kind:
        case "":
            return ""
        case "http":
            if re.fullmatch(r"/[!-~]*", rest):
                return ""
            return f"{text!r} names no path: it must begin with '/' and have no spaces."
        case "tcp":
            return f"{text!r}: nothing may follow 'tcp'." if rest else ""
        case "exec":
            return "" if _argv(rest) else f"{text!r} names no command, or a quote is not closed."
    return f"{kind!r} is no kind of health check."


def check_as(text: str, passes: int, own: Check) -> Check:
    """What an environment asks for, which is the image's ``own`` check if ``text`` is empty."""
    kind, _, rest = text.strip().partition(" ")
    match kind:
        case "http":
            return Check(path=rest, passes=passes)
        case "tcp":
            return Check(tcp=True, passes=passes)
        case "exec":
            return Check(command=_argv(rest), passes=passes)
    return replace(own, passes=passes)


def _argv(words: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(words))
    except ValueError:
        return ()


def wrong_variable(env: Mapping[str, str]) -> str:
    """Why a container cannot be given ``env``; empty when it can. Values are of one line."""
    for name, value in env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            return f"{name!r} cannot be a variable's name."
        if re.search(r"[\n\r\0]", value):
            return f"The value of the variable {name} has a line break or a NUL byte in it."
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as its engine reports it. ``address`` is HOST:PORT or empty."""

    id: str
    name: str
    image_id: str
    labels: Mapping[str, str]
    running: bool
    oom_killed: bool
    restarts: int
    address: str
    pid: int = 0
    started: str = ""  # when, in the engine's words: another after each start

    def runs(self, image: ImageFacts) -> bool:
        """Docker's and Podman's id of an image is its config's digest (manifest's in containerd).

        Either names every byte of the image, so this is as strong as the digest we recorded.
        """
        own = self.image_id.removeprefix("sha256:")
        return own in {
            known.removeprefix("sha256:") for known in (image.config_digest, image.digest)
        }
