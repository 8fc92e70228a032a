"""The file of registries: docker's config.json and more; passwords go where they belong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.cli import main
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Credentials, Registry
from builders.registry.known import BadRegistriesFile, KnownRegistries
from builders.resolve import Resolver
from tests.builders.registry.conftest import free_port
from tests.builders.registry.liar import Answer, Liar, Seen, running, serving

SECRET = "s3cret-word"
AUTH = base64.b64encode(f"alice:{SECRET}".encode()).decode()
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(document: object, mode: int = 0o600) -> Path:
        path = tmp_path / "registries.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        path.chmod(mode)
        return path

    return write


def test_what_docker_login_wrote_will_do(write: Write) -> None:
    document = {"auths": {"https://index.docker.io/v1/": {"auth": AUTH}, "ghcr.io": {"auth": AUTH}}}
    known = KnownRegistries.load(write(document))
    assert known.credentials == dict.fromkeys(
        ("docker.io", "ghcr.io"), Credentials("alice", SECRET)
    )
    assert SECRET not in repr(known)


def test_mirrors_are_a_list_or_one(write: Write) -> None:
    document = {"mirrors": {"docker.io": ["a.example", "b:5000"], "quay.io": "http://c:5000/"}}
    known = KnownRegistries.load(write({**document, "plain_http": ["b:5000"]}))
    assert known.mirrors == {"docker.io": ("a.example", "b:5000"), "quay.io": ("c:5000",)}
    assert (known.speaks_plain("b:5000"), known.speaks_plain("a.example")) == (True, None)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "JSON"),
        ([], "JSON object"),
        ({"auths": []}, "auths"),
        ({"auths": {"ghcr.io": {"auth": SECRET}}}, "the auth of ghcr.io is no base64"),
        ({"auths": {"ghcr.io": {"username": "u"}}}, "ghcr.io has no user name or no password"),
        ({"mirrors": {"docker.io": [3]}}, "mirrors of docker.io are not host names"),
        ({"credsStore": "pass"}, "to a helper"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_and_not_quoted(
    write: Write, document: object, why: str
) -> None:
    with pytest.raises(BadRegistriesFile, match=why) as caught:
        KnownRegistries.load(write(document))
    assert SECRET not in str(caught.value)


def test_passwords_that_others_can_read_are_refused(write: Write) -> None:
    path = write({"auths": {"ghcr.io": {"auth": AUTH}}}, mode=0o640)
    with pytest.raises(BadRegistriesFile, match="can be read by other users") as caught:
        KnownRegistries.load(path)
    assert caught.value.hint == f"chmod 600 {path}"
    assert KnownRegistries.load(write({"mirrors": {}}, mode=0o644)).credentials == {}


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRegistriesFile, match="No such file"):
        KnownRegistries.load(tmp_path / "none")


@pytest.mark.root
def test_each_registry_gets_its_own_password_and_mirrors_are_passed_over(
    image: Image, store: Store, other: Store
) -> None:
    def wants_password(seen: Seen) -> Answer | None:
        known = "authorization" in seen.headers
        return None if known else Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    down = f"127.0.0.1:{free_port()}"
    with (
        running(serving(image, store)) as holder,
        running(Liar(None, {})) as empty,
        Registry(down, patience=0.1) as impatient,
    ):
        holder.lie = empty.lie = wants_password
        known = KnownRegistries(
            {holder.host: Credentials("alice", SECRET), empty.host: Credentials("bob", "other")},
            {"docker.io": (down, empty.host, holder.host)},
        )
        resolve = Resolver(other, known=known, registries={down: impatient}, upstream=False)
        assert resolve(Reference.parse("debian:bookworm")).id == image.id
        assert set(holder.authorizations()) == {f"Basic {AUTH}"}
        assert not set(empty.authorizations()) & set(holder.authorizations())


@pytest.mark.root
def test_the_command_line_takes_the_file(
    image: Image, store: Store, tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(serving(image, store)) as mirror:
        path = write({"mirrors": {"docker.io": [mirror.host]}})
        context = tmp_path / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM debian:bookworm\nLABEL a=b\n")
        words = ["build", "-q", "--registries", str(path), str(context)]
        assert main(["--store", str(tmp_path / "third"), *words]) == 0
    assert capsys.readouterr().out.startswith("sha256:")
