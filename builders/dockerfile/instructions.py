"""One frozen dataclass per Dockerfile instruction, as written: nothing is expanded yet.

Field values keep their quotes, escapes and ``$names``; ``expand.py`` turns them
into final words once the environment of that point of the stage is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Position:
    """Where an instruction stands; lines count from 1, ``end`` is its last line."""

    file: str
    line: int
    end: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Heredoc:
    """``expand`` is False when the terminator was quoted; ``content`` is already chomped."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True)
class Command:
    """Shell form holds one string, exec form the argument vector."""

    words: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, kw_only=True)
class Instruction:
    at: Position

    @property
    def name(self) -> str:
        return type(self).__name__.upper()


@dataclass(frozen=True, kw_only=True)
class From(Instruction):
    image: str
    stage: str | None = None
    platform: str | None = None


@dataclass(frozen=True, kw_only=True)
class Arg(Instruction):
    """``value`` is None for ``ARG NAME`` without a default."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Run(Instruction):
    """``mounts`` are the raw values of ``--mount``; ``network`` is default, none or host."""

    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    raw_heredocs: tuple[tuple[str, str], ...] = ()
    mounts: tuple[str, ...] = ()
    network: str = "default"


@dataclass(frozen=True, kw_only=True)
class Copy(Instruction):
    """``source`` is ``--from``; heredoc sources are in ``heredocs``, not in ``sources``."""

    sources: tuple[str, ...]
    dest: str
    heredocs: tuple[Heredoc, ...] = ()
    source: str | None = None
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Add(Copy):
    """``unpack`` is None for docker's rule: local archives are unpacked, remote ones are not."""

    unpack: bool | None = None
    checksum: str = ""
    keep_git_dir: bool = False


@dataclass(frozen=True, kw_only=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, kw_only=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, kw_only=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True, kw_only=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True, kw_only=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Stopsignal(Instruction):
    signal: str


@dataclass(frozen=True, kw_only=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Healthcheck(Instruction):
    """``command`` is None for ``HEALTHCHECK NONE``; times are nanoseconds, 0 when not given."""

    command: Command | None
    times: dict[str, int] = field(default_factory=dict)
    retries: int = 0


@dataclass(frozen=True, kw_only=True)
class Onbuild(Instruction):
    """``trigger`` is the text to run in stages made from this image, ``parsed`` what it says."""

    trigger: str
    parsed: Instruction


@dataclass(frozen=True, kw_only=True)
class Maintainer(Instruction):
    author: str
