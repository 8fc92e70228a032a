"""What each view of the API goes through: rate limit, idempotency key, ETag."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver

from ciserver.accounts import idempotency, limits
from ciserver.lib import etags


def guard(patterns: Iterable[URLPattern | URLResolver]) -> None:
    """Wrap the views of REST framework below ``patterns``; what else is there stays as it is.

    In the URLs rather than in a middleware: event streams and pages take no turn through it, and
    the request gets to it in the thread that the view runs in.
    """
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            guard(pattern.url_patterns)
        elif hasattr(pattern.callback, "cls"):
            pattern.callback = _guarded(pattern.callback)


def _guarded(view: Any) -> Any:
    @wraps(view)  # also what DRF notes on it, such as that it checks for forgery itself
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        caller = limits.caller_of(request)
        headers = limits.headers_for(request, caller)
        response = limits.refusal(headers) or idempotency.answer(
            lambda: etags.answer(view, request, *args, **kwargs), request, caller
        )
        for name, value in headers.items():
            response.headers[name] = value
        return response

    return guarded
