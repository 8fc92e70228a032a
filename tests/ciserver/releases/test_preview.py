"""What a move will change, from a real registry: layers, files, and bytes for each host."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any

import pytest
import zstandard
from django.utils import timezone

from ciserver.releases import host_images, layers, preview, retention, services
from ciserver.releases.models import Deployment, DeploymentStep, Host, Release, Running

pytestmark = pytest.mark.django_db


def tar_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            tar.addfile(member)
    return buffer.getvalue()


@pytest.fixture
def releases(hello: Any, passed: Any, registry: Any) -> list[Release]:
    repository = f"{registry.address}/hello"
    made = [registry.push("hello", page="x" * 5000), registry.push("hello", page="y" * 5000)]
    return [services.make_release(passed(one, repository=repository)) for one in made]


def serve(release: Release, name: str, host: Host) -> None:
    """As a deployment leaves it."""
    place = release.project.environments.get(name=name)
    place.hosts.add(host)
    row = Deployment.objects.create(
        release=release, environment=place, kind="promotion", state="succeeded"
    )
    DeploymentStep.objects.create(
        deployment=row, host=host, position=1, name="pull", state="succeeded"
    )
    Running.objects.create(
        environment=place, host=host, release=release, container_id="c", digest=release.digest,
        since=timezone.now(),
    )  # fmt: skip


def test_only_the_changed_layer_is_new_and_its_files_are_named(releases: list[Release]) -> None:
    old, new = releases
    host = Host.objects.create(name="edge")
    serve(old, "prod", host)
    prod = old.project.environments.get(name="prod")
    other = Host.objects.create(name="fresh")
    prod.hosts.add(other)
    told = preview.of(new, prod)
    assert told.current == old
    assert told.layers is not None
    (layer,) = told.layers
    assert (layer.files, layer.count) == (["+ www/index.html", "+ www/id"], 2)
    assert told.travels is not None
    edge, fresh = told.travels
    assert (edge.host, edge.layers, edge.bytes) == (host, 1, layer.layer.size)
    assert (fresh.host, fresh.layers) == (other, 2)
    assert fresh.bytes == sum(one.size for one in preview.facts(new).layers)
    assert told.unknown == ["The commits could not be read from the repository."]


def test_the_first_deployment_is_all_new_and_reads_no_files(releases: list[Release]) -> None:
    prod = releases[0].project.environments.get(name="prod")
    told = preview.of(releases[0], prod)
    assert told.current is None
    assert told.layers is not None
    assert [one.files for one in told.layers] == [None, None]
    assert told.unknown == []


def test_the_way_back_moves_nothing_where_it_was_before(releases: list[Release]) -> None:
    old, new = releases
    host = Host.objects.create(name="edge")
    serve(old, "qa", host)
    Running.objects.all().delete()
    serve(new, "qa", host)
    told = preview.of(old, old.project.environments.get(name="qa"))
    assert told.back
    assert told.travels is not None
    assert [(one.layers, one.bytes) for one in told.travels] == [(0, 0)]


def test_what_a_host_lost_to_make_room_travels_again(
    hello: Any, passed: Any, registry: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(retention, "WAYS_BACK", 1)
    host, qa = Host.objects.create(name="edge"), hello.environments.get(name="qa")
    for number in range(3):
        digest = registry.push("hello", page=str(number))
        made = services.make_release(passed(digest, repository=f"{registry.address}/hello"))
        made.image = preview.facts(made).as_json()
        made.save()
        serve(made, "qa", host)
        Deployment.objects.filter(kind="auto").delete()
        if number < 2:
            Running.objects.all().delete()
    first, second, third = Release.objects.order_by("number")
    assert host_images.spent(host) == [first]
    travels = [preview.of(one, qa).travels for one in (first, second, third)]
    assert [[travel.layers for travel in one or []] for one in travels] == [[1], [0], [0]]


def test_names_say_what_a_layer_adds_and_takes_away() -> None:
    plain = tar_of("app/", "app/main.py", "app/.wh.old.py", "lib/.wh..wh..opq", "./x" + "y" * 900)
    wanted = ["+ app/main.py", "- app/old.py", "- lib/", "+ x" + "y" * 297]
    for blob in (plain, gzip.compress(plain), zstandard.compress(plain)):
        assert list(layers.names(blob)) == wanted


@pytest.mark.parametrize(
    "blob",
    [
        b"no tar at all" * 100,
        gzip.compress(b"\0" * (layers.MOST_INFLATED + 1), 1),
        zstandard.compress(b"\0" * (layers.MOST_INFLATED + 1)),
        gzip.compress(tar_of("a"))[:2] + b"broken",
        b"\x28\xb5\x2f\xfdbroken",
    ],
)
def test_a_layer_that_is_none_is_not_looked_through(blob: bytes) -> None:
    with pytest.raises(layers.BadLayer):
        list(layers.names(blob))


def test_a_layer_of_endless_entries_is_read_to_a_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr(layers, "MOST_ENTRIES", 3)
    assert len(list(layers.names(tar_of(*"abcdefgh")))) == 3
