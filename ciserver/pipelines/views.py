"""The pipeline page, its event stream and the earlier lines of its logs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from django.contrib.auth.decorators import login_required
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from ciserver.lib.problems import Refused
from ciserver.pipelines import logview, services, shutdown
from ciserver.pipelines.logs import Position
from ciserver.pipelines.models import Job, Pipeline
from ciserver.pipelines.stream import Progress, stream
from ciserver.pipelines.timeline import JobView, PipelineView, view_of
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require

FIRST_LINES = 280  # of all jobs together: the first load stays under 150 KB
FIRST_BYTES = 40 * 1024


@login_required
@require_safe
def pipeline(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One pipeline: what became of it, its jobs and steps, and the end of their logs."""
    row = _pipeline(request, slug, number)
    view = view_of(row)
    windows = _windows(view)
    progress = Progress(row.attempt, {job: window.end for job, window in windows.items()})
    context = {
        "pipeline": row,
        "project": row.project,
        "view": view,
        "chosen": view.job_named(request.GET.get("job", "")) or view.focus,
        "windows": windows,
        "progress": str(progress),
        "may_run_again": row.may_run_again and row.project.allows(request.user, Role.DEVELOPER),
        "may_cancel": not row.finished and row.project.allows(request.user, Role.DEVELOPER),
    }
    response = render(request, "pipelines/pipeline.html", context)
    response.headers["Cache-Control"] = "no-store"  # a page from the cache would show lines twice
    return response


@require_safe
async def pipeline_events(request: HttpRequest, slug: str, number: int) -> HttpResponseBase:
    """Server-sent events of one pipeline page; see ``stream``."""
    user = await request.auser()
    project = await Project.objects.visible_to(user).filter(slug=slug).afirst()
    row = await Pipeline.objects.filter(project=project, number=number).afirst()
    if project is None or row is None:
        return HttpResponse("There is no such pipeline here, or you may not see it.", status=404)
    shutdown.watch()
    asked = request.headers.get("Last-Event-ID") or request.GET.get("from", "")
    progress = Progress.parse(asked) if asked else Progress(row.attempt)
    if progress is None:
        return HttpResponseBadRequest("Last-Event-ID is not one that this stream gave.")
    return event_stream(stream(row.pk, progress))


def event_stream(frames: AsyncIterator[str]) -> StreamingHttpResponse:
    response = StreamingHttpResponse(_bytes(frames), content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


@login_required
@require_safe
def log_before(request: HttpRequest, slug: str, number: int, job: int) -> HttpResponse:
    """The 1,000 lines of a job's log before ``before``, for the page to put on top."""
    row = get_object_or_404(Job, pipeline=_pipeline(request, slug, number), position=job)
    try:
        before = Position.parse(request.GET.get("before", ""))
        window = logview.window_before(row.log_path, job, before)
    except (ValueError, FileNotFoundError):
        return HttpResponseBadRequest("There are no lines there. Load the page again.")
    return render(request, "pipelines/_earlier.html", {"job": row, "window": window})


@login_required
@require_POST
def cancel(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    row = _pipeline(request, slug, number)
    try:
        require(request.user, row.project, Role.DEVELOPER)
        services.cancel(pipeline=row, by=request.user.get_username())
    except Refused as refusal:
        return _refused(request, refusal, row)
    return redirect(row)


@login_required
@require_POST
def run_again(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """``only=failed`` keeps the tests that passed."""
    row = _pipeline(request, slug, number)
    only_failed = request.POST.get("only") == "failed"
    try:
        require(request.user, row.project, Role.DEVELOPER)
        services.run_again(pipeline=row, by=request.user.get_username(), only_failed=only_failed)
    except Refused as refusal:
        return _refused(request, refusal, row)
    return redirect(row)


def _refused(request: HttpRequest, refusal: Refused, row: Pipeline) -> HttpResponse:
    context = {"refusal": refusal, "back": row.get_absolute_url()}
    return render(request, "refused.html", context, status=refusal.status)


def _pipeline(request: HttpRequest, slug: str, number: int) -> Pipeline:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    rows = Pipeline.objects.select_related("project", "release", "coverage_base")
    return get_object_or_404(rows, project=project, number=number)


def _windows(view: PipelineView) -> dict[int, logview.Window]:
    """The last lines of each job: those of the job to look at first, and a few of the others."""
    return {job.job.position: _window(job, job is view.focus, len(view.jobs)) for job in view.jobs}


def _window(job: JobView, focused: bool, jobs: int) -> logview.Window:
    share = 1 if focused else 4 * jobs
    try:
        return logview.last_window(
            job.job.log_path,
            job.job.position,
            count=max(FIRST_LINES // share, 10),
            size=max(FIRST_BYTES // share, 1024),
        )
    except Refused:  # its storage is away: all else of the page is of use without it
        return logview.Window(Position(), Position(), {})


async def _bytes(frames: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for frame in frames:
        yield frame.encode()
