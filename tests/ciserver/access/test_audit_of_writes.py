"""Whatever the permission matrix lets somebody write, the audit log tells of."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from ciserver.accounts.models import AuditEntry, Team
from ciserver.pipelines.models import Pipeline, State
from ciserver.releases.models import Deployment, DeploymentState, Environment, Stop
from tests.ciserver.access.matrix import MATRIX, Ask
from tests.ciserver.access.test_matrix import (
    ask_as,
    quietly,  # noqa: F401 - fixtures
    url_of,
    world,  # noqa: F401 - fixtures
)

pytestmark = pytest.mark.django_db

WRITES = [(path, ask) for path, asks in MATRIX.items() for ask in asks if ask.method != "GET"]
# These change nothing that is kept: they look, or feed a command that was written down.
READS = {
    "POST /api/v1/lint/",
    "POST /api/v1/environments/{pk}/commands/",  # ps; the other verbs are written down
    "POST /api/v1/commands/{pk}/input/",
    "POST /api/v1/hosts/{pk}/check/",
    "POST /hosts/{host}/check/",
}
# The bodies of the matrix change nothing here; these do.
BODIES: dict[str, dict[str, Any]] = {
    "PATCH /api/v1/projects/{slug}/": {"concurrency": 3},
    "PATCH /api/v1/projects/{slug}/repository/": {"max_push_refs": 77},
    "POST /projects/{slug}/new-environment/": {"name": "late"},
    "POST /projects/{slug}/webhooks/": {"url": "https://1.1.1.1/another"},
}
# Refused, because what they are about is not there, or because they ask a worker, Git or a host.
# The tests of each service look at the log; a route that comes to these has to be looked at.
REFUSED_HERE = {
    "POST /api/v1/projects/{slug}/hook-test/",
    "POST /api/v1/projects/{slug}/repository/access/key/",
    "PUT /api/v1/projects/{slug}/repository/access/login/",
    "DELETE /api/v1/projects/{slug}/repository/access/login/",
    "DELETE /api/v1/projects/{slug}/repository/access/host-keys/",
    "DELETE /api/v1/projects/{slug}/hook-secret/",
    "POST /api/v1/pipelines/",
    "POST /api/v1/inspections/",
    "POST /api/v1/pull-requests/{pk}/approve/",
    "PATCH /api/v1/environments/{pk}/",
    "POST /api/v1/environments/{pk}/move/",
    "POST /api/v1/hosts/{pk}/accept-key/",
    "POST /api/v1/hosts/{pk}/prepare/",
    "DELETE /api/v1/hosts/{pk}/",
    "POST /api/v1/releases/{pk}/roll-back/",
    "POST /projects/{slug}/releases/{release}/roll-back/{environment}/",
    "POST /tokens/",
    "POST /account/",
    "POST /projects/{slug}/repository/key/",
    "POST /projects/{slug}/repository/login/",
    "POST /projects/{slug}/repository/forget/",
    "POST /projects/{slug}/pulls/{pk}/approve/",
    "POST /projects/{slug}/hook-test/",
    "POST /projects/{slug}/environments/{name}/edit/",
    "POST /hosts/{host}/prepare/",
    "POST /hosts/{host}/accept-key/",
    "POST /hosts/{host}/remove/",
}


def _clear(what: str) -> None:
    """Take away what is in the way of a promotion, a stop, a cancelling, or there already."""
    if "/promote/" in what or "/roll-back/" in what:
        Stop.objects.all().delete()
        Deployment.objects.filter(state=DeploymentState.WAITING).update(
            state=DeploymentState.CANCELLED
        )
        Environment.objects.update(approvals=0)
    elif what.endswith(("/stops/", "/line/stop/")):
        Stop.objects.all().delete()
    elif what == "POST /projects/{slug}/pipelines/{number}/cancel/":
        Pipeline.objects.filter(number=6).update(state=State.RUNNING)
    elif what == "PUT /api/v1/teams/{team}/members/{username}/":
        Team.objects.get(name="crew").members.clear()


def test_every_write_that_is_done_is_written_down(world: dict[str, Any]) -> None:  # noqa: F811
    unwritten, refused = [], set()
    for path, ask in WRITES:
        what = f"{ask.method} {path}"
        done, told = _try(path, ask._replace(body=BODIES.get(what, ask.body)), world)
        if not done:
            refused.add(what)
        elif not told and what not in READS:
            unwritten.append(what)
    assert unwritten == []
    assert refused == REFUSED_HERE


def _try(path: str, ask: Ask, world: dict[str, Any]) -> tuple[bool, bool]:  # noqa: F811
    """Whether it was done, and whether the log has more entries then; both are undone."""
    with transaction.atomic():
        _clear(f"{ask.method} {path}")
        before = AuditEntry.objects.count()
        answer = ask_as(ask.least, ask, url_of(path, world), world)
        told = AuditEntry.objects.count() > before
        transaction.set_rollback(True)
    return answer.status_code < 400, told
