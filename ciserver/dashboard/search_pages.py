"""The search as a page, as what the palette shows, and over the API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.dashboard.search import find

MOST = 100  # characters
PALETTE = "X-Palette"


@login_required
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """``?q=``: everything that fits; the options alone where the palette asks."""
    asked = request.GET.get("q", "").strip()[:MOST]
    context = {"asked": asked, "hits": find(request.user, asked)}
    options = request.headers.get(PALETTE) == "1"
    template = "search/_options.html" if options else "search/search.html"
    answer = render(request, template, context)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Vary"] = PALETTE
    return answer


class HitSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="project, environment, host, pipeline, release, …")
    title = serializers.CharField()
    url = serializers.CharField(help_text="path of its page")
    detail = serializers.CharField(allow_blank=True)
    digest = serializers.CharField(allow_blank=True)
    state = serializers.CharField(allow_blank=True)


class Search(APIView):
    """Projects, environments, hosts, pipelines, releases, images and actions by a few words."""

    @extend_schema(
        parameters=[OpenApiParameter("q", str, description="such as `hello #12`, `v3`, `promote`")],
        responses=HitSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """A few of each kind, of what the caller may see."""
        asked = request.query_params.get("q", "").strip()[:MOST]
        return Response([asdict(hit) for hit in find(request.user, asked)])
