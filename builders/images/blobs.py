"""Blobs by digest: files that are complete or absent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from builders.errors import StoreError
from builders.images.digests import Descriptor, check_digest, sha256
from builders.images.disk import Disk
from builders.images.pins import Pins


class Blobs:
    """The content-addressed files of a store."""

    def __init__(self, disk: Disk, pins: Pins) -> None:
        self._disk = disk
        self._pins = pins

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here at its full size; it stays while work in progress needs it."""
        path, note = self._path(descriptor.digest), blob_note(descriptor.digest)
        with self._disk.lock("use", descriptor.digest):
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                return False
            if size != descriptor.size or self._disk.is_lost(note):
                return False
            self._pins.note(note)
            os.utime(path)
            return True

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
        path, note = self._path(digest), blob_note(digest)
        with self._disk.lock("keep", digest):
            if self._disk.is_lost(note):
                path.unlink(missing_ok=True)
            self._disk.mark_unsettled(note)
            with self._disk.lock("use", digest):
                draft.rename(path)
                self._pins.note(note)

    def _path(self, digest: str) -> Path:
        return self._disk.path("blobs", check_digest(digest))


def blob_note(digest: str) -> str:
    return f"blob-{digest.removeprefix('sha256:')}"
