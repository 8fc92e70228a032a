"""Checking a ``gantry.yml``, or a Compose file for tests, before it is pushed; and the JSON Schema
of the first for editors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.pipelines.compose import COMPOSE_FILES, ComposeError, read_compose
from ciserver.pipelines.definition import FILE, MOST_BYTES, Build, DefinitionError, parse, schema

Row = dict[str, Any]
MOST = MOST_BYTES  # characters, as the runner reads


class LintRequest(serializers.Serializer[None]):
    text = serializers.CharField(
        allow_blank=True, trim_whitespace=False, max_length=MOST, help_text="the file's contents"
    )
    file = serializers.CharField(
        default=FILE,
        max_length=300,
        help_text="its name; compose.test.yml and its like are read as Compose files for tests",
    )


class FaultSerializer(serializers.Serializer[Any]):
    line = serializers.IntegerField(allow_null=True, help_text="counted from 1")
    path = serializers.CharField(help_text="keys, such as tests.unit.memory")
    place = serializers.CharField(help_text="file, line and key path in one")
    message = serializers.CharField()


class LintAnswer(serializers.Serializer[None]):
    ok = serializers.BooleanField()
    faults = FaultSerializer(many=True)
    notices = serializers.ListField(
        child=serializers.CharField(), help_text="what of a Compose file is left out"
    )


class Lint(APIView):
    """What is wrong with a ``gantry.yml`` or a Compose file for tests: nothing is stored or
    started."""

    @extend_schema(request=LintRequest, responses=LintAnswer)
    def post(self, request: Request) -> Response:
        asked = LintRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        text, file = asked.validated_data["text"], asked.validated_data["file"]
        compose = PurePath(file).name in COMPOSE_FILES
        faults, notices = _of_compose(text, file) if compose else (_of_definition(text), ())
        return Response({"ok": not faults, "faults": faults, "notices": notices})


def _of_definition(text: str) -> list[Row]:
    try:
        parse(text)
    except DefinitionError as error:
        return list(FaultSerializer(error.faults, many=True).data)
    return []


def _of_compose(text: str, file: str) -> tuple[list[Row], Sequence[str]]:
    """Its first mistake, if it has one; else what of it is left out."""
    try:
        found = read_compose(text.encode(), file=file, main=Build())
    except ComposeError as error:
        message = f"{error.message} {error.hint}".strip()
        row = {"line": error.line, "path": error.path, "place": error.place, "message": message}
        return [row], ()
    return [], found.notices


@require_safe
def json_schema(request: HttpRequest) -> JsonResponse:
    """Public, so that an editor can fetch it: ``# yaml-language-server: $schema=URL``."""
    return JsonResponse(schema(), content_type="application/schema+json")
