"""The page of a project's outgoing webhooks."""

from __future__ import annotations

from typing import cast

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from ciserver.accounts.models import User
from ciserver.lib import live
from ciserver.lib.problems import Refused
from ciserver.notifications import outgoing
from ciserver.notifications.models import Endpoint, Message
from ciserver.projects.models import Project, Role

LISTED = 20


class WebhookForm(forms.Form):
    """The service refuses what cannot be used."""

    url = forms.CharField(
        label="Address", max_length=500, help_text="It gets a signed POST for each event."
    )
    types = forms.MultipleChoiceField(
        label="Events",
        required=False,
        choices=[(kind, kind) for kind in outgoing.TYPES],
        widget=forms.CheckboxSelectMultiple,
        help_text="None chosen: all of them.",
    )


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def webhooks(request: HttpRequest, slug: str) -> HttpResponse:
    """All of them, with what was sent last; a POST adds one and shows its secret."""
    project = _maintained(request, slug)
    form = WebhookForm(request.POST or None)
    shown = ""
    if request.method == "POST" and form.is_valid():
        try:
            _, secret = outgoing.add(
                project=project, user=cast(User, request.user), **form.cleaned_data
            )
        except Refused as refusal:
            form.add_error("url", str(refusal))
        else:
            shown, form = secret.reveal(), WebhookForm()
    return _page(request, project, form, shown)


@login_required
@require_POST
def act(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """``do``: test, rotate, pause, resume, remove, or redeliver with ``message``."""
    project = _maintained(request, slug)
    row = get_object_or_404(Endpoint, project=project, pk=pk)
    user = cast(User, request.user)
    match request.POST.get("do"):
        case "rotate":
            secret = outgoing.rotate(endpoint=row, user=user)
            return _page(request, project, WebhookForm(), secret.reveal())
        case "test":
            outgoing.ping(endpoint=row, user=user)
            messages.success(request, "A test.ping is on its way.")
        case "pause":
            outgoing.change(endpoint=row, user=user, active=False)
        case "resume":
            outgoing.change(endpoint=row, user=user, active=True)
        case "remove":
            outgoing.remove(endpoint=row, user=user)
            messages.success(request, "It is told no more.")
        case "redeliver":
            number = request.POST.get("message", "")
            sent = get_object_or_404(row.messages, pk=number if number.isdecimal() else 0)
            outgoing.redeliver(message=sent, user=user)
            messages.success(request, "It is sent once more.")
    return redirect("webhooks", slug)


def _page(
    request: HttpRequest, project: Project, form: WebhookForm, secret: str = ""
) -> HttpResponse:
    sent = Message.objects.filter(endpoint__project=project).select_related("endpoint")
    context = {
        "project": project,
        "form": form,
        "secret": secret,
        "endpoints": project.endpoints.all(),
        "sent": sent[:LISTED],
    }
    if live.wanted(request):
        return live.answer(request, "notifications/_sent_live.html", context)
    status = 400 if form.errors else 200
    response = render(request, "notifications/webhooks.html", context, status=status)
    response.headers["Cache-Control"] = "no-store"
    return response


def _maintained(request: HttpRequest, slug: str) -> Project:
    return get_object_or_404(Project.objects.with_role(request.user, Role.MAINTAINER), slug=slug)
