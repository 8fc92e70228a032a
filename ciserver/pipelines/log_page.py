"""The page of one job's log: opens on any line at once, and searches."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from ciserver.lib.problems import Refused
from ciserver.pipelines import logview
from ciserver.pipelines.ansi import to_html
from ciserver.pipelines.logs import LINE_CAP
from ciserver.pipelines.logsearch import first_error, search
from ciserver.pipelines.models import Job
from ciserver.projects.models import Project

SHOWN = 100
MARKS = 200  # of one line


@login_required
@require_safe
def lines(request: HttpRequest, slug: str, number: int, job: int) -> HttpResponse:
    """``?line=N`` shows the lines about N, ``?q=WORDS`` those that hold them; else the end.

    ``?go=error`` leads to the first line that seems to tell of an error.
    """
    seen = Project.objects.visible_to(request.user)
    rows = Job.objects.select_related("pipeline__project").filter(pipeline__project__in=seen)
    row = get_object_or_404(
        rows, pipeline__project__slug=slug, pipeline__number=number, position=job
    )
    here = reverse("pipeline-lines", args=[slug, number, job])
    context: dict[str, Any] = {"job": row, "pipeline": row.pipeline, "here": here}
    words = request.GET.get("q", "")[:200]
    asked, after = request.GET.get("line", ""), request.GET.get("after", "0")
    if not all(re.fullmatch("[0-9]{1,9}", text) for text in (asked or "1", after)):
        return HttpResponseBadRequest("A line is a whole number, such as ?line=120.")
    try:
        return _page(request, row, context, words, asked, int(after))
    except Refused as refusal:  # the object storage is away, or the log is damaged
        told = {"refusal": refusal, "back": row.pipeline.get_absolute_url()}
        return render(request, "refused.html", told, status=refusal.status)


def _page(
    request: HttpRequest, row: Job, context: dict[str, Any], words: str, asked: str, after: int
) -> HttpResponse:
    here, job = context["here"], row.position
    if request.GET.get("go") == "error":
        found = first_error(row.log_path)
        if found:
            return redirect(f"{here}?line={found}#j{job}-L{found}")
        context["note"] = "No line of this log speaks of an error."
    if words.strip():
        context |= _found(row, words, after)
    elif asked:
        context["window"] = logview.window_at(row.log_path, job, int(asked))
    else:
        context["window"] = logview.last_window(row.log_path, job)
    return render(request, "pipelines/lines.html", context | {"words": words})


def _found(job: Job, words: str, after: int) -> dict[str, Any]:
    most = logview.WINDOW_BYTES
    matches = search(job.log_path, words, after=after, limit=SHOWN + 1, size=most)
    shown = [(line.number, _marked(line.text, words)) for line in matches[:SHOWN]]
    cut = len(matches) > SHOWN or sum(len(line.text) for line in matches) > most - LINE_CAP
    more = shown[-1][0] if cut else None
    return {"matches": shown, "more": more, "after": after}


def _marked(text: str, words: str) -> str:
    """HTML of ``text``, with the first MARKS places that hold ``words`` marked."""
    parts, at = [], 0
    for found in islice(re.finditer(re.escape(words), text, re.IGNORECASE), MARKS):
        parts += [to_html(text[at : found.start()]), f"<mark>{to_html(found[0])}</mark>"]
        at = found.end()
    return "".join([*parts, to_html(text[at:])])
