"""``Registry``: one registry as the builder uses it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from builders.images.digests import Descriptor
from builders.images.layers import LayerLimits
from builders.images.manifest import Manifest, build_manifest
from builders.images.reference import Reference
from builders.images.store import Image, Layer, Store
from builders.registry.auth import Credentials, TokenProvider
from builders.registry.pulling import Progress, pull, pull_document, pull_layers
from builders.registry.pushing import Sent, UploadLog, push_blob, push_blobs, push_manifest
from builders.registry.transport import Transport
from builders.remote.pinned import Lookup

__all__ = ["PushResult", "Registry", "Sent"]


@dataclass(frozen=True, slots=True)
class PushResult:
    """The manifest's digest, and how many bytes of blobs travelled or were there already."""

    digest: str
    bytes_sent: int
    bytes_existing: int


def _silent(_: str) -> None:
    pass


class Registry:
    """A client of the registry ``host`` (``name[:port]``). Threads may share it; close it.

    ``credentials`` answer basic and token challenges; ``token`` makes bearer tokens without
    asking anyone. Plain HTTP is used for this machine itself and where ``plain_http`` says
    so. Nothing is tried for longer than ``patience`` seconds after its last sign of life.
    With ``lookup`` only the addresses that it gives are connected to (``builders.remote.pinned``).
    """

    def __init__(
        self,
        host: str,
        *,
        credentials: Credentials | None = None,
        token: TokenProvider | None = None,
        plain_http: bool | None = None,
        patience: float = 60.0,
        timeout: float = 30.0,
        lookup: Lookup | None = None,
    ) -> None:
        self.host = host
        self._transport = Transport(
            host,
            credentials=credentials,
            token=token,
            plain_http=plain_http,
            patience=patience,
            timeout=timeout,
            lookup=lookup,
        )

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def pull(
        self,
        reference: Reference,
        store: Store,
        *,
        limits: LayerLimits | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Fetch an image of this machine's architecture into ``store``, under its name.

        The name's own registry may be another one, of which this one is a mirror.
        Raises ImageNotFound, RegistryError, LayerTooBig.
        """
        return pull(self._transport, reference, store, limits=limits, progress=progress or _silent)

    def push(
        self,
        image: Image,
        reference: Reference,
        store: Store,
        *,
        upload_log: UploadLog | None = None,
    ) -> PushResult:
        """Send what is missing, then the manifest under the reference's tag (or digest).

        Raises RegistryError.
        """
        sent = self.push_blobs(image, reference, store, upload_log=upload_log)
        digest = self.push_manifest(image, reference, store)
        return PushResult(digest, sent.bytes_sent, sent.bytes_existing)

    def push_blob(
        self,
        layer: Layer,
        reference: Reference,
        store: Store,
        *,
        upload_log: UploadLog | None = None,
        cancel: threading.Event | None = None,
    ) -> Sent:
        """Send one layer early, while later steps still run.

        Raises RegistryError, and BuildCancelled soon after ``cancel`` is set.
        """
        log = upload_log or _silent
        blob = store.blob(layer)
        return push_blob(self._transport, blob, reference, store, log=log, cancel=cancel)

    def push_blobs(
        self,
        image: Image,
        reference: Reference,
        store: Store,
        *,
        upload_log: UploadLog | None = None,
        cancel: threading.Event | None = None,
    ) -> Sent:
        """Send all of an image but its manifest: nothing can see it yet.

        Raises RegistryError, and BuildCancelled soon after ``cancel`` is set.
        """
        log = upload_log or _silent
        return push_blobs(self._transport, image, reference, store, log=log, cancel=cancel)

    def pull_document(self, reference: Reference, media_type: str) -> tuple[Manifest, bytes]:
        """A manifest whose config is of ``media_type``, no image's, and that config.

        Raises ImageNotFound, RegistryError, Malformed.
        """
        return pull_document(self._transport, reference, media_type)

    def pull_layer(
        self, reference: Reference, blob: Descriptor, diff_id: str, store: Store
    ) -> Layer:
        """One layer out of the reference's repository. Raises RegistryError, LayerTooBig."""
        (layer,) = pull_layers(
            self._transport, reference, [(blob, diff_id)], store, limits=None, progress=_silent
        )
        return layer

    def push_document(
        self, reference: Reference, config: Descriptor, blobs: Sequence[Descriptor], store: Store
    ) -> str:
        """Name blobs that the repository has, and a config that may be no image's, by a manifest.

        Raises RegistryError.
        """
        push_blob(self._transport, config, reference, store, log=_silent)
        return push_manifest(self._transport, build_manifest(config, blobs), reference)

    def push_manifest(self, image: Image, reference: Reference, store: Store) -> str:
        """Make the pushed blobs visible as an image; return the digest. Raises RegistryError."""
        digest = push_manifest(self._transport, image.manifest(), reference)
        store.tag(image, reference.with_digest(digest), fetched=True)
        return digest
