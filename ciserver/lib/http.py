"""What every answer carries: the policy, and in place of a bare refusal a page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ciserver.lib.error_pages import explained

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]

POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    ]
)


class FinishPages:
    """No inline script or style anywhere: what a log or a branch name holds can never run. And no
    answer that a browser would draw as nothing."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        response = self._get_response(request)
        if isinstance(response, HttpResponseBase):
            return _finished(request, response)
        return _finished_later(request, response)


async def _finished_later(
    request: HttpRequest, response: Awaitable[HttpResponseBase]
) -> HttpResponseBase:
    return _finished(request, await response)


def _finished(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    explained(request, response)
    response.headers.setdefault("Content-Security-Policy", POLICY)
    return response
