"""Errors of the API as problem documents (RFC 9457).

A refusal that a service raises is a ``Refused``: one sentence, a stable code, the next step.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults

CONTENT_TYPE = "application/problem+json"
NOT_FOUND = "There is no such thing here, or you may not see it."
LISTED = "The list of its kind has all that you may see: /api/docs/ names each list."


class Refused(Exception):
    """Somebody asked for what cannot be done; tells why and what to do next."""

    def __init__(self, message: str, *, code: str, hint: str = "", status: int = 409) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.status = status

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


def problem(status: int, *, code: str, detail: str, hint: str = "", **more: Any) -> dict[str, Any]:
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    return document | ({"hint": hint} if hint else {}) | more


def problem_response(
    status: int, *, code: str, detail: str, hint: str = "", **more: Any
) -> JsonResponse:
    """For plain Django views; the API's views raise and ``exception_handler`` answers."""
    document = problem(status, code=code, detail=detail, hint=hint, **more)
    return JsonResponse(document, status=status, content_type=CONTENT_TYPE)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's ``handler404``: programs get a problem, people a page."""
    if not request.path.startswith("/api/"):
        return defaults.page_not_found(request, exception)
    return problem_response(404, code="not-found", detail=NOT_FOUND, hint=LISTED)
