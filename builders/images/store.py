"""The image store: images by name, their layers and blobs, and root file systems to run.

blobs/       configs, manifests, compressed layers, by digest
compressed/  which blob holds a layer, by diff id
images/      images by the digest of their config
layers/      trees by diff id
names/       image names, by the hash of the name
sources/     which repositories are known to hold a blob, for cross-repository mounts
pins/        what pruning must keep
git/ tmp/ scratch/ mounts/ locks/   in use, or abandoned by a crash (``reap``)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from builders.errors import StoreError
from builders.images.blobs import Blobs
from builders.images.config import ImageConfig
from builders.images.digests import MANIFESTS, OCI_CONFIG, OCI_LAYER, Descriptor
from builders.images.disk import Disk, read_json
from builders.images.documents import Malformed
from builders.images.layers import LayerLimits
from builders.images.layerstore import Check, Layer, Layers
from builders.images.listed import Listed, listed
from builders.images.manifest import Manifest, build_manifest, parse
from builders.images.pins import Pins
from builders.images.prune import Pruned, PruneLimits, Pruning, image_note
from builders.images.reference import Reference
from builders.images.streams import Readable
from runtime import syscalls
from runtime.removal import remove_path
from runtime.snapshots import RootFs, mount_rootfs
from runtime.spec import IdRange

__all__ = ["Image", "Layer", "Store"]

_MOST_SOURCES = 16


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a store. ``id`` is the digest of its config."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    id: str
    store: Store = field(repr=False, compare=False)

    def manifest(self) -> Manifest:
        """Its manifest; layers are compressed on first demand."""
        return self.store.manifest(self)


class Store:
    """Everything about images on this machine's disk. Threads and processes may share one.

    ``compression`` (gzip or zstd) is for layers that have no blob yet.
    """

    def __init__(self, root: Path, *, compression: str = "gzip") -> None:
        self._disk = Disk(root)
        self._pins = Pins(self._disk)
        self._blobs = Blobs(self._disk, self._pins)
        self._layers = Layers(self._disk, self._blobs, self._pins, f"{OCI_LAYER}+{compression}")

    @property
    def root(self) -> Path:
        return self._disk.root

    # Layers

    def layer(self, diff_id: str) -> Layer | None:
        """The layer of that diff id, or None."""
        return self._layers.get(diff_id)

    def commit_upper(
        self,
        upper: Path,
        ids: IdRange,
        *,
        epoch: int,
        limits: LayerLimits | None = None,
        pack: bool = False,
        check: Check = lambda: None,
    ) -> Layer:
        """Turn an overlay's upper directory, owned by ``ids``, into a layer.

        The directory is moved into the store (copied from another file system), unless an
        equal layer is there. Times later than ``epoch`` (seconds) become it, on disk too.
        An upper without changes gives the empty layer (``Layer.empty``). With ``pack`` it will be
        pushed: a large one is compressed while it is hashed. ``check`` is called meanwhile, and
        what it raises ends the work.
        Raises StoreError, LayerTooBig, UnlayerableFile.
        """
        return self._layers.commit(
            upper,
            base=ids.base,
            epoch=epoch,
            limits=limits or LayerLimits(),
            pack=pack,
            check=check,
        )

    def commit_tree(
        self, tree: Path, *, base: int, epoch: int, limits: LayerLimits | None = None
    ) -> Layer:
        """As commit_upper, for a tree whose uid 0 is the host's ``base`` (0: natural owners)."""
        return self._layers.commit(tree, base=base, epoch=epoch, limits=limits or LayerLimits())

    def import_layer(
        self,
        blob: Readable,
        *,
        expect: Descriptor,
        diff_id: str,
        limits: LayerLimits | None = None,
    ) -> Layer:
        """Unpack and keep a layer that came from outside, verified while it streams.

        Raises RegistryError for one that is not what ``expect`` and ``diff_id`` say or is no
        clean tar, LayerTooBig for a bomb.
        """
        return self._layers.load(
            blob, expect=expect, diff_id=diff_id, limits=limits or LayerLimits()
        )

    def verify(self, layer: Layer) -> bool:
        """Whether a layer made here is still intact on disk: reads all of it."""
        return self._layers.verify(layer)

    # Blobs

    def blob(self, layer: Layer) -> Descriptor:
        """The compressed blob of a layer: made once, kept. May be called from any thread."""
        return self._layers.blob(layer)

    def has_blob(self, descriptor: Descriptor) -> bool:
        return self._blobs.has(descriptor)

    def open_blob(self, digest: str) -> BinaryIO:
        """A blob's bytes; the caller closes. Raises StoreError."""
        return self._blobs.open(digest)

    def add_blob(self, data: bytes, media_type: str) -> Descriptor:
        """Keep a small blob: a config or a manifest."""
        return self._blobs.add(data, media_type)

    def sources(self, digest: str) -> tuple[str, ...]:
        """Repositories (``host/name``) that held the blob when last seen, newest first."""
        known = read_json(self._disk.path("sources", digest, ".json")) or {}
        return tuple(known.get("repositories", ()))

    def remember_source(self, digest: str, repository: str) -> None:
        """Note that ``repository`` (``host/name``) holds the blob."""
        known = self.sources(digest)
        if repository in known:
            return
        newest = [repository, *known][:_MOST_SOURCES]
        self._disk.write_json(self._disk.path("sources", digest, ".json"), {"repositories": newest})

    # Images

    def save_image(
        self, config: ImageConfig, layers: Sequence[Layer], *, names: Sequence[Reference] = ()
    ) -> Image:
        """Keep an image, under ``names`` too. Its diff ids are those of ``layers``."""
        config = replace(config, diff_ids=tuple(layer.diff_id for layer in layers))
        return self._save(config, config.to_json(), layers, names, None)

    def save_pulled(
        self,
        config: bytes,
        manifest: Manifest,
        layers: Sequence[Layer],
        *,
        names: Sequence[Reference] = (),
        fetched: bool = False,
    ) -> Image:
        """Keep an image as its registry has it, byte for byte. Raises Malformed.

        ``fetched``: its names can be had again from where they came, so pruning may take them.
        """
        parsed = ImageConfig.from_json(config)
        if parsed.diff_ids != tuple(layer.diff_id for layer in layers):
            raise Malformed("the config names other layers than the manifest")
        kept = self._blobs.add(manifest.data, manifest.media_type)
        image = self._save(parsed, config, layers, (), kept)
        for name in names:
            self.tag(image, name, fetched=fetched)
        return image

    def _save(
        self,
        config: ImageConfig,
        data: bytes,
        layers: Sequence[Layer],
        names: Sequence[Reference],
        manifest: Descriptor | None,
    ) -> Image:
        descriptor = self._blobs.add(data, OCI_CONFIG)
        record = {
            "config": descriptor.to_json(),
            "manifest": manifest.to_json() if manifest else None,
            "saved": int(time.time()),
        }
        path = self._disk.path("images", descriptor.digest, ".json")
        with self._disk.lock("use", descriptor.digest):
            if manifest is not None or not path.exists():
                self._disk.write_json(path, record, durable=True)
            self._pins.note(image_note(descriptor.digest))
        image = Image(config, tuple(layers), descriptor.digest, self)
        for name in names:
            self.tag(image, name)
        return image

    def tag(self, image: Image, name: Reference, *, fetched: bool = False) -> None:
        """Let ``name`` mean ``image`` from now on. ``fetched``: a registry has it as well."""
        value = {
            "name": str(name),
            "platform": name.platform,
            "image": image.id,
            "fetched": fetched,
        }
        self._disk.write_json(self._name_path(name), value, durable=True)

    def untag(self, name: Reference) -> bool:
        """Forget a name; the image stays until it is pruned. False where there was none."""
        try:
            self._name_path(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def find_image(self, name: Reference) -> Image | None:
        """The image of that name, if it and all of its layers are here."""
        known = read_json(self._name_path(name))
        return self.image(known["image"]) if known else None

    def image(self, image_id: str) -> Image | None:
        """The image whose config has that digest, if all of it is here."""
        record = self._disk.path("images", image_id, ".json")
        with self._disk.lock("use", image_id):
            if not record.exists():
                return None
            self._pins.note(image_note(image_id))
            os.utime(record)
        with self._blobs.open(image_id) as file:
            config = ImageConfig.from_json(file.read())
        layers = []
        for diff_id in config.diff_ids:
            layer = self.layer(diff_id)
            if layer is None:
                return None
            layers.append(layer)
        return Image(config, tuple(layers), image_id, self)

    def names(self) -> list[str]:
        """All names in normal form, sorted; each once, whatever platforms it is here for."""
        found = (read_json(path) for path in (self.root / "names").iterdir())
        return sorted({value["name"] for value in found if value})

    def listed(self) -> list[Listed]:
        """The names with what they mean; unlike ``find_image``, it keeps nothing from pruning."""
        return listed(self._disk)

    def manifest(self, image: Image) -> Manifest:
        """The image's manifest: the one it was pulled with while its blobs are here, else ours."""
        record = read_json(self._disk.path("images", image.id, ".json"))
        if record is None:
            raise StoreError(f"The image {image.id} is not in the store.")
        config = Descriptor.from_json(record["config"])
        return self._pulled_manifest(record) or build_manifest(
            config, [self.blob(layer) for layer in image.layers]
        )

    def _pulled_manifest(self, record: dict[str, object]) -> Manifest | None:
        if not record.get("manifest"):
            return None
        kept = Descriptor.from_json(record["manifest"])
        if kept.media_type not in MANIFESTS or not self._blobs.has(kept):
            return None
        with self._blobs.open(kept.digest) as file:
            manifest = parse(file.read(), kept.media_type)
        if not isinstance(manifest, Manifest):
            return None
        return manifest if all(self._blobs.has(layer) for layer in manifest.layers) else None

    def _name_path(self, name: Reference) -> Path:
        text = f"{name} {name.platform}" if name.platform else str(name)
        return self.root / "names" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"

    # Running

    @contextlib.contextmanager
    def rootfs(
        self,
        layers: Sequence[Layer],
        *,
        ids: IdRange,
        mountpoints: Sequence[str] = (),
        bare: bool = False,
    ) -> Iterator[RootFs]:
        """A fresh writable root file system on top of ``layers`` (bottom first), for ``ids``.

        ``mountpoints`` will be mounted over and leave no stub; ``bare`` is
        for reading and writing files only (``runtime.snapshots``).
        The ``upper`` may be given to ``commit_upper``; all else is gone at the end.
        """
        with self._disk.staging("scratch") as scratch:
            target = self.root / "mounts" / scratch.name
            target.mkdir(mode=0o711)
            try:
                lowers = [layer.lower for layer in layers]
                with mount_rootfs(
                    lowers,
                    ids=ids,
                    scratch=scratch,
                    target=target,
                    mountpoints=mountpoints,
                    bare=bare,
                ) as rootfs:
                    yield rootfs
            finally:
                target.rmdir()

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder on the store's file system for work in progress; removed at the end."""
        with self._disk.staging() as folder:
            yield folder

    @contextlib.contextmanager
    def git_staging(self, owner: int) -> Iterator[Path]:
        """As ``staging``, for git running as the host id ``owner``, who can reach this alone."""
        with self._disk.staging("git") as folder:
            os.chown(folder, owner, owner)
            yield folder

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """Whatever this store gives or makes during the block, no pruning takes before its end."""
        return self._pins.opened()

    def prune(self, limits: PruneLimits) -> Pruned:
        """Remove what is old or too much, nothing that is in use (``builders.images.prune``)."""
        return Pruning(self._disk, self._pins, limits).run()

    def settle(self) -> None:
        """Make what was kept so far survive a power cut; without it, it is made again then."""
        self._disk.settle()

    def reap(self) -> list[str]:
        """Remove what dead processes left half done, and settle; return what was removed."""
        removed = []
        for scratch in self._disk.abandoned("scratch"):
            target = self.root / "mounts" / scratch.name
            for mount in _mounts_below(scratch, target):
                syscalls.umount2(mount)
            with contextlib.suppress(FileNotFoundError):
                target.rmdir()
            remove_path(scratch)
            removed.append(f"root file system {scratch.name}")
        for folder in self._disk.abandoned("pins"):
            remove_path(folder)
        for kind in ("tmp", "git"):
            for folder in self._disk.abandoned(kind):
                for mount in _mounts_below(folder):  # of a base that was being made
                    syscalls.umount2(mount)
                remove_path(folder)
                removed.append(f"unfinished work {folder.name}")
        self.settle()
        return removed


def _mounts_below(*folders: Path) -> list[Path]:
    """Mounts at or below the folders, newest first (proc_pid_mountinfo(5), field 5)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(_unescape(line.split(" ")[4])) for line in reversed(lines)]
    return [p for p in points if any(p.is_relative_to(folder) for folder in folders)]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
