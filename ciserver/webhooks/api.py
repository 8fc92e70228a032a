"""Deliveries over the API, to read."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers, viewsets

from ciserver.projects.models import Project
from ciserver.webhooks.models import Delivery

FILTERS = {
    "project": ("project__slug", "slug of a project"),
    "forge": ("forge", "a forge such as github, or hosted for a push to our own Git"),
    "verdict": ("verdict", "accepted, ignored, duplicate or failed"),
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


@extend_schema_view(
    list=extend_schema(
        parameters=[OpenApiParameter(name, str, description=d) for name, (_, d) in FILTERS.items()]
    )
)
class DeliveryViewSet(viewsets.ReadOnlyModelViewSet[Delivery]):
    """What forges and pushers told us, newest first, with the verdict on each."""

    queryset = Delivery.objects.all()
    serializer_class = DeliverySerializer

    def get_queryset(self) -> QuerySet[Delivery]:
        seen = Project.objects.visible_to(self.request.user)
        found = Delivery.objects.filter(project__in=seen).select_related("project").defer("body")
        asked = self.request.query_params
        return found.filter(**{FILTERS[name][0]: asked[name] for name in FILTERS if name in asked})
