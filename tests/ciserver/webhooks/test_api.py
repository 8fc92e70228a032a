"""Deliveries over the API."""

from __future__ import annotations

from typing import Any

from tests.ciserver.webhooks.conftest import Post, push
from tests.conftest import api_as


def test_the_team_reads_what_came(api: Any, post: Post) -> None:
    post(push())
    post({}, event="ping", delivery="d-2")

    newest, oldest = api.get("/api/v1/deliveries/").json()["results"]

    assert (oldest["project"], oldest["forge"], oldest["verdict"]) == (
        "hello",
        "github",
        "accepted",
    )
    assert (newest["event"], newest["verdict"]) == ("ping", "ignored")
    assert "body" not in newest


def test_deliveries_can_be_looked_for(api: Any, post: Post) -> None:
    post(push())
    post({}, event="ping", delivery="d-2")

    found = api.get("/api/v1/deliveries/", {"verdict": "ignored", "project": "hello"}).json()

    assert [row["event"] for row in found["results"]] == ["ping"]


def test_a_stranger_sees_none(post: Post, charlie: Any) -> None:
    delivery = post(push()).json()["delivery"]
    stranger = api_as(charlie)

    assert stranger.get("/api/v1/deliveries/").json()["results"] == []
    assert stranger.get(f"/api/v1/deliveries/{delivery}/").status_code == 404


def test_deliveries_cannot_be_written(api: Any, post: Post) -> None:
    delivery = post(push()).json()["delivery"]

    assert api.post("/api/v1/deliveries/", {}, format="json").status_code == 405
    assert api.delete(f"/api/v1/deliveries/{delivery}/").status_code == 405
