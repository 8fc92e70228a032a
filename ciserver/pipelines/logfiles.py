"""Where the log of a job is: a plain file while it grows, then a pack here or in object storage.

A log is named by its plain file's path, whatever has become of it. ``settings.GANTRY.log_store``
is an ``s3://BUCKET/PREFIX`` for packs, or empty: then they lie beside where the log was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from django.conf import settings

from ciserver.pipelines import logpack

SUFFIX = ".zst"


def open_log(path: Path) -> BinaryIO:
    """The log's bytes as they were written, wherever they are now.

    Raises FileNotFoundError when there are none (yet, or any more), and Refused when the object
    storage does not answer or the pack is damaged; so does reading from it.
    """
    try:
        return path.open("rb")
    except FileNotFoundError:
        pass
    try:
        return cast(BinaryIO, logpack.open_pack(_beside(path)))
    except FileNotFoundError:
        key = _key(path)
        if not key:
            raise
    from ciserver.pipelines import logobjects

    return cast(BinaryIO, logobjects.open_object(settings.GANTRY.log_store, key))


def keep(path: Path) -> int:
    """Pack a log that has ended and take the plain file away; bytes that the pack takes.

    Killed at any moment it leaves one whole log and may be called again. Raises
    FileNotFoundError when there is no plain file, Refused when the storage does not take it.
    """
    with _locked(path) as source, _fresh(path) as (target, fresh):
        logpack.pack(source, target)
        target.flush()
        os.fsync(target.fileno())
        os.fchmod(target.fileno(), 0o640)
        size = target.tell()
        _place(target, fresh, path)
        path.unlink()
    return size


@contextmanager
def reopened(path: Path) -> Iterator[None]:
    """For the block the log is a plain file, also if it was packed, and nobody packs it.

    Raises FileNotFoundError when there is no log, Refused as ``open_log`` does.
    """
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_locked(path))
                break
            except FileNotFoundError:
                _unpack(path)
        yield


def _unpack(path: Path) -> None:
    with open_log(path) as packed, _fresh(path) as (target, fresh):
        shutil.copyfileobj(packed, target)
        target.flush()
        os.fchmod(target.fileno(), 0o640)
        fresh.rename(path)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The plain file, for us alone. Raises FileNotFoundError."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise FileNotFoundError(errno.ENOENT, "packed by somebody else", str(path))
        yield file


@contextmanager
def _fresh(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside a log, and its path; it is gone afterwards where nobody renamed it."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """The log in whatever form it is. Raises Refused when the storage does not answer."""
    path.unlink(missing_ok=True)
    _beside(path).unlink(missing_ok=True)
    if key := _key(path):
        from ciserver.pipelines import logobjects

        logobjects.delete(settings.GANTRY.log_store, key)


def _place(pack: BinaryIO, fresh: Path, path: Path) -> None:
    key = _key(path)
    if not key:
        fresh.rename(_beside(path))
        return
    from ciserver.pipelines import logobjects

    pack.seek(0)
    logobjects.put(settings.GANTRY.log_store, key, pack)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _key(path: Path) -> str:
    """The name of a log's pack in object storage; empty when packs do not go there."""
    if not settings.GANTRY.log_store or not path.is_relative_to(settings.GANTRY.logs):
        return ""
    prefix = urlsplit(settings.GANTRY.log_store).path.strip("/")
    name = f"{path.relative_to(settings.GANTRY.logs)}{SUFFIX}"
    return f"{prefix}/{name}" if prefix else name
