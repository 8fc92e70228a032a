"""All pipelines, releases and deployments, in pages and chosen by what they are."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from ciserver.lib import cursors
from ciserver.pipelines.models import Event, Pipeline, State
from tests.ciserver.pages import seeding
from tests.ciserver.pages.test_pages import page

ALL = "/projects/hello/pipelines/"


def numbers(client: Client, url: str) -> list[int]:
    return [int(number) for number in re.findall(r'id="pipeline-(\d+)"', page(client, url))]


def beside(client: Client, url: str, word: str) -> str:
    """The address behind the link of this word; empty when there is none."""
    found = re.search(rf'href="(\?[^"]*)">{word}</a>', page(client, url))
    return url.partition("?")[0] + found[1].replace("&amp;", "&") if found else ""


@pytest.fixture
def client(hello: Any, alice: Any, sign_in: Any, monkeypatch: Any) -> Client:
    """Signed in, before pages of two rows: ``hello`` has six pipelines."""
    monkeypatch.setattr(cursors, "SIZE", 2)
    return sign_in(alice)  # type: ignore[no-any-return]


def test_one_walks_to_the_oldest_pipeline_and_back(client: Client) -> None:
    assert numbers(client, ALL) == [6, 5]
    assert beside(client, ALL, "Newer") == ""
    second = beside(client, ALL, "Older")
    third = beside(client, second, "Older")
    assert (numbers(client, second), numbers(client, third)) == ([4, 3], [2, 1])
    assert beside(client, third, "Older") == ""
    back = beside(client, third, "Newer")
    assert numbers(client, back) == [4, 3]
    assert numbers(client, beside(client, back, "Newer")) == [6, 5]


def test_what_begins_meanwhile_moves_no_page(client: Client, hello: Any) -> None:
    second = beside(client, ALL, "Older")
    seeding.make_pipeline(hello, 7)
    assert numbers(client, second) == [4, 3]
    assert numbers(client, beside(client, second, "Newer")) == [6, 5]


@pytest.mark.parametrize("query", ["before=x", "after=6", "before=%C2%B2", f"before={'9' * 30}"])
def test_a_place_that_is_none_is_the_first_page(client: Client, query: str) -> None:
    assert numbers(client, f"{ALL}?{query}") == [6, 5]


def test_pipelines_are_chosen_by_branch_state_and_event(client: Client, hello: Any) -> None:
    def made(number: int, **fields: Any) -> Pipeline:
        return seeding.make_pipeline(hello, number, **fields)

    made(7, ref="refs/heads/topic/one", state=State.FAILED)
    made(8, ref="refs/tags/v1.0", event=Event.TAG)
    made(9, ref="refs/heads/topic/one", event=Event.MANUAL)
    assert numbers(client, f"{ALL}?branch=topic/one") == [9, 7]
    assert numbers(client, f"{ALL}?branch=refs/heads/topic/one&state=failed") == [7]
    assert numbers(client, f"{ALL}?branch=v1.0") == numbers(client, f"{ALL}?event=tag") == [8]
    assert numbers(client, f"{ALL}?event=manual&state=passed") == [9]
    assert numbers(client, f"{ALL}?state=nonsense") == [9, 8]
    older = beside(client, f"{ALL}?branch=main&state=passed", "Older")
    assert "branch=main" in older
    assert numbers(client, older) == [3, 2]
    nothing = page(client, f"{ALL}?branch=nowhere")
    assert "No pipeline fits." in nothing
    assert 'value="nowhere"' in nothing


def test_all_releases_and_all_deployments_come_in_pages_too(client: Client) -> None:
    for url, row in (
        ("/projects/hello/releases/", 'id="release-'),
        ("/projects/hello/environments/qa/deployments/", 'id="deployment-'),
    ):
        counts = []
        at = url
        while at:
            counts.append(page(client, at).count(row))
            at = beside(client, at, "Older")
        assert counts == [2, 2, 1]


def test_the_pages_that_show_the_newest_lead_to_all(client: Client) -> None:
    text = page(client, "/projects/hello/")
    assert f'href="{ALL}"' in text
    assert 'href="/projects/hello/releases/"' in text
    place = page(client, "/projects/hello/environments/qa/")
    assert 'href="/projects/hello/environments/qa/deployments/"' in place


def test_empty_lists_say_what_fills_them(alice: Any, sign_in: Any) -> None:
    seeding.make_environments(seeding.make_project("fresh", alice), "qa")
    client = sign_in(alice)
    assert "the first push begins one" in page(client, "/projects/fresh/pipelines/")
    assert "A release appears when" in page(client, "/projects/fresh/releases/")
    deployments = page(client, "/projects/fresh/environments/qa/deployments/")
    assert "Nothing was put here yet." in deployments
