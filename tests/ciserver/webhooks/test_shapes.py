"""Signed bodies of every wrong shape: a 4xx that names the field, never a 5xx."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciserver.lib.models import OutboxEntry
from ciserver.webhooks.models import Delivery
from tests.ciserver.webhooks.conftest import Post, push

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(["ref", "before", "after", "deleted", "repository", "sender", "commits"])
REFS = st.text(max_size=40).map(lambda text: f"refs/heads/{text}")
SHAS = st.text("0123456789abcdefABCDEFg", min_size=38, max_size=42)
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is not JSON."),
        (b"{", "The body is not JSON."),
        (b"\xff\xfe", "The body is not JSON."),
        (b"[]", "The body must be a JSON object."),
        (b"null", "The body must be a JSON object."),
        (b"[" * 100_000, "The body is not JSON."),
        (b'{"ref": ' + b"9" * 5000 + b"}", "The body is not JSON."),
        ({}, "'ref' must be a string."),
        ({"ref": ["x"]}, "'ref' must be a string."),
        ({"ref": "refs/heads/main"}, "'after' must be a string."),
        (push(after="abc"), "'abc' is not a full commit id."),
        (push(after="A" * 40), "is not a full commit id."),
        (push("main"), "'main' is not a ref"),
        (push("refs/heads/\ud800"), "is not a ref"),
        (push("refs/heads/a\0b"), "is not a ref"),
    ],
)
def test_a_wrong_shape_is_a_400_that_says_what_is_wrong(post: Post, body: Any, said: str) -> None:
    answer = post(body)

    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    delivery = Delivery.objects.get()
    assert (delivery.verdict, delivery.detail) == ("failed", answer.json()["detail"])
    assert not OutboxEntry.objects.exists()


def test_what_had_a_wrong_shape_may_come_again_and_right(post: Post) -> None:
    assert post({}, delivery="one").status_code == 400
    assert post({"ref": 1}, delivery="one").status_code == 400
    assert bytes(Delivery.objects.get().body) == b'{"ref": 1}'
    assert post(push(), delivery="one").status_code == 202
    assert Delivery.objects.get().verdict == "accepted"
    assert post({}, delivery="one").status_code == 400
    assert Delivery.objects.get().verdict == "accepted"


@pytest.mark.parametrize("name", ["-x", "a/--upload-pack=x", "x" * 400, "é" * 150])
def test_a_name_that_git_takes_and_we_do_not_turns_no_webhook_off(post: Post, name: str) -> None:
    answer = post(push(f"refs/heads/{name}"))

    assert answer.status_code == 200
    delivery = Delivery.objects.get()
    assert delivery.verdict == "ignored"
    assert "Push the commit under another name." in delivery.detail


@pytest.mark.parametrize(
    "sender", [None, [], "octocat", {"login": None}, {"login": "\ud800\0\n"}, {"login": "x" * 999}]
)
def test_a_strange_sender_does_not_stop_a_push(post: Post, sender: Any) -> None:
    assert post(push(sender=sender)).status_code == 202
    assert len(Delivery.objects.get().sender) <= 150


@QUICK
@given(body=JSON)
def test_no_json_is_answered_by_a_5xx(post: Post, body: Any) -> None:
    assert post(body).status_code in {200, 202, 400}


@QUICK
@given(field=FIELDS, value=JSON)
def test_no_field_of_a_push_can_be_of_a_type_that_breaks_us(
    post: Post, field: str, value: Any
) -> None:
    assert post(push() | {field: value}).status_code in {200, 202, 400}


@QUICK
@given(ref=REFS, sha=SHAS, event=st.sampled_from(["push", "ping", "create"]))
def test_no_ref_or_sha_breaks_us(post: Post, ref: str, sha: str, event: str) -> None:
    assert post(push(ref, sha), event=event).status_code in {200, 202, 400}


@QUICK
@given(body=st.binary(max_size=60), form=st.booleans())
def test_no_bytes_break_us(post: Post, body: bytes, form: bool) -> None:
    kind = "application/x-www-form-urlencoded" if form else "application/json"

    assert post(body, content_type=kind).status_code in {200, 202, 400}


@QUICK
@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=300))
def test_no_header_breaks_us(post: Post, value: str) -> None:
    answer = post(push(), event=value, delivery=value)

    assert answer.status_code in {200, 202, 400}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Django logs each 4xx; hundreds of them would hide what matters."""
    logging.getLogger("django.request").setLevel(logging.ERROR)
    yield
    logging.getLogger("django.request").setLevel(logging.NOTSET)


def test_the_shapes_here_are_sent_as_json() -> None:
    assert json.loads(json.dumps(push()))["ref"] == "refs/heads/main"
