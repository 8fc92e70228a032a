"""Layers in the store: a tree on disk each, named by the digest of its tar.

``layers/sha256/<diff id>/tree`` is what overlayfs takes as a lower directory and
``layer.json`` beside it says what is known of it. ``compressed/`` maps a diff id to
the blob that holds it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builders.errors import RegistryError, StoreError
from builders.images.blobs import Blobs
from builders.images.digests import (
    COMPRESSIONS,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
    check_digest,
)
from builders.images.disk import Disk, read_json
from builders.images.documents import Malformed
from builders.images.extract import extract_tar
from builders.images.layers import LayerLimits, LayerTooBig, Sink, Written, write_tree
from builders.images.packing import FROM, Packer
from builders.images.pins import Pins
from builders.images.streams import (
    GzipSink,
    HashingReader,
    HashingSink,
    Readable,
    TarStream,
    ZstdSink,
)
from builders.images.tarformat import BadTar
from runtime.snapshots import LowerDir

Check = Callable[[], None]
EMPTY_DIFF_ID = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

_SINKS: dict[str, type[GzipSink] | type[ZstdSink]] = {
    OCI_LAYER_GZIP: GzipSink,
    OCI_LAYER_ZSTD: ZstdSink,
}
_OCI_NAMES = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer on disk. ``size`` is the tar's, in bytes; ``files`` counts its entries.

    ``base`` is the host id that owns what belongs to uid 0 in the layer.
    """

    diff_id: str
    size: int
    files: int
    tree: Path
    base: int

    @property
    def empty(self) -> bool:
        """Whether it changes nothing: the tar without entries."""
        return self.files == 0

    @property
    def lower(self) -> LowerDir:
        return LowerDir(self.tree, self.base)


class _Checked:
    """A sink that asks ``check`` before it takes more, and passes it to ``then``."""

    def __init__(self, check: Check, then: Sink | None = None) -> None:
        self._check = check
        self._then = then

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self._check()
        if self._then is not None:
            self._then.write(data)


