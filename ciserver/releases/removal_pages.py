"""The pages on which a project is archived or deleted, and an environment removed."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from ciserver.lib import live
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require_role
from ciserver.releases import archiving
from ciserver.releases.models import Environment, Running


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def project(request: HttpRequest, slug: str) -> HttpResponse:
    """``do``: archive, restore, delete, or delete-now; the last two with the name typed."""
    row = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    wrong = ""
    try:
        require_role(request.user, row, Role.OWNER)
        if request.method == "POST":
            messages.success(request, _do(request, row))
            return redirect("archive-project", slug)
    except Refused as refusal:
        if refusal.status != 400:
            return _refused(request, refusal, row.get_absolute_url())
        wrong = str(refusal)
    running = Running.objects.filter(environment__project=row)
    context: dict[str, Any] = {
        "project": row,
        "wrong": wrong,
        "days": archiving.GRACE.days,
        "running": running.select_related("environment", "host", "release"),
        "releases": row.releases.count(),
        "pipelines": row.pipelines.count(),
    }
    if live.wanted(request) and row.going:
        return live.answer(request, "releases/_removal_live.html", context)
    return render(request, "releases/archive_project.html", context, status=400 if wrong else 200)


def _do(request: HttpRequest, row: Project) -> str:
    user, confirm = request.user, request.POST.get("confirm", "")
    match request.POST.get("do", ""):
        case "archive":
            archiving.archive(project=row, user=user)
            return f"{row} is archived: it is only read from now on."
        case "restore":
            archiving.restore(project=row, user=user)
            return f"{row} is open again."
        case "delete" | "delete-now" as do:
            now = do == "delete-now"
            archiving.delete(project=row, user=user, confirm=confirm, now=now)
            when = "now" if now else f"in {archiving.GRACE.days} days"
            return f"{row} is archived, and deleted {when}."
    raise Refused("Say what to do.", code="invalid", hint="Use the page's buttons.", status=400)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def environment(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    """Ask whether an environment is to go, and for its name typed."""
    seen = Project.objects.visible_to(request.user)
    row = get_object_or_404(Environment, project__in=seen, project__slug=slug, name=name)
    wrong = ""
    try:
        require_role(request.user, row.project, Role.OWNER)
        if request.method == "POST":
            confirm = request.POST.get("confirm", "")
            archiving.remove(environment=row, user=request.user, confirm=confirm)
            messages.success(request, f"{row} is being removed: a worker stops what serves it.")
            return redirect(row)
    except Refused as refusal:
        if refusal.status != 400:
            return _refused(request, refusal, row.get_absolute_url())
        wrong = str(refusal)
    context: dict[str, Any] = {
        "environment": row,
        "project": row.project,
        "running": row.running.select_related("host", "release"),
        "gap": archiving.gap_of(row, request.user.get_username()),
        "wrong": wrong,
    }
    page = "releases/remove_environment.html"
    return render(request, page, context, status=400 if wrong else 200)


def _refused(request: HttpRequest, refusal: Refused, back: str) -> HttpResponse:
    context = {"refusal": refusal, "back": back}
    return render(request, "refused.html", context, status=refusal.status)
