"""The button that lets a fork's commit be built."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from ciserver.accounts.models import User
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project
from ciserver.webhooks.approvals import approve
from ciserver.webhooks.models import PullRequest


@login_required
@require_POST
def approve_pull(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Approve the commit that the form shows; a newer one is refused."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    row = get_object_or_404(PullRequest, project=project, pk=pk)
    try:
        user = cast(User, request.user)
        approve(pull_request=row, sha=request.POST.get("sha", ""), user=user)
    except Refused as refusal:
        context = {"refusal": refusal, "back": project.get_absolute_url()}
        return render(request, "refused.html", context, status=refusal.status)
    messages.success(request, f"{row.sha[:12]} of pull request {row.number} is being built.")
    return redirect(project)