class Layers:
    """The layers of a store. Safe for threads and for processes of one machine."""

    def __init__(self, disk: Disk, blobs: Blobs, pins: Pins, media_type: str) -> None:
        self._media_type = media_type
        self._disk = disk
        self._blobs = blobs
        self._pins = pins

    def get(self, diff_id: str) -> Layer | None:
        """The layer, or None. It stays while work in progress needs it."""
        folder = self._disk.path("layers", check_digest(diff_id))
        with self._disk.lock("use", diff_id):
            known = read_json(folder / "layer.json")
            if known is None or self._disk.is_lost(layer_note(diff_id)):
                return None
            self._pins.note(layer_note(diff_id))
            os.utime(folder / "layer.json")
        return Layer(diff_id, known["size"], known["files"], folder / "tree", known["base"])

    def commit(
        self,
        tree: Path,
        *,
        base: int,
        epoch: int,
        limits: LayerLimits,
        pack: bool = False,
        check: Check = lambda: None,
    ) -> Layer:
        """Move ``tree`` into the store as the layer that its content is.

        Where an equal layer is there already, that one is returned and ``tree`` stays. With
        ``pack`` a large one is compressed at the same time. ``check`` is called again and again
        and may raise. Raises StoreError, LayerTooBig, UnlayerableFile.
        """
        if not pack:
            sink = HashingSink(_Checked(check))
            written = write_tree(tree, sink, base=base, epoch=epoch, limits=limits)
            return self.get(sink.digest) or self._adopt(tree, base, sink.digest, written)
        with Packer(self._blobs, self._media_type, _SINKS[self._media_type], start=FROM) as packer:
            sink = HashingSink(_Checked(check, packer))
            written = write_tree(tree, sink, base=base, epoch=epoch, limits=limits)
            layer = self.get(sink.digest) or self._adopt(tree, base, sink.digest, written)
            with self._disk.lock("blob", layer.diff_id):
                # Another blob of the same layer stays, for the manifests that name it.
                if self._known_blob(layer) is None and (packed := packer.finish()) is not None:
                    self._disk.write_json(self._record(layer.diff_id), packed.to_json())
        return layer

    def _adopt(self, tree: Path, base: int, digest: str, written: Written) -> Layer:
        """Move a tree, whose tar has that digest, into the store."""
        with self._disk.staging() as folder:
            staged = folder / "layer"
            staged.mkdir(mode=0o700)
            try:
                tree.rename(staged / "tree")
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy(tree, staged / "tree", base, digest)
            return self._keep(staged, digest, written, base)

    def load(
        self, blob: Readable, *, expect: Descriptor, diff_id: str, limits: LayerLimits
    ) -> Layer:
        """Unpack a layer blob from a stranger, and keep the blob.

        It must have the digest, size and diff id it was announced with, and stay within the
        limits. Raises RegistryError for a blob that lies, LayerTooBig for a bomb.
        """
        check_digest(diff_id)
        compression = COMPRESSIONS.get(expect.media_type)
        if compression is None:
            raise RegistryError(f"Layers of the type {expect.media_type!r} are not supported.")
        with self._disk.lock("load", diff_id):
            known = self.get(diff_id)
            # Another blob of the same layer stays: the manifests that name it must not change.
            if known is not None and (self._blobs.has(expect) or self._known_blob(known)):
                return known
            with self._blobs.draft() as (file, draft), self._disk.staging() as folder:
                reader = HashingReader(blob, limit=expect.size, then=file)
                stream = TarStream(reader, compression, limits)
                staged = folder / "layer"
                _new_tree(staged / "tree", 0)
                try:
                    files = extract_tar(stream, staged / "tree", base=0, limits=limits)
                    _judge(reader, stream, expect, diff_id)
                except BadTar as error:
                    raise RegistryError(
                        f"The layer {expect.digest} is refused: {error}.", code="registry.layer"
                    ) from error
                file.flush()
                self._blobs.keep(draft, expect.digest)
                layer = self._keep(staged, diff_id, Written(stream.size, files), 0)
            kept = Descriptor(
                f"application/vnd.oci.image.layer.v1.tar{_OCI_NAMES[compression]}",
                expect.digest,
                expect.size,
            )
            self._disk.write_json(self._record(diff_id), kept.to_json())
            return layer

    def blob(self, layer: Layer) -> Descriptor:
        """The layer as a blob; compressed on first demand, by one caller for all."""
        known = self._known_blob(layer)
        if known is not None:
            return known
        with self._disk.lock("blob", layer.diff_id):
            known = self._known_blob(layer)
            return known if known is not None else self._compress(layer)

    def verify(self, layer: Layer) -> bool:
        """Whether the tree on disk still is the layer. False for one that came as another's tar
        and was written in another order, unless its blob is intact."""
        sink = HashingSink()
        write_tree(layer.tree, sink, base=layer.base, epoch=None)
        return sink.digest == layer.diff_id

    def _known_blob(self, layer: Layer) -> Descriptor | None:
        value = read_json(self._record(layer.diff_id))
        if value is None:
            return None
        try:
            descriptor = Descriptor.from_json(value)
        except Malformed:
            return None
        return descriptor if self._blobs.has(descriptor) else None

    def _compress(self, layer: Layer) -> Descriptor:
        with self._blobs.draft() as (file, draft):
            packed = HashingSink(file)
            codec = _SINKS[self._media_type](packed)
            plain = HashingSink(codec)
            write_tree(layer.tree, plain, base=layer.base, epoch=None)
            codec.close()
            if plain.digest != layer.diff_id:
                raise StoreError(
                    f"The layer {layer.diff_id} is damaged on disk, or its blob was removed.",
                    hint="Remove it with `prune`, then build or pull it again.",
                )
            file.flush()
            self._blobs.keep(draft, packed.digest)
        descriptor = Descriptor(self._media_type, packed.digest, packed.size)
        self._disk.write_json(self._record(layer.diff_id), descriptor.to_json())
        return descriptor

    def _record(self, diff_id: str) -> Path:
        return self._disk.path("compressed", diff_id, ".json")

    def _keep(self, staged: Path, diff_id: str, written: Written, base: int) -> Layer:
        """Give a finished layer its name; if another process was first, take that one."""
        value = {"size": written.size, "files": written.files, "base": base}
        self._disk.write_json(staged / "layer.json", value)
        final = self._disk.path("layers", diff_id)
        with self._disk.lock("keep", diff_id):
            known = self.get(diff_id)
            if known is not None:
                return known
            if final.exists():  # what a power cut has left of it
                with self._disk.staging() as folder:
                    final.rename(folder / "broken")
            self._disk.mark_unsettled(layer_note(diff_id))
            with self._disk.lock("use", diff_id):
                staged.rename(final)
                self._pins.note(layer_note(diff_id))
        return Layer(diff_id, written.size, written.files, final / "tree", base)


def _judge(reader: HashingReader, stream: TarStream, expect: Descriptor, diff_id: str) -> None:
    if reader.size != expect.size:
        raise BadTar(f"it is {reader.size} bytes long and not {expect.size}")
    if reader.digest != expect.digest:
        raise BadTar(f"its bytes have the digest {reader.digest}")
    if stream.digest != diff_id:
        raise BadTar(f"it unpacks to {stream.digest}, its image says {diff_id}")


def _new_tree(tree: Path, owner: int) -> None:
    tree.mkdir(parents=True)
    tree.chmod(0o755)
    if owner:
        os.chown(tree, owner, owner)


def _copy(tree: Path, target: Path, base: int, digest: str) -> None:
    """Copy a tree from another file system: one thread writes the tar, this one unpacks it."""
    _new_tree(target, base)
    read_end, write_end = os.pipe()
    failures: list[Exception] = []

    def write() -> None:
        try:
            with os.fdopen(write_end, "wb") as pipe:
                write_tree(tree, pipe, base=base, epoch=None)
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    limits = LayerLimits(size=1 << 62, files=1 << 62)
    try:
        with os.fdopen(read_end, "rb") as pipe:
            stream = TarStream(HashingReader(pipe, limit=1 << 62), "none", limits)
            extract_tar(stream, target, base=base, limits=limits)
    except (BadTar, LayerTooBig) as error:
        raise StoreError(f"The layer could not be copied into the store: {error}.") from error
    finally:
        writer.join()
    if failures or stream.digest != digest:
        raise StoreError("The layer changed while it was copied into the store.")


def layer_note(diff_id: str) -> str:
    return f"layer-{diff_id.removeprefix('sha256:')}"
