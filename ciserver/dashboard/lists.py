"""All pipelines and all releases of a project, which its page shows the newest of."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from ciserver.lib import live
from ciserver.lib.cursors import leaf
from ciserver.pipelines.models import FINISHED, Event, Pipeline, State
from ciserver.projects.models import Project

STATES = (State.QUEUED, State.RUNNING, *FINISHED)


@login_required
@require_safe
def pipelines(request: HttpRequest, slug: str) -> HttpResponse:
    """Newest first; ``branch`` (also a tag, or a whole ref), ``state`` and ``event`` choose."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    branch = request.GET.get("branch", "").strip()[:300]
    state, event = request.GET.get("state", ""), request.GET.get("event", "")
    rows = Pipeline.objects.filter(project=project)
    if branch:
        rows = rows.filter(ref__in=[branch, f"refs/heads/{branch}", f"refs/tags/{branch}"])
    if state in STATES:
        rows = rows.filter(state=state)
    if event in Event.values:
        rows = rows.filter(event=event)
    rows = rows.select_related("project", "release__project")
    chosen = {"branch": branch, "state": state, "event": event}
    context = {
        "project": project,
        "leaf": leaf(rows, request.GET, by="number", **chosen),
        "chosen": any(chosen.values()),
        "states": STATES,
        "events": Event.choices,
        **chosen,
    }
    if live.wanted(request):
        return live.answer(request, "dashboard/_pipelines_live.html", context)
    return render(request, "dashboard/pipelines.html", context)


@login_required
@require_safe
def releases(request: HttpRequest, slug: str) -> HttpResponse:
    """Newest first."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    rows = project.releases.select_related("project")
    context = {"project": project, "leaf": leaf(rows, request.GET, by="number")}
    if live.wanted(request):
        return live.answer(request, "dashboard/_releases_live.html", context)
    return render(request, "dashboard/releases.html", context)
