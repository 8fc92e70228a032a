"""Pulling: manifest, config and layers, each held to its digest and size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx

from builders.errors import ImageNotFound, RegistryError, WrongPlatform
from builders.images.config import ImageConfig
from builders.images.digests import CONFIGS, INDEXES, MANIFESTS, Descriptor, sha256
from builders.images.documents import Malformed
from builders.images.layers import LayerLimits
from builders.images.manifest import Manifest, Platform, choose, host_architecture, parse
from builders.images.reference import Reference
from builders.images.store import Image, Layer, Store
from builders.registry.auth import Scope
from builders.registry.transport import TRIES, Transport, explain

Progress = Callable[[str], None]

_ACCEPT = ", ".join(sorted(MANIFESTS | INDEXES))
_LARGEST_DOCUMENT = 4 << 20  # what distribution itself accepts as a manifest
_RESUMES = 4
_SIDE_BY_SIDE = 2


def pull(
    transport: Transport,
    reference: Reference,
    store: Store,
    *,
    limits: LayerLimits | None,
    progress: Progress,
) -> Image:
    """The image, from now on in ``store`` under its name and its digest.

    Layers the store has already, by diff id, do not travel.
    Raises ImageNotFound, RegistryError, LayerTooBig.
    """
    scopes = (Scope(reference.repository, ("pull",)),)
    try:
        found = _fetch_manifest(transport, reference, scopes)
        digests = [sha256(found.data)] if isinstance(found, Manifest) else []
        if not isinstance(found, Manifest):
            found = _fetch_platform(transport, reference, scopes, found)
            digests.append(found.digest)
        if reference.digest:
            digests.append(reference.digest)
        data = _fetch_config(transport, reference, scopes, found.config)
        config = ImageConfig.from_json(data)
        if len(config.diff_ids) != len(found.layers):
            raise Malformed("its config and its manifest count different layers")
        check_platform(config, reference)
        layers = pull_layers(
            transport,
            reference,
            list(zip(found.layers, config.diff_ids, strict=True)),
            store,
            limits=limits,
            progress=progress,
        )
        names = [reference, *(reference.with_digest(digest) for digest in digests)]
        return store.save_pulled(
            data, found, layers, names=list(dict.fromkeys(names)), fetched=True
        )
    except Malformed as error:
        raise RegistryError(
            f"Registry {transport.host} sent no valid image for {reference.familiar}: {error}.",
            code="registry.malformed",
        ) from error


def pull_document(
    transport: Transport, reference: Reference, media_type: str
) -> tuple[Manifest, bytes]:
    """A manifest whose config is of ``media_type``, no image's, and that config. Asked for once.

    Raises ImageNotFound, RegistryError, Malformed.
    """
    scopes = (Scope(reference.repository, ("pull",)),)
    found = _fetch_manifest(transport, reference, scopes, configs=(media_type,), tries=1)
    if not isinstance(found, Manifest):
        raise Malformed("it is an index")
    return found, _fetch_config(transport, reference, scopes, found.config)


def _fetch_manifest(
    transport: Transport,
    reference: Reference,
    scopes: Sequence[Scope],
    *,
    configs: Collection[str] = CONFIGS,
    tries: int = TRIES,
) -> Manifest | tuple[Platform, ...]:
    path = f"/v2/{reference.repository}/manifests/{reference.target}"
    response = transport.request(
        "GET", path, scopes, headers={"Accept": _ACCEPT}, most=_LARGEST_DOCUMENT, tries=tries
    )
    if response.status_code == 404:
        raise ImageNotFound(f"Registry {transport.host} has no image {reference.familiar}.")
    _expect(response, 200, transport, f"the image {reference.familiar}")
    digest = sha256(response.content)
    said = response.headers.get("Docker-Content-Digest", digest)
    for wanted in (said, reference.digest or digest):
        if wanted != digest:
            raise RegistryError(
                f"Registry {transport.host} lied: the manifest of {reference.familiar} has the "
                f"digest {digest}, not {wanted[:80]}.",
                code="registry.digest",
            )
    return parse(response.content, response.headers.get("Content-Type", ""), configs=configs)


def _fetch_platform(
    transport: Transport,
    reference: Reference,
    scopes: Sequence[Scope],
    platforms: tuple[Platform, ...],
) -> Manifest:
    platform = reference.platform or f"linux/{host_architecture()}"
    entry = choose(platforms, platform)
    if entry is None:
        offered = ", ".join(sorted({f"{p.os}/{p.architecture}" for p in platforms})) or "nothing"
        raise WrongPlatform(
            f"{reference.familiar} is not made for {platform}, only for {offered[:300]}."
        )
    child = _fetch_manifest(transport, reference.with_digest(entry.manifest.digest), scopes)
    if not isinstance(child, Manifest):
        raise Malformed("its index leads to another index")
    if len(child.data) != entry.manifest.size:
        raise Malformed("its manifest is not as long as its index says")
    return child


def check_platform(config: ImageConfig, reference: Reference) -> None:
    """Raises WrongPlatform for an image that is not of the platform that was asked for."""
    found = f"{config.os}/{config.architecture}"
    if reference.platform and "/".join(reference.platform.split("/")[:2]) != found:
        raise WrongPlatform(
            f"{reference.familiar} is not made for {reference.platform}, only for {found}."
        )


def _fetch_config(
    transport: Transport, reference: Reference, scopes: Sequence[Scope], config: Descriptor
) -> bytes:
    if config.size > _LARGEST_DOCUMENT:
        raise Malformed(f"its config is said to be {config.size} bytes long")
    path = _blob_path(reference, config)
    response = transport.request("GET", path, scopes, most=config.size)
    _expect(response, 200, transport, f"the config of {reference.familiar}")
    if sha256(response.content) != config.digest or len(response.content) != config.size:
        raise RegistryError(
            f"Registry {transport.host} lied: the config of {reference.familiar} is not "
            f"{config.digest}.",
            code="registry.digest",
        )
    return response.content


def pull_layers(
    transport: Transport,
    reference: Reference,
    wanted: Sequence[tuple[Descriptor, str]],
    store: Store,
    *,
    limits: LayerLimits | None,
    progress: Progress,
) -> list[Layer]:
    """Layers by blob and diff id, from the store or else the reference's repository.

    Raises RegistryError, LayerTooBig.
    """
    scopes = (Scope(reference.repository, ("pull",)),)
    here = f"{reference.registry}/{reference.repository}"

    def fetch(descriptor: Descriptor, diff_id: str) -> Layer:
        known = store.layer(diff_id)
        if known is None:
            progress(f"Pulling {descriptor.digest[7:19]}: {descriptor.size} bytes")
            with BlobReader(transport, _blob_path(reference, descriptor), scopes) as blob:
                known = store.import_layer(blob, expect=descriptor, diff_id=diff_id, limits=limits)
        if store.has_blob(descriptor):
            store.remember_source(descriptor.digest, here)
        return known

    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="pull") as pool:
        futures = [pool.submit(fetch, descriptor, diff_id) for descriptor, diff_id in wanted]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class BlobReader:
    """A blob's bytes from a registry; a broken connection is taken up where it broke (RFC 9110
    14.2, range requests). Who reads must check size and digest."""

    def __init__(self, transport: Transport, path: str, scopes: Sequence[Scope]) -> None:
        self._transport = transport
        self._path = path
        self._scopes = scopes
        self._stack = ExitStack()
        self._chunks: Iterator[bytes] = iter(())
        self._rest = b""
        self._offset = 0
        self._resumes = 0

    def __enter__(self) -> BlobReader:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; empty at the end. Raises RegistryError."""
        while not self._rest:
            try:
                chunk = next(self._chunks, None)
            except httpx.TransportError as error:
                self._resume(error)
                continue
            if chunk is None:
                return b""
            self._rest = chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        self._offset += len(data)
        return data

    def _open(self) -> None:
        self._stack.close()
        headers = {"Range": f"bytes={self._offset}-"} if self._offset else {}
        response = self._stack.enter_context(
            self._transport.stream("GET", self._path, self._scopes, headers=headers)
        )
        expected = 206 if self._offset else 200
        if self._offset and response.status_code == 200:
            raise RegistryError(
                f"Registry {self._transport.host} broke off a layer and cannot resume it."
            )
        if response.status_code != expected:
            raise RegistryError(
                f"Registry {self._transport.host} answers {response.status_code} "
                f"for the layer {self._path.rpartition('/')[2]}."
            )
        start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if self._offset and start != str(self._offset):
            raise RegistryError(f"Registry {self._transport.host} resumed at the wrong byte.")
        self._chunks = response.iter_raw()

    def _resume(self, error: httpx.TransportError) -> None:
        self._resumes += 1
        if self._resumes > _RESUMES:
            raise RegistryError(
                f"Registry {self._transport.host} broke off a layer {self._resumes} times: {error}."
            ) from error
        self._open()


def _blob_path(reference: Reference, descriptor: Descriptor) -> str:
    return f"/v2/{reference.repository}/blobs/{descriptor.digest}"


def _expect(response: httpx.Response, status: int, transport: Transport, what: str) -> None:
    if response.status_code == status:
        return
    if response.status_code in (401, 403):
        raise RegistryError(
            f"Registry {transport.host} refuses {what}{explain(response)}.",
            hint="Check the registry's user name and password.",
            code="registry.denied",
        )
    raise RegistryError(
        f"Registry {transport.host} answers {response.status_code} for {what}{explain(response)}."
    )
