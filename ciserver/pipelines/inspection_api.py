"""Programs over what failed jobs left, over the API."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.pipelines import inspections
from ciserver.pipelines.models import Inspection, Job
from ciserver.projects.models import Project, Role


class InspectionSerializer(serializers.ModelSerializer[Inspection]):
    """``state`` is passed once the program has ended, whatever its exit code."""

    class Meta:
        model = Inspection
        fields = [
            *("id", "job", "asked_by", "asked_at", "command", "state", "exit_code", "output"),
            "reason",
        ]


class InspectionRequest(serializers.Serializer[None]):
    job = serializers.IntegerField(help_text="id of a failed job whose receipt says kept")
    command = serializers.ListField(
        child=serializers.CharField(max_length=4096, trim_whitespace=False, allow_blank=True),
        min_length=1,
        max_length=256,
        help_text='words of a program, such as ["sh", "-c", "ls -la"]',
    )


class InspectionViewSet(mixins.RetrieveModelMixin, viewsets.GenericViewSet[Inspection]):
    """Run a program over what a failed job left, with its limits. Maintainers only; audited."""

    queryset = Inspection.objects.all()
    serializer_class = InspectionSerializer

    def get_queryset(self) -> QuerySet[Inspection]:
        may = Project.objects.with_role(self.request.user, Role.MAINTAINER)
        return Inspection.objects.filter(job__pipeline__project__in=may)

    @extend_schema(request=InspectionRequest, responses={202: InspectionSerializer})
    def create(self, request: Request) -> Response:
        """Ask for it; look at the answer's id until its state is passed or failed."""
        asked = InspectionRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        given: dict[str, Any] = asked.validated_data
        seen = Project.objects.visible_to(request.user)
        job = get_object_or_404(Job, pk=given["job"], pipeline__project__in=seen)
        row = inspections.ask(job=job, user=request.user, command=given["command"])
        return Response(InspectionSerializer(row).data, status=202)
