"""ADD: COPY, and local archives (tar, plain or compressed) are unpacked; URLs are fetched."""

from __future__ import annotations

import bz2
import lzma
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import BinaryIO, cast

from builders.cache import step_key
from builders.context import Kind
from builders.dockerfile.instructions import Add
from builders.errors import ContextError, DockerfileError
from builders.images.extract import extract_tar
from builders.images.layers import LayerLimits
from builders.images.streams import HashingReader, TarStream
from builders.images.tarformat import BadTar
from builders.remote import Fetched, fetch, name_of
from builders.steps.bench import Bench, Done
from builders.steps.copy import Order, expand_order, find_all, finish, place
from builders.steps.sources import ContextSource, Found, Item, RootSource
from builders.steps.state import StageState
from runtime.paths import open_root
from runtime.snapshots import RootFs

_WEB = re.compile(r"^https?://", re.IGNORECASE)
_GIT = re.compile(r"^(ftp|git|ssh)://|^git@|\.git(#.*)?$", re.IGNORECASE)
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_TAR_MAGIC = slice(257, 262)
_ENDLESS = 1 << 62


def add(step: Add, state: StageState, bench: Bench) -> Done:
    order = expand_order(step, state, bench)
    for text in order.sources:
        if _GIT.search(text):
            raise DockerfileError(
                f"ADD {text} is not supported: ADD fetches files over http and https.",
                place=step.at.place,
                hint="Clone it in a RUN step, or commit it.",
                code="dockerfile.add-remote",
            )
    urls = [text for text in order.sources if _WEB.match(text)]
    checksum = _checksum(step, bench.expander(step, state).word(step.checksum), order, urls)
    local = replace(order, sources=tuple(text for text in order.sources if text not in urls))
    source = ContextSource(bench.tree)
    found = find_all(step, local, source, "the build context")
    content = [(item.path, source.digest(item, order.matcher)) for item in found]
    with Downloads(step, bench) as downloads:
        # A checksum is as good as the content: what is cached under it is not fetched again.
        digests = [checksum or downloads.get(url).digest for url in urls]
        key = step_key("add", state.chain, order.identity(), content, step.unpack, *digests)

        def act(rootfs: RootFs) -> None:
            for url in urls:
                remote = WebSource(downloads.get(url, checksum))
                name = Found(name_of(url), "/", folder=False)
                place(step, replace(local, texts=()), rootfs, bench, key, remote, [name])
            if found or order.texts:
                _act(step, local, rootfs, bench, key, source, found)

        return finish(state, bench, key, act)


def _checksum(step: Add, text: str, order: Order, urls: list[str]) -> str:
    """The digest that the one URL must have; empty without --checksum."""
    message = ""
    if text and not _CHECKSUM.fullmatch(text):
        message = f"--checksum is sha256: and 64 digits of 0-9a-f, not {text[:100]!r}."
    elif text and (len(urls) != 1 or len(order.sources) != 1):
        message = "--checksum is for one URL, and ADD has something else."
    elif urls and step.unpack:
        message = "--unpack is for archives of the build context, not for URLs."
    elif any(not name_of(url) for url in urls) and order.dest.endswith("/"):
        message = "The URL ends without a file name, and the destination has none either."
    if message:
        raise DockerfileError(message, place=step.at.place, code="dockerfile.value")
    return text


class Downloads:
    """The files that one ADD fetches, each once; gone at the end."""

    def __init__(self, step: Add, bench: Bench) -> None:
        self._step = step
        self._bench = bench
        self._stack = ExitStack()
        self._known: dict[str, Fetched] = {}

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self, url: str, checksum: str = "") -> Fetched:
        """Raises ContextError, also when the content is not that of ``checksum``."""
        if url not in self._known:
            if not self._bench.may_fetch:
                raise ContextError(
                    f"ADD cannot fetch {url}: this build has no network.", code="context.remote"
                )
            folder = self._stack.enter_context(self._bench.store.staging())
            self._known[url] = fetch(url, folder / "file", allow=self._bench.egress_allow)
        found = self._known[url]
        if checksum and found.digest != checksum:
            raise ContextError(
                f"{url} has the digest {found.digest}, and not {checksum}.",
                place=self._step.at.place,
                hint="Was it published anew? Look at what it holds before you change --checksum.",
                code="context.checksum",
            )
        return found


class WebSource:
    """A downloaded file as something to place: root's alone, with the server's time, as docker."""

    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched

    def find(self, pattern: str) -> list[Found]:
        return []

    def items(self, found: Found, exclude: object) -> Iterator[Item]:
        with self._fetched.path.open("rb") as file:
            chunks = iter(lambda: file.read(1 << 20), b"")
            yield Item("", Kind.FILE, 0o600, mtime=self._fetched.mtime, chunks=chunks)

    def nearest(self, pattern: str) -> list[str]:
        return []


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
