"""Strong ETags of what the API shows, and requests that depend on them (RFC 9110, 13)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from django.template.response import SimpleTemplateResponse

from ciserver.lib.problems import problem_response
from ciserver.lib.turns import one_at_a_time

AnyResponse = TypeVar("AnyResponse", bound=HttpResponseBase)
View = Callable[..., HttpResponseBase]
CHANGES = {"PUT", "PATCH", "DELETE"}


def answer(view: View, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
    """What ``view`` answers: reads with an ETag or 304, changes only if ``If-Match`` holds."""
    if request.method in {"GET", "HEAD"}:
        return _read(request, view(request, *args, **kwargs))
    if request.method not in CHANGES or not (wanted := request.headers.get("If-Match")):
        return view(request, *args, **kwargs)
    with transaction.atomic():
        one_at_a_time(request.path)  # of two who change the same, the second sees the first's
        if not _holds(wanted, view, request, *args, **kwargs):
            return problem_response(
                412,
                code="etag-differs",
                detail="It is not what If-Match names any more.",
                hint="Read it again, look at what changed, then send yours with the new ETag.",
            )
        return _rendered(view(request, *args, **kwargs))


def _read(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if response.status_code != 200:
        return response
    if isinstance(response, HttpResponse):
        etag = _etag(_rendered(response))
    elif "ETag" in response.headers:
        etag = response.headers["ETag"]
    else:
        return response  # a stream is told as it comes
    response.headers["ETag"] = etag
    response.headers.setdefault("Cache-Control", "private, no-cache")
    if _named(etag, request.headers.get("If-None-Match", ""), weakly=True):
        if file := getattr(response, "file_to_stream", None):
            file.close()  # and not the response: that would end the request for Django
        unchanged = HttpResponseNotModified()
        for name in ("ETag", "Cache-Control", "Vary"):
            if name in response.headers:
                unchanged.headers[name] = response.headers[name]
        return unchanged
    return response


def _holds(wanted: str, view: View, request: HttpRequest, *args: Any, **kwargs: Any) -> bool:
    """Whether the resource, read by the same caller at the same address, is still what it was."""
    reading = copy.copy(request)
    reading.method = "GET"
    response = view(reading, *args, **kwargs)
    if response.status_code != 200 or not isinstance(response, HttpResponse):
        return False
    return _named(_etag(_rendered(response)), wanted)


def _named(etag: str, header: str, *, weakly: bool = False) -> bool:
    """Weak ones count for reads alone (RFC 9110, 8.8.3.2); none of ours holds a comma."""
    names = [name.strip() for name in header.split(",")]
    if weakly:
        names = [name.removeprefix("W/") for name in names]
    return "*" in names or etag in names


def _etag(response: HttpResponse) -> str:
    return f'"{hashlib.sha256(response.content).hexdigest()[:32]}"'


def _rendered(response: AnyResponse) -> AnyResponse:
    """DRF would render it after the view."""
    if isinstance(response, SimpleTemplateResponse):
        response.render()
    return response
