"""Every error page says what to do next, and says it also when the database is away."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, OperationalError
from django.test import Client


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def test_an_address_of_nothing_leads_on(alice: Any, sign_in: Any) -> None:
    answer = sign_in(alice).get("/no/such/page/")
    assert answer.status_code == 404
    assert "Ask one of its owners to add you." in text_of(answer)
    assert '<a class="button primary" href="/">Go to the overview</a>' in text_of(answer)


def test_a_form_without_its_token_says_to_load_the_page_again(alice: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    answer = client.post("/new-project/", {"slug": "x"})
    assert answer.status_code == 403
    assert "Go back, load the page again and send it once more." in text_of(answer)


def test_an_address_of_a_form_leads_back_to_its_project(hello: Any, bob: Any, sign_in: Any) -> None:
    answer = sign_in(bob).get("/projects/hello/hook-secret/")
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert "press its button once more" in text_of(answer)
    assert answer["Content-Length"] == str(len(answer.content))
    assert '<a class="button primary" href="/projects/hello/">Go to the project' in text_of(answer)
    overview = sign_in(bob).get("/logout/")
    assert '<a class="button primary" href="/">Go to the overview' in text_of(overview)


def test_programs_get_no_page_for_a_method_that_is_not_there(bob: Any, sign_in: Any) -> None:
    answer = sign_in(bob).delete("/api/v1/me/")
    assert answer.status_code == 405
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_an_error_keeps_the_theme_that_was_chosen(
    alice: Any, sign_in: Any, monkeypatch: Any
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ciserver.dashboard.views.matrix_for", broken)
    client = sign_in(alice)
    client.cookies["gantry_theme"] = "dark"
    assert 'data-theme="dark"' in client.get("/").content.decode()


def test_what_a_role_does_not_allow_names_who_can_help(hello: Any, bob: Any, sign_in: Any) -> None:
    answer = sign_in(bob).post("/projects/hello/hook-secret/")
    assert answer.status_code == 403
    assert "Go back" in text_of(answer)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OperationalError("database is locked"), 503, "Load the page again in a few seconds."),
        (DatabaseError("no such table"), 500, "whoever runs this Gantry finds the reason"),
        (ZeroDivisionError(), 500, "Nothing you pushed is lost"),
    ],
)
def test_a_broken_view_says_whether_to_wait(
    alice: Any, sign_in: Any, monkeypatch: Any, error: Exception, status: int, words: str
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("ciserver.dashboard.views.matrix_for", broken)
    monkeypatch.setattr("ciserver.dashboard.search_pages.find", broken)
    client = sign_in(alice)
    answer = client.get("/")
    assert answer.status_code == status
    assert words in text_of(answer)
    assert str(error) not in text_of(answer) or not str(error)
    assert answer.headers.get("Retry-After") == ("5" if status == 503 else None)
    problem = client.get("/api/v1/search/")
    assert problem.status_code == status
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert problem.json()["hint"]
