"""Blobs by digest: files that are complete or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from builders.errors import StoreError
from builders.images.digests import Descriptor, check_digest, sha256
from builders.images.disk import Disk


class Blobs:
    """The content-addressed files of a store."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here at its full size."""
        try:
            size = self._path(descriptor.digest).stat().st_size
        except FileNotFoundError:
            return False
        return size == descriptor.size and not self._disk.is_lost(_note(descriptor.digest))

    def open(self, digest: str) -> BinaryIO:
        """Open for reading; the caller closes. Raises StoreError."""
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError:
            raise StoreError(f"The blob {digest} is not in the store.") from None

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Keep ``data``."""
        descriptor = Descriptor(media_type, sha256(data), len(data))
        if not self.has(descriptor):
            with self.draft() as (file, path):
                file.write(data)
                file.flush()
                self.keep(path, descriptor.digest)
        return descriptor

    @contextlib.contextmanager
    def draft(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A file to fill, flush and ``keep``; it is gone afterwards if it was not kept."""
        with self._disk.staging() as folder:
            path = folder / "blob"
            with path.open("xb") as file:
                yield file, path

    def keep(self, draft: Path, digest: str) -> None:
        """Give a draft its name, which is the digest of its content: the caller has checked."""
        draft.chmod(0o600)
        path, note = self._path(digest), _note(digest)
        with self._disk.lock("keep", digest):
            if self._disk.is_lost(note):
                path.unlink(missing_ok=True)
            self._disk.mark_unsettled(note)
            draft.rename(path)

    def _path(self, digest: str) -> Path:
        return self._disk.path("blobs", check_digest(digest))


def _note(digest: str) -> str:
    return f"blob-{digest.removeprefix('sha256:')}"
