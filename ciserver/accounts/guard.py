"""What each view of the API goes through: rate limit, idempotency key, ETag."""

from __future__ import annotations

from asyncio import iscoroutinefunction
from collections.abc import Iterable, Mapping
from functools import wraps
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver

from ciserver.accounts import idempotency, limits
from ciserver.lib import etags


def guard(patterns: Iterable[URLPattern | URLResolver]) -> None:
    """Wrap the views below ``patterns``. An event stream is counted and else stays as it is.

    In the URLs rather than in a middleware: pages take no turn through it, and the request gets
    to it in the thread that the view runs in.
    """
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            guard(pattern.url_patterns)
        elif iscoroutinefunction(pattern.callback):
            pattern.callback = _counted(pattern.callback)
        else:
            pattern.callback = _guarded(pattern.callback)


def _guarded(view: Any) -> Any:
    @wraps(view)  # also what DRF notes on it, such as that it checks for forgery itself
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        caller = limits.caller_of(request)
        headers = limits.headers_for(request, caller)
        response = limits.refusal(headers) or idempotency.answer(
            lambda: etags.answer(view, request, *args, **kwargs), request, caller
        )
        return _told(response, headers)

    return guarded


def _counted(view: Any) -> Any:
    @wraps(view)
    async def counted(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        headers = await sync_to_async(_headers_for)(request)
        response = limits.refusal(headers) or await view(request, *args, **kwargs)
        return _told(response, headers)

    return counted


def _headers_for(request: HttpRequest) -> dict[str, str]:
    return limits.headers_for(request, limits.caller_of(request))


def _told(response: HttpResponseBase, headers: Mapping[str, str]) -> HttpResponseBase:
    for name, value in headers.items():
        response.headers[name] = value
    return response
