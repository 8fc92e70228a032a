"""Token authentication against a real registry that trusts our certificate."""

from __future__ import annotations

import datetime
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from builders.errors import RegistryError
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Credentials, Registry, Scope
from builders.registry.auth import Challenge
from tests.builders.registry.conftest import RegistryProcess
from tests.builders.registry.liar import Answer, Liar, Seen, running
from tests.together import together

pytestmark = pytest.mark.root

SERVICE = "test-registry"


@dataclass
class Issuer:
    """Signs tokens that the registry believes."""

    key: ec.EllipticCurvePrivateKey
    certificate: bytes

    def token(self, scopes: Sequence[Scope]) -> str:
        now = int(time.time())
        access = [
            {"type": "repository", "name": s.repository, "actions": list(s.actions)} for s in scopes
        ]
        claims = {"iss": "test", "sub": "alice", "aud": SERVICE, "nbf": now - 5, "exp": now + 60,
                  "access": access}  # fmt: skip
        chain = [b64encode(self.certificate).decode()]
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"x5c": chain})


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return Issuer(key, certificate.public_bytes(serialization.Encoding.DER))


@pytest.fixture(scope="module")
def service(issuer: Issuer) -> Iterator[Liar]:
    """A token service that knows alice, and says so by basic authentication."""

    def answer(seen: Seen) -> Answer:
        given = b64decode(seen.headers.get("authorization", "Basic ")[6:]).decode()
        if given != "alice:s3cret":
            return Answer(401)
        scopes = parse_qs(urlsplit(seen.path).query).get("scope", [])
        parts = [scope.split(":") for scope in scopes]
        token = issuer.token([Scope(part[1], tuple(part[2].split(","))) for part in parts])
        return Answer(200, json.dumps({"token": token, "expires_in": 60}).encode())

    with running(Liar(None, {})) as liar:
        liar.lie = answer
        yield liar


@pytest.fixture(scope="module")
def guarded(
    issuer: Issuer, service: Liar, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("guarded")
    certificate = x509.load_der_x509_certificate(issuer.certificate)
    bundle = folder / "bundle.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    process = RegistryProcess(
        folder,
        auth=f"auth: {{token: {{realm: 'http://{service.host}/token?account=x', "
        f"service: {SERVICE}, issuer: test, rootcertbundle: {bundle}}}}}\n",
    )
    yield process.host
    process.close()


def test_tokens_signed_here_need_no_token_service(
    guarded: str, issuer: Issuer, service: Liar, image: Image, store: Store, other: Store
) -> None:
    service.seen.clear()
    name = Reference.parse(f"{guarded}/signed/app:v1")
    with Registry(guarded, token=issuer.token, patience=5) as client:
        client.push(image, name, store)
        assert client.pull(name, other).id == image.id
    assert service.seen == []


def test_a_mount_asks_for_pull_on_the_source_too(
    guarded: str, issuer: Issuer, image: Image, store: Store
) -> None:
    with Registry(guarded, token=issuer.token, patience=5) as client:
        client.push(image, Reference.parse(f"{guarded}/mount/one:v1"), store)
        result = client.push(image, Reference.parse(f"{guarded}/mount/two:v1"), store)
    assert result.bytes_sent == 0


def test_credentials_are_changed_into_tokens_which_are_used_again(
    guarded: str, service: Liar, image: Image, store: Store, other: Store
) -> None:
    service.seen.clear()
    name = Reference.parse(f"{guarded}/challenged/app:v1")
    with Registry(guarded, credentials=Credentials("alice", "s3cret"), patience=5) as client:
        client.push(image, name, store)
        assert client.pull(name, other).id == image.id
    queries = [parse_qs(urlsplit(seen.path).query) for seen in service.seen]
    assert sorted(query["scope"] for query in queries) == [
        ["repository:challenged/app:pull"],
        ["repository:challenged/app:pull,push"],
    ]
    assert all(query["service"] == [SERVICE] and query["account"] == ["x"] for query in queries)


def test_a_wrong_password_is_named_as_the_cause(guarded: str, image: Image, store: Store) -> None:
    name = Reference.parse(f"{guarded}/wrong/app:v1")
    with Registry(guarded, credentials=Credentials("alice", "guess"), patience=5) as client:
        with pytest.raises(RegistryError, match="refused with 401") as caught:
            client.push(image, name, store)
    assert "password" in caught.value.hint
    assert "guess" not in str(caught.value)


def test_a_token_for_another_repository_opens_nothing(
    guarded: str, issuer: Issuer, image: Image, store: Store
) -> None:
    def elsewhere(_: Sequence[Scope]) -> str:
        return issuer.token([Scope("else/where", ("pull", "push"))])

    with Registry(guarded, token=elsewhere, patience=5) as client:
        with pytest.raises(RegistryError, match="refuses") as caught:
            client.push(image, Reference.parse(f"{guarded}/not/mine:v1"), store)
    assert caught.value.code == "registry.denied"


def test_an_expired_token_is_replaced(
    guarded: str, issuer: Issuer, image: Image, store: Store
) -> None:
    handed: list[str] = []

    def provider(scopes: Sequence[Scope]) -> str:
        handed.append("x")
        return "stale" if len(handed) == 1 else issuer.token(scopes)

    with Registry(guarded, token=provider, patience=5) as client:
        client.push_blob(image.layers[0], Reference.parse(f"{guarded}/fresh/app:v1"), store)
    assert len(handed) == 2


def test_threads_that_are_challenged_at_once_all_get_through(
    guarded: str, image: Image, store: Store, tmp_path: Path
) -> None:
    with Registry(guarded, credentials=Credentials("alice", "s3cret"), patience=5) as client:

        def push(number: int) -> None:
            client.push(image, Reference.parse(f"{guarded}/crowd/app{number}:v1"), store)

        together(push, range(5))


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        ('Bearer realm="https://a/t",service="s"', Challenge("bearer", "https://a/t", "s")),
        ("BASIC realm=x", Challenge("basic", "x", "")),
        ('Bearer realm="a,b", error="x y" , service=z', Challenge("bearer", "a,b", "z")),
        ("", Challenge("")),
        ("Negotiate", Challenge("negotiate")),
    ],
)
def test_challenges_are_read_whatever_their_spelling(header: str, challenge: Challenge) -> None:
    assert Challenge.parse(header) == challenge
