"""Images as files: OCI image layouts and docker archives (``docker save``), in and out.

Image-spec image-layout.md. What is read is a stranger's: digests and sizes are
verified by the store as from a registry, and no name in an archive is ever a path.
"""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Protocol, cast

from builders.errors import RegistryError, UserError
from builders.images.config import ImageConfig
from builders.images.digests import (
    COMPRESSIONS,
    DOCKER_LAYER,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    check_digest,
    sha256,
)
from builders.images.documents import (
    Malformed,
    as_list,
    as_object,
    load_json,
    load_object,
    text,
)
from builders.images.layers import LayerLimits
from builders.images.manifest import Manifest, choose, host_architecture, parse
from builders.images.reference import Reference
from builders.images.store import Image, Layer, Store
from builders.images.streams import HashingReader, TarStream
from runtime.paths import open_in_root, open_root

_LARGEST_DOCUMENT = 4 << 20
_ANEW = "Make one with `docker save` or `skopeo copy`."
_NAME = "org.opencontainers.image.ref.name"
# What tarfile raises for archives that are none any more, or that link in circles.
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RecursionError)


class Files(Protocol):
    """A folder or an archive. ``open`` raises UserError for a name that is not there."""

    def open(self, name: str) -> IO[bytes]: ...


class _Folder:
    """A folder whose links may lead anywhere: they are followed inside of it only."""

    def __init__(self, root: Path, fd: int) -> None:
        self._root = root
        self._fd = fd

    def open(self, name: str) -> IO[bytes]:
        try:
            fd = open_in_root(self._fd, name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            raise UserError(
                f"{self._root} has no file {name}.", hint=_ANEW, code="import.file"
            ) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise UserError(f"{name} of {self._root} is no file.", hint=_ANEW, code="import.file")
        return os.fdopen(fd, "rb")


class _Archive:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def open(self, name: str) -> IO[bytes]:
        for spelled in (name, f"./{name}"):
            with contextlib.suppress(KeyError):
                stream = self._tar.extractfile(spelled)
                if stream is not None:
                    return stream
        raise UserError(f"The archive has no file {name}.", code="import.file")


def export_layout(image: Image, folder: Path, names: Sequence[Reference] = ()) -> str:
    """Write ``image`` as an OCI layout into ``folder``; return the manifest's digest.

    Blobs that are there already stay; the index holds this image alone.
    """
    manifest = image.manifest()
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for descriptor in (manifest.config, *manifest.layers):
        with image.store.open_blob(descriptor.digest) as source:
            _write(blobs, descriptor.digest, source)
    _write(blobs, manifest.digest, io.BytesIO(manifest.data))
    entries = [_entry(manifest, name) for name in names] or [_entry(manifest, None)]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps(index, sort_keys=True))
    return manifest.digest


def export_layout_archive(image: Image, path: Path, names: Sequence[Reference] = ()) -> None:
    """Write ``image`` as a tar of an OCI layout. The file appears whole or not at all."""
    with image.store.staging() as folder:
        export_layout(image, folder, names)
        draft = path.with_name(f".{path.name}-{os.getpid()}")
        try:
            with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
                for file in sorted(each for each in folder.rglob("*") if each.is_file()):
                    with file.open("rb") as stream:
                        _add(tar, str(file.relative_to(folder)), file.stat().st_size, stream)
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)


def export_archive(image: Image, path: Path, names: Sequence[Reference] = ()) -> None:
    """Write ``image`` as a docker archive, which ``docker load`` and ``podman load`` read.

    The same image gives the same bytes. The file appears whole or not at all.
    """
    with image.store.open_blob(image.id) as blob:
        config = blob.read()
    folders = {layer.diff_id: layer.diff_id.partition(":")[2] for layer in image.layers}
    entry = {
        "Config": f"{image.id.partition(':')[2]}.json",
        "RepoTags": [name.familiar for name in names if name.tag] or None,
        "Layers": [f"{folders[layer.diff_id]}/layer.tar" for layer in image.layers],
    }
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
            for layer in dict.fromkeys(image.layers):
                stream = cast(IO[bytes], _LayerTar(image.store, layer))
                _add(tar, f"{folders[layer.diff_id]}/layer.tar", layer.size, stream)
            _add(tar, str(entry["Config"]), len(config), io.BytesIO(config))
            manifest = json.dumps([entry], sort_keys=True).encode()
            _add(tar, "manifest.json", len(manifest), io.BytesIO(manifest))
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, size: int, stream: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, stream)


class _LayerTar:
    """A layer's tar as it was made, inflated from its blob."""

    def __init__(self, store: Store, layer: Layer) -> None:
        blob = store.blob(layer)
        self._file = store.open_blob(blob.digest)
        reader = HashingReader(self._file, limit=blob.size)
        limits = LayerLimits(size=1 << 62, files=1 << 62, ratio=1 << 30)
        self._stream = TarStream(reader, COMPRESSIONS[blob.media_type], limits)

    def read(self, size: int, /) -> bytes:
        return self._stream.read(size)

    def __del__(self) -> None:
        self._file.close()


