"""The store's folders on disk: staging that a crash cannot confuse, locks, atomic files.

Whatever is being made lives under ``tmp/`` in a folder of its own, whose lock its
maker holds; finished, it is renamed to its name. So a reader sees whole things or
nothing, and whoever finds an unlocked folder in ``tmp/`` may remove it.

A sync per layer would cost more than the layer. So what is new is noted in
``unsettled/`` with the boot it was made in, until ``settle`` has synced the file
system once for all of it; after a power cut, what is still noted counts as absent.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.removal import remove_path

# Other users may pass through to the mount points, never into the layers: those hold
# set-user-id files of root that strangers wrote.
_FOLDERS = {
    "": 0o711,
    "mounts": 0o711,
    "blobs/sha256": 0o700,
    "compressed/sha256": 0o700,
    "git": 0o711,  # what ADD fetches there belongs to the project's ids, as git runs
    "images/sha256": 0o700,
    "layers/sha256": 0o700,
    "locks": 0o700,
    "names": 0o700,
    "pins": 0o700,
    "scratch": 0o700,
    "sources/sha256": 0o700,
    "tmp": 0o700,
    "unsettled": 0o700,
}
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Disk:
    """The folders of one store, which several processes may use at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._boot = _BOOT.read_text()
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
    def lock(self, purpose: str, digest: str) -> Iterator[None]:
        """Hold ``digest`` against all threads and processes that use this store.

        A few digests share a lock, so that the lock files stay few: a holder may take another
        lock for another purpose only.
        """
        start = len("sha256:")
        path = self.root / "locks" / f"{purpose}-{digest[start : start + 3]}"
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

    def mark_unsettled(self, name: str) -> None:
        """Note ``name`` as written but not synced; call it right before the rename."""
        (self.root / "unsettled" / name).write_text(self._boot)

    def is_lost(self, name: str) -> bool:
        """Whether the machine went down after ``name`` was made and before it was synced."""
        try:
            # An empty note is one that the power cut has caught as well.
            return (self.root / "unsettled" / name).read_text() != self._boot
        except FileNotFoundError:
            return False

    def settle(self) -> None:
        """Sync the store's file system, if anything is new; may take a while."""
        folder = self.root / "unsettled"
        notes = [note for note in folder.iterdir() if not self.is_lost(note.name)]
        if not notes:
            return
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(self.root))
        finally:
            os.close(fd)
        for note in notes:
            note.unlink(missing_ok=True)

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
