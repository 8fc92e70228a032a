"""The store's folders on disk: staging that a crash cannot confuse, locks, atomic files.

Whatever is being made lives under ``tmp/`` in a folder of its own, whose lock its
maker holds; finished, it is renamed to its name. So a reader sees whole things or
nothing, and whoever finds an unlocked folder in ``tmp/`` may remove it. Nothing is
synced but the few small files that name images: a layer that a power cut damaged
is found by ``Store.verify`` and can be made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builders.images.removal import remove_path

# Other users may pass through to the mount points, never into the layers: those hold
# set-user-id files of root that strangers wrote.
_FOLDERS = {
    "": 0o711,
    "mounts": 0o711,
    "blobs/sha256": 0o700,
    "compressed/sha256": 0o700,
    "images/sha256": 0o700,
    "layers/sha256": 0o700,
    "locks": 0o700,
    "names": 0o700,
    "pins": 0o700,
    "scratch": 0o700,
    "sources/sha256": 0o700,
    "tmp": 0o700,
}


class Disk:
    """The folders of one store, which several processes may use at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, mode in _FOLDERS.items():
            folder = root / name
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                (root / name.partition("/")[0]).chmod(mode)

    def path(self, kind: str, digest: str, suffix: str = "") -> Path:
        """Where ``digest`` (already checked) is kept among ``kind``."""
        return self.root / kind / "sha256" / (digest.removeprefix("sha256:") + suffix)

    @contextlib.contextmanager
    def staging(self, kind: str = "tmp") -> Iterator[Path]:
        """A new empty folder, locked while in use; whatever is left of it is removed."""
        folder, fd = self._new_folder(kind)
        try:
            yield folder
        finally:
            remove_path(folder)
            os.close(fd)

    def _new_folder(self, kind: str) -> tuple[Path, int]:
        while True:
            folder = self.root / kind / uuid.uuid4().hex
            folder.mkdir(mode=0o700)
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(fd, fcntl.LOCK_EX)
                if folder.exists():  # else a reaper came between the two lines above
                    return folder, fd
                os.close(fd)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold ``name`` against all threads and processes that use this store."""
        path = self.root / "locks" / name.replace(":", "-")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def abandoned(self, kind: str) -> Iterator[Path]:
        """Folders among ``kind`` whose makers are gone; each is locked while yielded."""
        for folder in sorted((self.root / kind).iterdir()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield folder
                except BlockingIOError:
                    pass
                finally:
                    os.close(fd)

    def write_json(self, path: Path, value: object, *, durable: bool = False) -> None:
        """Put ``value`` at ``path``, whole or not at all."""
        with self.staging() as folder:
            draft = folder / "draft"
            with draft.open("wb") as file:
                file.write(json.dumps(value, sort_keys=True).encode())
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            draft.rename(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object at ``path``; None where there is none, or a power cut left half of one."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None
