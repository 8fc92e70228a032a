"""Pages of a project's tests: what is flaky and slow, and one test's history."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from ciserver.pipelines import case_history
from ciserver.projects.models import Project

SHOWN = 100


@login_required
@require_safe
def tests(request: HttpRequest, slug: str) -> HttpResponse:
    """Flaky and slow tests; ``?name=&suite=`` the history of one."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    name, suite = request.GET.get("name", ""), request.GET.get("suite", "")
    if not name:
        context = {
            "project": project,
            "flaky": case_history.flaky(project),
            "slowest": case_history.slowest(project),
            "recent": case_history.RECENT,
        }
        return render(request, "pipelines/tests.html", context)
    runs = list(case_history.history(project, suite, name)[:SHOWN])
    if not runs:
        raise Http404
    longest = max(run.seconds for run in runs) or 1
    rows = [(run, round(run.seconds / longest * 100, 1)) for run in runs]
    context = {"project": project, "name": name, "suite": suite, "rows": rows}
    return render(request, "pipelines/test.html", context)
