"""What the audit log calls each write of the service, and what has to be there for it to be done.

Read by test_audit_of_writes.py. A write without a row here fails the test, as one that has no row
in the permission matrix does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from ciserver.accounts.models import Scope, Session, Team, Token
from ciserver.pipelines.models import Job, Pipeline, State
from ciserver.projects.models import Project
from ciserver.releases.models import Deployment, DeploymentState, Environment, Host, Stop
from ciserver.webhooks.models import PullRequest
from tests.ciserver.access.matrix import MAINTAINER, STRANGER, Who
from tests.ciserver.pages.seeding import deploy

World = dict[str, Any]
FINGERPRINT = "SHA256:" + "A" * 43
KEY = Session.objects.model._meta.get_field("session_key").max_length * "k"


class Done(NamedTuple):
    """``action``: the one entry that the write makes. ``body`` is sent in place of the matrix's,
    ``ready`` is called before and may change the values that the address is made of; ``by`` is who
    asks where the matrix does not say it."""

    action: str
    body: dict[str, Any] | None = None
    ready: Callable[[World], None] | None = None
    by: Who | None = None


def _hello() -> Project:
    return Project.objects.get(slug="hello")


def _nothing_waits(world: World) -> None:
    Stop.objects.all().delete()
    waiting = Deployment.objects.filter(state=DeploymentState.WAITING)
    waiting.update(state=DeploymentState.CANCELLED)
    Environment.objects.update(approvals=0)


def _ran_before(world: World) -> None:
    _nothing_waits(world)
    hello = _hello()
    prod, newest = hello.environments.get(name="prod"), hello.releases.order_by("-number")[0]
    deploy(newest, prod)
    deploy(hello.releases.get(number=3), prod)


def _line_runs(world: World) -> None:
    Stop.objects.all().delete()


def _still_runs(world: World) -> None:
    Pipeline.objects.filter(number=6).update(state=State.RUNNING)


def _empty_team(world: World) -> None:
    Team.objects.get(name="crew").members.clear()


def _earlier_secret(world: World) -> None:
    hello = _hello()
    hello.renew_hook_secret()
    hello.renew_hook_secret()


def _elsewhere(world: World) -> None:
    Project.objects.filter(slug="hello").update(clone_url="https://forge.example.org/a/b.git")


def _kept(world: World) -> None:
    step = Job.objects.get(pk=world["pk"]["jobs"]).steps.order_by("-position")[0]
    step.receipt = {"kept": "run-1", "kept_until": time.time() + 60}
    step.save()


def _fetched(world: World) -> None:
    PullRequest.objects.update(ref="refs/pull/3/head")


def _archived(world: World) -> None:
    Project.objects.filter(slug="hello").update(archived_at=timezone.now(), archived_by="alice")


def _fewer_approvals(world: World) -> None:
    Environment.objects.update(approvals=0)


def _another_host(world: World) -> None:
    Stop.objects.all().delete()
    host = Host.objects.create(name="another", kind="ssh", address="192.0.2.1")
    _hello().environments.get(name="qa").hosts.add(host)


def _reached_by_ssh(world: World) -> None:
    Host.objects.update(kind="ssh", address="192.0.2.1")


def _unused_host(world: World) -> None:
    host = Host.objects.create(name="unused", kind="ssh", address="192.0.2.1")
    world["host"] = host.name
    world["pk"]["hosts"] = host.pk


def _approver(world: World) -> None:
    prod = _hello().environments.get(name="prod")
    prod.approvers.add(world["people"][MAINTAINER])


def _a_token(world: World) -> None:
    token, _ = Token.make(user=world["people"][STRANGER], name="mine", scope=Scope("read"))
    world["pk"]["tokens"] = token.pk


def _signed_in_elsewhere(world: World) -> None:
    session = Session.objects.create(
        session_key=KEY,
        session_data="",
        user=world["people"][STRANGER],
        expire_date=timezone.now() + timedelta(days=1),
    )
    world["name"] = session.name


PASSWORDS = {"old": "charlie-password-1", "new": "another-password-2"}
OF = "/api/v1/projects/{slug}/"
ENVIRONMENT = "/projects/{slug}/environments/{name}/"
SESSION = Session(session_key=KEY).name
FORM = {
    "batch_size": 1,
    "stable_seconds": 6,
    "health_timeout": 60,
    "health_passes": 2,
    "memory_mib": 512,
    "cpus": 1,
    "pids": 512,
    "https": "acme",
    "hosts": "local",
    "promote_role": 30,
    "approvals": 0,
    "approval_hours": 72,
    "soak_minutes": 7,
}

AUDITED: dict[str, tuple[Done, ...]] = {
    "POST /api/v1/users/": (Done("user.create"),),
    "PATCH /api/v1/users/{username}/": (
        Done("user.disable"),
        Done("user.admin", {"is_superuser": True}),
    ),
    "POST /api/v1/users/{username}/reset-password/": (Done("user.reset-password"),),
    "POST /api/v1/teams/": (Done("team.create"),),
    "DELETE /api/v1/teams/{team}/": (Done("team.delete"),),
    "PUT /api/v1/teams/{team}/members/{username}/": (Done("team.add", ready=_empty_team),),
    "DELETE /api/v1/teams/{team}/members/{username}/": (Done("team.remove"),),
    "POST /api/v1/me/password/": (Done("account.password", PASSWORDS, by=STRANGER),),
    "DELETE /api/v1/me/sessions/{name}/": (
        Done("account.end-session", ready=_signed_in_elsewhere, by=STRANGER),
    ),
    "POST /api/v1/tokens/": (Done("token.make"),),
    "DELETE /api/v1/tokens/{pk}/": (Done("token.revoke", ready=_a_token, by=STRANGER),),
    "POST /api/v1/projects/": (Done("project.create"),),
    f"PATCH {OF}": (Done("project.change", {"concurrency": 3}),),
    f"DELETE {OF}": (Done("project.delete", {"confirm": "hello"}),),
    f"POST {OF}archive/": (Done("project.archive"),),
    f"POST {OF}restore/": (Done("project.restore", ready=_archived),),
    f"PUT {OF}members/{{username}}/": (Done("member.set"),),
    f"DELETE {OF}members/{{username}}/": (Done("member.remove"),),
    f"PUT {OF}teams/{{team}}/": (Done("member.set-team"),),
    f"DELETE {OF}teams/{{team}}/": (Done("member.remove-team"),),
    f"POST {OF}webhooks/": (Done("project.webhook.add"),),
    f"PATCH {OF}webhooks/{{webhook}}/": (Done("project.webhook.change"),),
    f"DELETE {OF}webhooks/{{webhook}}/": (Done("project.webhook.remove"),),
    f"POST {OF}webhooks/{{webhook}}/rotate/": (Done("project.webhook.rotate"),),
    f"POST {OF}webhooks/{{webhook}}/test/": (Done("project.webhook.test"),),
    f"POST {OF}webhooks/{{webhook}}/messages/{{message}}/redeliver/": (
        Done("project.webhook.redeliver"),
    ),
    f"PATCH {OF}repository/": (
        Done("project.git-rules", {"max_push_refs": 77}),
        Done("project.git-rules", {"clone_url": "https://1.1.1.1/b.git"}, _elsewhere),
    ),
    f"POST {OF}repository/access/key/": (Done("project.deploy-key", ready=_elsewhere),),
    f"PUT {OF}repository/access/login/": (Done("project.git-login.set", ready=_elsewhere),),
    f"DELETE {OF}repository/access/login/": (Done("project.git-login.remove", ready=_elsewhere),),
    f"DELETE {OF}repository/access/host-keys/": (
        Done("project.host-key.forget", ready=_elsewhere),
    ),
    f"PUT {OF}statuses/": (Done("project.statuses.set"),),
    f"DELETE {OF}statuses/": (Done("project.statuses.remove"),),
    f"POST {OF}hook-secret/": (Done("project.hook-secret"),),
    f"DELETE {OF}hook-secret/": (Done("project.hook-secret.end", ready=_earlier_secret),),
    f"PUT {OF}secrets/{{secret}}/": (Done("project.secret.replace"),),
    f"DELETE {OF}secrets/{{secret}}/": (Done("project.secret.remove"),),
    "POST /api/v1/pipelines/": (Done("pipeline.start"),),
    "POST /api/v1/pipelines/{pk}/cancel/": (Done("pipeline.cancel"),),
    "POST /api/v1/pipelines/{pk}/run-again/": (Done("pipeline.run-again"),),
    "POST /api/v1/inspections/": (Done("job.inspect", ready=_kept),),
    "POST /api/v1/pull-requests/{pk}/approve/": (Done("pull-request.approve", ready=_fetched),),
    "POST /api/v1/releases/{pk}/promote/": (Done("deployment.promotion", ready=_nothing_waits),),
    "POST /api/v1/releases/{pk}/roll-back/": (Done("deployment.rollback", ready=_ran_before),),
    "POST /api/v1/environments/": (Done("environment.create"),),
    "PATCH /api/v1/environments/{pk}/": (Done("environment.change", ready=_fewer_approvals),),
    "DELETE /api/v1/environments/{pk}/": (Done("environment.remove", {"confirm": "hello@prod"}),),
    "POST /api/v1/environments/{pk}/move/": (
        Done("deployment.move", {"to": "another"}, _another_host),
    ),
    "POST /api/v1/environments/{pk}/commands/": (
        Done("container.logs", {"verb": "logs"}, by=Who.DEVELOPER),
        Done("container.restart", {"verb": "restart"}, by=MAINTAINER),
    ),
    "PUT /api/v1/environments/{pk}/secrets/{secret}/": (Done("environment.secret.replace"),),
    "DELETE /api/v1/environments/{pk}/secrets/{secret}/": (Done("environment.secret.remove"),),
    "POST /api/v1/hosts/": (Done("host.add"),),
    "DELETE /api/v1/hosts/{pk}/": (Done("host.remove", ready=_unused_host),),
    "POST /api/v1/hosts/{pk}/accept-key/": (
        Done("host.accept-key", {"fingerprint": FINGERPRINT}, _reached_by_ssh),
    ),
    "POST /api/v1/hosts/{pk}/prepare/": (Done("host.prepare", ready=_reached_by_ssh),),
    "POST /api/v1/deployments/{pk}/approve/": (
        Done("deployment.approve", ready=_approver, by=MAINTAINER),
    ),
    "POST /api/v1/deployments/{pk}/reject/": (Done("deployment.cancel"),),
    "POST /api/v1/deployments/{pk}/cancel/": (Done("deployment.cancel"),),
    "POST /api/v1/stops/": (Done("line.stop", ready=_line_runs),),
    "POST /api/v1/stops/{pk}/resume/": (Done("line.resume"),),
    "POST /api/v1/deliveries/{pk}/redeliver/": (Done("delivery.redeliver"),),
    # --- pages -----------------------------------------------------------------------------------
    "POST /new-project/": (Done("project.create"),),
    "POST /tokens/": (Done("token.make", {"name": "one", "scope": "read", "days": 30}),),
    "POST /tokens/{pk}/revoke/": (Done("token.revoke", ready=_a_token, by=STRANGER),),
    "POST /account/": (Done("account.password", PASSWORDS | {"again": PASSWORDS["new"]}),),
    "POST /account/end-session/": (
        Done("account.end-session", {"name": SESSION}, _signed_in_elsewhere, STRANGER),
    ),
    "POST /logout/": (Done("account.sign-out"),),
    "POST /users/": (Done("user.create"),),
    "POST /users/{username}/change/": (
        Done("user.reset-password"),
        Done("user.disable", {"do": "disable"}),
        Done("user.admin", {"do": "admin"}),
    ),
    "POST /teams/": (Done("team.create"),),
    "POST /teams/{team}/change/": (
        Done("team.delete"),
        Done("team.add", {"do": "add", "username": "bob"}),
        Done("team.remove", {"do": "remove", "username": "dora"}),
    ),
    "POST /projects/{slug}/members/": (Done("member.set"),),
    "POST /projects/{slug}/members/remove/": (Done("member.remove"),),
    "POST /projects/{slug}/hook-secret/": (Done("project.hook-secret"),),
    "POST /projects/{slug}/repository/": (Done("project.git-rules"),),
    "POST /projects/{slug}/repository/key/": (Done("project.deploy-key", ready=_elsewhere),),
    "POST /projects/{slug}/repository/login/": (
        Done("project.git-login.set", {"username": "bot", "password": "a-password-1"}, _elsewhere),
        Done("project.git-login.remove", {"username": ""}, _elsewhere),
    ),
    "POST /projects/{slug}/repository/forget/": (
        Done("project.host-key.forget", ready=_elsewhere),
    ),
    "POST /projects/{slug}/statuses/": (Done("project.statuses.set"),),
    "POST /projects/{slug}/statuses/remove/": (Done("project.statuses.remove"),),
    "POST /projects/{slug}/pulls/{pk}/approve/": (
        Done("pull-request.approve", {"sha": "1" * 40}, _fetched),
    ),
    "POST /projects/{slug}/building/": (Done("project.change"),),
    "POST /projects/{slug}/secrets/": (Done("project.secret.set"),),
    "POST /projects/{slug}/secrets/remove/": (Done("project.secret.remove"),),
    "POST /projects/{slug}/start/": (Done("pipeline.start", {"ref": "main"}, by=Who.DEVELOPER),),
    "POST /projects/{slug}/pipelines/{number}/cancel/": (
        Done("pipeline.cancel", ready=_still_runs),
    ),
    "POST /projects/{slug}/pipelines/{number}/run-again/": (Done("pipeline.run-again"),),
    "POST /projects/{slug}/webhooks/": (
        Done("project.webhook.add", {"url": "https://1.1.1.1/another"}),
    ),
    "POST /projects/{slug}/webhooks/{webhook}/": (
        Done("project.webhook.test"),
        Done("project.webhook.rotate", {"do": "rotate"}),
        Done("project.webhook.change", {"do": "pause"}),
        Done("project.webhook.remove", {"do": "remove"}),
    ),
    f"POST {ENVIRONMENT}remove/": (Done("environment.remove", {"confirm": "hello@qa"}),),
    "POST /projects/{slug}/archive/": (
        Done("project.archive"),
        Done("project.restore", {"do": "restore"}, _archived),
        Done("project.delete", {"do": "delete", "confirm": "hello"}),
        Done("project.delete", {"do": "delete-now", "confirm": "hello"}),
    ),
    f"POST {ENVIRONMENT}edit/": (Done("environment.change", FORM),),
    "POST /projects/{slug}/new-environment/": (Done("environment.create", {"name": "late"}),),
    f"POST {ENVIRONMENT}secrets/": (Done("environment.secret.set"),),
    f"POST {ENVIRONMENT}secrets/remove/": (Done("environment.secret.remove"),),
    f"POST {ENVIRONMENT}containers/{{verb}}/": (Done("container.logs"),),
    "POST /projects/{slug}/releases/{release}/promote/{environment}/": (
        Done("deployment.promotion", ready=_nothing_waits),
    ),
    "POST /projects/{slug}/releases/{release}/roll-back/{environment}/": (
        Done("deployment.rollback", ready=_ran_before),
    ),
    "POST /projects/{slug}/deliveries/{delivery}/redeliver/": (Done("delivery.redeliver"),),
    "POST /hosts/": (Done("host.add"),),
    "POST /hosts/{host}/prepare/": (Done("host.prepare", ready=_reached_by_ssh),),
    "POST /hosts/{host}/accept-key/": (
        Done("host.accept-key", {"fingerprint": FINGERPRINT}, _reached_by_ssh),
    ),
    "POST /hosts/{host}/remove/": (Done("host.remove", ready=_unused_host),),
    "POST /deployments/{pk}/approve/": (
        Done("deployment.approve", ready=_approver, by=MAINTAINER),
    ),
    "POST /deployments/{pk}/reject/": (Done("deployment.cancel"),),
    "POST /deployments/{pk}/cancel/": (Done("deployment.cancel"),),
    "POST /line/stop/": (Done("line.stop", ready=_line_runs),),
    "POST /line/resume/": (Done("line.resume"),),
}

# What is posted and leaves nothing behind that somebody might ask about, and why.
NOT_AUDITED: dict[str, str] = {
    "POST /api/v1/lint/": "it only looks",
    "POST /api/v1/commands/{pk}/input/": "feeds a command that was written down when it began",
    "POST /api/v1/hosts/{pk}/check/": "it only looks",
    "POST /hosts/{host}/check/": "it only looks",
    "POST /api/v1/projects/{slug}/hook-test/": "what it sends is in the ledger of deliveries",
    "POST /projects/{slug}/hook-test/": "what it sends is in the ledger of deliveries",
    "POST /hooks/{forge}/{slug}/": "a delivery, which is in the ledger",
    "POST /login/": "of nobody yet: tests/ciserver/accounts/test_sign_in_audit.py",
    "POST /set-password/{uidb64}/{token}/": "a form in two steps: tests/ciserver/accounts/"
    "test_users.py looks for account.password",
}
