"""Archives that ADD unpacks: tar, plain or compressed, told by what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from builders.errors import ContextError
from builders.images.extract import extract_tar
from builders.images.layers import LayerLimits
from builders.images.streams import HashingReader, TarStream
from builders.images.tarformat import BadTar, decode
from builders.steps.bench import Bench
from builders.steps.sources import RootSource
from runtime.paths import open_root

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True)
class _Checked:
    """A file that is read until ``check`` raises."""

    file: BinaryIO
    check: Callable[[], None]

    def read(self, size: int = -1, /) -> bytes:
        self.check()
        return self.file.read(size)


def compression_of(spool: BinaryIO) -> str | None:
    """How the tar in ``spool`` is compressed; None when it holds no tar. Rewinds it."""
    spool.seek(0)
    head = spool.read(512)
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "none")
    spool.seek(0)
    try:
        start = TarStream(HashingReader(spool, limit=_ENDLESS), kind, LayerLimits()).read(512)
        return kind if any(start) and decode(start).name else None
    except BadTar:
        return None
    finally:
        spool.seek(0)


@contextmanager
def unpacked(
    spool: BinaryIO, compression: str, *, shown: str, place: str, bench: Bench
) -> Iterator[RootSource]:
    """The archive's files as something to place. Raises ContextError, LayerTooBig for a bomb."""
    limits = LayerLimits()
    with bench.store.staging() as folder:
        tree = folder / "tree"
        tree.mkdir(mode=0o700)
        try:
            reader = HashingReader(_Checked(spool, bench.check_cancelled), limit=_ENDLESS)
            stream = TarStream(reader, compression, limits)
            implied: set[str] = set()
            extract_tar(stream, tree, base=bench.ids.base, limits=limits, implied=implied)
        except BadTar as error:
            raise ContextError(
                f"{shown} cannot be unpacked: {error}.", place=place, code="context.tar"
            ) from None
        with open_root(tree) as root:
            yield RootSource(root, base=bench.ids.base, implied=implied)
