"""Where the log of a job is: a plain file while it grows, then a pack here or in object storage.

A log is named by its plain file's path, whatever has become of it. ``settings.GANTRY.log_store``
is an ``s3://BUCKET/PREFIX`` for packs, or empty: then they lie beside where the log was.
"""

from __future__ import annotations

import os
import tempfile
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
    with path.open("rb") as source:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        fresh = Path(name)
        try:
            with os.fdopen(fd, "w+b") as target:
                logpack.pack(source, target)
                target.flush()
                os.fsync(target.fileno())
                os.fchmod(target.fileno(), 0o640)
                size = target.tell()
                _place(target, fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    path.unlink()
    return size


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
