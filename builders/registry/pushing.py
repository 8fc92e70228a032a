"""Pushing: blobs first, each only where it is missing; the manifest last of all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from builders.errors import BuildCancelled, RegistryError
from builders.images.digests import Descriptor
from builders.images.manifest import Manifest
from builders.images.reference import Reference
from builders.images.store import Image, Layer, Store
from builders.registry.auth import Scope
from builders.registry.transport import Transport, explain

UploadLog = Callable[[str], None]

DIGEST = "Docker-Content-Digest"
_SIDE_BY_SIDE = 3
_CHUNK = 1 << 18
_TRIES = 4
_MOST_MOUNTS = 3


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes of blobs that travelled, and that the registry had already."""

    bytes_sent: int = 0
    bytes_existing: int = 0

    def __add__(self, other: Sent) -> Sent:
        return Sent(self.bytes_sent + other.bytes_sent, self.bytes_existing + other.bytes_existing)


def push_blobs(
    transport: Transport,
    image: Image,
    reference: Reference,
    store: Store,
    *,
    log: UploadLog,
    cancel: threading.Event | None = None,
) -> Sent:
    """Send an image's layers and config. Compressing and sending overlap.

    Raises RegistryError, and BuildCancelled soon after ``cancel`` is set.
    """

    def send_layer(layer: Layer) -> Sent:
        return push_blob(transport, store.blob(layer), reference, store, log=log, cancel=cancel)

    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="push") as pool:
        # The same layer may be there twice; it is sent once.
        futures = [pool.submit(send_layer, layer) for layer in dict.fromkeys(image.layers)]
        try:
            total = sum((future.result() for future in futures), Sent())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    manifest = image.manifest()
    return total + push_blob(transport, manifest.config, reference, store, log=log, cancel=cancel)


def push_manifest(transport: Transport, manifest: Manifest, reference: Reference) -> str:
    """Name the pushed blobs an image; return its digest. Raises RegistryError.

    What the registry has under that name already is not pushed again: whoever pushed it may have
    died before that was written down.
    """
    path = f"/v2/{reference.repository}/manifests/{reference.target}"
    scopes = (Scope(reference.repository, ("pull", "push")),)
    there = transport.request("HEAD", path, scopes, headers={"Accept": manifest.media_type})
    if there.status_code == 200 and there.headers.get(DIGEST) == manifest.digest:
        return manifest.digest
    response = transport.request(
        "PUT", path, scopes, headers={"Content-Type": manifest.media_type}, body=manifest.data
    )
    if response.status_code != 201:
        raise _refused(transport, response, f"the manifest of {reference.familiar}")
    said = response.headers.get(DIGEST, manifest.digest)
    if said != manifest.digest:
        raise RegistryError(
            f"Registry {transport.host} kept the manifest of {reference.familiar} as "
            f"{said[:80]} and not as {manifest.digest}.",
            code="registry.digest",
        )
    return manifest.digest


def push_blob(
    transport: Transport,
    blob: Descriptor,
    reference: Reference,
    store: Store,
    *,
    log: UploadLog,
    cancel: threading.Event | None = None,
) -> Sent:
    """Make sure the repository has a blob: look, else mount it from a sibling, else send it."""
    _check(cancel)
    scope = Scope(reference.repository, ("pull", "push"))
    here = f"{transport.host}/{reference.repository}"
    short = blob.digest[7:19]
    if _has(transport, blob, reference, scope):
        log(f"{short}: already there, {blob.size} bytes")
        sent = Sent(bytes_existing=blob.size)
    elif _mounted(transport, blob, reference, store, scope):
        log(f"{short}: taken from another repository, {blob.size} bytes")
        sent = Sent(bytes_existing=blob.size)
    else:
        _upload(transport, blob, reference, store, scope, cancel)
        log(f"{short}: sent {blob.size} bytes")
        sent = Sent(bytes_sent=blob.size)
    store.remember_source(blob.digest, here)
    return sent


def _has(transport: Transport, blob: Descriptor, reference: Reference, scope: Scope) -> bool:
    path = f"/v2/{reference.repository}/blobs/{blob.digest}"
    response = transport.request("HEAD", path, (scope,))
    if response.status_code in (401, 403):
        raise _refused(transport, response, f"a push to {reference.name}")
    return response.status_code == 200


def _mounted(
    transport: Transport, blob: Descriptor, reference: Reference, store: Store, scope: Scope
) -> bool:
    """Distribution-spec, "Mounting a blob from another repository". Needs pull on the source."""
    prefix = f"{transport.host}/"
    names = [
        name.removeprefix(prefix) for name in store.sources(blob.digest) if name.startswith(prefix)
    ]
    for name in [name for name in names if name != reference.repository][:_MOST_MOUNTS]:
        path = (
            f"/v2/{reference.repository}/blobs/uploads/"
            f"?mount={quote(blob.digest, safe='')}&from={quote(name, safe='')}"
        )
        response = transport.request("POST", path, (scope, Scope(name, ("pull",))))
        if response.status_code == 201:
            return True
        if response.status_code == 202 and (location := response.headers.get("Location")):
            # It opened an upload instead; that is closed again, since we may mount elsewhere.
            transport.request("DELETE", transport.absolute(location), (scope,), tries=1)
    return False


def _upload(
    transport: Transport,
    blob: Descriptor,
    reference: Reference,
    store: Store,
    scope: Scope,
    cancel: threading.Event | None,
) -> None:
    """Distribution-spec, "POST then PUT". Each try is an upload of its own."""
    for remaining in reversed(range(_TRIES)):
        _check(cancel)
        url = _open_upload(transport, blob, reference, scope)
        try:
            response = _send(transport, url, blob, store, scope, cancel)
        except RegistryError as error:
            if remaining and error.code == "registry.unreachable":
                continue
            raise
        if response.status_code == 201:
            return
        if response.status_code != 404 or not remaining:  # 404: it forgot our upload
            raise _refused(transport, response, f"the blob {blob.digest[7:19]}")


def _open_upload(transport: Transport, blob: Descriptor, reference: Reference, scope: Scope) -> str:
    response = transport.request("POST", f"/v2/{reference.repository}/blobs/uploads/", (scope,))
    location = response.headers.get("Location", "")
    if response.status_code != 202 or not location:
        raise _refused(transport, response, f"an upload to {reference.name}")
    url = httpx.URL(transport.absolute(location))
    return str(url.copy_merge_params({"digest": blob.digest}))


def _send(
    transport: Transport,
    url: str,
    blob: Descriptor,
    store: Store,
    scope: Scope,
    cancel: threading.Event | None,
) -> httpx.Response:
    def chunks() -> Iterator[bytes]:
        with store.open_blob(blob.digest) as file:
            while chunk := file.read(_CHUNK):
                _check(cancel)
                yield chunk

    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
    return transport.request("PUT", url, (scope,), headers=headers, body=chunks, tries=1)


def _check(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise BuildCancelled("The upload was given up.")


def _refused(transport: Transport, response: httpx.Response, what: str) -> RegistryError:
    if response.status_code in (401, 403):
        return RegistryError(
            f"Registry {transport.host} refuses {what}{explain(response)}.",
            hint="Check the registry's user name and password, and that they may push there.",
            code="registry.denied",
        )
    return RegistryError(
        f"Registry {transport.host} answers {response.status_code} for {what}{explain(response)}."
    )
