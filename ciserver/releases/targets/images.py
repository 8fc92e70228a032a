"""What the registry holds under a release's digest: layers, port, health check.

Read by digest and checked against it, so nothing here depends on a tag or on trust in the
registry (OCI distribution-spec, "Pulling manifests"; image-spec, "Image Configuration").
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from ciserver.lib.certificates import trusted
from ciserver.lib.image_words import seconds_of, tcp_ports
from ciserver.releases.targets.errors import ImageUnreadable
from ciserver.releases.targets.spec import Check, ImageFacts, Layer

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
LIMIT = 4 * 1024 * 1024  # bytes of a manifest or a config
TRY = 5.0  # seconds, of a HEALTHCHECK that says nothing
TIMEOUT = 15.0  # seconds
MAKE_ANEW = "See who writes to it, then push the commit again."


@dataclass(frozen=True, slots=True)
class Location:
    """``REGISTRY/NAME``, as a release records it."""

    registry: str
    name: str

    @classmethod
    def parse(cls, repository: str) -> Location:
        registry, _, name = repository.partition("/")
        if not name or not ("." in registry or ":" in registry or registry == "localhost"):
            raise ImageUnreadable(
                f"{repository!r} does not name a registry and a repository. Push the commit again."
            )
        return cls(registry, name)

    @property
    def plain_http(self) -> bool:
        """Registries on this machine's loopback speak plain HTTP, all others TLS."""
        host = urlsplit(f"//{self.registry}").hostname or ""
        return host == "localhost" or host.startswith("127.") or host == "::1"

    @property
    def endpoint(self) -> str:
        """HOST:PORT to connect to."""
        parts = urlsplit(f"//{self.registry}")
        return f"{parts.hostname}:{parts.port or 443}"

    @property
    def url(self) -> str:
        scheme = "http" if self.plain_http else "https"
        return f"{scheme}://{self.registry}/v2/{self.name}"


def client(headers: Mapping[str, str]) -> httpx.Client:
    """For one registry; a blob may be elsewhere, where it sends us to."""
    return httpx.Client(headers=headers, timeout=TIMEOUT, follow_redirects=True, verify=trusted())


def read_facts(location: Location, digest: str, *, token: str | None) -> ImageFacts:
    """The facts of ``digest``. ``token`` is a bearer token that may pull, if one is needed.

    Raises ImageUnreadable: registry away, digest missing, or bytes that are not what it names.
    """
    manifest, config = read_documents(location, digest, token=token)
    return facts(digest, manifest, config)


def read_documents(
    location: Location, digest: str, *, token: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the config of ``digest``, parsed. Raises as ``read_facts`` does."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with client(headers) as registry:
            manifest = json.loads(_manifest(registry, location, digest))
            described = manifest["config"]["digest"]
            config = json.loads(_blob(registry, location, described))
    except httpx.HTTPError as error:
        raise ImageUnreadable(
            f"The registry {location.registry} does not answer ({error})."
            " Start it, then deploy again."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageUnreadable(
            f"{location.registry} holds something else than an image's manifest under {digest}."
            f" {MAKE_ANEW}"
        ) from error
    return manifest, config


def pull_token(location: Location, credentials: tuple[str, str] | None) -> str | None:
    """A bearer token for ``location``, as its registry says where to get one; None where it asks
    for none. Raises ImageUnreadable.
    https://distribution.github.io/distribution/spec/auth/token/
    """
    root = location.url.removesuffix(f"/{location.name}")
    try:
        with httpx.Client(timeout=TIMEOUT, trust_env=False, verify=trusted()) as registry:
            asked = registry.get(f"{root}/").headers.get("WWW-Authenticate", "")
            words = dict(re.findall(r'(\w+)="([^"]*)"', asked))
            if not asked.lower().startswith("bearer") or "realm" not in words:
                return None
            answer = registry.get(
                words["realm"],
                params={
                    "service": words.get("service", ""),
                    "scope": f"repository:{location.name}:pull",
                },
                auth=credentials,
            ).raise_for_status()
            given = answer.json()
            return str(given.get("token") or given["access_token"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise ImageUnreadable(
            f"The registry {location.registry} gives no token to pull with ({error})."
            " See that it and the service run, then deploy again."
        ) from error


def facts(digest: str, manifest: dict[str, Any], config: dict[str, Any]) -> ImageFacts:
    """ImageFacts of a parsed manifest and config."""
    runs = config.get("config") or {}
    diff_ids = config["rootfs"]["diff_ids"]
    port = first_port(runs.get("ExposedPorts") or {})
    return ImageFacts(
        digest=digest,
        config_digest=manifest["config"]["digest"],
        layers=tuple(
            Layer(digest=layer["digest"], size=layer["size"], diff_id=diff_id)
            for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True)
        ),
        port=port,
        check=check_of(runs.get("Healthcheck") or {}, port),
    )


def first_port(exposed: dict[str, Any]) -> int | None:
    """The lowest TCP port of ``{"8080/tcp": {}, "53/udp": {}}``."""
    return min(tcp_ports(exposed), default=None)


def check_of(healthcheck: dict[str, Any], port: int | None) -> Check:
    """The image's HEALTHCHECK; without one GET / on its port; without a port that it stays up.

    Podman ignores a HEALTHCHECK in an OCI image, so it is read here and run by us.
    """
    timeout = seconds_of(healthcheck.get("Timeout"), TRY)
    match healthcheck.get("Test") or []:
        case ["CMD", *argv] if argv:
            return Check(command=tuple(argv), timeout=timeout)
        case ["CMD-SHELL", line]:
            return Check(command=("/bin/sh", "-c", line), timeout=timeout)
    return Check(path="/" if port else "")


def bytes_missing(layers: Sequence[Layer], present: set[str]) -> int:
    """Bytes of the compressed layers whose content (diff id) is not ``present``."""
    missing = {layer.digest: layer.size for layer in layers if layer.diff_id not in present}
    return sum(missing.values())


def _manifest(client: httpx.Client, location: Location, digest: str) -> bytes:
    return _fetch(client, location, f"manifests/{digest}", digest, {"Accept": ", ".join(MANIFESTS)})


def _blob(client: httpx.Client, location: Location, digest: str) -> bytes:
    return _fetch(client, location, f"blobs/{digest}", digest, {})


def _fetch(
    client: httpx.Client, location: Location, path: str, digest: str, headers: dict[str, str]
) -> bytes:
    with client.stream("GET", f"{location.url}/{path}", headers=headers) as response:
        if response.status_code == httpx.codes.NOT_FOUND:
            raise ImageUnreadable(
                f"{location.registry}/{location.name} no longer has {digest}."
                " Push the commit again."
            )
        if not response.is_success:
            raise ImageUnreadable(
                f"{location.registry} answered {response.status_code} for {location.name}@{digest}."
                " See its log, then deploy again."
            )
        content = b""
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > LIMIT:
                raise ImageUnreadable(
                    f"{location.name}: {path} is larger than {LIMIT} bytes. {MAKE_ANEW}"
                )
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise ImageUnreadable(
            f"{location.registry} gave other bytes than {digest} names. {MAKE_ANEW}"
        )
    return content
