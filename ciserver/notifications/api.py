"""Commit statuses over the API: ``/api/v1/projects/SLUG/statuses/``."""

from __future__ import annotations

from typing import Any, cast

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.accounts.models import User
from ciserver.lib.crypto import Secret
from ciserver.notifications import services
from ciserver.notifications.models import CommitStatus, StatusTarget
from ciserver.projects.models import Project

LISTED = 20


class StatusSerializer(serializers.ModelSerializer[CommitStatus]):
    """``sent`` is the state that the forge knows; ``next_at`` when it is tried again."""

    class Meta:
        model = CommitStatus
        fields = ["pipeline", "sha", "state", "sent", "sent_at", "attempts", "next_at", "error"]


class TargetSerializer(serializers.Serializer[StatusTarget]):
    """Where statuses go. The token is never shown."""

    forge = serializers.CharField()
    repository = serializers.CharField()
    api_url = serializers.CharField(required=False, allow_blank=True)
    token = serializers.CharField(write_only=True, trim_whitespace=True)
    paused_until = serializers.DateTimeField(read_only=True, allow_null=True)
    statuses = serializers.SerializerMethodField()

    @extend_schema(responses=StatusSerializer(many=True))
    def get_statuses(self, row: StatusTarget) -> list[dict[str, Any]]:
        found = CommitStatus.objects.filter(project=row.project)[:LISTED]
        return [dict(status) for status in StatusSerializer(found, many=True).data]


def _find(request: Request, slug: str) -> Project:
    project = Project.objects.visible_to(request.user).filter(slug=slug).first()
    if project is None:
        raise Http404
    return project


class Statuses(APIView):
    """Where a project's commit statuses go, and how the last ones fared."""

    @extend_schema(responses=TargetSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """404 when no forge is told."""
        row = StatusTarget.objects.filter(project=_find(request, slug)).first()
        if row is None:
            raise Http404
        return Response(TargetSerializer(row).data)

    @extend_schema(request=TargetSerializer, responses=TargetSerializer)
    def put(self, request: Request, slug: str) -> Response:
        """Tell a forge of every pipeline from now on. Needs the role maintainer."""
        project = _find(request, slug)
        given = TargetSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        fields["token"] = Secret(fields["token"])
        row = services.set_target(project=project, user=cast(User, request.user), **fields)
        return Response(TargetSerializer(row).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str) -> Response:
        """Tell no forge any more. Needs the role maintainer."""
        services.remove_target(project=_find(request, slug), user=cast(User, request.user))
        return Response(status=204)
