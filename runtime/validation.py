"""Refuses what cannot be a sandbox, in a sentence with the next step; pure.

Also what the kernel would take for something else: a tmpfs of size 0 has no limit, an empty
host name is the host's own, and config.json has no word that is not UTF-8.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import SpecError
from runtime.spec import MIB, Limits, Mount, Network, SandboxSpec, TmpfsMount, User

MOUNTED_BY_US = ("/dev", "/proc", "/sys")
IN_DEV = ("/dev/pipes",)  # where BuildKit shows a heredoc's script: nothing else of /dev is there
ID_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HOSTNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
MOST = 2**63 - 1  # what the OCI runtimes and the kernel count with
NO_LIMIT = "Leave it out for no limit of its own."


@dataclass(frozen=True, slots=True)
class Bounds:
    """``low`` is the sentence for what is below ``least``; ``hint`` its next step."""

    name: str
    least: float
    most: float
    low: str
    hint: str = NO_LIMIT


BOUNDS = (
    # Below 8 MiB the OCI runtime's own start does not fit.
    Bounds(
        "memory", 8 * MIB, MOST, "A memory limit of {} bytes is too small to start anything.",
        "Use at least 8 MiB.",
    ),
    Bounds("cpus", 0.01, 4096, "A limit of {} CPUs is too small.", "Use at least 0.01."),
    Bounds("pids", 1, 4 * MIB, "A process limit is at least 1, not {}."),
    Bounds("io_weight", 1, 1000, "A weight of io is a number from 1 to 1000, not {}."),
    Bounds("io_read", 1, MOST, "A limit of io is at least 1 byte a second, not {}."),
    Bounds("io_write", 1, MOST, "A limit of io is at least 1 byte a second, not {}."),
    Bounds("timeout", 1e-9, MOST, "A timeout is more than 0 seconds, not {}."),
    Bounds("silence", 1e-9, MOST, "A limit of silence is more than 0 seconds, not {}."),
    Bounds("grace", 0, MOST, "A grace is at least 0 seconds, not {}.", "Leave it out for 2."),
    Bounds("output", 0, MOST, "A limit of output is at least 0 bytes, not {}."),
    Bounds("disk", 1, MOST, "A limit of disk is more than 0 bytes, not {}."),
    Bounds("inodes", 1, MOST, "A limit of files is at least 1, not {}."),
    Bounds(
        "shm", 1, MOST, "The size of /dev/shm is at least 1 byte, not {}.",
        "One of 0 would have no limit: use 1 to have next to none.",
    ),
)  # fmt: skip


def validate(spec: SandboxSpec) -> None:
    """Raise SpecError when ``spec`` cannot be a sandbox."""
    if not ID_FORM.fullmatch(spec.id):
        raise SpecError(
            f"{spec.id!r} is no sandbox id.",
            hint="Use letters, digits, '.', '_' and '-', 1 to 64, first a letter or digit.",
        )
    if not HOSTNAME.fullmatch(spec.hostname):
        raise SpecError(
            f"{spec.hostname!r} is no host name.",
            hint="Use letters, digits, '.', '_' and '-', 1 to 63, first a letter or digit.",
        )
    validate_args(spec.args)
    validate_env(spec.env)
    if spec.network is Network.PRIVATE and spec.netns is None:
        raise SpecError(
            "A sandbox joins a private network as one of its members.",
            hint="Give a member's netns (runtime.network.open_private or join_private).",
        )
    validate_cwd(spec.cwd)
    validate_user(spec.user, spec.ids.size)
    validate_limits(spec.limits)
    limited = spec.limits.disk is not None or spec.limits.inodes is not None
    if limited and spec.upper is None:
        raise SpecError(
            "A limit of the disk needs the directory that is written to.",
            hint="Give the upper directory of its root (snapshots.RootFs.upper).",
        )
    for mount in spec.mounts:
        _validate_mount(mount, spec.ids.size)


def validate_args(args: Sequence[str]) -> None:
    """Raises SpecError for what no program can be started with."""
    if not args or not args[0]:
        raise SpecError("There is no command to run.", hint="Give at least the program's name.")
    _validate_text("argument", args)


def validate_env(env: Mapping[str, str]) -> None:
    """Raises SpecError for what are no environment variables."""
    _validate_text("environment variable", [f"{k}={v}" for k, v in env.items()])
    if bad := [name for name in env if not name or "=" in name]:
        raise SpecError(
            f"{bad[0]!r} is no name of an environment variable.", hint="Write it as NAME=VALUE."
        )


def validate_user(user: User, ids: int) -> None:
    """Raises SpecError for a user or group that is not one of the sandbox's ``ids`` ids."""
    for number in (user.uid, user.gid, *user.groups):
        if not 0 <= number < ids:
            raise SpecError(
                f"User or group id {number} is outside the sandbox's {ids} ids.",
                hint=f"Use an id from 0 to {ids - 1}.",
            )


