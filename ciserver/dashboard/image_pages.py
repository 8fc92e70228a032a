"""The registry's pages: repositories, a project's images, one image, two of them compared."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_safe

from ciserver.dashboard import images
from ciserver.dashboard.image_difference import between, shown
from ciserver.dashboard.models import ImageUse
from ciserver.lib import live
from ciserver.projects.models import Project

PAGE_SIZE = 30
FOUND = 30  # images that a search shows


@login_required
@require_safe
def registry(request: HttpRequest) -> HttpResponse:
    """Every repository that the caller may see; with ``q`` also the images that it fits."""
    asked = request.GET.get("q", "").strip()[:100]
    page = images.repositories(request.user, asked=asked, page=request.GET.get("page", "1"))
    context: dict[str, Any] = {"page": page, "asked": asked}
    if asked:
        rows = images.found(images.uses_for(request.user), asked)[: FOUND + 1]
        context["rows"] = _rows(list(rows))
    if live.wanted(request):
        return live.answer(request, "registry/_registry_live.html", context)
    return render(request, "registry/registry.html", context)


@login_required
@require_safe
def project_images(request: HttpRequest, slug: str) -> HttpResponse:
    """The images that one project pushed, newest first, to look at and to compare."""
    project = _project(request, slug)
    asked = request.GET.get("q", "").strip()[:100]
    rows = images.found(images.uses_for(request.user).filter(project=project), asked)
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page", "1"))
    context = {"project": project, "asked": asked, "page": page, "rows": _rows(list(page))}
    return render(request, "registry/project.html", context)


@login_required
@require_safe
def image(request: HttpRequest, slug: str, digest: str) -> HttpResponse:
    """One image: its layers, its config, and who uses it."""
    project = _project(request, slug)
    use = images.use_of(project, digest)
    releases = images.releases_of(use)
    where = images.running(releases)
    config = [(key, shown(value)) for key, value in use.image.config.items() if key != "Env"]
    before = images.before(use)
    context = {
        "project": project,
        "use": use,
        "image": use.image,
        "tags": images.tags_of(use),
        "removed": images.removed(use),
        "map": images.map_of(use, request.user),
        "config": config,
        "variables": images.variables(use.image),
        "labels": use.image.labels.all(),
        "releases": [(release, where.get(release.pk, [])) for release in releases],
        "before": before,
        "reference": f"{use.repository}@{use.image.digest}",
    }
    return render(request, "registry/image.html", context)


@login_required
@require_safe
def compare(request: HttpRequest, slug: str) -> HttpResponse:
    """What ``?new=`` has that ``?old=`` has not, and the other way round."""
    project = _project(request, slug)
    asked = [request.GET.get(side, "") for side in ("old", "new")]
    if not all(asked):
        return redirect("images", project.slug)  # there two can be chosen
    old, new = (images.use_of(project, digest) for digest in asked)
    difference = between(old.image, new.image)
    context = {"project": project, "old": old, "new": new, "difference": difference}
    return render(request, "registry/compare.html", context)


def _project(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.visible_to(request.user), slug=slug)


def _rows(uses: list[ImageUse]) -> list[dict[str, Any]]:
    """Each use with its tags and the places that run it."""
    releases = {use.pk: getattr(use.pipeline, "release", None) for use in uses}
    where = images.running(release for release in releases.values() if release)
    found = []
    for use in uses:
        release = releases[use.pk]
        here = [one for one in where.get(release.pk, []) if not use.name] if release else []
        places = list({one.environment_id: one.environment for one in here}.values())
        found.append(
            {
                "use": use,
                "tags": images.tags_of(use),
                "places": places,
                "removed": images.removed(use),
            }
        )
    return found
