"""Secrets: written by maintainers, read by nobody, sealed anew by a rotation."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, IdempotentRequest
from ciserver.lib import crypto
from ciserver.lib.crypto import SealBroken, Secret, seal, unseal
from ciserver.projects import services
from ciserver.projects.models import Membership, ProjectSecret, Role
from tests.conftest import api_as

URL = "/api/v1/projects/hello/secrets/"


def put(api: Any, name: str = "TOKEN", value: str = "hunter2-hunter2") -> Any:
    return api.put(f"{URL}{name}/", {"value": value}, format="json")


def test_a_secret_is_set_and_listed_without_its_value(api: Any, project: Any) -> None:
    answer = put(api)
    assert answer.status_code == 200
    listed = api.get(URL)
    assert [row["name"] for row in listed.json()] == ["TOKEN"]
    assert "hunter2" not in answer.content.decode() + listed.content.decode()
    row = ProjectSecret.objects.get()
    assert "hunter2" not in row.sealed
    assert row.value().reveal() == "hunter2-hunter2"


def test_setting_again_replaces_the_value_to_the_letter(api: Any, project: Any) -> None:
    put(api)
    put(api, value="  two\nlines \n")
    assert ProjectSecret.objects.get().value().reveal() == "  two\nlines \n"


def test_a_removed_secret_is_gone(api: Any, project: Any) -> None:
    put(api)
    assert api.delete(f"{URL}TOKEN/").status_code == 204
    assert api.delete(f"{URL}TOKEN/").status_code == 404
    assert not ProjectSecret.objects.exists()


def test_who_did_what_is_recorded_without_the_value(api: Any, project: Any) -> None:
    put(api)
    put(api)
    api.delete(f"{URL}TOKEN/")
    done = [(entry.action, entry.target) for entry in AuditEntry.objects.order_by("id")]
    assert done == [
        ("project.secret.set", "hello/TOKEN"),
        ("project.secret.replace", "hello/TOKEN"),
        ("project.secret.remove", "hello/TOKEN"),
    ]
    assert "hunter2" not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize("name", ["1X", "A-B", "A B", "A%0A", "a" * 101])
def test_a_name_that_is_no_variable_is_refused(api: Any, project: Any, name: str) -> None:
    answer = put(api, name)
    assert answer.status_code == 400
    assert answer.json()["code"] == "secret.name"


@pytest.mark.parametrize("value", ["abc", "  abc \n", "x" * 70_000, ""])
def test_a_value_that_cannot_be_masked_or_held_is_refused(
    api: Any, project: Any, value: str
) -> None:
    assert put(api, value=value).status_code == 400
    assert not ProjectSecret.objects.exists()


def test_a_developer_sees_names_and_changes_nothing(api: Any, project: Any, bob: Any) -> None:
    put(api)
    bobs = api_as(bob)
    assert len(bobs.get(URL).json()) == 1
    assert put(bobs, value="bobs-own-value").status_code == 403
    assert bobs.delete(f"{URL}TOKEN/").status_code == 403
    assert ProjectSecret.objects.get().value().reveal() == "hunter2-hunter2"


def test_a_stranger_gets_the_same_answer_as_for_nothing(
    api: Any, project: Any, charlie: Any
) -> None:
    put(api)
    charlies = api_as(charlie)
    answers = [charlies.get(URL), put(charlies), charlies.delete(f"{URL}TOKEN/")]
    assert [answer.status_code for answer in answers] == [404, 404, 404]


def test_a_sealed_value_opens_under_no_other_name(api: Any, project: Any) -> None:
    put(api)
    row = ProjectSecret.objects.get()
    row.name = "OTHER"
    with pytest.raises(SealBroken):
        row.value()


def test_a_rotation_seals_everything_with_a_new_key(alice: Any, project: Any, ring: Path) -> None:
    before = ring.read_text()
    project.renew_hook_secret()
    hook = project.hook_secret.reveal()
    services.set_secret(project=project, user=alice, name="TOKEN", value=Secret("hunter2-hunter2"))
    out = StringIO()
    call_command("rotate_keys", stdout=out)
    assert "2 secrets were sealed anew" in out.getvalue()
    newest = ring.read_text().splitlines()[-1].partition(":")[0]
    row = ProjectSecret.objects.get()
    project.refresh_from_db()
    assert row.sealed.startswith(f"{newest}:")
    assert project.hook_secret_sealed.startswith(f"{newest}:")
    assert row.value().reveal() == "hunter2-hunter2"
    assert project.hook_secret.reveal() == hook
    assert ring.read_text().startswith(before)
    assert ring.stat().st_mode & 0o077 == 0


def test_a_kept_answer_is_sealed_anew_beside_the_secrets(alice: Any, ring: Path) -> None:
    row = IdempotentRequest.objects.create(caller="token:1", key="once", at=timezone.now())
    IdempotentRequest.objects.filter(pk=row.pk).update(sealed=seal(Secret("kept"), row.place))
    call_command("rotate_keys", stdout=StringIO())
    newest = ring.read_text().splitlines()[-1].partition(":")[0]
    row.refresh_from_db()
    assert row.sealed.startswith(f"{newest}:")
    assert unseal(row.sealed, row.place).reveal() == "kept"


def test_a_process_that_runs_finds_a_key_that_another_added(
    alice: Any, project: Any, ring: Path
) -> None:
    before = ring.read_text()
    old = dict(crypto._keyring(ring))
    crypto.add_key()
    sealed = crypto.seal(Secret("value"), "place")
    crypto._keyring.cache_clear()
    ring_now = ring.read_text()
    ring.write_text(before)
    assert crypto._keyring(ring) == old  # what a process knew that started before
    ring.write_text(ring_now)
    assert crypto.unseal(sealed, "place").reveal() == "value"


def page(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_page_sets_and_removes_and_never_shows_a_value(alice: Any, project: Any) -> None:
    client = page(alice)
    form = {"name": "TOKEN", "value": "hunter2-hunter2"}
    answer = client.post("/projects/hello/secrets/", form, follow=True)
    text = answer.content.decode()
    assert "TOKEN is set." in text
    assert "hunter2" not in text
    answer = client.post("/projects/hello/secrets/remove/", {"name": "TOKEN"}, follow=True)
    assert "TOKEN is removed." in answer.content.decode()
    assert not ProjectSecret.objects.exists()


def test_the_page_says_why_a_form_is_refused(alice: Any, project: Any) -> None:
    answer = page(alice).post("/projects/hello/secrets/", {"name": "A-B", "value": "long enough"})
    assert answer.status_code == 400
    assert "cannot be a secret" in answer.content.decode()


def test_the_page_is_read_only_for_developers_and_closed_to_strangers(
    alice: Any, project: Any, bob: Any, charlie: Any
) -> None:
    form = {"name": "TOKEN", "value": "hunter2-hunter2"}
    assert "Set a secret" not in page(bob).get("/projects/hello/secrets/").content.decode()
    assert page(bob).post("/projects/hello/secrets/", form).status_code == 403
    assert page(charlie).get("/projects/hello/secrets/").status_code == 404
    assert page(charlie).post("/projects/hello/secrets/", form).status_code == 404
    Membership.objects.filter(user=bob).update(role=Role.MAINTAINER)
    assert page(bob).post("/projects/hello/secrets/", form).status_code == 302


def test_the_webhook_secret_before_the_newest_is_sealed_with_a_new_key_too(
    project: Any, ring: Path
) -> None:
    secrets = [project.renew_hook_secret().reveal() for _ in range(2)]
    call_command("rotate_keys", stdout=StringIO())
    newest = ring.read_text().splitlines()[-1].partition(":")[0]
    project.refresh_from_db()
    assert project.hook_secret_old_sealed.startswith(f"{newest}:")
    assert [secret.reveal() for secret in project.hook_secrets] == secrets[::-1]


def test_a_seal_that_does_not_open_keeps_no_other_secret_under_the_old_key(
    alice: Any, project: Any, ring: Path
) -> None:
    project.renew_hook_secret()
    for name in ("BROKEN", "GARBLED", "GOOD"):
        services.set_secret(project=project, user=alice, name=name, value=Secret("hunter2-hunter2"))
    ProjectSecret.objects.filter(name="BROKEN").update(sealed="1:" + "A" * 80)
    ProjectSecret.objects.filter(name="GARBLED").update(sealed="99:!")
    said = StringIO()
    with pytest.raises(CommandError, match="2 secrets did not open"):
        call_command("rotate_keys", stdout=StringIO(), stderr=said)
    newest = ring.read_text().splitlines()[-1].partition(":")[0]
    project.refresh_from_db()
    assert ProjectSecret.objects.get(name="GOOD").sealed.startswith(f"{newest}:")
    assert project.hook_secret_sealed.startswith(f"{newest}:")
    assert ProjectSecret.objects.get(name="BROKEN").sealed == "1:" + "A" * 80
    assert "BROKEN" in said.getvalue() or "does not open" in said.getvalue()
