"""What a sandbox is asked to be, as frozen values: no file is touched here.

Sizes are bytes, times are seconds. ``None`` means "no limit of its own".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024
ID_RANGE_SIZE = 65536
IDS_END = 2**32 - 1  # the last number means "no id" (chown(2))


@dataclass(frozen=True, slots=True)
class IdRange:
    """The host ids a sandbox's ids 0..size-1 are mapped to (user_namespaces(7)).

    ``base`` is never 0: host root has no name inside a sandbox.
    """

    base: int
    size: int = ID_RANGE_SIZE

    def __post_init__(self) -> None:
        if self.base < ID_RANGE_SIZE:
            raise ValueError(f"an id range starts at {ID_RANGE_SIZE} or above, not at {self.base}")
        if self.size < 1:
            raise ValueError("an id range holds at least one id")
        if self.base + self.size >= IDS_END:
            raise ValueError(f"an id range ends below {IDS_END}, not at {self.base + self.size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard limits of one sandbox. ``memory`` includes swap; ``cpus`` is in cores."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    io_weight: int | None = None  # share of a busy disk, 1 to 1000; others have 100
    io_read: int | None = None  # bytes a second from each disk
    io_write: int | None = None  # and to each; v1 counts only what passes the page cache by
    timeout: float | None = None  # wall clock
    silence: float | None = None  # without a byte of output
    grace: float = 2.0  # for who handles SIGTERM, when cancelled or for these two (runtime.asking)
    output: int | None = None  # bytes of stdout and stderr together
    disk: int | None = None  # bytes of the writable layer
    inodes: int | None = None  # of the writable layer
    shm: int = 64 * MIB


@dataclass(frozen=True, slots=True)
class Parent:
    """A cgroup that the sandboxes of one pipeline share, and the budget they have together.

    Of ``limits`` memory, cpus, pids, io_weight, io_read and io_write count.
    """

    name: str = ""
    limits: Limits = field(default_factory=Limits)


NO_PARENT = Parent()


class Network(enum.Enum):
    """What a sandbox may reach. HOST exists for administrators' own tools only.

    PRIVATE is a member of a network that ``runtime.network.open_private`` made: give its ``netns``.
    """

    NONE = "none"
    EGRESS = "egress"
    PRIVATE = "private"
    HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """``source``, a path the caller owns and vouches for, shown at ``target``."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsMount:
    """A fresh tmpfs at ``target``."""

    target: str
    size: int
    mode: int = 0o1777
    uid: int = 0
    gid: int = 0


Mount = BindMount | TmpfsMount


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Numeric ids as seen inside the sandbox."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """One sandbox. ``rootfs`` is a mounted tree whose owners are already shifted to ``ids``.

    ``netns`` joins an existing named network namespace (see ``runtime.network``)
    instead of one made by the OCI runtime; it is how the steps of one build share one.
    ``secrets`` names the variables and mount targets that are: nothing else may look inside.
    ``upper`` is where what is written goes on the host; limits of disk and inodes need it.
    ``note`` is the caller's: it stays with the output that nobody read (``runtime.unread``).
    """

    id: str
    rootfs: Path
    args: tuple[str, ...]
    ids: IdRange
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: User = field(default_factory=User)
    hostname: str = "sandbox"
    limits: Limits = field(default_factory=Limits)
    mounts: tuple[Mount, ...] = ()
    network: Network = Network.NONE
    netns: Path | None = None
    upper: Path | None = None
    read_only: bool = False
    no_new_privileges: bool = True
    secrets: tuple[str, ...] = ()
    note: str = ""


class Outcome(enum.StrEnum):
    """How a sandbox ended. Everything but EXITED names the limit that was hit."""

    EXITED = "exited"
    OOM = "oom"
    TIMEOUT = "timeout"
    PIDS = "pids"
    DISK = "disk"
    OUTPUT = "output"
    SILENT = "silent"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What one sandbox cost. ``exit_code`` is the process's own, or 137 when it was killed.

    ``samples`` are (seconds since the start, CPU seconds, bytes of memory, pids), one a second
    at first; when there are more than a hundred, every other one goes, for as long as it runs.
    """

    outcome: Outcome
    exit_code: int
    wall: float
    user: float = 0.0
    system: float = 0.0
    peak_memory: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    pids_peak: int = 0
    output_bytes: int = 0
    throttled: float = 0.0  # seconds it had to wait for its share of processors
    received_bytes: int = 0  # over the network that it joined, by all that share it
    sent_bytes: int = 0
    samples: tuple[tuple[float, float, int, int], ...] = ()
    detail: str = ""  # e.g. "memory limit of 64 MiB reached"
    kept: str = ""  # the id under which runtime.kept keeps what it left
    kept_until: float = 0.0  # seconds since the epoch

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.EXITED and self.exit_code == 0
