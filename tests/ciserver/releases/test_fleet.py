"""Adding, accepting keys of and removing hosts, by service and API."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command

from ciserver.accounts.models import AuditEntry
from ciserver.lib.models import OutboxEntry
from ciserver.lib.problems import Refused
from ciserver.releases import fleet, services, visits
from ciserver.releases.hosts import place_of
from ciserver.releases.models import Deployment, DeploymentStep, Host
from ciserver.releases.targets.errors import HostAway, HostKeyChanged, KeyRefused
from ciserver.releases.targets.masters import Address, algorithms, diagnosis
from tests.conftest import api_as

pytestmark = pytest.mark.django_db
PRINT = "SHA256:" + "k" * 43


@pytest.fixture
def edge(admin_user: Any) -> Host:
    return fleet.add(user=admin_user, name="edge", address="deploy@127.0.0.1:9")


def test_a_host_gets_a_key_pair_whose_private_half_is_sealed_for_it(edge: Host) -> None:
    assert edge.public_key.startswith("ssh-ed25519 ")
    assert edge.public_key.endswith(" gantry-edge")
    assert "PRIVATE" not in edge.sealed
    assert place_of(edge).private_key().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert AuditEntry.objects.filter(action="host.add", target="edge").exists()


def test_its_key_is_sealed_anew_when_keys_are_rotated(edge: Host) -> None:
    before = edge.value().reveal()
    call_command("rotate_keys", verbosity=0)
    after = Host.objects.get(pk=edge.pk)
    assert after.sealed != edge.sealed
    assert after.value().reveal() == before


@pytest.mark.parametrize(
    ("name", "address", "fingerprint", "wrong"),
    [
        ("local", "root@a", "", "cannot be a host's name"),
        ("A b", "root@a", "", "cannot be a host's name"),
        ("x", "-oProxyCommand=touch", "", "is not .USER@.HOST"),
        ("x", "a b", "", "is not .USER@.HOST"),
        ("x", "root@a:99999", "", "is no port"),
        ("x", "root@a", "SHA256:short", "is not a key's fingerprint"),
        ("edge", "root@a", "", "There is a host 'edge' already"),
    ],
)
def test_what_cannot_be_a_host_is_refused(
    edge: Host, admin_user: Any, name: str, address: str, fingerprint: str, wrong: str
) -> None:
    with pytest.raises(Refused, match=wrong):
        fleet.add(user=admin_user, name=name, address=address, fingerprint=fingerprint)
    assert Host.objects.count() == 1


def test_only_an_administrator_adds_prepares_accepts_and_removes(edge: Host, alice: Any) -> None:
    for act in (
        lambda: fleet.add(user=alice, name="other", address="root@a"),
        lambda: fleet.ask(user=alice, host=edge, verb="prepare"),
        lambda: fleet.accept_key(user=alice, host=edge, fingerprint=PRINT),
        lambda: fleet.remove(user=alice, host=edge),
    ):
        with pytest.raises(Refused) as refusal:
            act()
        assert refusal.value.status == 403


def test_a_host_that_is_used_is_not_removed(edge: Host, hello: Any, admin_user: Any) -> None:
    prod = hello.environments.get(name="prod")
    prod.hosts.add(edge)
    with pytest.raises(Refused, match="edge is used by hello@prod"):
        fleet.remove(user=admin_user, host=edge)
    prod.hosts.clear()
    fleet.remove(user=admin_user, host=edge)
    assert not Host.objects.exists()


def test_a_check_of_a_host_that_is_away_says_so_and_ends(edge: Host, admin_user: Any) -> None:
    fleet.ask(user=admin_user, host=edge, verb="check")
    assert OutboxEntry.objects.get(topic=fleet.TOPIC).object_id == edge.pk
    visits.visit(edge.pk)
    edge.refresh_from_db()
    assert "edge cannot be reached: " in edge.problem
    assert "Connection refused" in edge.problem
    assert (edge.asked, edge.checked_at is None, edge.host_key) == ("", False, "")
    assert not OutboxEntry.objects.filter(topic=fleet.TOPIC).exists()


@pytest.mark.parametrize("meanwhile", ["prepare", "check"])
def test_what_is_asked_for_during_a_visit_is_done_after_it(
    edge: Host, admin_user: Any, monkeypatch: Any, meanwhile: str
) -> None:
    done: list[str] = []

    def look(host: Host, **_: Any) -> None:
        done.append("check")
        if done == ["check"]:
            assert Host.objects.get(pk=edge.pk).asked == "checking"
            fleet.ask(user=admin_user, host=edge, verb=meanwhile)
            visits.visit(edge.pk)  # whom the sweeper wakes meanwhile leaves it to the first

    monkeypatch.setattr(visits, "check", look)
    monkeypatch.setattr(visits, "_prepare", lambda host: done.append("prepare") or "")
    fleet.ask(user=admin_user, host=edge, verb="check")
    visits.visit(edge.pk)
    assert done == ["check", *(["prepare"] if meanwhile == "prepare" else []), "check"]
    assert Host.objects.get(pk=edge.pk).asked == ""
    assert not OutboxEntry.objects.filter(topic=fleet.TOPIC).exists()


def test_a_check_does_not_take_the_place_of_a_prepare_that_waits(
    edge: Host, admin_user: Any
) -> None:
    assert fleet.ask(user=admin_user, host=edge, verb="prepare").asked == "prepare"
    assert fleet.ask(user=admin_user, host=edge, verb="check").asked == "prepare"


def test_a_killed_worker_prepares_again(edge: Host, admin_user: Any, monkeypatch: Any) -> None:
    fleet.ask(user=admin_user, host=edge, verb="prepare")
    monkeypatch.setattr(visits, "check", lambda host, **_: None)
    tries: list[str] = []

    def prepare(host: Host) -> str:
        tries.append(host.asked)
        if len(tries) == 1:
            raise SystemExit
        return ""

    monkeypatch.setattr(visits, "_prepare", prepare)
    with pytest.raises(SystemExit):
        visits.visit(edge.pk)
    assert OutboxEntry.objects.filter(topic=fleet.TOPIC).exists(), "so that it is found again"
    visits.visit(edge.pk)
    assert tries == ["preparing", "preparing"]


def test_a_host_that_is_being_deployed_to_is_not_removed(
    edge: Host, hello: Any, passed: Any, admin_user: Any
) -> None:
    services.make_release(passed())
    deployment = Deployment.objects.get()
    DeploymentStep.objects.create(deployment=deployment, host=edge, name="pull", position=1)
    with pytest.raises(Refused) as refusal:
        fleet.remove(user=admin_user, host=edge)
    assert str(refusal.value) == (
        "A deployment to edge is under way. Wait until it ends, then remove the host."
    )


def test_the_api_does_it_all_for_an_administrator(hello: Any, admin_user: Any, bob: Any) -> None:
    api = api_as(admin_user)
    made = api.post("/api/v1/hosts/", {"name": "edge", "address": "root@h"}, format="json")
    assert made.status_code == 201
    row = made.json()
    assert (row["kind"], row["host_key"], row["problem"]) == ("ssh", "", "")
    assert "sealed" not in row
    where = f"/api/v1/hosts/{row['id']}/"
    assert api.post(f"{where}check/").status_code == 202
    assert api.get("/api/v1/hosts/?name=edge").json()["results"][0]["asked"] == "check"
    accepted = api.post(f"{where}accept-key/", {"fingerprint": PRINT}, format="json")
    assert accepted.status_code == 202
    assert Host.objects.get().accepted_key == PRINT
    stranger = api_as(bob)
    assert stranger.get(where).status_code == 404
    assert stranger.post("/api/v1/hosts/", {"name": "x", "address": "y"}, "json").status_code == 403
    assert api.delete(where).status_code == 204


def test_what_ssh_says_is_told_to_who_must_act(edge: Host) -> None:
    place = place_of(edge)
    changed = diagnosis(
        place,
        "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nThe fingerprint for the ED25519 key"
        f" sent by the remote host is\n{PRINT}.\nHost key verification failed.",
    )
    assert isinstance(changed, HostKeyChanged)
    assert f"gantry hosts accept-key edge {PRINT}" in str(changed)
    refused = diagnosis(place, "deploy@h: Permission denied (publickey).")
    assert isinstance(refused, KeyRefused)
    assert f"~deploy/.ssh/authorized_keys: {edge.public_key}" in str(refused)
    away = diagnosis(place, "ssh: connect to host h port 22: No route to host")
    assert isinstance(away, HostAway)
    assert "No route to host" in str(away)


def test_addresses_and_pinned_kinds_of_keys() -> None:
    assert Address.parse("h") == Address("root", "h", 22)
    assert Address.parse("a-b@h.example:2222") == Address("a-b", "h.example", 2222)
    assert Address.parse("a@[fe80::1]:22") == Address("a", "fe80::1", 22)
    assert algorithms("ssh-ed25519 AAAA") == "ssh-ed25519"
    assert algorithms("ssh-rsa AAAA") == "rsa-sha2-512,rsa-sha2-256"
