"""env, new-env, policy, domains and audit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ciserver.cli.conftest import Gantry

pytestmark = pytest.mark.django_db(transaction=True)


def test_variables_are_set_and_taken_away(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("env", "hello", "prod", "--set", "A=1=2", "--set", "EMPTY=")
    assert ran.exit_code == 0, ran.err
    assert "$A" in ran.out
    told = json.loads(logged_in("env", "hello", "prod", "--unset", "EMPTY", "--json").out)
    assert told["variables"] == {"A": "1=2"}
    assert history.environments.get(name="prod").variables == {"A": "1=2"}


def test_what_cannot_be_set_is_refused(logged_in: Gantry, history: Any) -> None:
    assert logged_in("env", "hello", "prod", "--set", "A").exit_code == 2
    ran = logged_in("env", "hello", "prod", "--set", "A B=1")
    assert ran.exit_code == 4
    assert "cannot be a variable" in ran.err
    assert logged_in("env", "hello", "moon").exit_code == 4


def test_settings_are_changed_and_what_is_not_named_stays(logged_in: Gantry, history: Any) -> None:
    words = ["--memory-mib", "300", "--cpus", "0.5", "--pids", "99", "--batch-size", "2",
             "--no-stop-on-failure", "--auto", "--health", "http /healthz", "--health-passes", "3",
             "--health-timeout", "90", "--stable-seconds", "7", "--host", "local"]  # fmt: skip
    ran = logged_in("env", "hello", "prod", *words)
    assert ran.exit_code == 0, ran.err
    shown = [line.split() for line in ran.out.splitlines()]
    for line in ("memory mib 300", "stop on failure false", "health http /healthz", "auto true"):
        assert line.split() in shown
    prod = history.environments.get(name="prod")
    assert (prod.memory_mib, prod.cpus, prod.pids, prod.batch_size) == (300, 0.5, 99, 2)
    assert (prod.auto, prod.stop_on_failure) == (True, False)
    assert (prod.health, prod.health_passes, prod.health_timeout) == ("http /healthz", 3, 90)
    assert prod.stable_seconds == 7
    words = ["--health", "image", "--no-auto", "--json"]
    told = json.loads(logged_in("env", "hello", "prod", *words).out)
    assert (told["health"], told["auto"], told["memory_mib"]) == ("", False, 300)
    assert logged_in("env", "hello", "prod", "--host", "moon").exit_code == 4
    assert "between 16 and" in logged_in("env", "hello", "prod", "--memory-mib", "1").err


def test_a_project_gets_one_more_environment(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("new-env", "hello", "stage", "--auto")
    assert ran.exit_code == 0, ran.err
    assert ran.out.strip().endswith("/projects/hello/environments/stage/")
    made = history.environments.get(name="stage")
    assert (made.position, made.auto) == (3, True)
    assert [host.name for host in made.hosts.all()] == ["local"]
    assert "has an environment 'stage' already" in logged_in("new-env", "hello", "stage").err


def test_another_owner_confirms_what_one_weakened(
    logged_in: Gantry, history: Any, bob: Any
) -> None:
    from ciserver.projects.models import Membership, Role
    from ciserver.releases import environments

    Membership.objects.create(project=history, user=bob, role=Role.OWNER)
    prod = history.environments.get(name="prod")
    environments.change(environment=prod, user=bob, soak_minutes=30)
    environments.change(environment=prod, user=bob, soak_minutes=0)
    shown = [line.split() for line in logged_in("policy", "hello", "prod").out.splitlines()]
    assert ["still", "for", "bob", "soak", "minutes", "30"] in shown
    words = ["--confirm", "--approval-hours", "5", "--json"]
    told = json.loads(logged_in("policy", "hello", "prod", *words).out)
    assert (told["kept_policy"], told["approval_hours"]) == ({}, 5)


def test_domains_come_and_go(logged_in: Gantry, history: Any) -> None:
    assert "has no domains" in logged_in("domains", "hello", "prod").out
    ran = logged_in("domains", "hello", "prod", "--add", "A.example", "--add", "b.example")
    assert ran.exit_code == 0, ran.err
    assert "a.example" in ran.out
    words = ["--remove", "a.example", "--https", "internal", "--json"]
    told = json.loads(logged_in("domains", "hello", "prod", *words).out)
    assert told == {"domains": ["b.example"], "https": "internal", "given_up": []}
    refused = logged_in("domains", "hello", "qa", "--add", "b.example")
    assert refused.exit_code == 4
    assert "is a domain of hello@prod already" in refused.err
    assert logged_in("domains", "hello", "prod", "--https", "yes").exit_code == 4


def test_the_audit_tells_who_did_it(logged_in: Gantry, history: Any) -> None:
    logged_in("env", "hello", "prod", "--set", "A=1")
    ran = logged_in("audit", "hello")
    assert ran.exit_code == 0, ran.err
    assert "environment.change" in ran.out
    assert 'variables=[{}, {"A": "1"}]' in ran.out
    assert json.loads(logged_in("audit", "--json").out)[0]["actor"] == "alice"
    for words, found in (
        (["--actor", "alice", "--action", "environment.change"], 1),
        (["--action", "environment.delete"], 0),
        (["--actor", "bob"], 0),
    ):
        assert len(json.loads(logged_in("audit", *words, "--json").out)) == found


def test_a_project_is_shown_changed_archived_restored_and_deleted(
    logged_in: Gantry, history: Any
) -> None:
    ran = logged_in("project", "hello", "--description", "Greets", "--concurrency", "2", "--json")
    assert ran.exit_code == 0, ran.err
    told = json.loads(ran.out)
    assert (told["description"], told["concurrency"]) == ("Greets", 2)
    assert "Greets" in logged_in("project", "hello").out
    assert logged_in("archive", "hello").exit_code == 0
    refused = logged_in("project", "hello", "--concurrency", "3")
    assert (refused.exit_code, "gantry restore hello" in refused.err) == (4, True)
    assert "open again" in logged_in("restore", "hello").out
    unsure = logged_in("delete", "hello")
    assert (unsure.exit_code, "gantry delete hello --confirm hello" in unsure.err) == (2, True)
    wrong = logged_in("delete", "hello", "--confirm", "helo")
    assert (wrong.exit_code, "needs the name" in wrong.err) == (4, True)
    told = json.loads(logged_in("delete", "hello", "--confirm", "hello", "--json").out)
    assert told["delete_at"]
    assert logged_in("restore", "hello").exit_code == 0


def test_an_environment_is_removed(logged_in: Gantry, history: Any) -> None:
    ran = logged_in("delete", "hello@qa", "--confirm", "hello@qa")
    assert (ran.exit_code, "hello@qa is being removed" in ran.out) == (0, True), ran.err
    assert logged_in("delete", "hello@nowhere", "--confirm", "x").exit_code == 4