def import_image(path: Path, name: Reference, store: Store) -> Image:
    """Read an OCI layout (a folder or a tar of one) or a docker archive into the store.

    Raises UserError when it is neither, RegistryError when its content is not what it says.
    """
    with ExitStack() as stack:
        files = _open(path, stack)
        try:
            if _has(files, "oci-layout"):
                return _import_layout(files, name, store)
            return _import_docker(files, name, store)
        except Malformed as error:
            raise UserError(f"{path} holds no valid image: {error}.", code="import") from error
        except _BROKEN as error:
            raise UserError(f"{path} is damaged: {error}.", hint=_ANEW, code="import") from error


def _open(path: Path, stack: ExitStack) -> Files:
    if path.is_dir():
        return _Folder(path, stack.enter_context(open_root(path)))
    try:
        return _Archive(stack.enter_context(tarfile.open(path)))
    except _BROKEN:
        raise UserError(
            f"{path} cannot be read: it is no tar archive, or a broken one.",
            hint=_ANEW,
            code="import",
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}.",
            hint="Name a file that you may read.",
            code="import",
        ) from None


def _import_layout(files: Files, name: Reference, store: Store) -> Image:
    index = load_object(_read(files, "index.json"), "index.json")
    entries = as_list(index.get("manifests"), "manifests")
    if not entries:
        raise Malformed("its index is empty")
    named = [e for e in entries if _ref_name(e) in {str(name), name.familiar, name.tag}]
    descriptor = Descriptor.from_json((named or entries)[0])
    found = parse(_blob(files, descriptor), descriptor.media_type)
    if not isinstance(found, Manifest):
        entry = choose(found, host_architecture())
        if entry is None:
            raise Malformed(f"it has no image for {host_architecture()}")
        found = _manifest(parse(_blob(files, entry.manifest), entry.manifest.media_type))
    config = _blob(files, found.config)
    diff_ids = ImageConfig.from_json(config).diff_ids
    if len(diff_ids) != len(found.layers):
        raise Malformed("its config names other layers than its manifest")
    layers = []
    for diff_id, layer in zip(diff_ids, found.layers, strict=True):
        with files.open(_blob_name(layer.digest)) as blob:
            layers.append(store.import_layer(blob, expect=layer, diff_id=diff_id))
    return store.save_pulled(config, found, layers, names=[name])


def _import_docker(files: Files, name: Reference, store: Store) -> Image:
    if not _has(files, "manifest.json"):
        raise UserError(
            "This is neither an OCI layout nor a docker archive.",
            hint=_ANEW,
            code="import",
        )
    images = as_list(load_json(_read(files, "manifest.json"), "manifest.json"), "manifest.json")
    if not images:
        raise Malformed("its manifest.json names no image")
    entry = as_object(images[0], "manifest.json")
    config = ImageConfig.from_json(_read(files, text(entry, "Config")))
    paths = [str(path) for path in as_list(entry.get("Layers"), "Layers")]
    if len(paths) != len(config.diff_ids):
        raise Malformed("its config names other layers than its manifest")
    layers = []
    for path, diff_id in zip(paths, config.diff_ids, strict=True):
        with files.open(path) as blob:
            size = blob.seek(0, io.SEEK_END)
            blob.seek(0)
            expect = Descriptor(DOCKER_LAYER, diff_id, size)
            layers.append(store.import_layer(blob, expect=expect, diff_id=diff_id))
    return store.save_image(config, layers, names=[name])


def _manifest(found: object) -> Manifest:
    if not isinstance(found, Manifest):
        raise Malformed("an index leads to another index")
    return found


def _ref_name(entry: object) -> str:
    annotations = as_object(entry, "an entry").get("annotations")
    return str(annotations.get(_NAME, "")) if isinstance(annotations, dict) else ""


def _entry(manifest: Manifest, name: Reference | None) -> dict[str, object]:
    entry = Descriptor(OCI_MANIFEST, manifest.digest, len(manifest.data)).to_json()
    return {**entry, "annotations": {_NAME: str(name)}} if name else entry


def _has(files: Files, name: str) -> bool:
    try:
        files.open(name).close()
    except UserError:
        return False
    return True


def _read(files: Files, name: str) -> bytes:
    with files.open(name) as stream:
        data = stream.read(_LARGEST_DOCUMENT + 1)
    if len(data) > _LARGEST_DOCUMENT:
        raise Malformed(f"{name} is larger than {_LARGEST_DOCUMENT >> 20} MiB")
    return data


def _blob(files: Files, descriptor: Descriptor) -> bytes:
    data = _read(files, _blob_name(descriptor.digest))
    if sha256(data) != descriptor.digest:
        raise RegistryError(
            f"The blob {descriptor.digest} has another content.", code="import.blob"
        )
    return data


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{check_digest(digest).partition(':')[2]}"


def _write(blobs: Path, digest: str, source: IO[bytes]) -> None:
    path = blobs / digest.partition(":")[2]
    if path.exists():
        return
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    with draft.open("wb") as out:
        shutil.copyfileobj(source, out)
    draft.rename(path)
