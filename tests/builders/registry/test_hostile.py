"""A registry that lies is believed in nothing, leaves nothing, and gets no secret for another."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from builders.errors import BuildError, ImageNotFound, RegistryError
from builders.images.digests import OCI_INDEX, OCI_MANIFEST, Descriptor, sha256
from builders.images.layers import LayerLimits, LayerTooBig
from builders.images.manifest import build_manifest
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Credentials, Registry
from tests.builders.registry.liar import Answer, Liar, Seen, running, serving

pytestmark = pytest.mark.root

SECRET = Credentials("alice", "s3cret")


@pytest.fixture
def liar(image: Image, store: Store) -> Iterator[Liar]:
    with running(serving(image, store)) as liar:
        yield liar


@pytest.fixture
def elsewhere() -> Iterator[Liar]:
    """Another host, which should see nothing, or at least no secret."""
    with running(Liar(None, {}), "127.0.0.2") as liar:
        yield liar


def pull(liar: Liar, other: Store, limits: LayerLimits | None = None) -> Image:
    with Registry(liar.host, credentials=SECRET, patience=3, timeout=2) as client:
        return client.pull(Reference.parse(f"{liar.host}/a/b:v1"), other, limits=limits)


def nothing_kept(store: Store) -> bool:
    kinds = ("layers/sha256", "images/sha256", "names", "tmp")
    return not any(list((store.root / kind).iterdir()) for kind in kinds)


def test_told_the_truth_it_is_pulled(liar: Liar, image: Image, other: Store) -> None:
    assert pull(liar, other).id == image.id


def manifest_with(liar: Liar, **changes: object) -> Callable[[Seen], Answer | None]:
    assert liar.manifest is not None
    value = json.loads(liar.manifest.data) | changes
    data = json.dumps(value).encode()

    def lie(seen: Seen) -> Answer | None:
        return Liar.document(data, OCI_MANIFEST) if "/manifests/" in seen.path else None

    return lie


def layer_as(liar: Liar, answer: Callable[[bytes], Answer]) -> Callable[[Seen], Answer | None]:
    assert liar.manifest is not None
    layers = {layer.digest for layer in liar.manifest.layers}

    def lie(seen: Seen) -> Answer | None:
        digest = seen.path.rpartition("/")[2]
        return answer(liar.blobs[digest]) if digest in layers else None

    return lie


def lies(liar: Liar) -> dict[str, Callable[[Seen], Answer | None]]:
    assert liar.manifest is not None
    first = liar.manifest.layers[0].to_json()
    config = liar.manifest.config.digest
    other_config = json.dumps({**json.loads(liar.blobs[config]), "rootfs": {"diff_ids": []}})

    def on(part: str, answer: Answer) -> Callable[[Seen], Answer | None]:
        return lambda seen: answer if part in seen.path else None

    return {
        "wrong bytes": layer_as(liar, lambda data: Answer(200, data[:-1] + b"x")),
        "other content": layer_as(liar, lambda data: Answer(200, gzip.compress(b"x" * 2000))),
        "longer than said": layer_as(liar, lambda data: Answer(200, data + b"more")),
        "shorter than said": layer_as(liar, lambda data: Answer(200, data[:-5])),
        "broken off for ever": layer_as(liar, lambda d: Answer(200, d[:20], length=len(d))),
        "endless layer": layer_as(liar, lambda data: Answer(200, bytes(65536), endless=True)),
        "missing layer": layer_as(liar, lambda data: Answer(404)),
        "layer as web page": layer_as(liar, lambda data: Answer(200, b"<html>")),
        "endless manifest": on("/manifests/", Answer(200, bytes(65536), endless=True)),
        "manifest with another digest": on(
            "/manifests/",
            Liar.document(
                liar.manifest.data, OCI_MANIFEST, **{"Docker-Content-Digest": sha256(b"x")}
            ),
        ),
        "manifest that is an index as well": manifest_with(liar, manifests=[]),
        "manifest of another type": on(
            "/manifests/", Liar.document(liar.manifest.data, "text/html")
        ),
        "manifest with a number of thousands of digits": on(
            "/manifests/",
            Liar.document(b'{"schemaVersion":' + b"2" * 5000 + b"}", OCI_MANIFEST),
        ),
        "manifest that is no JSON": on("/manifests/", Liar.document(b"\xff{", OCI_MANIFEST)),
        "index of indexes": on(
            "/manifests/", Liar.document(b'{"schemaVersion":2,"manifests":{}}', OCI_INDEX)
        ),
        "foreign layer": manifest_with(liar, layers=[{**first, "urls": ["http://127.0.0.2/x"]}]),
        "layer of a foreign type": manifest_with(
            liar,
            layers=[
                {
                    **first,
                    "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                }
            ],
        ),
        "fewer layers than the config": manifest_with(liar, layers=[first]),
        "digest that is a path": manifest_with(
            liar, layers=[{**first, "digest": "../../../../etc/passwd"}]
        ),
        "huge config": manifest_with(
            liar, config={**liar.manifest.config.to_json(), "size": 1 << 40}
        ),
        "other config": on(config, Answer(200, other_config.encode())),
        "redirects in circles": lambda seen: Answer(307, headers={"Location": seen.path}),
        "redirect to a file": lambda seen: Answer(307, headers={"Location": "file:///etc/passwd"}),
        "redirect to nowhere": lambda seen: Answer(307),
        "redirect to half an address": lambda seen: Answer(307, headers={"Location": "http://["}),
        "redirect to a name that is none": lambda seen: Answer(
            307, headers={"Location": f"http://{'a' * 70}\xe9.test/"}
        ),
        "wait that is no number": lambda seen: Answer(429, headers={"Retry-After": "\xb2"}),
        "redirect with a name in it": lambda seen: Answer(
            307, headers={"Location": "http://a:b@127.0.0.2/"}
        ),
        "teapot": lambda seen: Answer(418, b"\x00" * 10),
    }


_ANY = Descriptor("", sha256(b"{}"), 2)
LIES = list(lies(Liar(build_manifest(_ANY, [_ANY]), {_ANY.digest: b"{}"})))


@pytest.mark.parametrize("name", LIES)
def test_the_lie_is_found_and_nothing_is_kept(name: str, liar: Liar, other: Store) -> None:
    liar.lie = lies(liar)[name]
    with pytest.raises(BuildError) as caught:
        pull(liar, other)
    assert isinstance(caught.value, RegistryError | ImageNotFound)
    assert other.find_image(Reference.parse(f"{liar.host}/a/b:v1")) is None
    assert other.names() == []
    assert list((other.root / "tmp").iterdir()) == []


def test_what_a_digest_names_is_that_and_nothing_else(liar: Liar, other: Store) -> None:
    wanted = Reference.parse(f"{liar.host}/a/b").with_digest("sha256:" + "0" * 64)
    with Registry(liar.host, patience=3) as client:
        with pytest.raises(RegistryError, match="lied: the manifest"):
            client.pull(wanted, other)


def test_a_bomb_is_stopped_by_the_limits_of_a_layer(liar: Liar, image: Image, other: Store) -> None:
    tar = bytes(64 << 20)
    blob = gzip.compress(tar)
    digest = sha256(blob)
    assert liar.manifest is not None
    config = json.loads(liar.blobs[liar.manifest.config.digest])
    config["rootfs"]["diff_ids"] = ["sha256:" + hashlib.sha256(tar).hexdigest()]
    data = json.dumps(config).encode()
    layer = replace(liar.manifest.layers[0], digest=digest, size=len(blob))
    described = replace(liar.manifest.config, digest=sha256(data), size=len(data))
    liar.manifest = build_manifest(described, [layer])
    liar.blobs = {digest: blob, described.digest: data}
    with pytest.raises(LayerTooBig):
        pull(liar, other, LayerLimits(size=8 << 20))
    assert nothing_kept(other)


def test_a_foreign_address_is_never_asked(liar: Liar, elsewhere: Liar, other: Store) -> None:
    assert liar.manifest is not None
    first = liar.manifest.layers[0].to_json()
    liar.lie = manifest_with(liar, layers=[{**first, "urls": [f"http://{elsewhere.host}/x"]}])
    with pytest.raises(RegistryError, match="foreign layer"):
        pull(liar, other)
    assert elsewhere.seen == []


def basic_challenge(seen: Seen) -> Answer | None:
    if "authorization" in seen.headers:
        return None
    return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})


def test_a_redirect_to_another_host_is_followed_without_credentials(
    liar: Liar, elsewhere: Liar, image: Image, other: Store
) -> None:
    elsewhere.blobs = liar.blobs

    def lie(seen: Seen) -> Answer | None:
        if "/blobs/" in seen.path and "authorization" in seen.headers:
            return Answer(307, headers={"Location": f"http://{elsewhere.host}{seen.path}"})
        return basic_challenge(seen)

    liar.lie = lie
    assert pull(liar, other).id == image.id
    assert elsewhere.seen
    assert elsewhere.authorizations() == []
    assert len(liar.authorizations()) > 0


def test_an_upload_address_on_another_host_gets_no_credentials(
    liar: Liar, elsewhere: Liar, image: Image, store: Store
) -> None:
    liar.blobs = {}

    def lie(seen: Seen) -> Answer | None:
        if seen.method == "POST" and "authorization" in seen.headers:
            return Answer(202, headers={"Location": f"http://{elsewhere.host}/upload"})
        return basic_challenge(seen)

    liar.lie = lie
    with Registry(liar.host, credentials=SECRET, patience=3) as client:
        client.push_blobs(image, Reference.parse(f"{liar.host}/a/b:v1"), store)
    assert [seen.method for seen in elsewhere.seen] == ["PUT"] * 3
    assert elsewhere.authorizations() == []


def test_a_token_service_on_another_host_gets_no_credentials(
    liar: Liar, elsewhere: Liar, other: Store
) -> None:
    elsewhere.lie = lambda _: Answer(200, b'{"token": "stolen"}')
    challenge = f'Bearer realm="http://{elsewhere.host}/token",service="x"'
    liar.lie = lambda _: Answer(401, headers={"WWW-Authenticate": challenge})
    with pytest.raises(RegistryError):
        pull(liar, other)
    assert len(elsewhere.seen) >= 1
    assert elsewhere.authorizations() == []


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "file:///etc/passwd",
        "ftp://x/",
        "http://u:p@127.0.0.1/",
        "//",
        "gopher://x",
        "http://[",
        f"http://{'a' * 70}\xe9.test/",
    ],
)
def test_a_token_service_at_no_safe_address_is_refused(
    realm: str, liar: Liar, other: Store
) -> None:
    liar.lie = lambda _: Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
    with pytest.raises(RegistryError, match="no safe address"):
        pull(liar, other)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\nb"}', b"x" * 400_000]
)
def test_a_token_service_that_answers_nonsense_is_an_error(
    body: bytes, liar: Liar, other: Store
) -> None:
    def lie(seen: Seen) -> Answer:
        if seen.path.startswith("/token"):
            return Answer(200, body)
        return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token"'})

    liar.lie = lie
    with pytest.raises(RegistryError):
        pull(liar, other)


def test_a_token_for_ever_is_one_for_a_day(liar: Liar, other: Store, image: Image) -> None:
    def lie(seen: Seen) -> Answer | None:
        if seen.path.startswith("/token"):
            return Answer(200, b'{"token": "t", "expires_in": 1' + b"0" * 400 + b"}")
        if "authorization" in seen.headers:
            return None
        return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token"'})

    liar.lie = lie
    assert pull(liar, other).id == image.id


def test_an_upload_at_no_address_is_refused(liar: Liar, image: Image, store: Store) -> None:
    for location in ("http://[", "file:///x", f"http://{'a' * 70}\xe9.test/"):
        liar.lie = lambda seen, to=location: (
            Answer(404) if seen.method == "HEAD"
            else Answer(202, headers={"Location": to}) if seen.method == "POST" else None
        )  # fmt: skip
        with Registry(liar.host, patience=3) as client, pytest.raises(RegistryError):
            client.push(image, Reference.parse(f"{liar.host}/a/new:v1"), store)


def test_a_wrong_password_is_said_to_be_refused_after_two_tries(liar: Liar, other: Store) -> None:
    liar.lie = lambda _: Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with pytest.raises(RegistryError, match="refuses the image") as caught:
        pull(liar, other)
    assert caught.value.code == "registry.denied"
    assert len(liar.seen) == 2


def test_secrets_are_in_no_error_and_no_repr(liar: Liar, other: Store) -> None:
    liar.lie = lambda _: Answer(403)
    with pytest.raises(RegistryError) as caught:
        pull(liar, other)
    assert SECRET.password not in str(caught.value) + repr(SECRET)
