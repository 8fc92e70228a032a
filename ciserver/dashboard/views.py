"""The matrix, the project page, and making a project: pages that cross apps."""

from __future__ import annotations

from typing import cast

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from ciserver.accounts.models import User
from ciserver.dashboard.forms import ProjectForm
from ciserver.dashboard.matrix import matrix_for, rows_for
from ciserver.lib import live
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.pipelines.models import Pipeline
from ciserver.projects import services
from ciserver.projects.badges import badge_path
from ciserver.projects.models import Project, Role, roles_of
from ciserver.releases.models import Stop
from ciserver.webhooks.forges import FORGES

LISTED = 25


@login_required
@require_safe
def matrix(request: HttpRequest) -> HttpResponse:
    """Home: what runs where."""
    asked = request.GET.get("q", "").strip()[:100]
    show, page = request.GET.get("show", ""), request.GET.get("page", "1")
    found = matrix_for(request.user, asked=asked, show=show, page=page)
    if live.wanted(request):
        return live.answer(request, "dashboard/_matrix.html", {"matrix": found})
    stop = Stop.objects.filter(project=None, ended_at=None).first()
    context = {"matrix": found, "git_url": settings.GANTRY.url, "stop": stop}
    return render(request, "dashboard/matrix.html", context)


@login_required
@require_safe
def project(request: HttpRequest, slug: str) -> HttpResponse:
    """One project: its chain of environments, pipelines, releases and how to reach it."""
    row = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    context = _project_context(request, row)
    if live.wanted(request):
        return live.answer(request, "dashboard/_project_live.html", context)
    return render(request, "dashboard/project.html", context)


@login_required
@require_POST
def hook_secret(request: HttpRequest, slug: str) -> HttpResponse:
    """A new webhook secret, shown on this answer alone; or the end of the one before it."""
    row = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    try:
        if "end_old" in request.POST:
            services.end_old_hook_secret(project=row, user=cast(User, request.user))
            return redirect(f"{row.get_absolute_url()}#connect")
        made = request.POST.get("secret", "").strip()
        secret = services.renew_hook_secret(
            project=row,
            user=cast(User, request.user),
            keep_old="drop_old" not in request.POST,
            value=Secret(made) if made else None,
        )
    except Refused as refusal:
        context = {"refusal": refusal, "back": row.get_absolute_url()}
        return render(request, "refused.html", context, status=refusal.status)
    context = _project_context(request, row) | {"new_secret": secret.reveal()}
    response = render(request, "dashboard/project.html", context)
    response.headers["Cache-Control"] = "no-store"
    return response


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new_project(request: HttpRequest) -> HttpResponse:
    """Make a project, then show its three steps to the first push."""
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            owner = cast(User, request.user)
            return redirect(services.create(owner=owner, **form.cleaned_data))
        except Refused as refusal:
            field = "clone_url" if refusal.code == "project.clone-url" else "slug"
            form.add_error(field, str(refusal))
    status = 400 if form.errors else 200
    return render(request, "dashboard/new_project.html", {"form": form}, status=status)


def _project_context(request: HttpRequest, row: Project) -> dict[str, object]:
    pipelines = Pipeline.objects.filter(project=row).select_related("project", "release__project")
    url, badge = settings.GANTRY.url, badge_path(row)
    role = roles_of(request.user, [row]).get(row.pk, 0)
    return {
        "project": row,
        "row": rows_for([row], request.user)[0],
        "pipelines": pipelines[:LISTED],
        "releases": row.releases.all()[:LISTED],
        "pulls": row.pull_requests.filter(open=True)[:LISTED],
        "deliveries": row.deliveries.select_related("pipeline", "pipeline__project")[:5],
        "git_url": f"{settings.GANTRY.url}/git/{row.slug}.git",
        "hook_url": f"{settings.GANTRY.url}/hooks",
        "forges": list(FORGES),
        "badge_path": badge,
        "badge_markdown": f"[![gantry]({url}{badge})]({url}{row.get_absolute_url()})",
        "stop": Stop.objects.filter(Q(project=None) | Q(project=row), ended_at=None).first(),
        "may_maintain": role >= Role.MAINTAINER,
        "may_end": role >= Role.OWNER,
    }
