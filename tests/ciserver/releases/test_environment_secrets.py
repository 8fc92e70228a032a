"""Secrets of an environment: sealed, for its containers alone, and part of what is approved."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from ciserver.accounts.models import AuditEntry
from ciserver.lib.crypto import SealBroken, Secret
from ciserver.lib.problems import Refused
from ciserver.projects.models import Membership, Role
from ciserver.releases import policy, preview
from ciserver.releases.models import Deployment, EnvironmentSecret
from ciserver.releases.sealed import masked, secrets_of
from ciserver.releases.secrets import set_secret
from ciserver.releases.targets.errors import TargetError
from tests.ciserver.pages import seeding
from tests.conftest import api_as

VALUE = "hunter2-hunter2"


@pytest.fixture
def qa(project: Any) -> Any:
    return seeding.make_environments(project, "qa")[0]


def put(qa: Any, user: Any, name: str = "TOKEN", value: str = VALUE) -> EnvironmentSecret:
    return set_secret(environment=qa, user=user, name=name, value=Secret(value))


def test_it_is_sealed_and_listed_without_its_value(qa: Any, alice: Any) -> None:
    api = api_as(alice)
    url = f"/api/v1/environments/{qa.pk}/secrets/"
    answer = api.put(f"{url}TOKEN/", {"value": VALUE}, format="json")
    assert answer.status_code == 200
    assert [row["name"] for row in api.get(url).json()] == ["TOKEN"]
    row = EnvironmentSecret.objects.get()
    assert "hunter2" not in row.sealed + row.fingerprint + str(list(AuditEntry.objects.values()))
    assert row.value().reveal() == VALUE
    assert "hunter2" not in api.get(f"/api/v1/environments/{qa.pk}/").content.decode()
    assert api.delete(f"{url}TOKEN/").status_code == 204
    assert not EnvironmentSecret.objects.exists()


def test_it_opens_under_no_other_name(qa: Any, alice: Any) -> None:
    row = put(qa, alice)
    stolen = EnvironmentSecret(environment=qa, name="OTHER", sealed=row.sealed)
    with pytest.raises(SealBroken):
        stolen.value()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("A-B", VALUE, "secret.name"),
        ("GANTRY_COMMIT", VALUE, "secret.name"),
        ("PORT", VALUE, "secret.name"),
        ("TOKEN", "abc", "secret.value"),
        ("PLAIN", VALUE, "secret.variable"),
    ],
)
def test_what_no_container_could_be_given_is_refused(
    qa: Any, alice: Any, name: str, value: str, code: str
) -> None:
    qa.variables = {"PLAIN": "x"}
    with pytest.raises(Refused) as caught:
        put(qa, alice, name, value)
    assert caught.value.code == code


def test_only_maintainers_set_it_and_only_members_see_its_name(
    qa: Any, bob: Any, charlie: Any, alice: Any, client: Any
) -> None:
    with pytest.raises(Refused):
        put(qa, bob)
    put(qa, alice)
    url = f"{qa.get_absolute_url()}secrets/"
    client.force_login(bob)
    html = client.get(url).content.decode()
    assert "TOKEN" in html
    assert "A maintainer can set them." in html
    assert client.post(url, {"name": "X", "value": VALUE}).status_code == 403
    assert client.post(f"{url}remove/", {"name": "TOKEN"}).status_code == 403
    client.force_login(charlie)
    assert client.get(url).status_code == 404
    assert api_as(charlie).get(f"/api/v1/environments/{qa.pk}/secrets/").status_code == 404


def test_the_page_sets_and_removes(qa: Any, alice: Any, client: Any) -> None:
    client.force_login(alice)
    url = f"{qa.get_absolute_url()}secrets/"
    assert client.post(url, {"name": "TOKEN", "value": VALUE}).status_code == 302
    html = client.get(url).content.decode()
    assert "TOKEN" in html
    assert VALUE not in html
    assert client.post(url, {"name": "X", "value": "abc"}).status_code == 400
    assert "Secrets</a>: 1" in client.get(qa.get_absolute_url()).content.decode()
    assert client.post(f"{url}remove/", {"name": "TOKEN"}).status_code == 302
    assert not EnvironmentSecret.objects.exists()


def test_a_changed_value_voids_what_was_approved(qa: Any, alice: Any, project: Any) -> None:
    release = seeding.make_release(seeding.make_passed(project, 1), 1)
    bare = policy.fingerprint(release, qa)
    row = put(qa, alice)
    first = policy.fingerprint(release, qa)
    assert put(qa, alice).fingerprint == row.fingerprint
    assert policy.fingerprint(release, qa) == first
    put(qa, alice, value="another-value")
    assert len({bare, first, policy.fingerprint(release, qa)}) == 3
    changes = preview.changes({}, policy.configuration_of(qa))
    assert any(change.name == "secrets" for change in changes)


def test_containers_get_those_that_the_deployment_began_with(qa: Any, alice: Any) -> None:
    put(qa, alice)
    deployment = Deployment(environment=qa, configuration=policy.configuration_of(qa))
    (row,) = secrets_of(deployment, qa)
    assert row.value().reveal() == VALUE
    assert masked(deployment, f"it printed {VALUE}") == "it printed ***"
    put(qa, alice, value="another-value")
    with pytest.raises(TargetError, match="changed meanwhile"):
        secrets_of(deployment, qa)


def test_a_new_key_seals_it_anew_and_changes_nothing_else(qa: Any, alice: Any, ring: Any) -> None:
    row = put(qa, alice)
    call_command("rotate_keys", stdout=StringIO())
    again = EnvironmentSecret.objects.get()
    assert again.sealed != row.sealed
    assert (again.fingerprint, again.updated_at) == (row.fingerprint, row.updated_at)
    assert again.value().reveal() == VALUE


def test_the_role_is_a_maintainers(qa: Any, bob: Any, project: Any) -> None:
    Membership.objects.filter(user=bob, project=project).update(role=Role.MAINTAINER)
    assert put(qa, bob).updated_by == "bob"