def validate_cwd(path: str) -> None:
    """Raises SpecError for what is no normal absolute path, or the kernel's."""
    _validate_path("working directory", path)
    if within(path, MOUNTED_BY_US):
        raise SpecError(
            f"The working directory may not be in {path}: it belongs to the kernel.",
            hint="Use a directory outside /dev, /proc and /sys.",
        )


def validate_limits(limits: Limits) -> None:
    """Raises SpecError for what no limit can be: too little, too much, no number."""
    for bounds in BOUNDS:
        value = getattr(limits, bounds.name)
        if value is None:
            continue
        if math.isnan(value):
            raise SpecError(
                f"The limit {bounds.name} is no number.", hint=f"Use one, or: {NO_LIMIT}"
            )
        if value < bounds.least:
            raise SpecError(bounds.low.format(value), hint=bounds.hint)
        if value > bounds.most:
            raise SpecError(
                f"The limit {bounds.name} is more than the kernel can count: {value}.",
                hint=f"Use at most {bounds.most}. {NO_LIMIT}",
            )


def within(path: str, parents: tuple[str, ...]) -> bool:
    """Whether normal ``path`` is one of ``parents`` or below one."""
    return any(path == parent or path.startswith(parent + "/") for parent in parents)


def cannot_mount(target: str, why: str = "") -> SpecError:
    """The error for a mount that would cover what the kernel shows, or everything."""
    return SpecError(
        f"Nothing can be mounted at {target}{why}.",
        hint="Choose a directory of your own, such as /mnt.",
    )


def _validate_text(what: str, values: Iterable[str]) -> None:
    for value in values:
        if "\0" in value:
            raise SpecError(f"An {what} holds a NUL byte: {value!r}.", hint="Take it out.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise SpecError(
                f"An {what} is not UTF-8, as config.json has to be: {value!r}.",
                hint="Write it to a file, or encode it.",
            )


def _validate_path(what: str, path: str) -> None:
    # normpath leaves two slashes at the beginning as they are (POSIX, "Pathname Resolution").
    if not re.match(r"/(?!/)", path) or "\0" in path or posixpath.normpath(path) != path:
        raise SpecError(
            f"The {what} {path!r} is no normal absolute path.",
            hint="Begin it with one '/', and leave out '.', '..' and the '/' at its end.",
        )
    _validate_text(what, (path,))


def _validate_mount(mount: Mount, ids: int) -> None:
    _validate_path("mount target", mount.target)
    ours = within(mount.target, MOUNTED_BY_US) and not within(mount.target, IN_DEV)
    if mount.target == "/" or ours:
        raise cannot_mount(mount.target)
    if not isinstance(mount, TmpfsMount):
        return
    if not 1 <= mount.size <= MOST:
        raise SpecError(
            f"The tmpfs at {mount.target} is given {mount.size} bytes.",
            hint="Use at least 1: one of size 0 would have no limit.",
        )
    if not 0 <= mount.mode <= 0o7777:
        raise SpecError(
            f"The tmpfs at {mount.target} has the mode {mount.mode:o}.",
            hint="Use permission bits, such as 1777.",
        )
    validate_user(User(uid=mount.uid, gid=mount.gid), ids)
