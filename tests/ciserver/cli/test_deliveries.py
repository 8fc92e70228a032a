"""new, promote, rollback and cancel."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """``worker(state, reason)``: while the client waits, its deployment ends like that."""

    def ends(state: str, reason: str = "") -> None:
        from ciserver.releases.models import Deployment

        def instead_of_sleeping(_: float) -> None:
            Deployment.objects.filter(state="queued").update(state=state, reason=reason)

        monkeypatch.setattr("ciserver.cli.deliveries.time.sleep", instead_of_sleeping)

    return ends


def test_promote_waits_until_the_release_runs(
    logged_in: Gantry, history: Any, worker: Callable[..., None]
) -> None:
    worker("succeeded")
    ran = logged_in("promote", "hello", "v1", "prod")
    assert ran.exit_code == 0
    assert f"v1 runs in prod  ({history.releases.get().digest})" in ran.out


def test_a_deployment_that_fails_is_exit_code_1_and_says_what_still_serves(
    logged_in: Gantry, history: Any, worker: Callable[..., None]
) -> None:
    worker("failed", "not healthy within 60 s")
    ran = logged_in("promote", "hello", "v1", "prod")
    assert ran.exit_code == 1
    assert "v1 to prod failed: not healthy within 60 s" in ran.err
    assert "What ran in prod before still serves." in ran.err


def test_without_waiting_the_answer_is_the_queued_deployment(
    logged_in: Gantry, history: Any
) -> None:
    ran = logged_in("promote", "hello", "v1", "prod", "--no-wait", "--json")
    assert ran.exit_code == 0
    assert json.loads(ran.out)["state"] == "queued"


def test_a_refusal_is_exit_code_4_with_the_services_own_words(
    logged_in: Gantry, history: Any
) -> None:
    ran = logged_in("promote", "hello", "v1", "moon")
    assert ran.exit_code == 4
    assert "hello has no environment 'moon'." in ran.err
    assert "It has: qa, prod." in ran.err


def test_a_release_that_is_not_there(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("rollback", "hello", "v9", "qa")
    assert ran.exit_code == 4
    assert "gantry releases hello" in ran.err


def test_a_token_that_may_only_read_is_exit_code_3(
    gantry: Gantry, history: Any, live_server: Any, alice: Any
) -> None:
    from ciserver.accounts.models import Scope, Token

    _, text = Token.make(user=alice, name="reader", scope=Scope.READ)
    gantry("login", live_server.url, "--token", text)
    ran = gantry("promote", "hello", "v1", "prod")
    assert ran.exit_code == 3
    assert "may only read" in ran.err


def test_a_queued_pipeline_can_be_cancelled(logged_in: Gantry, history: Any) -> None:
    from tests.ciserver.pages.seeding import make_pipeline

    waiting = make_pipeline(history, 3, state="queued")
    assert logged_in("cancel", "hello").exit_code == 0
    waiting.refresh_from_db()
    assert waiting.state == "cancelled"


def test_new_makes_a_project_and_its_chain(logged_in: Gantry, alice: Any) -> None:
    alice.is_superuser = True
    alice.save()
    ran = logged_in("new", "shop")
    assert ran.exit_code == 0, ran.err
    environments = json.loads(logged_in("status", "--json").out)
    assert [(row["name"], row["auto"]) for row in environments] == [("qa", True), ("prod", False)]


def test_a_name_that_is_taken_is_exit_code_4(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("new", "hello")
    assert ran.exit_code == 4
    assert "There is a project 'hello' already. Choose another name." in " ".join(ran.err.split())


def test_a_project_with_its_repository_elsewhere_says_what_its_forge_needs(
    logged_in: Gantry, history: Any
) -> None:
    address = "https://github.com/alice/shop.git"
    ran = logged_in("new", "shop", "--from", address, "--json")
    assert (ran.exit_code, json.loads(ran.out)["clone_url"]) == (0, address)
    refused = logged_in("new", "other", "--from", "file:///etc")
    assert refused.exit_code == 4
    slugs = [row["slug"] for row in json.loads(logged_in("projects", "--json").out)]
    assert slugs == ["shop", "hello"]
