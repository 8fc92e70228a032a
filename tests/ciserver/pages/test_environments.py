"""The environment's pages, what waits on the release's, and the preview before a move."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.utils import timezone

from ciserver.projects.models import Role
from ciserver.releases import approvals, environments, queue, services
from ciserver.releases.models import Deployment, DeploymentState, Host, Release, Running, Stop
from ciserver.repositories.history import Commit
from tests.ciserver.pages import seeding
from tests.ciserver.pages.test_pages import page

PROD = "/projects/hello/environments/prod/"


@pytest.fixture
def waiting(hello: Any, alice: Any, bob: Any) -> Deployment:
    prod = hello.environments.get(name="prod")
    environments.change(environment=prod, user=alice, approvals=1, approvers=["alice", "bob"])
    release = Release.objects.get(project=hello, number=5)
    return services.promote(release=release, environment=prod, user=alice)


def test_an_environment_tells_what_runs_there_and_how_it_came(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    text = page(sign_in(alice), PROD)
    assert "behind by 2" in text
    assert "what ran healthy in" in text
    assert "Promote v5" in text
    assert "Roll back to v2" in text
    assert "Deploy v3 again" in text
    assert "Greet by name" in text
    assert "none needed" in text
    Running.objects.filter(environment__name="prod").update(drift="its container is gone")
    assert "its container is gone" in page(sign_in(alice), PROD)
    assert 'title="local: its container is gone"' in page(sign_in(alice), "/")


def test_an_environment_without_anything_says_so(project: Any, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    answer = client.post("/projects/hello/new-environment/", {"name": "qa", "auto": "on"})
    assert answer["Location"] == "/projects/hello/environments/qa/"
    text = page(client, answer["Location"])
    assert "Nothing runs here yet" in text
    assert "Nothing was put here yet." in text
    assert "every new release of main, by itself" in text
    again = client.post("/projects/hello/new-environment/", {"name": "qa"})
    assert again.status_code == 400
    assert "has an environment" in again.content.decode()


def form_of(client: Any) -> dict[str, Any]:
    initial = client.get(f"{PROD}edit/").context["form"].initial
    return {name: value for name, value in initial.items() if value is not False}


def test_a_maintainer_changes_an_environment(hello: Any, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    wanted = form_of(client) | {
        "variables": "GREETING=Moin moin\n\nEMPTY=\n",
        "approvals": 1,
        "approvers": "alice, bob",
        "domains": "shop.example.org, Old.example.org",
    }
    answer = client.post(f"{PROD}edit/", wanted)
    assert answer.status_code == 302, answer.content.decode()
    row = hello.environments.get(name="prod")
    assert row.variables == {"GREETING": "Moin moin", "EMPTY": ""}
    text = page(client, PROD)
    assert "1 of alice, bob, within 72 h" in text
    assert "Moin moin" in text
    assert 'href="https://shop.example.org"' in text
    assert 'href="https://old.example.org"' in text
    assert "Its configuration changed since v3" not in text, "nothing tells what v3 was given"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("variables", "no sign", "is not NAME=value"),
        ("variables", "A B=1", "cannot be a variable"),
        ("memory_mib", "1", "memory mib must be between"),
        ("approvers", "charlie", "is not a member of hello"),
        ("approvals", "two", "Enter a whole number"),
        ("hosts", "nowhere", "no host"),
        ("domains", "shop.example.org:80", "is no domain"),
        ("https", "maybe", "is not one of the available choices"),
    ],
)
def test_a_change_that_cannot_be_is_refused_on_the_form(
    hello: Any, alice: Any, sign_in: Any, field: str, value: str, sentence: str
) -> None:
    client = sign_in(alice)
    answer = client.post(f"{PROD}edit/", form_of(client) | {field: value})
    assert answer.status_code == 400
    assert sentence in answer.content.decode()


def test_a_developer_may_look_and_not_change(
    hello: Any, bob: Any, charlie: Any, sign_in: Any
) -> None:
    text = page(sign_in(bob), PROD)
    assert "edit/" not in text
    dialogs = re.findall(r"<a [^>]*data-dialog[^>]*>([^<]*)</a>", text)
    assert dialogs == ["Log"]
    for url in (f"{PROD}edit/", "/projects/hello/new-environment/"):
        assert sign_in(bob).get(url).status_code == 403
        assert sign_in(charlie).get(url).status_code == 404
    assert sign_in(charlie).get(PROD).status_code == 404


def test_a_promotion_that_waits_is_approved_on_the_releases_page(
    waiting: Deployment, alice: Any, bob: Any, charlie: Any, sign_in: Any
) -> None:
    url = waiting.release.get_absolute_url()
    asker = page(sign_in(alice), url)
    assert "It needs 1 more approval." in asker
    assert "Look or withdraw" in asker
    assert "Look and approve" in page(sign_in(bob), url)
    asks = f"/deployments/{waiting.pk}/approve/"
    assert "Let v5 go to prod?" in page(sign_in(bob), asks)
    assert ">Approve</button>" not in page(sign_in(alice), asks)
    assert sign_in(charlie).get(asks).status_code == 404
    live = sign_in(bob).get(url, headers={"X-Live": "1"})
    assert b"csrf" not in live.content, "it would never be the same twice"
    assert "v5 waits" in page(sign_in(alice), "/")
    assert "v5 waits" in page(sign_in(alice), PROD)
    assert sign_in(charlie).post(f"/deployments/{waiting.pk}/approve/").status_code == 404
    assert sign_in(alice).post(f"/deployments/{waiting.pk}/approve/").status_code == 403
    answer = sign_in(bob).post(f"/deployments/{waiting.pk}/approve/", follow=True)
    assert "Approved. v5 is on its way." in answer.content.decode()
    waiting.refresh_from_db()
    assert waiting.state == DeploymentState.QUEUED


def test_a_promotion_that_waits_is_withdrawn(waiting: Deployment, alice: Any, sign_in: Any) -> None:
    answer = sign_in(alice).post(f"/deployments/{waiting.pk}/reject/", follow=True)
    assert "Withdrawn by alice." in answer.content.decode()
    answer = sign_in(alice).post(f"/deployments/{waiting.pk}/reject/")
    assert answer.status_code == 409


def test_the_dialog_says_what_a_promotion_will_wait_for(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    prod = hello.environments.get(name="prod")
    environments.change(environment=prod, user=alice, approvals=1, approvers=["alice", "bob"])
    client = sign_in(alice)
    assert "It needs 1 more approval." in page(client, "/projects/hello/releases/5/promote/prod/")
    answer = client.post("/projects/hello/releases/5/promote/prod/", follow=True)
    assert "v5 waits for prod. It needs 1 more approval." in answer.content.decode()


def test_the_preview_tells_commits_and_variables(
    hello: Any, alice: Any, sign_in: Any, monkeypatch: Any
) -> None:
    from ciserver.repositories import history

    prod = hello.environments.get(name="prod")
    last = prod.deployments.filter(state="succeeded").first()
    Deployment.objects.filter(pk=last.pk).update(
        configuration={
            "variables": {"OLD": "1", "SAME": "2"},
            "memory_mib": 256,
            "hosts": ["local"],
        }
    )
    environments.change(environment=prod, user=alice, variables={"NEW": "3", "SAME": "2"})
    found = [Commit("a" * 40, "Eve <b>", "Fix <script>")]
    monkeypatch.setattr(history, "between", lambda *_, limit: (found, 7))
    text = page(sign_in(alice), "/projects/hello/releases/5/promote/prod/")
    assert "7 commits" in text
    assert "Fix &lt;script&gt;" in text
    assert "<del>256</del> <ins>512</ins>" in text
    assert '<code>OLD</code><span class="wrap"><del>1</del> <span class="quiet">is taken' in text
    assert '<span class="quiet">is new:</span> <ins>3</ins>' in text
    assert "SAME" not in text
    assert "The layers could not be read from the registry." in text


def test_a_stopped_line_is_seen_where_it_holds(hello: Any, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    form = {"project": "hello", "reason": "incident 12", "next": PROD}
    answer = client.post("/line/stop/", form, follow=True)
    assert "The line is stopped by alice: incident 12." in answer.content.decode()
    refused = client.post("/projects/hello/releases/5/promote/prod/")
    assert refused.status_code == 409
    assert "incident 12" in refused.content.decode()
    assert client.post("/line/resume/", {"project": "hello", "next": PROD})["Location"] == PROD
    assert not Stop.objects.filter(ended_at=None).exists()
    assert client.post("/line/stop/", {"reason": "all"}).status_code == 403
    outside = client.post("/line/stop/", form | {"next": "https://evil.example/"})
    assert outside["Location"] == "/"


def test_the_page_keeps_itself_right(hello: Any, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    first = client.get(PROD, headers={"X-Live": "1"})
    assert b"<html" not in first.content
    again = client.get(PROD, headers={"X-Live": "1", "If-None-Match": first["ETag"]})
    assert again.status_code == 304
    assert seeding.digest_of("hello3") in str(Running.objects.get(environment__name="prod").digest)


def test_an_administrator_stops_and_resumes_every_line(
    hello: Any, admin_user: Any, alice: Any, sign_in: Any
) -> None:
    client = sign_in(admin_user)
    assert "Stop every line" in page(client, "/")
    assert "Stop every line" not in page(sign_in(alice), "/")
    answer = client.post("/line/stop/", {"reason": "fire <1>"}, follow=True)
    assert "stopped by admin: fire &lt;1&gt;" in answer.content.decode()
    assert "Let it run again" not in page(sign_in(alice), "/")
    assert "fire &lt;1&gt;" in page(sign_in(alice), "/projects/hello/")
    client.post("/line/resume/")
    assert "fire" not in page(client, "/")


def test_an_approval_that_no_longer_counts_is_shown_as_such(
    waiting: Deployment, hello: Any, alice: Any, bob: Any, sign_in: Any
) -> None:
    prod = environments.change(environment=waiting.environment, user=alice, soak_minutes=600)
    Deployment.objects.filter(release=waiting.release, environment__name="qa").update(
        finished_at=timezone.now()
    )
    url = waiting.release.get_absolute_url()
    approvals.approve(deployment=waiting, user=bob)
    assert "<b>bob</b><span>approves</span>" in page(sign_in(alice), url)
    environments.change(environment=prod, user=alice, variables={"A": "1"})
    assert "approved something else: it changed since" in page(sign_in(alice), url)


def test_a_host_that_came_later_and_has_nothing_is_drift(
    hello: Any, alice: Any, sign_in: Any
) -> None:
    prod = hello.environments.get(name="prod")
    prod.hosts.add(Host.objects.create(name="second"))
    assert 'title="second has nothing yet">drift' in page(sign_in(alice), "/")
    assert "nothing yet" in page(sign_in(alice), PROD)


def test_the_form_shows_each_of_its_fields_once() -> None:
    from ciserver.releases.forms import GROUPS, EnvironmentForm

    shown = [name for names in GROUPS.values() for name in names]
    assert sorted(shown) == sorted(EnvironmentForm.base_fields)


def test_who_lowers_a_policy_is_held_to_it_until_another_owner_confirms(
    waiting: Deployment, hello: Any, alice: Any, bob: Any, sign_in: Any
) -> None:
    client = sign_in(alice)
    lowered = form_of(client) | {"approvals": 0}
    assert client.post(f"{PROD}edit/", lowered)["Location"] == PROD
    assert queue.look_at_waiting() == 0
    assert "what alice asks for still needs 1 approval, until another owner" in page(client, PROD)
    assert "Confirm what was lowered" not in page(client, f"{PROD}edit/")

    hello.memberships.filter(user=bob).update(role=Role.MAINTAINER)
    refused = sign_in(bob).post(f"{PROD}edit/", form_of(client) | {"soak_minutes": 600})
    assert refused["Location"] == PROD, "to ask for more is a maintainer's right"
    refused = sign_in(bob).post(f"{PROD}edit/", form_of(client) | {"soak_minutes": 0})
    assert refused.status_code == 400
    assert "Only an owner of hello weakens the policy of prod" in refused.content.decode()
    client.post(f"{PROD}edit/", form_of(client) | {"soak_minutes": 0})

    hello.memberships.filter(user=bob).update(role=Role.OWNER)
    other = sign_in(bob)
    assert "Confirm what was lowered" in page(other, f"{PROD}edit/")
    other.post(f"{PROD}edit/", form_of(other))
    assert "still needs" in page(other, PROD), "to save something else confirms nothing"
    other.post(f"{PROD}edit/", form_of(other) | {"confirm_policy": "on"})
    assert "still needs" not in page(other, PROD)
    assert queue.look_at_waiting() == 1


def test_what_is_on_its_way_is_cancelled_on_either_page(
    hello: Any, alice: Any, bob: Any, sign_in: Any
) -> None:
    release = Release.objects.get(project=hello, number=5)
    going = Deployment.objects.create(
        environment=hello.environments.get(name="prod"), release=release, kind="promotion",
        state=DeploymentState.RUNNING, requested_by="bob",
    )  # fmt: skip
    url, client = f"/deployments/{going.pk}/cancel/", sign_in(alice)
    for where in (PROD, release.get_absolute_url()):
        assert f'href="{url}"' in page(client, where)
    assert f'href="{url}"' not in page(sign_in(bob), PROD)
    assert sign_in(bob).post(url).status_code == 403
    assert "Cancel v5 on its way to prod?" in page(client, url)
    answer = client.post(url, {"reason": "too slow"}, follow=True).content.decode()
    assert "v5 is being cancelled." in answer
    assert "Cancelled by alice: too slow." in answer
    assert f'href="{url}"' not in answer
