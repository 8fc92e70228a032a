"""What the command line names: contexts, key=value pairs, secrets, SSH agents."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from builders.context import Context
from builders.context.folder import FolderContext
from builders.context.git import GitContext, find_commit
from builders.context.ignore import MAX_BYTES as MAX_IGNORE
from builders.dockerfile.parse import MAX_BYTES
from builders.errors import UserError


def open_context(text: str) -> tuple[Context, int]:
    """The context and its time in seconds: a commit's own, else SOURCE_DATE_EPOCH or now.

    Raises ContextError.
    """
    place, sep, rest = text.partition("#")
    if not sep or Path(text).is_dir():
        return FolderContext(Path(text)), int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    ref, _, subdir = rest.partition(":")
    git_dir, commit = find_commit(Path(place), ref or "HEAD")
    context = GitContext(git_dir, commit, subdir)
    return context, context.commit_time()


class Named(NamedTuple):
    """A Dockerfile by its name. ``data`` and its own ``.dockerignore`` (None where it has none)
    are read here when it lies outside the context; else the context is to be asked for both."""

    name: str
    data: bytes | None = None
    ignore: bytes | None = None


def dockerfile_of(file: Path | None, context: str) -> Named:
    """The Dockerfile that ``--file`` means.

    As docker does, a path is seen from here where the context is a folder. What is not there is
    looked for inside the context, as it always is in a commit. Raises UserError.
    """
    if file is None:
        return Named("Dockerfile")
    root = Path(context)
    if not root.is_dir() or not file.is_file():
        return Named(str(file))
    real = Path(os.path.normpath(Path.cwd() / file))
    inside = os.path.normpath(Path.cwd() / root)
    if real.is_relative_to(inside):
        return Named(str(real.relative_to(inside)))
    ignore = file.with_name(f"{file.name}.dockerignore")
    return Named(
        file.name,
        _read_here(file, MAX_BYTES),
        _read_here(ignore, MAX_IGNORE) if ignore.is_file() else None,
    )


def _read_here(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise UserError(
            f"{file} cannot be read: {error.strerror}.",
            hint="Name a file that you may read.",
            code="cli.flag",
        ) from None
    if len(data) > most:
        raise UserError(f"{file} is larger than {most} bytes.", code="cli.flag")
    return data


def pairs(values: Sequence[str], flag: str) -> dict[str, str]:
    """``K=V`` values of a flag; for a build argument ``K`` alone takes the environment's."""
    found: dict[str, str] = {}
    for value in values:
        key, sep, text = value.partition("=")
        if not key or (not sep and flag != "--build-arg"):
            raise UserError(f"{flag} {value!r} is not KEY=VALUE.", code="cli.flag")
        if sep:
            found[key] = text
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


def secrets(values: Sequence[str]) -> dict[str, bytes]:
    """``id=ID,src=FILE`` or ``id=ID,env=NAME``; ``id=ID`` alone takes the variable of that name."""
    found: dict[str, bytes] = {}
    for value in values:
        fields = dict(part.partition("=")[::2] for part in value.split(","))
        name = fields.get("id", "")
        path = fields.get("src") or fields.get("source") or ""
        variable = fields.get("env") or ("" if path else name)
        if not name:
            raise UserError(f"--secret {value!r} has no id.", hint="Write id=NAME,src=FILE.")
        try:
            found[name] = Path(path).read_bytes() if path else os.environ[variable].encode()
        except (OSError, KeyError):
            raise UserError(
                f"The secret {name!r} cannot be read from {path or variable}."
            ) from None
    return found


def agents(values: Sequence[str]) -> dict[str, Path | bytes]:
    """``ID`` for the agent of SSH_AUTH_SOCK, ``ID=PATH`` for an agent's socket or a private key."""
    found: dict[str, Path | bytes] = {}
    for value in values:
        name, sep, path = value.partition("=")
        path = path if sep else os.environ.get("SSH_AUTH_SOCK", "")
        if not name or not path:
            raise UserError(
                f"--ssh {value!r} leads to no agent.",
                hint="Start one (ssh-agent), or write --ssh ID=KEYFILE.",
                code="cli.flag",
            )
        try:
            found[name] = Path(path) if Path(path).is_socket() else Path(path).read_bytes()
        except OSError as error:
            raise UserError(
                f"--ssh {value!r} cannot be read: {error.strerror}.", code="cli.flag"
            ) from None
    return found
