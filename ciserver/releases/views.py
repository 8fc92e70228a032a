"""The release page, and asking for a promotion or a roll-back on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from ciserver.accounts.models import User
from ciserver.lib import live, words
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project
from ciserver.releases import policy, preview, services
from ciserver.releases.models import (
    Approval,
    Deployment,
    DeploymentKind,
    DeploymentState,
    Environment,
    Release,
    Running,
)

SHOWN_DEPLOYMENTS = 20
_OUTCOMES = ("passed", "failed", "error", "skipped")


@dataclass(frozen=True, slots=True)
class Place:
    """One environment of the chain as it stands to ``release``."""

    release: Release
    environment: Environment
    running: list[Running]
    last: Deployment | None  # of this release, here
    served: bool  # one of them succeeded
    waits_for: str  # the place it must run in first, or ""
    may_move: bool
    approvals: list[Approval]  # those that count, while it waits
    may_approve: bool

    @property
    def current(self) -> Release | None:
        newest = max(self.running, key=lambda one: one.release.number, default=None)
        return newest.release if newest else None

    @property
    def here(self) -> bool:
        return self.current == self.release

    @property
    def healthy(self) -> bool:
        return all(one.healthy for one in self.running)

    @property
    def arriving(self) -> bool:
        return self.last is not None and not self.last.finished and not self.last.waiting

    @property
    def waiting(self) -> bool:
        return self.last is not None and self.last.waiting

    @property
    def is_next(self) -> bool:
        older = self.current is None or self.current.number < self.release.number
        return not self.waits_for and older

    @property
    def past(self) -> bool:
        """A newer release serves here and this one once did: it can be rolled back to."""
        newer = self.current is not None and self.current.number > self.release.number
        return self.served and newer


@login_required
@require_safe
def release(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One release: its digest and evidence, where it runs, and how it got there."""
    row = _release(request, slug, number)
    deployments = row.deployments.select_related("environment", "release").prefetch_related(
        "steps__host", "approval_set__user"
    )
    places = _places(row, request.user)
    context = {
        "release": row,
        "project": row.project,
        "places": places,
        "counted": {approval.pk for place in places for approval in place.approvals},
        "deployments": deployments[:SHOWN_DEPLOYMENTS],
        "evidence": _evidence(row),
    }
    if live.wanted(request):
        return live.answer(request, "releases/_release_live.html", context)
    return render(request, "releases/release.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def promote(request: HttpRequest, slug: str, number: int, environment: str) -> HttpResponse:
    """Confirm (GET), then ask for (POST) the promotion of a release into an environment."""
    return _move(request, slug, number, environment, kind="promote")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def roll_back(request: HttpRequest, slug: str, number: int, environment: str) -> HttpResponse:
    """Confirm (GET), then put (POST) an earlier release back into an environment."""
    return _move(request, slug, number, environment, kind="roll-back")


def _move(
    request: HttpRequest, slug: str, number: int, environment: str, *, kind: str
) -> HttpResponse:
    row = _release(request, slug, number)
    place = get_object_or_404(row.project.environments, name=environment)
    context: dict[str, Any] = {
        "release": row,
        "project": row.project,
        "environment": place,
        "kind": kind,
        "waits": services.would_wait_for(release=row, environment=place, user=request.user)
        if kind == "promote"
        else [],
    }
    move = DeploymentKind.PROMOTION if kind == "promote" else DeploymentKind.ROLLBACK
    if request.method != "POST":
        context["preview"] = preview.of(row, place, move)
        return render(request, "releases/move.html", context)
    verb = services.promote if kind == "promote" else services.roll_back
    try:
        asked = verb(release=row, environment=place, user=cast(User, request.user))
    except Refused as refusal:
        context |= {"refusal": refusal, "preview": preview.of(row, place, move)}
        return render(request, "releases/move.html", context, status=refusal.status)
    if asked.waiting:
        messages.success(request, f"{row.name} waits for {place.name}. {asked.reason}")
    else:
        words = f"{row.name} is on its way to {place.name}. {asked.reason}"
        messages.success(request, words.strip())
    return redirect(row)


def _release(request: HttpRequest, slug: str, number: int) -> Release:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    rows = Release.objects.select_related("project", "pipeline", "pipeline__project")
    return get_object_or_404(rows, project=project, number=number)


def _places(release: Release, user: Any) -> list[Place]:
    chain = release.project.environments.prefetch_related("running__release", "running__host")
    last: dict[int, Deployment] = {}
    served = set()
    for deployment in release.deployments.order_by("pk"):
        last[deployment.environment_id] = deployment
        if deployment.state == DeploymentState.SUCCEEDED:
            served.add(deployment.environment_id)
    places: list[Place] = []
    open_ = release.project.archived_at is None
    for environment in chain:
        before = places[-1] if places else None
        newest = last.get(environment.pk)
        waits = newest is not None and newest.waiting
        places.append(
            Place(
                release=release,
                environment=environment,
                running=list(environment.running.all()),
                last=newest,
                served=environment.pk in served,
                waits_for=before.environment.name if before and not before.served else "",
                may_move=open_ and policy.may_promote(user, environment),
                approvals=policy.counting(newest) if newest and waits else [],
                may_approve=bool(newest and waits and policy.may_approve(user, newest)),
            )
        )
    return places


def _evidence(release: Release) -> list[tuple[str, str]]:
    """A release's evidence in words; see ``evidence.collect`` for what is in it."""
    tests = release.evidence.get("tests") or {}
    receipts = release.evidence.get("receipts") or {}
    facts = [("Tests", _tests_in_words(tests)), ("Build", _receipts_in_words(receipts))]
    return [(name, text) for name, text in facts if text]


def _tests_in_words(tests: dict[str, Any]) -> str:
    jobs = ", ".join(f"{job['name']} {job['state']}" for job in tests.get("jobs", []))
    counts = [f"{tests[name]} {name}" for name in _OUTCOMES if tests.get(name)]
    return ": ".join(part for part in (jobs, ", ".join(counts)) if part) or "No test was run"


def _receipts_in_words(receipts: dict[str, Any]) -> str:
    if not receipts:
        return ""
    parts = [
        f"{receipts.get('steps', 0)} steps, {receipts.get('cached', 0)} from the cache",
        f"{words.duration(receipts.get('wall_seconds'))} in sandboxes",
        f"{words.duration(receipts.get('cpu_seconds'))} of CPU",
        f"{words.size(receipts.get('peak_memory'))} at the peak",
    ]
    return ", ".join(parts)
