"""Pages that keep themselves right: they ask for their moving part again and mostly get a 304."""

from __future__ import annotations

import hashlib
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.template.loader import render_to_string


def wanted(request: HttpRequest) -> bool:
    return request.headers.get("X-Live") == "1"


def answer(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """The moving part of a page alone, or 304 when it did not move."""
    html = render_to_string(template, context, request)
    etag = f'"{hashlib.sha256(html.encode()).hexdigest()[:32]}"'
    response: HttpResponse
    if request.headers.get("If-None-Match") == etag:
        response = HttpResponseNotModified()
    else:
        response = HttpResponse(html)
    response.headers["ETag"] = etag
    response.headers["Cache-Control"] = "no-store"
    return response
