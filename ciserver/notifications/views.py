"""The page of a project's commit statuses."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from ciserver.accounts.models import User
from ciserver.lib import live
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.notifications import services
from ciserver.notifications.forges import FORGES
from ciserver.notifications.forms import TargetForm
from ciserver.notifications.models import CommitStatus, StatusTarget
from ciserver.projects.models import Project, Role

LISTED = 10


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def statuses(request: HttpRequest, slug: str) -> HttpResponse:
    """Where they go, and how the last ones fared; a maintainer changes it."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    target = StatusTarget.objects.filter(project=project).first()
    shown = {name: getattr(target, name) for name in ("forge", "repository", "api_url") if target}
    form = TargetForm(request.POST or None, initial=shown)
    if request.method == "POST" and form.is_valid():
        given = dict(form.cleaned_data)
        given["token"] = Secret(given["token"])
        try:
            services.set_target(project=project, user=cast(User, request.user), **given)
        except Refused as refusal:
            field = refusal.code.removeprefix("statuses.")
            if field not in form.fields:
                return _refused(request, refusal, project)
            form.add_error(field, refusal.message)
        else:
            messages.success(request, "The forge is told of every pipeline from now on.")
            return redirect("statuses", slug)
    context = {
        "project": project,
        "form": form,
        "target": target,
        "statuses": CommitStatus.objects.filter(project=project)[:LISTED],
        "tokens": [(name, forge.TOKEN) for name, forge in FORGES.items()],
        "may_maintain": project.allows(request.user, Role.MAINTAINER),
    }
    if live.wanted(request):
        return live.answer(request, "notifications/_statuses_live.html", context)
    status = 400 if form.errors else 200
    response = render(request, "notifications/statuses.html", context, status=status)
    response.headers["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def remove(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    try:
        services.remove_target(project=project, user=cast(User, request.user))
    except Refused as refusal:
        return _refused(request, refusal, project)
    messages.success(request, "No forge is told any more.")
    return redirect("statuses", slug)


def _refused(request: HttpRequest, refusal: Refused, project: Project) -> HttpResponse:
    context = {"refusal": refusal, "back": project.get_absolute_url()}
    return render(request, "refused.html", context, status=refusal.status)
