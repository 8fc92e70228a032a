"""The page of a project's members: people and teams with their roles."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from ciserver.accounts.models import User
from ciserver.lib.problems import Refused
from ciserver.projects import members
from ciserver.projects.forms import MemberForm
from ciserver.projects.models import Project, Role


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest, slug: str) -> HttpResponse:
    """Everybody with a role; an owner gives roles to people and teams."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    form = MemberForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        name, role = form.cleaned_data["name"], Role(form.cleaned_data["role"])
        by = cast(User, request.user)
        try:
            if form.cleaned_data["kind"] == "team":
                members.set_team(project=project, by=by, name=name, role=role)
            else:
                members.set_member(project=project, by=by, username=name, role=role)
        except Refused as refusal:
            if refusal.status == 403:
                return _refused(request, refusal, project)
            form.add_error("name", str(refusal))
        else:
            messages.success(request, f"{name} is now {role.label} of {project}.")
            return redirect("members", slug)
    context = {
        "project": project,
        "form": form,
        "people": members.members_of(project),
        "teams": members.teams_of(project),
        "roles": Role.choices,
        "may_own": project.allows(request.user, Role.OWNER),
    }
    status = 400 if form.errors else 200
    return render(request, "projects/members.html", context, status=status)


@login_required
@require_POST
def remove(request: HttpRequest, slug: str) -> HttpResponse:
    """Take a role away from somebody, from oneself, or from a team."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    by = cast(User, request.user)
    name = request.POST.get("name", "")
    try:
        if request.POST.get("kind") == "team":
            there = members.remove_team(project=project, by=by, name=name)
        else:
            there = members.remove_member(project=project, by=by, username=name)
    except Refused as refusal:
        return _refused(request, refusal, project)
    if not there:
        raise Http404
    messages.success(request, f"{name} has no role of their own in {project} any more.")
    if not project.allows(by, Role.VIEWER):
        return redirect("matrix")
    return redirect("members", slug)


def _refused(request: HttpRequest, refusal: Refused, project: Project) -> HttpResponse:
    context = {"refusal": refusal, "back": project.get_absolute_url()}
    return render(request, "refused.html", context, status=refusal.status)
