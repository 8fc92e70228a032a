"""Webhooks that go out, over the API: ``/api/v1/projects/SLUG/webhooks/``."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.accounts.models import User
from ciserver.lib.pagination import NewestFirst
from ciserver.lib.strict import Strict
from ciserver.notifications import outgoing
from ciserver.notifications.models import STATES, Endpoint, Message
from ciserver.projects.models import Project, Role


class WebhookSerializer(Strict, serializers.ModelSerializer[Endpoint]):
    """``types`` empty: all events. The secret is shown when it is made, never again."""

    types = serializers.ListField(child=serializers.ChoiceField(outgoing.TYPES), required=False)
    url = serializers.CharField(max_length=500)

    class Meta:
        model = Endpoint
        fields = ["id", "url", "types", "active", "old_until", "created_at"]
        read_only_fields = ["id", "old_until", "created_at"]


class NewWebhookSerializer(WebhookSerializer):
    secret = serializers.CharField(read_only=True, help_text="shown this once")

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "secret"]


class WebhookSecretSerializer(serializers.Serializer[Any]):
    secret = serializers.CharField(help_text="shown this once")


class MessageSerializer(serializers.ModelSerializer[Message]):
    """``name`` is its ``webhook-id``; ``next_at`` when it is tried again."""

    state = serializers.CharField(read_only=True, help_text="waiting, taken, given up")

    class Meta:
        model = Message
        fields = ["id", "name", "type", "state", "attempts", "next_at", "sent_at", "error",
                  "created_at", "body"]  # fmt: skip


class WebhookViewSet(mixins.RetrieveModelMixin, viewsets.GenericViewSet[Endpoint]):
    """Addresses that are told of a project's events. For maintainers."""

    queryset = Endpoint.objects.all()
    serializer_class = WebhookSerializer
    lookup_value_regex = "[0-9]+"

    def get_queryset(self) -> QuerySet[Endpoint]:
        slug = self.kwargs.get("slug")
        return Endpoint.objects.filter(project__in=self._maintained(), project__slug=slug)

    def _maintained(self) -> QuerySet[Project]:
        return Project.objects.with_role(self.request.user, Role.MAINTAINER)

    def list(self, request: Request, slug: str) -> Response:
        """Newest first, by cursor."""
        get_object_or_404(self._maintained(), slug=slug)
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(WebhookSerializer(page, many=True).data)

    @extend_schema(request=WebhookSerializer, responses={201: NewWebhookSerializer})
    def create(self, request: Request, slug: str) -> Response:
        """Tell an address from now on. The answer has the secret, this once."""
        project = get_object_or_404(self._maintained(), slug=slug)
        given = WebhookSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        row, secret = outgoing.add(
            project=project,
            user=cast(User, request.user),
            url=given.validated_data["url"],
            types=given.validated_data.get("types", ()),
        )
        return Response({**WebhookSerializer(row).data, "secret": secret.reveal()}, status=201)

    @extend_schema(request=WebhookSerializer(partial=True), responses=WebhookSerializer)
    def partial_update(self, request: Request, slug: str, pk: str) -> Response:
        """Change address or events, or pause it with ``active``."""
        given = WebhookSerializer(data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        row = outgoing.change(
            endpoint=self.get_object(), user=cast(User, request.user), **given.validated_data
        )
        return Response(WebhookSerializer(row).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, slug: str, pk: str) -> Response:
        """Tell it no more, and forget what it was told."""
        outgoing.remove(endpoint=self.get_object(), user=cast(User, request.user))
        return Response(status=204)

    @extend_schema(request=None, responses=WebhookSecretSerializer)
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, slug: str, pk: str) -> Response:
        """A new secret; for seven days both sign."""
        secret = outgoing.rotate(endpoint=self.get_object(), user=cast(User, request.user))
        return Response({"secret": secret.reveal()})

    @extend_schema(request=None, responses={202: MessageSerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, slug: str, pk: str) -> Response:
        """Send a ``test.ping``."""
        row = outgoing.ping(endpoint=self.get_object(), user=cast(User, request.user))
        return Response(MessageSerializer(row).data, status=202)

    @extend_schema(
        responses=MessageSerializer(many=True),
        parameters=[
            OpenApiParameter("type", str, description="such as pipeline.failed"),
            OpenApiParameter(
                "state",
                str,
                enum=[*STATES],
                description="taken by the other end, waiting to be sent, or given up",
            ),
        ],
    )
    @action(detail=True)
    def messages(self, request: Request, slug: str, pk: str) -> Response:
        """What was sent there or is to be, newest first; kept for 30 days."""
        rows = self.get_object().messages.all()
        if wanted := request.query_params.get("type"):
            rows = rows.filter(type=wanted)
        if state := request.query_params.get("state"):
            rows = rows.filter(STATES[state]) if state in STATES else rows.none()
        page = cast(NewestFirst, self.paginator).paginate_queryset(rows, request)
        return self.get_paginated_response(MessageSerializer(page, many=True).data)

    @extend_schema(request=None, responses={202: MessageSerializer})
    @action(detail=True, methods=["post"], url_path=r"messages/(?P<message>[0-9]+)/redeliver")
    def redeliver(self, request: Request, slug: str, pk: str, message: str) -> Response:
        """Send the same once more."""
        row = get_object_or_404(self.get_object().messages, pk=int(message))
        row = outgoing.redeliver(message=row, user=cast(User, request.user))
        return Response(MessageSerializer(row).data, status=202)
