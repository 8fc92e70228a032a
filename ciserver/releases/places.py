"""The environment's pages, approvals, and stopping the line."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from ciserver.accounts.models import User
from ciserver.lib import live
from ciserver.lib.cursors import leaf
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role, roles_of
from ciserver.projects.services import require
from ciserver.releases import addresses, approvals, domains, environments, policy, preview, services
from ciserver.releases.forms import EnvironmentForm, NewEnvironmentForm
from ciserver.releases.models import Deployment, DeploymentState, Environment

SHOWN = 30


@login_required
@require_safe
def environment(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    """One environment: what runs on each host, its history, policy, hosts and variables."""
    row = _environment(request, slug, name)
    context = _context(request, row)
    if live.wanted(request):
        return live.answer(request, "releases/_environment_live.html", context)
    return render(request, "releases/environment.html", context)


@login_required
@require_safe
def deployments(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    """Everything that was ever put into an environment, newest first."""
    row = _environment(request, slug, name)
    shown = leaf(_history(row), request.GET, by="pk")
    context = {"environment": row, "project": row.project, "leaf": shown}
    if live.wanted(request):
        return live.answer(request, "releases/_deployments_live.html", context)
    return render(request, "releases/deployments.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    """Change an environment's settings, policy, people, hosts and variables."""
    row = _environment(request, slug, name)
    context: dict[str, Any] = {"environment": row, "project": row.project}
    try:
        require(request.user, row.project, Role.MAINTAINER)
    except Refused as refusal:
        return _refused(request, refusal, row.get_absolute_url())
    user = cast(User, request.user)
    form = EnvironmentForm(request.POST or None, environment=row, user=user)
    if request.method == "POST" and form.is_valid():
        try:
            environments.change(environment=row, user=request.user, **form.wanted)
        except Refused as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, f"{row.name} is changed. It holds from the next deployment.")
            return redirect(row)
    status = 400 if form.errors else 200
    context["form"] = form
    return render(request, "releases/edit_environment.html", context, status=status)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Add an environment at the end of the chain."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    try:
        require(request.user, project, Role.MAINTAINER)
    except Refused as refusal:
        return _refused(request, refusal, project.get_absolute_url())
    form = NewEnvironmentForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = cast(User, request.user)
        try:
            hosts = services.usable_hosts(user=user, names=[services.LOCAL])
            return redirect(
                services.create_environment(
                    project=project, hosts=hosts, actor=user.username, **form.cleaned_data
                )
            )
        except Refused as refusal:
            form.add_error("name", str(refusal))
    status = 400 if form.errors else 200
    context = {"form": form, "project": project}
    return render(request, "releases/new_environment.html", context, status=status)


def _around(row: Deployment) -> dict[str, Any]:
    """What every page about one deployment shows."""
    return {
        "deployment": row,
        "release": row.release,
        "environment": row.environment,
        "project": row.environment.project,
    }


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Look at (GET), then say yes (POST) to a promotion that waits."""
    row = _deployment(request, pk)
    if request.method != "POST":
        context = {
            **_around(row),
            "preview": preview.of(row.release, row.environment),
            "may_approve": policy.may_approve(request.user, row),
            "seen": policy.fingerprint(row.release, row.environment),
        }
        return render(request, "releases/approve.html", context)
    try:
        seen = request.POST.get("seen", "")
        row = approvals.approve(deployment=row, user=request.user, seen=seen)
    except Refused as refusal:
        return _refused(request, refusal, row.release.get_absolute_url())
    words = row.reason if row.waiting else f"{row.release.name} is on its way."
    messages.success(request, f"Approved. {words}")
    return redirect(row.release)


@login_required
@require_POST
def reject(request: HttpRequest, pk: int) -> HttpResponse:
    """Say no to a promotion that waits, or withdraw it."""
    row = _deployment(request, pk)
    reason = request.POST.get("reason", "")
    try:
        row = approvals.reject(deployment=row, user=request.user, reason=reason)
    except Refused as refusal:
        return _refused(request, refusal, row.release.get_absolute_url())
    messages.success(request, row.reason)
    return redirect(row.release)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask (GET), then end (POST) a deployment that goes on."""
    row = _deployment(request, pk)
    if request.method != "POST":
        context = {
            **_around(row),
            "current": preview.serving(row.environment),
        }
        return render(request, "releases/cancel.html", context)
    reason = request.POST.get("reason", "")
    try:
        row = approvals.cancel(deployment=row, user=request.user, reason=reason)
    except Refused as refusal:
        return _refused(request, refusal, row.environment.get_absolute_url())
    words = row.reason if row.finished else f"{row.release.name} is being cancelled."
    messages.success(request, words)
    return redirect(row.environment)


