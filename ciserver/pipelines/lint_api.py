"""Checking a ``gantry.yml`` before it is pushed, and its JSON Schema for editors."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.pipelines.definition import MOST_BYTES, DefinitionError, parse, schema

MOST = MOST_BYTES  # characters, as the runner reads


class LintRequest(serializers.Serializer[None]):
    text = serializers.CharField(
        allow_blank=True, trim_whitespace=False, max_length=MOST, help_text="the file's contents"
    )


class FaultSerializer(serializers.Serializer[Any]):
    line = serializers.IntegerField(allow_null=True, help_text="counted from 1")
    path = serializers.CharField(help_text="keys, such as tests.unit.memory")
    place = serializers.CharField(help_text="file, line and key path in one")
    message = serializers.CharField()


class LintAnswer(serializers.Serializer[None]):
    ok = serializers.BooleanField()
    faults = FaultSerializer(many=True)


class Lint(APIView):
    """What is wrong with a ``gantry.yml``: nothing is stored or started."""

    @extend_schema(request=LintRequest, responses=LintAnswer)
    def post(self, request: Request) -> Response:
        asked = LintRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            parse(asked.validated_data["text"])
        except DefinitionError as error:
            rows = FaultSerializer(error.faults, many=True).data
            return Response({"ok": False, "faults": rows})
        return Response({"ok": True, "faults": []})


@require_safe
def json_schema(request: HttpRequest) -> JsonResponse:
    """Public, so that an editor can fetch it: ``# yaml-language-server: $schema=URL``."""
    return JsonResponse(schema(), content_type="application/schema+json")
