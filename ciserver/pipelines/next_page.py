"""The page that waits for a project's next pipeline and then is that pipeline's page, live."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from django.contrib.auth.decorators import login_required
from django.db.models import Max
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string
from django.views.decorators.http import require_safe

from ciserver.pipelines import events, shutdown
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.stream import KEEP_ALIVE, RETRY_MS, Progress, frame, stream
from ciserver.pipelines.views import event_stream
from ciserver.projects.models import Project


@login_required
@require_safe
def next_pipeline(request: HttpRequest, slug: str) -> HttpResponse:
    """Open it before a push: the log begins here, without a click in between."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    last = project.pipelines.aggregate(last=Max("number"))["last"] or 0
    response = render(request, "pipelines/next.html", {"project": project, "last": last})
    response.headers["Cache-Control"] = "no-store"
    return response


@require_safe
async def next_events(request: HttpRequest, slug: str) -> HttpResponseBase:
    """The events of the first pipeline behind number ``after``, with one called begin in front of
    them that names it. What comes back with Last-Event-ID, or ``from``, goes on with it."""
    user = await request.auser()
    project = await Project.objects.visible_to(user).filter(slug=slug).afirst()
    if project is None:
        return HttpResponse("There is no such project here, or you may not see it.", status=404)
    asked = request.headers.get("Last-Event-ID") or request.GET.get("from", "0")
    progress = Progress.parse(asked)
    after = request.GET.get("after", "")
    if progress is None or not (after.isascii() and after.isdigit() and len(after) < 10):
        return HttpResponseBadRequest("This address is not one that the page gave.")
    shutdown.watch()
    return event_stream(_next(project, int(after), progress))


async def _next(project: Project, after: int, progress: Progress) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    later = project.pipelines.filter(number__gt=after).order_by("number")
    quiet_since = time.monotonic()
    async for _ in events.matrix_changes():
        if (pipeline := await later.afirst()) is not None or shutdown.stopping():
            break
        if time.monotonic() - quiet_since > KEEP_ALIVE:
            quiet_since = time.monotonic()
            yield ": still here\n\n"
    if pipeline is None:
        return
    pipeline.project = project
    if not progress.attempt:
        yield frame("begin", _head(pipeline), progress)
    async for text in stream(pipeline.pk, progress):
        yield text


def _head(pipeline: Pipeline) -> str:
    return render_to_string(
        "pipelines/_head.html", {"pipeline": pipeline, "project": pipeline.project}
    )
