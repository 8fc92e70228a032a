"""The ledger of a project: what came, the verdict on it, what it started; and once more."""

from __future__ import annotations

import json
from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import urlencode
from django.views.decorators.http import require_POST, require_safe

from ciserver.accounts.models import User
from ciserver.lib import live
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.webhooks import services
from ciserver.webhooks.models import Delivery, Verdict
from ciserver.webhooks.search import MAX_WORDS, search

PAGE_SIZE = 50


@login_required
@require_safe
def listing(request: HttpRequest, slug: str) -> HttpResponse:
    """The deliveries of a project, newest first; ``q`` and ``verdict`` choose among them."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    asked = request.GET.get("q", "").strip()[:MAX_WORDS]
    verdict = request.GET.get("verdict", "")
    found = search(project.deliveries.defer("body", "headers"), asked)
    if verdict in Verdict.values:
        found = found.filter(verdict=verdict)
    shown = Paginator(found.select_related("pipeline"), PAGE_SIZE).get_page(
        request.GET.get("page", "1")
    )
    context = {
        "project": project,
        "page": shown,
        "asked": asked,
        "verdict": verdict,
        "verdicts": Verdict.values,
        "kept_days": services.KEPT.days,
        "query": urlencode({"q": asked, "verdict": verdict}),
    }
    if live.wanted(request):
        return live.answer(request, "webhooks/_deliveries_live.html", context)
    return render(request, "webhooks/deliveries.html", context)


@login_required
@require_safe
def detail(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One delivery: headers, body, verdict, what it started."""
    project, delivery = _delivery(request, slug, number)
    if live.wanted(request):
        return live.answer(request, "webhooks/_started.html", {"delivery": delivery})
    may_develop = project.allows(request.user, Role.DEVELOPER)
    context = {
        "project": project,
        "delivery": delivery,
        "may_develop": may_develop,
        "body": _readable(bytes(delivery.body)) if may_develop else "",
        "cut": len(delivery.body) >= services.KEPT_BODY,
        "meaning": Verdict(delivery.verdict).label,
    }
    return render(request, "webhooks/delivery.html", context)


@login_required
@require_POST
def redeliver(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Take it as though its forge had sent it again."""
    _, delivery = _delivery(request, slug, number)
    try:
        again = services.redeliver(delivery=delivery, user=cast(User, request.user))
    except Refused as refusal:
        context = {"refusal": refusal, "back": delivery.get_absolute_url()}
        return render(request, "refused.html", context, status=refusal.status)
    messages.success(request, f"Delivery {delivery.pk} is recorded once more, as {again.pk}.")
    return redirect(again)


def _delivery(request: HttpRequest, slug: str, number: int) -> tuple[Project, Delivery]:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    rows = project.deliveries.select_related("pipeline", "pipeline__project", "project")
    return project, get_object_or_404(rows, pk=number)


def _readable(body: bytes) -> str:
    """JSON with its lines, anything else as it came."""
    text = body.decode(errors="replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
