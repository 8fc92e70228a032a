"""What the registry keeps and what it may lose, with a real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone

from ciserver.lib import outbox
from ciserver.lib.problems import Refused
from ciserver.lib.registry_lock import naming
from ciserver.pipelines.models import Pipeline
from ciserver.releases import retention, services
from ciserver.releases.models import Deployment, Host, Release, Running

pytestmark = pytest.mark.django_db
ADDRESS = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def few(monkeypatch: Any, settings: Any) -> None:
    monkeypatch.setattr(retention, "NEWEST", 2)
    monkeypatch.setattr(retention, "WAYS_BACK", 2)
    settings.GANTRY = replace(settings.GANTRY, registry=ADDRESS)


@pytest.fixture
def old(passed: Any, hello: Any) -> Callable[..., list[Release]]:
    """Releases from long ago, each of which served qa in its turn."""

    def make(count: int, *digests: str, repository: str = f"{ADDRESS}/hello") -> list[Release]:
        made = []
        for number in range(count):
            digest = digests[number] if digests else ""
            made.append(services.make_release(passed(digest, repository=repository)))
        then = timezone.now() - timedelta(days=100)
        Release.objects.update(created_at=then)
        Deployment.objects.update(state="succeeded")
        return made

    return make


def marked() -> list[str]:
    return [row.name for row in Release.objects.exclude(removed_at=None).order_by("number")]


def test_the_newest_and_the_ways_back_stay(hello: Any, old: Any) -> None:
    old(8)
    retention.mark(hello)
    assert marked() == ["v1", "v2", "v3", "v4", "v5"], "v6 to v8 served qa last"
    assert retention.mark(hello) == []


def test_what_runs_or_is_about_to_stays_however_old(hello: Any, old: Any) -> None:
    releases = old(8)
    prod = hello.environments.get(name="prod")
    Running.objects.create(
        environment=prod, host=Host.objects.create(name="edge"), release=releases[0],
        container_id="c", digest=releases[0].digest, since=timezone.now(),
    )  # fmt: skip
    for number, state in ((1, "waiting"), (2, "queued")):
        Deployment.objects.create(
            release=releases[number], environment=prod, kind="promotion", state=state
        )
    retention.mark(hello)
    assert marked() == ["v4", "v5"]


def test_the_last_ones_before_what_is_deployed_stay(hello: Any, old: Any) -> None:
    """prod is far behind: its own ways back count, not those of qa."""
    releases = old(9)
    prod = hello.environments.get(name="prod")
    for number in (0, 1, 2, 3):
        Deployment.objects.create(
            release=releases[number], environment=prod, kind="promotion", state="succeeded"
        )
    retention.mark(hello)
    assert marked() == ["v1", "v5", "v6"]


def test_young_ones_stay_and_so_do_twins_of_what_stays(hello: Any, old: Any) -> None:
    same = f"sha256:{7:064x}"
    releases = old(7, same, *[f"sha256:{n:064x}" for n in range(10, 15)], same)
    Release.objects.filter(pk=releases[1].pk).update(created_at=timezone.now())
    retention.mark(hello)
    assert marked() == ["v3", "v4"]


def test_another_registry_is_left_alone(hello: Any, old: Any) -> None:
    old(6, repository="registry.example:5000/hello")
    assert retention.mark(hello) == []


def test_there_is_no_way_to_what_was_removed(hello: Any, old: Any, alice: Any) -> None:
    first = old(6)[0]
    qa = hello.environments.get(name="qa")
    retention.mark(hello)
    first.refresh_from_db()
    with pytest.raises(Refused, match="was removed from the registry"):
        services.roll_back(environment=qa, release=first, user=alice)
    with pytest.raises(Refused, match="was removed from the registry"):
        services.promote(release=first, environment=qa, user=alice)


def test_a_registry_that_is_away_is_asked_again(hello: Any, old: Any) -> None:
    old(6)
    assert retention.retire() == 0
    assert marked() == ["v1", "v2", "v3"]
    assert not Release.objects.filter(image_deleted=True).exists()


@pytest.mark.django_db(transaction=True)
def test_the_registry_loses_them_and_keeps_the_others(
    hello: Any, old: Any, guarded_registry: Any, settings: Any
) -> None:
    address = guarded_registry.address
    settings.GANTRY = replace(settings.GANTRY, registry=address)
    digests = [guarded_registry.push("hello", page=str(number)) for number in range(5)]
    old(5, *digests, repository=f"{address}/hello")
    assert retention.retire() == 2
    token = guarded_registry.token("hello")
    answers = [
        httpx.head(
            f"http://{address}/v2/hello/manifests/{digest}",
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.oci.image.manifest.v1+json",
            },
        ).status_code
        for digest in digests
    ]
    assert answers == [404, 404, 200, 200, 200]
    assert Release.objects.filter(image_deleted=True).count() == 2
    assert retention.retire() == 0


def test_every_image_of_a_release_goes_with_it_unless_another_release_has_it(
    hello: Any, old: Any, monkeypatch: Any
) -> None:
    first, second = old(2)
    beside = f"{ADDRESS}/hello/worker"
    for release, digest in ((first, "sha256:aa"), (second, "sha256:bb")):
        images = {
            "web": {"repository": release.repository, "digest": release.digest},
            "worker": {"repository": beside, "digest": digest},
            "shared": {"repository": beside, "digest": "sha256:cc"},
        }
        Release._base_manager.filter(pk=release.pk).update(images=images)
    Release.objects.filter(pk=first.pk).update(removed_at=timezone.now())
    gone: list[tuple[str, str]] = []
    monkeypatch.setattr(retention, "delete_manifest", lambda *image: gone.append(image))
    assert retention._delete_marked() == 2
    assert gone == [(first.repository, first.digest), (beside, "sha256:aa")]
    first.refresh_from_db()
    assert first.image_deleted


def test_what_was_pushed_again_and_is_not_released_yet_stays(
    hello: Any, old: Any, passed: Any, monkeypatch: Any
) -> None:
    releases = old(6)
    retention.mark(hello)
    first, second, third = releases[:3]
    beside = {"worker": {"repository": second.repository, "digest": second.digest}}
    for again in (
        passed(first.digest, repository=first.repository),
        passed(repository=first.repository),
    ):
        Pipeline.objects.filter(pk=again.pk).update(images=beside)
        outbox.promise(retention.PASSED, again.pk)
    gone: list[tuple[str, str]] = []
    monkeypatch.setattr(retention, "delete_manifest", lambda *image: gone.append(image))
    assert retention._delete_marked() == 1
    assert gone == [(third.repository, third.digest)]


def test_nothing_is_deleted_while_a_manifest_is_pushed_and_no_row_says_so(
    hello: Any, old: Any, monkeypatch: Any, settings: Any
) -> None:
    old(6)
    retention.mark(hello)
    gone: list[tuple[str, str]] = []
    monkeypatch.setattr(retention, "delete_manifest", lambda *image: gone.append(image))
    monkeypatch.setattr(retention, "PATIENCE", 0)
    with naming(settings.GANTRY.run):
        assert retention._delete_marked() == 0
    assert gone == []
    assert retention._delete_marked() == 3
