"""The API's browsable documentation, served from our own files."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpRequest
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.response import Response

from ciserver.lib.http import POLICY


class Docs(SpectacularSwaggerSplitView):
    """Swagger UI. It writes style attributes, so this one page allows them; scripts stay ours."""

    url_name = "schema"
    schema = None  # it is no part of the API

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        response = cast(Response, super().get(request, *args, **kwargs))  # type: ignore[no-untyped-call]
        response.headers["Content-Security-Policy"] = f"{POLICY}; style-src 'self' 'unsafe-inline'"
        return response
