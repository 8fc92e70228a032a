"""Reads that need not be sent again, and changes that depend on what was read."""

from __future__ import annotations

from typing import Any

URL = "/api/v1/projects/hello/"


def _change(api: Any, etag: str, most: int) -> int:
    answer = api.patch(URL, {"concurrency": most}, format="json", headers={"If-Match": etag})
    return int(answer.status_code)


def test_what_did_not_change_is_not_sent_again(api: Any, project: Any) -> None:
    first = api.get(URL)
    etag = first.headers["ETag"]
    assert etag.startswith('"')
    again = api.get(URL, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == etag
    assert _change(api, etag, 3) == 200
    assert api.get(URL, headers={"If-None-Match": etag}).status_code == 200


def test_a_change_of_what_somebody_else_changed_is_refused(api: Any, project: Any) -> None:
    etag = api.get(URL).headers["ETag"]
    assert _change(api, etag, 1) == 200
    assert _change(api, etag, 2) == 412
    project.refresh_from_db()
    assert project.concurrency == 1
    assert _change(api, "*", 2) == 200


def test_what_cannot_be_read_matches_nothing(api: Any, project: Any) -> None:
    headers = {"If-Match": "*"}
    gone = api.delete(f"{URL}secrets/NONE/", headers=headers)
    assert gone.status_code == 412
    assert gone.json()["code"] == "etag-differs"


def test_lists_have_etags_and_unknown_addresses_are_problems(api: Any, project: Any) -> None:
    listed = api.get("/api/v1/projects/")
    etag = listed.headers["ETag"]
    assert api.get("/api/v1/projects/", headers={"If-None-Match": etag}).status_code == 304
    nothing = api.get("/api/v1/nothing/")
    assert nothing.status_code == 404
    assert nothing.headers["Content-Type"] == "application/problem+json"
