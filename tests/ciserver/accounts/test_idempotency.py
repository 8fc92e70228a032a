"""A write that is sent again with its Idempotency-Key is done once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.conftest import api_as
from tests.together import together

URL = "/api/v1/tokens/"


def _make(api: Any, key: str = "k-1", name: str = "one") -> Any:
    return api.post(URL, {"name": name}, format="json", headers={"Idempotency-Key": key})


def test_the_same_request_is_done_once_and_answered_the_same(api: Any) -> None:
    from ciserver.accounts.models import Token

    first, again = _make(api), _make(api)
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert Token.objects.filter(name="one").count() == 1


def test_what_was_answered_is_sealed(api: Any) -> None:
    from ciserver.accounts.models import IdempotentRequest

    token = _make(api).json()["token"]
    row = IdempotentRequest.objects.get()
    assert token not in str(vars(row))


def test_another_request_under_the_same_key_is_refused(api: Any) -> None:
    _make(api)
    answer = _make(api, name="two")
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency-key-reused"


def test_one_that_is_still_being_done_is_told_so_until_its_process_must_have_died(
    api: Any,
) -> None:
    from ciserver.accounts.models import IdempotentRequest

    _make(api)
    rows = IdempotentRequest.objects.all()
    rows.update(status=None)
    assert _make(api).status_code == 409
    rows.update(at=timezone.now() - timedelta(minutes=6))
    assert _make(api).status_code == 201


def test_keys_are_each_callers_own_and_forgotten_after_a_day(api: Any, bob: Any) -> None:
    from ciserver.accounts import idempotency
    from ciserver.accounts.models import IdempotentRequest

    first = _make(api).json()
    assert _make(api_as(bob)).json()["token"] != first["token"]
    IdempotentRequest.objects.update(at=timezone.now() - timedelta(hours=25))
    assert _make(api).json()["token"] != first["token"]
    assert idempotency.forget_old() == 1


def test_what_the_caller_may_not_do_is_looked_at_anew(bob: Any, project: Any) -> None:
    from ciserver.projects.models import Membership, Role

    api, url = api_as(bob), "/api/v1/projects/hello/"
    headers = {"Idempotency-Key": "k"}
    change = {"cancel_superseded": True}
    assert api.patch(url, change, format="json", headers=headers).status_code == 403
    Membership.objects.filter(user=bob).update(role=Role.MAINTAINER)
    assert api.patch(url, change, format="json", headers=headers).status_code == 200


def test_an_unfit_key_is_refused_and_an_unknown_caller_gets_no_answer_of_others(
    api: Any, client: Any
) -> None:
    assert _make(api, key="two words").json()["code"] == "idempotency-key-unfit"
    _make(api)
    assert client.post(URL, headers={"Idempotency-Key": "k-1"}).status_code == 401


@pytest.mark.django_db(transaction=True)
def test_of_eight_that_come_at_once_one_is_done() -> None:
    from ciserver.accounts.models import Token, User

    api = api_as(User.objects.create_user("eve"))
    statuses = together(lambda _: _make(api).status_code, range(8))
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    assert Token.objects.filter(name="one").count() == 1
