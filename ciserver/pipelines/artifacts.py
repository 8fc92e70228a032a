"""Handing out artifacts: always to be saved, never shown, whatever a job called them."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import FileResponse, Http404, HttpRequest
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_safe

from ciserver.pipelines.models import Artifact
from ciserver.projects.models import Project


@login_required
@require_safe
def download(request: HttpRequest, slug: str, number: int, pk: int) -> FileResponse:
    seen = Project.objects.visible_to(request.user).filter(slug=slug)
    rows = Artifact.objects.filter(job__pipeline__project__in=seen, job__pipeline__number=number)
    return file_of(get_object_or_404(rows, pk=pk))


def file_of(artifact: Artifact) -> FileResponse:
    """The answer that holds the file. Raises Http404 when its time is over."""
    try:
        if artifact.expires_at <= timezone.now():
            raise FileNotFoundError
        file = artifact.file.open("rb")
    except FileNotFoundError:
        raise Http404 from None
    response = FileResponse(
        file,
        as_attachment=True,
        filename=artifact.name,
        content_type="application/octet-stream",
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["ETag"] = f'"{artifact.sha256}"'
    return response
