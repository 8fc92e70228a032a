"""Pages for what no view draws: what broke, an address that only takes forms, too large a form.

Who is signed in is not asked, since that is a question to a database which may be away: the
templates get the request for its cookie of the theme alone.
"""

from __future__ import annotations

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string

from ciserver.lib.problems import problem_response

RETRY = "5"  # seconds
AWAY = (OperationalError, InterfaceError)


def broken(request: HttpRequest) -> HttpResponse:
    """Django's ``handler500``, called while the error is being handled."""
    away = isinstance(sys.exc_info()[1], AWAY)
    if request.path.startswith("/api/"):
        answer: HttpResponse = _problem(away=away)
    else:
        status = 503 if away else 500
        answer = HttpResponse(page(request, status), status=status)
    if away:
        answer.headers["Retry-After"] = RETRY
    return answer


def page(request: HttpRequest, status: int) -> str:
    """The page of a status, as somebody whom we do not know would see it."""
    return render_to_string(f"{status}.html", {"request": request, "back": _above(request.path)})


def explained(request: HttpRequest, response: HttpResponseBase) -> None:
    """Put a page into a 405 that has none: a browser would show nothing at all. Somebody comes to
    one by signing in again after a form had sent them to do so."""
    if response.status_code != 405 or request.path.startswith("/api/"):
        return
    if isinstance(response, HttpResponse) and not response.content:
        response.content = page(request, 405).encode()
        response.headers["Content-Type"] = "text/html; charset=utf-8"
        response.headers["Content-Length"] = str(len(response.content))  # it was told before


def _above(path: str) -> str:
    """Where a form's address belongs to: the project's page, or the overview."""
    parts = path.split("/")
    return "/".join([*parts[:3], ""]) if parts[1] == "projects" and len(parts) > 3 else "/"


def _problem(*, away: bool) -> HttpResponse:
    if away:
        return problem_response(
            503,
            code="database",
            detail="The database does not answer just now.",
            hint="Ask again in a few seconds; /readyz tells what it says.",
        )
    return problem_response(
        500,
        code="broken",
        detail="Something broke on our side; nothing that was accepted is lost.",
        hint="Ask again in a moment. The reason is in the web process's log.",
    )
