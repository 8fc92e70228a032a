"""Deliveries over the API: to read, and to take once more."""

from __future__ import annotations

from typing import cast

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.accounts.models import User
from ciserver.projects.models import Project, Role
from ciserver.webhooks import services
from ciserver.webhooks.models import Delivery
from ciserver.webhooks.search import search

FILTERS = {
    "project": ("project__slug", "slug of a project"),
    "forge": ("forge", "a forge such as github, or hosted for a push to our own Git"),
    "verdict": ("verdict", "accepted, ignored, duplicate, stale, waiting or failed"),
    "ref": ("ref", "full ref, such as refs/heads/main"),
    "sha": ("sha", "full commit id"),
}


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    project: serializers.SlugRelatedField[Project] = serializers.SlugRelatedField(
        slug_field="slug", read_only=True
    )

    class Meta:
        model = Delivery
        fields = [
            "id",
            "project",
            "forge",
            "delivery_id",
            "event",
            "kind",
            "ref",
            "sha",
            "sender",
            "headers",
            "verdict",
            "detail",
            "pipeline",
            "received_at",
        ]


class DeliveryDetailSerializer(DeliverySerializer):
    """``body`` as text, as far as it was kept (256 KiB); for developers of the project."""

    body = serializers.SerializerMethodField()

    class Meta(DeliverySerializer.Meta):
        fields = [*DeliverySerializer.Meta.fields, "body"]

    def get_body(self, delivery: Delivery) -> str:
        if not delivery.project.allows(self.context["request"].user, Role.DEVELOPER):
            return ""
        return bytes(delivery.body).decode(errors="replace")


@extend_schema_view(
    list=extend_schema(
        parameters=[
            OpenApiParameter("q", str, description="an id, a commit, part of a ref or a sender"),
            *(OpenApiParameter(name, str, description=d) for name, (_, d) in FILTERS.items()),
        ]
    ),
    retrieve=extend_schema(responses=DeliveryDetailSerializer),
)
class DeliveryViewSet(viewsets.ReadOnlyModelViewSet[Delivery]):
    """What forges and pushers told us, newest first, with the verdict on each."""

    queryset = Delivery.objects.all()
    serializer_class = DeliverySerializer

    def get_queryset(self) -> QuerySet[Delivery]:
        seen = Project.objects.visible_to(self.request.user)
        found = Delivery.objects.filter(project__in=seen).select_related("project")
        asked = self.request.query_params
        if self.action == "list":
            found = found.defer("body")
        found = search(found, asked.get("q", ""))
        return found.filter(**{FILTERS[name][0]: asked[name] for name in FILTERS if name in asked})

    def get_serializer_class(self) -> type[DeliverySerializer]:
        return DeliverySerializer if self.action == "list" else DeliveryDetailSerializer

    @extend_schema(request=None, responses={201: DeliverySerializer})
    @action(detail=True, methods=["post"])
    def redeliver(self, request: Request, pk: str) -> Response:
        """Take a delivery as though its forge had sent it again. Needs the role developer.

        The same rules hold: it may be a duplicate, or stale; the new one's verdict tells.
        """
        again = services.redeliver(delivery=self.get_object(), user=cast(User, request.user))
        return Response(DeliverySerializer(again).data, status=201)
