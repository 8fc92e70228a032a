"""What the API's views raise, answered as problem documents.

Apart from ``problems``: workers refuse, too, and load nothing of Django REST framework for it.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_handler

from ciserver.lib.problems import CONTENT_TYPE, LISTED, NOT_FOUND, Refused, problem

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
