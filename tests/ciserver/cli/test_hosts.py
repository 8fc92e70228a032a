"""gantry hosts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from ciserver.cli import deliveries, hosts
from ciserver.releases.models import Deployment, Host
from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def administrator(alice: Any) -> None:
    alice.is_superuser = True
    alice.save()


def test_a_host_is_added_shown_and_removed(
    logged_in: Gantry, administrator: None, history: Any
) -> None:
    ran = logged_in("hosts", "add", "edge", "deploy@h.example")
    assert ran.exit_code == 0, ran.err
    assert "ssh-ed25519 " in ran.out
    assert "deploy@h.example" in logged_in("hosts", "list").out
    told = json.loads(logged_in("hosts", "show", "edge", "--json").out)
    assert (told["kind"], told["report"]) == ("ssh", {})
    Host.objects.filter(name="edge").update(problem="It is away.")
    shown = logged_in("hosts", "show", "edge")
    assert (shown.exit_code, "It is away." in shown.out) == (1, True)
    assert logged_in("hosts", "remove", "edge").exit_code == 0
    assert logged_in("hosts", "show", "edge").exit_code == 4


def test_a_check_waits_for_the_worker(
    logged_in: Gantry, administrator: None, history: Any, monkeypatch: Any
) -> None:
    logged_in("hosts", "add", "edge", "h")

    def visited(_: float) -> None:
        Host.objects.filter(name="edge").update(
            asked="", checked_at=timezone.now(), report={"engine": "podman 4", "warnings": ["Hm."]}
        )

    monkeypatch.setattr(hosts.time, "sleep", visited)
    ran = logged_in("hosts", "check", "edge")
    assert ran.exit_code == 0, ran.err
    assert "podman 4" in ran.out
    assert "! Hm." in ran.out
    prints = "SHA256:" + "k" * 43
    assert logged_in("hosts", "accept-key", "edge", prints).exit_code == 0
    assert logged_in("hosts", "accept-key", "edge", "yes").exit_code == 4


def test_who_is_no_administrator_adds_none(logged_in: Gantry, history: Any) -> None:
    assert logged_in("hosts", "add", "edge", "h").exit_code == 3


def test_what_serves_is_moved_to_another_host(
    logged_in: Gantry, administrator: None, history: Any, monkeypatch: Any
) -> None:
    logged_in("hosts", "add", "edge", "h")
    ran = logged_in("move", "hello@qa", "elsewhere")
    assert (ran.exit_code, "no host 'elsewhere'" in ran.err) == (4, True)
    asked = json.loads(logged_in("move", "hello@qa", "edge", "--no-wait", "--json").out)
    assert (asked["kind"], asked["to_host"], asked["release_name"]) == ("move", "edge", "v1")
    ran = logged_in("move", "hello@qa", "edge")
    assert (ran.exit_code, "Ask again when that has ended." in ran.err) == (4, True)
    row = Deployment.objects.filter(pk=asked["id"])

    def ended(state: str, reason: str) -> None:
        Deployment.objects.filter(kind="move").update(state=state, reason=reason)

    row.update(state="cancelled")
    monkeypatch.setattr(deliveries.time, "sleep", lambda _: ended("failed", "edge is away"))
    ran = logged_in("move", "hello@qa", "edge")
    assert ran.exit_code == 1
    assert "is not moved to edge: edge is away" in ran.err
    assert f"{asked['from_host']} still serves it" in ran.err
    monkeypatch.setattr(deliveries.time, "sleep", lambda _: ended("succeeded", ""))
    ran = logged_in("move", "hello@qa", "edge", "--host", asked["from_host"])
    assert ran.exit_code == 0, ran.err
    assert f"edge serves v1 of hello@qa in place of {asked['from_host']}." in ran.out
    assert "deployment.move" in logged_in("audit", "hello").out
