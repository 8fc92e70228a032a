"""The registry's pages: repositories, images, their layers, and the difference of two."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from ciserver.dashboard import image_reading
from ciserver.dashboard.models import ImageRecord, ImageUse
from ciserver.releases.models import Release
from tests.ciserver.pages import seeding
from tests.ciserver.pages.seeded_images import make_image
from tests.ciserver.pages.test_pages import page
from tests.conftest import api_as


@pytest.fixture
def shop(charlie: Any) -> Any:
    """Charlie's project, whose image shares the base of hello's."""
    shop = seeding.make_project("shop", charlie)
    pipeline = seeding.make_passed(shop, 1)
    make_image(pipeline, colour="green")
    return shop


def digest(hello: Any, number: int) -> str:
    return str(Release.objects.get(project=hello, number=number).digest)


def test_the_registry_lists_the_repositories_that_one_may_see(
    hello: Any, shop: Any, alice: Any, charlie: Any, sign_in: Any
) -> None:
    text = page(sign_in(alice), "/registry/")
    assert '<a href="/projects/hello/images/">hello</a>' in text
    assert "5 images" in text
    assert "shop" not in text
    text = page(sign_in(charlie), "/registry/")
    assert "shop" in text
    assert "hello" not in text


def test_an_empty_registry_says_what_fills_it(alice: Any, sign_in: Any) -> None:
    assert "A pipeline that passes pushes one." in page(sign_in(alice), "/registry/")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("hello", {1, 2, 3, 4, 5}),
        ("v3", {3}),
        ("team", {1, 2, 3, 4, 5}),
        ("org.example.team=greeters", {1, 2, 3, 4, 5}),
        ("org.example.team=others", set()),
        ("colour=green", set()),
        ("green", set()),
        ("hello v2", {2}),
        (seeding.commit_of("hello4")[:9], {4}),
        (seeding.digest_of("hello5")[:20], {5}),
        ("%' OR 1=1", set()),
    ],
)
def test_images_are_found_by_name_tag_digest_and_label(
    hello: Any, shop: Any, alice: Any, asked: str, found: set[int]
) -> None:
    from ciserver.dashboard import images

    rows = images.found(images.uses_for(alice), asked)
    assert {use.pipeline.number for use in rows} == found


def test_a_search_without_result_says_how_to_ask(hello: Any, alice: Any, sign_in: Any) -> None:
    text = page(sign_in(alice), "/registry/?q=nothing-like-it")
    assert "like “nothing-like-it”" in text
    assert "<code>name=value</code>" in text


def test_an_image_shows_its_layers_and_who_uses_it(hello: Any, alice: Any, sign_in: Any) -> None:
    text = page(sign_in(alice), f"/projects/hello/images/{digest(hello, 3)}/")
    assert "docker pull 127.0.0.1:5055/hello@sha256:" in text
    assert '<span class="num">Dockerfile:4</span>' in text  # RUN pip install
    assert '<span class="num">Dockerfile:5</span>' in text  # COPY . .
    assert "mmdebstrap bookworm" in text
    assert '<a href="/projects/hello/images/">hello</a>: 4' in text  # the base is shared
    assert "no other image" in text  # its own COPY is not
    assert "<dt>ExposedPorts</dt>" in text
    assert "BUILD=3" in text
    assert "org.example.team=greeters" in text
    assert '<a href="/projects/hello/environments/prod/">prod</a>' in text
    assert "3.0 MiB wasted (18.8 %)" in text
    assert "Most are made by <code>Dockerfile:4</code>" in text


def test_layers_shared_with_projects_of_others_are_not_told(
    hello: Any, shop: Any, alice: Any, charlie: Any, sign_in: Any
) -> None:
    assert "shop" not in page(sign_in(alice), f"/projects/hello/images/{digest(hello, 3)}/")
    other = ImageUse.objects.get(project=shop).image.digest
    text = page(sign_in(charlie), f"/projects/shop/images/{other}/")
    assert "hello</a>:" not in text
    page(sign_in(alice), f"/projects/hello/images/{other}/", 404)
    page(sign_in(charlie), f"/projects/hello/images/{other}/", 404)


@pytest.mark.parametrize("path", ["pipelines/4/", "releases/4/"])
def test_pipelines_and_releases_show_their_layer_map(
    hello: Any, alice: Any, sign_in: Any, path: str
) -> None:
    text = page(sign_in(alice), f"/projects/hello/{path}")
    assert '<svg class="layer-map"' in text
    assert 'aria-label="Bytes per Dockerfile line"' in text
    assert f"/projects/hello/images/{digest(hello, 4)}/" in text


def test_a_pipeline_that_pushed_nothing_has_no_layer_map(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    assert "layer-map" not in page(sign_in(alice), "/projects/hello/pipelines/6/")


def compare(client: Client, hello: Any, old: int, new: int) -> str:
    query = f"?old={digest(hello, old)}&new={digest(hello, new)}"
    return page(client, f"/projects/hello/images/compare/{query}")


def test_two_images_are_compared(hello: Any, alice: Any, sign_in: Any) -> None:
    text = compare(sign_in(alice), hello, 2, 5)
    assert "2 layers the same" in text
    assert "<code>app/hello.py</code>" in text
    assert "<del>2</del>" in text  # the variable BUILD
    assert "<ins>5</ins>" in text
    assert "2 differ" in text
    assert "Every file is the same" not in text
    assert "They are one image" in compare(sign_in(alice), hello, 2, 2)


def test_images_to_compare_are_chosen_from_a_list(hello: Any, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    text = page(client, "/projects/hello/images/")
    assert text.count('name="old"') == 5
    assert "Compare old and new" in text
    answer = client.get("/projects/hello/images/compare/")
    assert answer.headers["Location"] == "/projects/hello/images/"
    page(client, "/projects/hello/images/compare/?old=x&new=y", 404)


def test_an_image_that_could_not_be_read_says_why(hello: Any, alice: Any, sign_in: Any) -> None:
    ImageRecord.objects.filter(digest=digest(hello, 2)).update(trouble="It is gone.", config={})
    text = page(sign_in(alice), f"/projects/hello/images/{digest(hello, 2)}/")
    assert "It is gone." in text
    assert "Nothing is known of it." in text


def test_names_and_labels_of_images_are_only_text(hello: Any, alice: Any, sign_in: Any) -> None:
    hostile = "<script>alert(1)</script>"
    pipeline = seeding.make_passed(hello, 9)
    image = make_image(pipeline, **{hostile: hostile})
    image.layers.update(instruction=f"RUN {hostile}")
    text = page(sign_in(alice), f"/projects/hello/images/{pipeline.digest}/")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_api_tells_the_same(hello: Any, alice: Any, charlie: Any) -> None:
    api = api_as(alice, "read")
    rows = api.get("/api/v1/images/", {"project": "hello", "q": "v3"}).json()["results"]
    [row] = rows
    assert row["digest"] == digest(hello, 3)
    assert row["tags"] == ["v3", seeding.commit_of("hello3")]
    whole = api.get(f"/api/v1/images/{row['id']}/").json()
    assert whole["labels"]["org.example.team"] == "greeters"
    assert [layer["place"] for layer in whole["layers"]] == ["", "Dockerfile:4", "Dockerfile:5"]
    assert whole["layers"][0]["shared"] == {"hello": 4}
    [old] = api.get("/api/v1/images/", {"q": "v1"}).json()["results"]
    difference = api.get(f"/api/v1/images/{row['id']}/compare/{old['id']}/").json()
    assert difference["count"] == {"+": 0, "-": 0, "~": 2}
    assert difference["variables"] == [{"name": "BUILD", "old": "1", "new": "3"}]
    stranger = api_as(charlie, "read")
    assert stranger.get(f"/api/v1/images/{row['id']}/").status_code == 404
    assert stranger.get("/api/v1/images/").json()["results"] == []


def test_a_config_of_unbearable_length_is_not_shown(hello: Any, alice: Any, sign_in: Any) -> None:
    pipeline = seeding.make_pipeline(hello, 9)
    make_image(pipeline)
    runs = {"Env": ["A=" + "x" * 30_000], "Labels": {str(n): "y" * 600 for n in range(600)}}
    image = image_reading.write(pipeline.digest, {"config": runs}, [])
    assert image.labels.count() == 500
    text = page(sign_in(alice), f"/projects/hello/images/{pipeline.digest}/")
    assert "Env=too long to be shown" in text
    assert "xxxx" not in text


def test_many_images_are_asked_for_as_seldom_as_few(
    hello: Any, alice: Any, sign_in: Any, django_assert_max_num_queries: Any
) -> None:
    client = sign_in(alice)
    for number in range(10, 22):
        make_image(seeding.make_pipeline(hello, number))
    paths = ["/registry/", "/registry/?q=hello", "/projects/hello/images/", "/search/?q=hello"]
    for path in paths:
        with django_assert_max_num_queries(30):
            page(client, path)
    with django_assert_max_num_queries(20):
        page(client, f"/projects/hello/images/{digest(hello, 3)}/")
