"""A project's badge: how the newest pipeline of a branch ended, as an SVG for a README.

Whoever has the address may see it, signed in or not, so it holds a key that nobody can guess
and tells nothing but the state.
"""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_cache_control
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import condition, require_safe

from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.badges import key_of
from ciserver.projects.models import Project

# Words and colours of the usual badges; the colours carry white text at 4.5:1 or more.
LOOKS = {
    State.PASSED: ("passing", "#1a7f37"),
    State.FAILED: ("failing", "#c62828"),
    State.CANCELLED: ("cancelled", "#57606a"),
    State.RUNNING: ("running", "#9a6700"),
    State.QUEUED: ("queued", "#9a6700"),
}
BAD = LOOKS[State.FAILED][1]
NOTHING_YET = ("no pipeline", "#57606a")
CHARACTER, PADDING = 6.8, 12  # pixels; the text is stretched to fit, whatever the font


def _newest(request: HttpRequest, slug: str, key: str) -> Pipeline | None:
    project = Project.objects.filter(slug=slug).first()
    if project is None or not constant_time_compare(key, key_of(project)):
        raise Http404
    branch = request.GET.get("branch") or project.default_branch
    ref = f"refs/heads/{branch}"
    return project.pipelines.filter(ref=ref).order_by("-number").first()


def _etag(request: HttpRequest, slug: str, key: str) -> str:
    newest = _newest(request, slug, key)
    what = request.GET.get("of", "")[:20]
    return f'"{newest.pk}-{newest.state}-{what.isalpha() and what}"' if newest else '"none"'


@require_safe
@condition(etag_func=_etag)
def badge(request: HttpRequest, slug: str, key: str) -> HttpResponse:
    """``?branch=`` names another branch than the default, ``?of=coverage`` tells how much of the
    code the tests ran. 404 for a wrong key."""
    newest = _newest(request, slug, key)
    label = "gantry"
    if request.GET.get("of") == "coverage":
        label = "coverage"
        word, colour = _coverage_look(newest)
    else:
        word, colour = LOOKS[State(newest.state)] if newest else NOTHING_YET
    left, right = (_width(text) for text in (label, word))
    context = {"label": label, "word": word, "colour": colour, "left": left, "right": right}
    context["all"] = left + right
    answer = render(request, "dashboard/badge.svg", context, content_type="image/svg+xml")
    # Image proxies of forges keep what they may: the state would stand still in a README.
    patch_cache_control(answer, no_cache=True)
    return answer


def _coverage_look(newest: Pipeline | None) -> tuple[str, str]:
    """Of the newest pipeline that has a figure, on the same ref."""
    if newest is not None and newest.coverage is None:
        rows = newest.project.pipelines.filter(ref=newest.ref, coverage_lines__isnull=False)
        newest = rows.order_by("-number").first()
    if newest is None or newest.coverage is None:
        return "unknown", NOTHING_YET[1]
    good, fair = LOOKS[State.PASSED][1], LOOKS[State.RUNNING][1]
    colour = good if newest.coverage >= 80 else fair if newest.coverage >= 60 else BAD
    return f"{newest.coverage:.0f}%", colour


def _width(text: str) -> int:
    return round(len(text) * CHARACTER) + PADDING
