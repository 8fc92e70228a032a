"""A project's badge: how the newest pipeline of a branch ended, as an SVG for a README.

Whoever has the address may see it, signed in or not, so it holds a key that nobody can guess
and tells nothing but the state.
"""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.utils.crypto import constant_time_compare, salted_hmac
from django.views.decorators.http import condition, require_safe

from ciserver.pipelines.models import Pipeline, State
from ciserver.projects.models import Project

# Words and colours of the usual badges; the colours carry white text at 4.5:1 or more.
LOOKS = {
    State.PASSED: ("passing", "#1a7f37"),
    State.FAILED: ("failing", "#c62828"),
    State.CANCELLED: ("cancelled", "#57606a"),
    State.RUNNING: ("running", "#9a6700"),
    State.QUEUED: ("queued", "#9a6700"),
}
NOTHING_YET = ("no pipeline", "#57606a")
CHARACTER, PADDING = 6.8, 12  # pixels; the text is stretched to fit, whatever the font


def badge_path(project: Project) -> str:
    """The address, with the part that cannot be guessed."""
    return reverse("badge", args=[project.slug, _key(project)])


def _key(project: Project) -> str:
    return salted_hmac("gantry.badge", project.slug).hexdigest()[:20]


def _newest(request: HttpRequest, slug: str, key: str) -> Pipeline | None:
    project = Project.objects.filter(slug=slug).first()
    if project is None or not constant_time_compare(key, _key(project)):
        raise Http404
    branch = request.GET.get("branch") or project.default_branch
    ref = f"refs/heads/{branch}"
    return project.pipelines.filter(ref=ref).order_by("-number").first()


def _etag(request: HttpRequest, slug: str, key: str) -> str:
    newest = _newest(request, slug, key)
    return f'"{newest.pk}-{newest.state}"' if newest else '"none"'


@require_safe
@condition(etag_func=_etag)
def badge(request: HttpRequest, slug: str, key: str) -> HttpResponse:
    """``?branch=`` names another branch than the default. 404 for a wrong key."""
    newest = _newest(request, slug, key)
    word, colour = LOOKS[State(newest.state)] if newest else NOTHING_YET
    left, right = (_width(text) for text in ("gantry", word))
    context = {"word": word, "colour": colour, "left": left, "right": right, "all": left + right}
    answer = render(request, "dashboard/badge.svg", context, content_type="image/svg+xml")
    # Image proxies of forges keep what they may: the state would stand still in a README.
    patch_cache_control(answer, no_cache=True)
    return answer


def _width(text: str) -> int:
    return round(len(text) * CHARACTER) + PADDING