@login_required
@require_POST
def stop(request: HttpRequest) -> HttpResponse:
    """Stop the line of one project, or of all."""
    project = _project(request)
    try:
        reason = request.POST.get("reason", "")
        approvals.stop(user=request.user, reason=reason, project=project)
    except Refused as refusal:
        return _refused(request, refusal, _back(request))
    messages.success(request, "The line is stopped: nothing but roll-backs begins.")
    return redirect(_back(request))


@login_required
@require_POST
def resume(request: HttpRequest) -> HttpResponse:
    """Let what waited go on."""
    project = _project(request)
    try:
        approvals.resume(user=request.user, project=project)
    except Refused as refusal:
        return _refused(request, refusal, _back(request))
    messages.success(request, "The line runs again.")
    return redirect(_back(request))


def _context(request: HttpRequest, row: Environment) -> dict[str, Any]:
    running = list(row.running.select_related("host", "release__project").order_by("host__name"))
    current = preview.serving(row)
    started_with = preview.configured(row) if running else None
    first = policy.before(row)
    candidate = preview.serving(first) if first else row.project.releases.first()
    if candidate and current and candidate.number <= current.number:
        candidate = None
    waiting = row.deployments.filter(state=DeploymentState.WAITING).select_related("release")
    asked = waiting.first()
    going = row.deployments.filter(state=DeploymentState.RUNNING).select_related("release").first()
    if asked and asked.release == candidate:
        candidate = None
    now = policy.configuration_of(row)
    changed = preview.changes(started_with, now) if started_with else []
    served = {one.host_id for one in running}
    role = roles_of(request.user, [row.project]).get(row.project_id, 0)
    return {
        "environment": row,
        "project": row.project,
        "running": running,
        "domains": [domains.address(one.name, row.https) for one in row.domains.all()],
        "given_up": addresses.held(row),
        "empty_hosts": [host for host in row.hosts.all() if host.pk not in served],
        "current": current,
        "behind": policy.behind(row, current) if current else 0,
        "before": first,
        "candidate": candidate,
        "changed": changed,
        "waiting": asked,
        "going": going,
        "earlier": services.earlier(row),
        "deployments": _history(row)[:SHOWN],
        "approvers": policy.approvers(row),
        "kept": policy.kept_words(row),
        "stop": policy.stopped(row),
        "may_read": role >= Role.DEVELOPER,
        "may_move": policy.may_promote(request.user, row),
        "may_maintain": role >= Role.MAINTAINER,
        "may_end": role >= Role.OWNER,
    }


def _history(row: Environment) -> QuerySet[Deployment]:
    return row.deployments.select_related("release__project", "from_host", "to_host")


def _environment(request: HttpRequest, slug: str, name: str) -> Environment:
    seen = Project.objects.visible_to(request.user)
    rows = Environment.objects.select_related("project").filter(project__in=seen)
    return get_object_or_404(rows, project__slug=slug, name=name)


def _deployment(request: HttpRequest, pk: int) -> Deployment:
    seen = Project.objects.visible_to(request.user)
    rows = Deployment.objects.select_related("environment__project", "release__project")
    return get_object_or_404(rows.filter(environment__project__in=seen), pk=pk)


def _project(request: HttpRequest) -> Project | None:
    slug = request.POST.get("project", "")
    if not slug:
        return None
    return get_object_or_404(Project.objects.visible_to(request.user), slug=slug)


def _back(request: HttpRequest) -> str:
    asked = request.POST.get("next", "")
    return asked if url_has_allowed_host_and_scheme(asked, allowed_hosts=None) else "/"


def _refused(request: HttpRequest, refusal: Refused, back: str) -> HttpResponse:
    context = {"refusal": refusal, "back": back}
    return render(request, "refused.html", context, status=refusal.status)
