"""The pages of hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from ciserver.accounts.models import User
from ciserver.lib import live
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project
from ciserver.releases import fleet
from ciserver.releases.forms import NewHostForm
from ciserver.releases.models import Host
from ciserver.releases.targets.connection import fingerprint


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def hosts(request: HttpRequest) -> HttpResponse:
    """The hosts that one may see and, for an administrator, a form for another."""
    user = cast(User, request.user)
    form = NewHostForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            row = fleet.add(user=user, **form.cleaned_data)
        except Refused as refusal:
            if refusal.status == 403:
                context = {"refusal": refusal, "back": request.path}
                return render(request, "refused.html", context, status=403)
            form.add_error(None, str(refusal))
        else:
            messages.success(request, f"{row.name} is added. Let it know our key, then check it.")
            return redirect(row)
    context = {"form": form, "hosts": fleet.visible_to(user).prefetch_related("running")}
    if live.wanted(request):
        return live.answer(request, "releases/_hosts_live.html", context)
    return render(request, "releases/hosts.html", context, status=400 if form.errors else 200)


@login_required
@require_safe
def host(request: HttpRequest, name: str) -> HttpResponse:
    """One host: what runs there, its keys, and what the last check found."""
    row = _host(request, name)
    seen = Project.objects.visible_to(request.user)
    running = row.running.filter(environment__project__in=seen)
    context: dict[str, Any] = {
        "host": row,
        "fingerprint": fingerprint(row.host_key),
        "running": running.select_related("environment__project", "release__project"),
        "places": row.environments.filter(project__in=seen).select_related("project"),
        "warnings": row.report.get("warnings", []),
    }
    if live.wanted(request):
        return live.answer(request, "releases/_host_live.html", context)
    return render(request, "releases/host.html", context)


@login_required
@require_POST
def visit(request: HttpRequest, name: str, verb: str) -> HttpResponse:
    """Have a worker check or prepare a host."""
    row = _host(request, name)
    words = "A worker looks at it." if verb == "check" else "A worker installs what it needs."
    return _done(request, row, lambda: fleet.ask(user=request.user, host=row, verb=verb), words)


@login_required
@require_POST
def accept_key(request: HttpRequest, name: str) -> HttpResponse:
    """Take a changed host key for the host's."""
    row = _host(request, name)
    wanted = request.POST.get("fingerprint", "").strip()
    words = "From now on only the host with that key is taken for it."
    return _done(
        request,
        row,
        lambda: fleet.accept_key(user=request.user, host=row, fingerprint=wanted),
        words,
    )


@login_required
@require_POST
def remove(request: HttpRequest, name: str) -> HttpResponse:
    """Forget a host."""
    row = _host(request, name)
    try:
        fleet.remove(user=request.user, host=row)
    except Refused as refusal:
        return _refused(request, refusal, row)
    messages.success(request, f"{name} is forgotten, and its keys with it.")
    return redirect("hosts")


def _done(request: HttpRequest, row: Host, act: Callable[[], object], words: str) -> HttpResponse:
    try:
        act()
    except Refused as refusal:
        return _refused(request, refusal, row)
    messages.success(request, words)
    return redirect(row)


def _refused(request: HttpRequest, refusal: Refused, row: Host) -> HttpResponse:
    context = {"refusal": refusal, "back": row.get_absolute_url()}
    return render(request, "refused.html", context, status=refusal.status)


def _host(request: HttpRequest, name: str) -> Host:
    return get_object_or_404(fleet.visible_to(request.user), name=name)
