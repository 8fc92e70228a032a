"""Every address that the service answers, read from Django's own resolver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PARAMETER = re.compile(r"\(\?P<(\w+)>(?:\[[^\]]*\]|[^()])*\)|<(?:\w+:)?(\w+)>")


@dataclass(frozen=True)
class Route:
    """``path`` with its parameters in braces; ``view`` is what Django calls."""

    path: str
    view: Any

    @property
    def of_api(self) -> bool:
        return self.path.startswith("/api/")

    def url(self, values: dict[str, Any]) -> str:
        return self.path.format(**values)


def routes() -> list[Route]:
    """Without the ``.json`` twins that the API's router makes of each route."""
    found = [Route(_readable(path), view) for path, view in _walk(get_resolver(), "/")]
    return [route for route in found if "{format}" not in route.path]


def of_resolver(route: str) -> str:
    """As ``Route.path`` has it, of what ``resolve`` calls a route."""
    return _readable(f"/{route}")


def _walk(resolver: URLResolver, prefix: str) -> Iterator[tuple[str, Any]]:
    for entry in resolver.url_patterns:
        path = prefix + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield path, entry.callback
        else:
            yield from _walk(entry, path)


def _readable(path: str) -> str:
    braced = PARAMETER.sub(lambda found: f"{{{found[1] or found[2]}}}", path)
    return re.sub(r"[\^$?\\]", "", braced)
