"""Who may read what of the audit log, and that it is looked through."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command

from ciserver.accounts.models import AuditEntry
from ciserver.accounts.services import check_audit
from ciserver.projects import services
from tests.ciserver.pages.test_pages import page
from tests.conftest import api_as


@pytest.fixture
def entries(hello: Any) -> None:
    for target in ("hello", "hello@prod", "hello v3", "hello/TOKEN", "hello-world", "other@prod"):
        AuditEntry.record(actor="alice", action="test", target=target, note="<b>")
    AuditEntry.record(actor="bob", action="token.make", target="hello there (gantry_1234…)")


def test_a_maintainer_reads_what_was_done_in_the_project_and_no_more(
    entries: None, alice: Any, bob: Any, charlie: Any, sign_in: Any
) -> None:
    text = page(sign_in(alice), "/projects/hello/audit/")
    for target in ("hello@prod", "hello v3", "hello/TOKEN"):
        assert target in text
    for target in ("hello-world", "other@prod", "hello there"):
        assert target not in text
    assert "note: &lt;b&gt;" in text
    assert "Nothing here is about" in page(sign_in(alice), "/projects/hello/audit/?q=nobody")
    for user in (bob, charlie):
        assert sign_in(user).get("/projects/hello/audit/").status_code == 404
    assert sign_in(alice).get("/audit/").status_code == 404


def test_an_earlier_project_of_the_same_name_stays_an_administrators_to_read(
    alice: Any, admin_user: Any, sign_in: Any
) -> None:
    AuditEntry.record(actor="mallory", action="environment.change", target="shop@prod", note="then")
    services.create(slug="shop", owner=alice)
    AuditEntry.record(actor="alice", action="environment.change", target="shop@prod", note="now")
    for user, read in ((alice, ["now"]), (admin_user, ["now", "then"])):
        rows = api_as(user).get("/api/v1/audit/?project=shop&action=environment.change").json()
        assert [row["detail"]["note"] for row in rows["results"]] == read
        text = page(sign_in(user), "/projects/shop/audit/")
        assert [one for one in ("now", "then") if f"note: {one}" in text] == read


def test_an_administrator_reads_all_of_it(entries: None, admin_user: Any, sign_in: Any) -> None:
    check_audit()
    text = page(sign_in(admin_user), "/audit/")
    assert "other@prod" in text
    assert "7 entries were as they were written when last checked" in text
    AuditEntry.objects.filter(target="hello").update(actor="mallory")
    check_audit()
    assert "does not fit the one before it" in page(sign_in(admin_user), "/audit/")


def test_entries_that_are_missing_at_the_end_are_noticed(entries: None) -> None:
    assert check_audit().problem == ""
    AuditEntry.objects.filter(pk=AuditEntry.objects.latest("pk").pk).delete()
    assert "is gone" in check_audit().problem
    assert "is gone" in check_audit().problem, "until somebody looks at it"
    call_command("verify_audit", "--accept")
    assert check_audit().problem == ""


def test_an_entry_is_never_changed_nor_deleted(entries: None) -> None:
    entry = AuditEntry.objects.all()[0]
    with pytest.raises(TypeError, match="never changed"):
        entry.save()
    with pytest.raises(TypeError, match="never deleted"):
        entry.delete()


def test_the_log_is_there_over_the_api(entries: None, api: Any, bob: Any, admin_user: Any) -> None:
    def found(client: Any, query: str = "") -> int:
        return len(client.get(f"/api/v1/audit/{query}").json()["results"])

    assert found(api) == 4
    assert found(api, "?project=other") == 0
    assert found(api, "?project=hello&actor=alice&action=test") == 4
    assert found(api_as(bob)) == 0
    assert found(api_as(admin_user)) == 7


def test_who_maintains_many_projects_reads_them_all(entries: None, alice: Any) -> None:
    from ciserver.dashboard.audit import entries_for
    from ciserver.projects.models import Membership, Project, Role

    made = Project.objects.bulk_create(Project(slug=f"many-{number}") for number in range(1200))
    Membership.objects.bulk_create(
        Membership(project=one, user=alice, role=Role.OWNER) for one in made
    )
    AuditEntry.record(actor="alice", action="test", target="many-777@prod")
    assert entries_for(alice).filter(action="test").count() == 5


def test_a_person_is_found_who_something_was_done_to(hello: Any, alice: Any, sign_in: Any) -> None:
    AuditEntry.record(actor="alice", action="member.set", target="hello", user="dora")
    AuditEntry.record(actor="alice", action="member.set", target="hello", user="erik")
    html = sign_in(alice).get("/projects/hello/audit/?q=Dora").content.decode()
    assert "dora" in html
    assert "erik" not in html
