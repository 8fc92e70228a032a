"""The page of an environment's secrets."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects.forms import SecretForm
from ciserver.projects.models import Project, Role
from ciserver.releases.models import Environment
from ciserver.releases.secrets import remove_secret, set_secret


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    """Names and ages of the secrets; a maintainer sets them."""
    row = _environment(request, slug, name)
    form = SecretForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        given, value = form.cleaned_data["name"], Secret(form.cleaned_data["value"])
        try:
            set_secret(environment=row, user=request.user, name=given, value=value)
        except Refused as refusal:
            if refusal.status == 403:
                return _refused(request, refusal, row)
            form.add_error("value" if refusal.code == "secret.value" else "name", str(refusal))
        else:
            messages.success(request, f"{given} is set. It holds from the next deployment.")
            return redirect("environment-secrets", slug, name)
    context = {
        "project": row.project,
        "environment": row,
        "form": form,
        "secrets": row.secrets.all(),
        "may_maintain": row.project.allows(request.user, Role.MAINTAINER),
    }
    status = 400 if form.errors else 200
    response = render(request, "releases/secrets.html", context, status=status)
    response.headers["Cache-Control"] = "no-store"  # a refused form holds its value
    return response


@login_required
@require_POST
def remove(request: HttpRequest, slug: str, name: str) -> HttpResponse:
    row = _environment(request, slug, name)
    secret = get_object_or_404(row.secrets, name=request.POST.get("name", ""))
    try:
        remove_secret(secret=secret, user=request.user)
    except Refused as refusal:
        return _refused(request, refusal, row)
    messages.success(request, f"{secret.name} is removed. It holds from the next deployment.")
    return redirect("environment-secrets", slug, name)


def _environment(request: HttpRequest, slug: str, name: str) -> Environment:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    return get_object_or_404(
        project.environments.select_related("project").prefetch_related("secrets"), name=name
    )


def _refused(request: HttpRequest, refusal: Refused, row: Environment) -> HttpResponse:
    context = {"refusal": refusal, "back": row.get_absolute_url()}
    return render(request, "refused.html", context, status=refusal.status)
