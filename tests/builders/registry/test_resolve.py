"""FROM: the own store first, then mirrors, then the image's own registry; else a way on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builders.errors import ImageNotFound, RegistryError
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Registry
from builders.resolve import Resolver
from runtime.state import StateDirectory
from tests.builders.conftest import Builder
from tests.builders.registry.conftest import free_port
from tests.builders.registry.liar import Liar, running, serving

pytestmark = pytest.mark.root

DEBIAN = Reference.parse("debian:bookworm")


@pytest.fixture
def mirror(image: Image, store: Store) -> Iterator[Liar]:
    with running(serving(image, store)) as liar:
        yield liar


def test_the_own_store_is_asked_first(mirror: Liar, other: Store) -> None:
    known = other.save_image(ImageConfig(architecture="amd64"), [], names=[DEBIAN])
    assert Resolver(other, mirrors={"docker.io": mirror.host})(DEBIAN) == known
    assert mirror.seen == []


def test_a_mirror_serves_the_names_of_its_registry(
    mirror: Liar, image: Image, other: Store
) -> None:
    resolve = Resolver(other, mirrors={"docker.io": mirror.host})
    assert resolve(DEBIAN).id == image.id
    assert mirror.paths()[0] == "GET /v2/library/debian/manifests/bookworm"
    count = len(mirror.seen)
    assert resolve(DEBIAN).id == image.id
    assert len(mirror.seen) == count


def test_without_a_mirror_the_images_own_registry_is_asked(
    mirror: Liar, image: Image, other: Store
) -> None:
    assert Resolver(other)(Reference.parse(f"{mirror.host}/a/b:v1")).id == image.id


def test_a_mirror_that_is_down_or_has_it_not_does_not_hide_the_registry(
    mirror: Liar, image: Image, other: Store
) -> None:
    down = f"127.0.0.1:{free_port()}"
    with running(Liar(None, {})) as empty, Registry(down, patience=0.1) as impatient:
        for number, host in enumerate((down, empty.host)):
            name = Reference.parse(f"{mirror.host}/a/b{number}:v1")
            resolve = Resolver(other, mirrors={mirror.host: host}, registries={down: impatient})
            assert resolve(name).id == image.id


def test_a_known_client_is_used_for_its_host(mirror: Liar, image: Image, other: Store) -> None:
    def token(_: object) -> str:
        return "signed-here"

    with Registry(mirror.host, token=token) as client:
        resolve = Resolver(other, registries={mirror.host: client})
        assert resolve(Reference.parse(f"{mirror.host}/a/b:v1")).id == image.id
    assert set(mirror.authorizations()) == {"Bearer signed-here"}


def test_a_name_nobody_has_is_answered_with_the_nearest_and_what_to_run(other: Store) -> None:
    other.save_image(
        ImageConfig(architecture="amd64"), [], names=[Reference.parse("team/service:v1")]
    )
    with running(Liar(None, {})) as empty:
        resolve = Resolver(other, mirrors={"docker.io": empty.host}, upstream=False)
        with pytest.raises(ImageNotFound, match="neither in the store nor at") as caught:
            resolve(Reference.parse("debian:bookworm-slim"))
        assert caught.value.hint == "Run: ./gantry base debian:bookworm-slim"
        with pytest.raises(ImageNotFound) as caught:
            resolve(Reference.parse("debian:bookwurm-slim"))
        assert "debian:bookworm-slim" in caught.value.hint
        with pytest.raises(ImageNotFound) as caught:
            resolve(Reference.parse("team/servise:v1"))
        assert "Did you mean team/service:v1" in caught.value.hint


def test_a_registry_that_cannot_be_asked_is_named_together_with_the_next_step(
    other: Store,
) -> None:
    down = f"127.0.0.1:{free_port()}"
    with Registry(down, patience=0.1) as impatient:
        resolve = Resolver(
            other, mirrors={"docker.io": down}, registries={down: impatient}, upstream=False
        )
        with pytest.raises(RegistryError, match=f"is not in the store, and registry {down}") as e:
            resolve(Reference.parse("gantry/python:3"))
    assert e.value.hint == "Run: ./gantry base gantry/python:3"


def test_a_machine_without_a_way_out_asks_nobody(other: Store) -> None:
    resolve = Resolver(other, upstream=False)
    with pytest.raises(ImageNotFound, match="not in the store, and no registry is asked"):
        resolve(Reference.parse("127.0.0.1:1/team/service:v1"))


class Elsewhere(Builder):
    """A builder that has no image but what FROM fetches."""

    def resolve(self, ref: Reference) -> Image:
        return Resolver(self.store)(ref)


@pytest.mark.parametrize("form", ["{name}@{digest}", "{name}:v1@{digest}"])
def test_from_a_digest_builds_on_that_image_whatever_its_tag_names_now(
    form: str,
    registry: str,
    client: Registry,
    builder: Builder,
    home: Path,
    tmp_path: Path,
    project: Callable[[Mapping[str, str]], Path],
) -> None:
    name = Reference.parse(f"{registry}/pinned/app:v1")
    digests = {}
    for which in ("old", "new"):
        text = f"FROM busybox\nRUN echo {which} > /which\n"
        image = builder.one(project({"Dockerfile": text}))
        digests[which] = client.push(image, name, builder.store).digest
    folder = home / tmp_path.name
    folder.mkdir(mode=0o711)
    elsewhere = Elsewhere(Store(folder / "store"), StateDirectory(folder / "sandboxes"))
    base = form.format(name=f"{registry}/pinned/app", digest=digests["old"])
    made = elsewhere.one(project({"Dockerfile": f"FROM {base}\nRUN cat /which > /seen\n"}))
    assert (made.layers[-1].tree / "seen").read_text() == "old\n"
    missing = base.replace(digests["old"], f"sha256:{'0' * 64}")
    with pytest.raises(ImageNotFound, match=r"^Dockerfile:1: "):
        elsewhere.one(project({"Dockerfile": f"FROM {missing}\n"}))
