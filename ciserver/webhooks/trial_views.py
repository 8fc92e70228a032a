"""The button that tests a project's webhook, and the same over the API."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.lib.problems import Refused
from ciserver.projects.models import Project
from ciserver.webhooks import trial
from ciserver.webhooks.forges import generic


@login_required
@require_POST
def test_hook(request: HttpRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    try:
        done = trial.send(project, request.user, request.POST.get("forge", generic.NAME))
    except Refused as refusal:
        context = {"refusal": refusal, "back": project.get_absolute_url()}
        return render(request, "refused.html", context, status=refusal.status)
    (messages.success if done.good else messages.error)(request, done.words)
    return redirect(project)


class TrialRequest(serializers.Serializer[Any]):
    forge = serializers.ChoiceField(
        choices=list(trial.HEADERS), default=generic.NAME, help_text="whose address is tried"
    )


class TrialSerializer(serializers.Serializer[Any]):
    good = serializers.BooleanField()
    url = serializers.CharField()
    status = serializers.IntegerField(allow_null=True, help_text="null when nothing answered")
    milliseconds = serializers.IntegerField()
    words = serializers.CharField()


class HookTest(APIView):
    """A webhook to our own address, signed as a forge would, which builds nothing."""

    @extend_schema(request=TrialRequest, responses=TrialSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Needs the role maintainer, and that the project has a webhook secret."""
        project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
        asked = TrialRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        done = trial.send(project, request.user, asked.validated_data["forge"])
        return Response(TrialSerializer(done).data)
