"""The page of one pipeline's coverage: each file, the lines that did not run, and the change."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from ciserver.pipelines import coverage
from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Project

SHOWN = 500  # files


@login_required
@require_safe
def coverage_page(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Files with most lines missed first."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    rows = Pipeline.objects.select_related("coverage_base")
    pipeline = get_object_or_404(rows, project=project, number=number)
    files = coverage.by_file(pipeline)
    context = {
        "project": project,
        "pipeline": pipeline,
        "files": files[:SHOWN],
        "hidden": max(len(files) - SHOWN, 0),
    }
    return render(request, "pipelines/coverage.html", context)
