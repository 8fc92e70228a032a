"""The page of a project's repository."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from ciserver.accounts.models import User
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.repositories import services
from ciserver.repositories.forms import RulesForm
from ciserver.repositories.models import Access


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def repository(request: HttpRequest, slug: str) -> HttpResponse:
    """What is protected and how much may be pushed; a maintainer changes it."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    form = RulesForm.of(project, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = cast(User, request.user)
            services.set_rules(project=project, user=user, **form.cleaned_data)
        except Refused as refusal:
            field = refusal.code.removeprefix("git.").replace("project.clone-url", "clone_url")
            if field not in form.fields:
                return refused(request, refusal, project)
            form.add_error(field, str(refusal) if field == "clone_url" else refusal.message)
        else:
            messages.success(request, "The repository's rules are saved.")
            return redirect("repository", slug)
    return page(request, project, form)


@login_required
@require_POST
def new_key(request: HttpRequest, slug: str) -> HttpResponse:
    """A new deploy key."""
    return _done(request, slug, services.renew_key, "Give the new public key to the forge.")


@login_required
@require_POST
def login(request: HttpRequest, slug: str) -> HttpResponse:
    """What an https repository asks for; an empty name removes it."""
    set_login = partial(
        services.set_login,
        username=request.POST.get("username", "").strip()[:150],
        password=Secret(request.POST.get("password", "")),
    )
    return _done(request, slug, set_login, "The login is saved.")


@login_required
@require_POST
def forget_host(request: HttpRequest, slug: str) -> HttpResponse:
    """Pin whatever key the host shows next."""
    return _done(
        request, slug, services.forget_host_keys, "The next fetch pins the key that it is shown."
    )


def _done(request: HttpRequest, slug: str, verb: Callable[..., object], said: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    try:
        verb(project=project, user=cast(User, request.user))
    except Refused as refusal:
        return refused(request, refusal, project)
    messages.success(request, said)
    return redirect("repository", slug)


def page(request: HttpRequest, project: Project, form: RulesForm, **more: object) -> HttpResponse:
    context = {
        "project": project,
        "form": form,
        "git_url": f"{settings.GANTRY.url}/git/{project.slug}.git",
        "access": Access.objects.filter(project=project).first(),
        "may_maintain": project.allows(request.user, Role.MAINTAINER),
    }
    status = 400 if form.errors else 200
    return render(request, "repositories/repository.html", context | more, status=status)


def refused(request: HttpRequest, refusal: Refused, project: Project) -> HttpResponse:
    context = {"refusal": refusal, "back": project.get_absolute_url()}
    return render(request, "refused.html", context, status=refusal.status)
