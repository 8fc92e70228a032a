"""ADD of local files: COPY, and archives (tar, plain or compressed) are unpacked in place."""

from __future__ import annotations

import bz2
import lzma
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from builders.cache import step_key
from builders.dockerfile.instructions import Add
from builders.errors import ContextError, DockerfileError
from builders.images.extract import extract_tar
from builders.images.layers import LayerLimits
from builders.images.streams import HashingReader, TarStream
from builders.images.tarformat import BadTar
from builders.steps.bench import Bench, Done
from builders.steps.copy import Order, expand_order, find_all, finish, place
from builders.steps.sources import ContextSource, Found, RootSource
from builders.steps.state import StageState
from runtime.paths import open_root
from runtime.snapshots import RootFs

_REMOTE = re.compile(r"^(https?|ftp|git|ssh)://|^git@|\.git(#.*)?$", re.IGNORECASE)
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_TAR_MAGIC = slice(257, 262)
_ENDLESS = 1 << 62


def add(step: Add, state: StageState, bench: Bench) -> Done:
    order = expand_order(step, state, bench)
    for text in order.sources:
        if _REMOTE.search(text):
            raise DockerfileError(
                f"ADD {text} is not supported: a build reads only its context.",
                place=step.at.place,
                hint="Fetch it in a RUN step, or commit it.",
                code="dockerfile.add-remote",
            )
    source = ContextSource(bench.tree)
    found = find_all(step, order, source, "the build context")
    content = [(item.path, source.digest(item, order.matcher)) for item in found]
    key = step_key("add", state.chain, order.identity(), content, step.unpack)

    def act(rootfs: RootFs) -> None:
        _act(step, order, rootfs, bench, key, source, found)

    return finish(state, bench, key, act)


def _act(
    step: Add,
    order: Order,
    rootfs: RootFs,
    bench: Bench,
    key: str,
    source: ContextSource,
    found: list[Found],
) -> None:
    plain = list(found)
    for item in found:
        if item.folder or step.unpack is False:
            continue
        with _spooled(source, item) as (spool, compression):
            if compression is None:
                continue
            plain.remove(item)
            with _unpacked(step, item, spool, compression, bench) as root:
                whole = Found(item.path, "/", folder=True)
                place(step, _keeping_owners(order), rootfs, bench, key, root, [whole])
    if plain or order.texts:
        place(step, order, rootfs, bench, key, source, plain)


def _keeping_owners(order: Order) -> Order:
    return Order((), order.dest, (), order.chown, order.chmod, (), parents=False)


@contextmanager
def _spooled(source: ContextSource, found: Found) -> Iterator[tuple[BinaryIO, str | None]]:
    """The file's bytes on disk, and how its tar is compressed: None when it holds no tar."""
    with tempfile.TemporaryFile(prefix="gantry-add-") as spool:
        for item in source.items(found, None):
            for chunk in item.chunks:
                spool.write(chunk)
        spool.seek(0)
        compression = _compression(cast(BinaryIO, spool))
        spool.seek(0)
        yield cast(BinaryIO, spool), compression


def _compression(spool: BinaryIO) -> str | None:
    head = spool.read(512)
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "none")
    spool.seek(0)
    try:
        start = TarStream(_reader(spool, kind), _codec(kind), LayerLimits()).read(512)
    except (BadTar, OSError, EOFError, lzma.LZMAError):
        return None
    return kind if start[_TAR_MAGIC] == b"ustar" else None


def _reader(spool: BinaryIO, kind: str) -> HashingReader:
    if kind == "bzip2":
        return HashingReader(bz2.BZ2File(spool), limit=_ENDLESS)
    if kind == "xz":
        return HashingReader(lzma.LZMAFile(spool), limit=_ENDLESS)
    return HashingReader(spool, limit=_ENDLESS)


def _codec(kind: str) -> str:
    return kind if kind in {"gzip", "zstd"} else "none"


@contextmanager
def _unpacked(
    step: Add, found: Found, spool: BinaryIO, kind: str, bench: Bench
) -> Iterator[RootSource]:
    limits = LayerLimits()
    with bench.store.staging() as folder:
        tree = folder / "tree"
        tree.mkdir(mode=0o700)
        try:
            stream = TarStream(_reader(spool, kind), _codec(kind), limits)
            extract_tar(stream, tree, base=bench.ids.base, limits=limits)
        except (BadTar, EOFError, lzma.LZMAError) as error:
            raise ContextError(
                f"{found.path} cannot be unpacked: {error}.",
                place=step.at.place,
                code="context.tar",
            ) from None
        with open_root(tree) as root:
            yield RootSource(root, base=bench.ids.base)
