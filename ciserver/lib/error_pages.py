"""What is answered when a view broke: 503 while the database is away, else 500.

Without a request in the template: who is signed in is a question to the very database.
"""

from __future__ import annotations

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
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
        answer = HttpResponse(render_to_string(f"{status}.html"), status=status)
    if away:
        answer.headers["Retry-After"] = RETRY
    return answer


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
