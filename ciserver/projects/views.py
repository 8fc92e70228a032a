"""The pages of a project's settings: its secrets, and how it is built."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from ciserver.accounts.models import User
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects import services
from ciserver.projects.forms import BuildingForm, SecretForm
from ciserver.projects.models import Project, Role


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def secrets(request: HttpRequest, slug: str) -> HttpResponse:
    """Names and ages of the secrets; a maintainer sets them."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    form = SecretForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        name, value = form.cleaned_data["name"], Secret(form.cleaned_data["value"])
        try:
            user = cast(User, request.user)
            services.set_secret(project=project, user=user, name=name, value=value)
        except Refused as refusal:
            if refusal.status == 403:
                return _refused(request, refusal, project)
            form.add_error("name" if refusal.code == "secret.name" else "value", str(refusal))
        else:
            messages.success(request, f"{name} is set.")
            return redirect("secrets", slug)
    context = {
        "project": project,
        "form": form,
        "secrets": project.secrets.all(),
        "may_maintain": project.allows(request.user, Role.MAINTAINER),
    }
    status = 400 if form.errors else 200
    response = render(request, "projects/secrets.html", context, status=status)
    response.headers["Cache-Control"] = "no-store"  # a refused form holds its value
    return response


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def building(request: HttpRequest, slug: str) -> HttpResponse:
    """What the project is said to be, and how its pipelines are queued; a maintainer changes it."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    now = {name: getattr(project, name) for name in BuildingForm.base_fields}
    form = BuildingForm(request.POST or None, initial=now)
    if request.method == "POST" and form.is_valid():
        try:
            user = cast(User, request.user)
            services.change(project=project, user=user, **form.cleaned_data)
        except Refused as refusal:
            return _refused(request, refusal, project)
        messages.success(request, "Saved. It counts from the next commit on.")
        return redirect("building", slug)
    may_maintain = project.allows(request.user, Role.MAINTAINER)
    context = {"project": project, "form": form, "may_maintain": may_maintain}
    status = 400 if form.errors else 200
    return render(request, "projects/building.html", context, status=status)


@login_required
@require_POST
def remove_secret(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    row = get_object_or_404(project.secrets, name=request.POST.get("name", ""))
    try:
        services.remove_secret(secret=row, user=cast(User, request.user))
    except Refused as refusal:
        return _refused(request, refusal, project)
    messages.success(request, f"{row.name} is removed.")
    return redirect("secrets", slug)


def _refused(request: HttpRequest, refusal: Refused, project: Project) -> HttpResponse:
    context = {"refusal": refusal, "back": project.get_absolute_url()}
    return render(request, "refused.html", context, status=refusal.status)
