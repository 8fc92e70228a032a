"""Pages of day two: asking for something, and what comes back."""

from __future__ import annotations

from typing import cast

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from ciserver.accounts.models import User
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project
from ciserver.releases.daytwo import asking
from ciserver.releases.models import Environment

ASKS = {
    "logs": ("Show the log of", "The last lines of its container, and then what comes."),
    "stop": ("Stop", "Nothing serves then, until it is started or something is deployed."),
    "start": ("Start", "It serves again once it is healthy."),
    "restart": ("Restart", "The same container stops and starts; with one host, nothing serves"
                " in between."),
}  # fmt: skip


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def ask(request: HttpRequest, slug: str, name: str, verb: str) -> HttpResponse:
    """Confirm (GET), then ask for (POST) what ``verb`` says of an environment's containers."""
    if verb not in ASKS:
        raise Http404
    seen = Project.objects.visible_to(request.user)
    rows = Environment.objects.select_related("project").filter(project__in=seen)
    environment = get_object_or_404(rows, project__slug=slug, name=name)
    title, meaning = ASKS[verb]
    host = request.GET.get("host", "") or request.POST.get("host", "")
    context = {
        "environment": environment,
        "project": environment.project,
        "verb": verb,
        "title": title,
        "meaning": meaning,
        "host": host,
        "hosts": environment.running.values_list("host__name", flat=True).order_by("host__name"),
    }
    if request.method != "POST":
        return render(request, "releases/ask.html", context)
    options = asking.Options(follow=True) if verb == "logs" else asking.Options()
    try:
        row = asking.ask(
            environment=environment,
            user=cast(User, request.user),
            verb=verb,
            host=host,
            options=options,
        )
    except Refused as refusal:
        context["refusal"] = refusal
        return render(request, "releases/ask.html", context, status=refusal.status)
    return redirect("command", pk=row.pk)


@login_required
@require_safe
def command(request: HttpRequest, pk: int) -> HttpResponse:
    """What a command says, while it says it, and how it ended."""
    rows = asking.visible_to(request.user).select_related("environment__project", "host")
    row = get_object_or_404(rows, pk=pk)
    context = {
        "command": row,
        "environment": row.environment,
        "project": row.environment.project,
        "title": ASKS.get(row.verb, (row.verb, ""))[0].removeprefix("Show the ").capitalize(),
        "goes_on": row.state in {"queued", "running"},
    }
    return render(request, "releases/command.html", context)
