"""Errors of the API as problem documents (RFC 9457).

A refusal that a service raises is a ``Refused``: one sentence, a stable code, the next step.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_handler

CONTENT_TYPE = "application/problem+json"
NOT_FOUND = "There is no such thing here, or you may not see it."
LISTED = "The list of its kind has all that you may see: /api/docs/ names each list."
# What to do about an answer that no service of ours gave, by its status.
HINTS = {
    400: "/api/docs/ tells what each request takes.",
    401: "Make a token on the page /tokens/ and send it as 'Authorization: Bearer TOKEN'.",
    403: "Ask an owner of the project for the right; a token needs the scope for it, too.",
    404: LISTED,
    405: "/api/docs/ tells what can be done with each address.",
    406: "Ask for application/json.",
    413: "Send less at once.",
    415: "Send JSON, with 'Content-Type: application/json'.",
    429: "Go on when Retry-After says.",
}


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


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's ``EXCEPTION_HANDLER``."""
    if isinstance(error, Refused):
        document = problem(error.status, code=error.code, detail=error.message, hint=error.hint)
        return Response(document, status=error.status, content_type=CONTENT_TYPE)
    response = drf_handler(error, context)
    if response is None:
        return None
    status = response.status_code
    response.data = problem(
        status,
        code=_code(error),
        detail=_detail(error),
        hint=HINTS.get(status, HINTS[400]),
        **_fields(error),
    )
    response.content_type = CONTENT_TYPE
    return response


def _code(error: Exception) -> str:
    match error:
        case exceptions.ValidationError():
            return "invalid"
        case exceptions.APIException():
            return str(error.default_code).replace("_", "-")
        case Http404():
            return "not-found"
        case PermissionDenied():
            return "permission-denied"
    return "error"


def _detail(error: Exception) -> str:
    match error:
        case exceptions.ValidationError():
            return "The request has fields that cannot be used; 'errors' names each."
        case exceptions.APIException():
            return str(error.detail)
        case Http404():
            return NOT_FOUND
    return "You may not do this."


def _fields(error: Exception) -> dict[str, Any]:
    return {"errors": error.detail} if isinstance(error, exceptions.ValidationError) else {}
