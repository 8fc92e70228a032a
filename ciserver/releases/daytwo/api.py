"""Day two over the API: ask, then read what comes back as server-sent events."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from ciserver.accounts.authentication import reader
from ciserver.lib.problems import Refused, problem_response
from ciserver.pipelines import shutdown
from ciserver.releases.daytwo import asking, wire
from ciserver.releases.models import ContainerCommand

MOST_INPUT = 1024 * 1024  # bytes of one request
NAMES = {b"o": "out", b"e": "err", b"x": "end"}


class CommandSerializer(serializers.ModelSerializer[ContainerCommand]):
    """``state`` is ended once it has, whatever its exit code, and failed when it could not be
    done, with the ``reason``."""

    environment = serializers.CharField(source="environment.name", read_only=True)
    project = serializers.CharField(source="environment.project.slug", read_only=True)
    host = serializers.CharField(source="host.name", default="", read_only=True)
    stream = serializers.SerializerMethodField()

    class Meta:
        model = ContainerCommand
        fields = [
            *("id", "project", "environment", "host", "verb", "words", "options", "asked_by"),
            *("asked_at", "state", "exit_code", "reason", "stream"),
        ]

    def get_stream(self, row: ContainerCommand) -> str:
        return f"/api/v1/commands/{row.pk}/stream/"


class CommandRequest(serializers.Serializer[None]):
    """``words`` are the program of exec, or the path of get and put."""

    verb = serializers.ChoiceField(choices=asking.VERBS)
    host = serializers.CharField(default="", allow_blank=True, max_length=63)
    words = serializers.ListField(
        child=serializers.CharField(max_length=4096, trim_whitespace=False, allow_blank=True),
        default=list,
        max_length=256,
    )
    tail = serializers.IntegerField(default=100, min_value=-1, max_value=1_000_000)
    since = serializers.CharField(default="", allow_blank=True, max_length=40)
    follow = serializers.BooleanField(default=False)
    stdin = serializers.BooleanField(default=False)


class StandardInputSerializer(serializers.Serializer[None]):
    """``content`` is base64; ``end`` says that nothing more comes."""

    content = serializers.CharField(default="", allow_blank=True, max_length=2 * MOST_INPUT)
    end = serializers.BooleanField(default=False)

    def validate_content(self, value: str) -> bytes:
        try:
            found = base64.b64decode(value, validate=True)
        except ValueError:
            raise serializers.ValidationError("This is not base64.") from None
        if len(found) > MOST_INPUT:
            raise serializers.ValidationError(f"At most {MOST_INPUT} bytes at a time.")
        return found


class CommandViewSet(mixins.RetrieveModelMixin, viewsets.GenericViewSet[ContainerCommand]):
    """What was asked of containers, by whoever asked or maintains the project.

    Begin reading ``stream`` at once: what nobody reads for 20 seconds is ended. Its events are
    ``out`` and ``err``, bytes in base64, and ``end``, a JSON object of ``exit_code`` and
    ``reason``.
    """

    queryset = ContainerCommand.objects.all()
    serializer_class = CommandSerializer

    def get_queryset(self) -> QuerySet[ContainerCommand]:
        rows = asking.visible_to(self.request.user)
        return rows.select_related("environment__project", "host")

    @extend_schema(request=StandardInputSerializer, responses={202: CommandSerializer})
    @action(detail=True, methods=["post"])
    def input(self, request: Request, pk: str) -> Response:
        """Standard input of exec (with ``stdin``), or the tar of put. 429: send it again."""
        row = self.get_object()
        asked = StandardInputSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        wire.give(row.pk, asked.validated_data["content"], end=asked.validated_data["end"])
        return Response(CommandSerializer(row).data, status=202)


def asked(request: Request, environment: Any) -> ContainerCommand:
    """What the body of ``request`` asks of ``environment``. Raises Refused."""
    body = CommandRequest(data=request.data)
    body.is_valid(raise_exception=True)
    given: dict[str, Any] = dict(body.validated_data)
    return asking.ask(
        environment=environment,
        user=request.user,
        verb=given.pop("verb"),
        host=given.pop("host"),
        words=given.pop("words"),
        options=asking.Options(**given),
    )


@require_safe
async def stream(request: HttpRequest, pk: int) -> HttpResponseBase:
    """What a command says, as server-sent events; see ``CommandViewSet``."""
    row = await sync_to_async(_mine)(request, pk)
    if row is None:
        return problem_response(
            404,
            code="not-found",
            detail="There is no such command, or you may not see it.",
            hint="Only who asked for a command reads it, for a while: ask again.",
        )
    shutdown.watch()
    response = StreamingHttpResponse(_events(row), content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _mine(request: HttpRequest, pk: int) -> ContainerCommand | None:
    user = reader(request)
    return asking.visible_to(user).filter(pk=pk).first() if user else None


async def _events(row: ContainerCommand) -> AsyncIterator[bytes]:
    yield b": here\n\n"
    try:
        async for kind, data in wire.frames(row.pk, shutdown.stopping):
            if kind not in NAMES:
                yield b": still here\n\n"
                continue
            shown = data if kind == b"x" else base64.b64encode(data)
            yield b"event: " + NAMES[kind].encode() + b"\ndata: " + shown + b"\n\n"
    except Refused as refusal:
        said = json.dumps({"exit_code": None, "reason": str(refusal)})
        yield f"event: end\ndata: {said}\n\n".encode()
