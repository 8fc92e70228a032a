"""Anything is found by a few words, and nothing that one may not see."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ciserver.dashboard.search import find
from ciserver.projects.models import Membership, Role
from tests.ciserver.pages import seeding
from tests.ciserver.pages.test_pages import page
from tests.conftest import api_as


def first(user: Any, text: str) -> tuple[str, str]:
    hit = find(user, text)[0]
    return hit.kind, hit.title


@pytest.mark.parametrize(
    ("asked", "kind", "title"),
    [
        ("hel", "project", "hello"),
        ("hello prod", "environment", "hello prod"),
        ("#4", "pipeline", "hello #4"),
        ("hello 4", "pipeline", "hello #4"),
        ("v3", "release", "hello v3"),
        ("hello V2", "release", "hello v2"),
        ("greet name", "release", "hello v3"),
        (seeding.commit_of("hello5")[:10], "pipeline", "hello #5"),
        (seeding.digest_of("hello5")[:20], "image", f"hello {seeding.digest_of('hello5')[7:19]}"),
        ("local", "host", "local"),
        ("new project", "action", "New project"),
        ("promote prod", "action", "Promote hello v5 to prod"),
        ("secrets hello", "action", "Secrets of hello"),
    ],
)
def test_what_is_typed_is_found_first(
    hello: Any, alice: Any, asked: str, kind: str, title: str
) -> None:
    if title.startswith(("Promote", "Secrets")):
        asked = f"{asked} hello"
    assert first(alice, asked) == (kind, title)


def test_without_words_it_leads_to_projects_and_places(hello: Any, alice: Any) -> None:
    hits = find(alice, "")
    assert hits[0].title == "hello"
    assert "Registry" in {hit.title for hit in hits}


@pytest.mark.parametrize("asked", ["hello", "v3", "#4", "greet", "prod", "local", "promote hello"])
def test_strangers_find_nothing_of_it(hello: Any, charlie: Any, asked: str) -> None:
    assert [hit for hit in find(charlie, asked) if "hello" in f"{hit.title}{hit.url}"] == []


def test_only_actions_that_one_may_take_are_offered(hello: Any, alice: Any, bob: Any) -> None:
    def offered(user: Any, text: str) -> set[str]:
        return {hit.title for hit in find(user, text) if hit.kind == "action"}

    assert "Promote hello v5 to prod" in offered(alice, "hello")
    assert "Secrets of hello" not in offered(bob, "secrets hello")
    assert "Promote hello v5 to prod" not in offered(bob, "promote hello")
    assert "Start a pipeline of hello" in offered(bob, "start hello")
    Membership.objects.filter(user=bob).update(role=Role.VIEWER)
    assert "Start a pipeline of hello" not in offered(bob, "start hello")
    assert "Who did what" not in offered(alice, "who did what")


def test_every_link_among_a_projects_settings_is_found_by_its_words(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    html = sign_in(alice).get("/projects/hello/").content.decode()
    settings = html[html.index('id="settings"') :].partition("</nav>")[0]
    links = re.findall('href="([^"]+)">([^<]+)</a>', settings)
    assert len(links) >= 7
    for url, words in links:
        assert url in {hit.url for hit in find(alice, f"{words} hello")}, words


def test_the_page_works_without_the_palette_and_gives_it_its_options(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    client = sign_in(alice)
    text = page(client, "/search/?q=hello+prod")
    assert '<a class="hit" href="/projects/hello/environments/prod/">' in text
    options = client.get("/search/?q=hello+prod", headers={"X-Palette": "1"})
    assert options.content.decode().count('role="option"') == text.count('class="hit"')
    assert "<html" not in options.content.decode()
    assert "X-Palette" in options.headers["Vary"]
    assert "Nothing that you may see is called “zzz”" in page(client, "/search/?q=zzz")
    assert "&lt;b&gt;" in page(client, "/search/?q=<b>")


def test_the_api_finds_the_same(hello: Any, alice: Any) -> None:
    answer = api_as(alice, "read").get("/api/v1/search/", {"q": "v3"})
    assert answer.status_code == 200
    assert answer.json()[0] == {
        "kind": "release",
        "title": "hello v3",
        "url": "/projects/hello/releases/3/",
        "detail": "Greet by name",
        "digest": seeding.digest_of("hello3"),
        "state": "",
    }
