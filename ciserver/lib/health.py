"""Probes: is this process alive, and can it do its work."""

from __future__ import annotations

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from ciserver.lib.problems import problem_response


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers too. Redis may be away: it only wakes workers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        return problem_response(
            503,
            code="database",
            detail=f"The database does not answer: {error}.",
            hint="See the database's log; Gantry goes on by itself when it is back.",
        )
    return JsonResponse({"status": "ok"})
