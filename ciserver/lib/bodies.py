"""The size limit of request bodies, ahead of Django, which would write any body to disk first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.template.loader import render_to_string

from ciserver.lib import words
from ciserver.lib.asgi import App, Message, Receive, Scope, Send
from ciserver.lib.http import POLICY
from ciserver.lib.problems import CONTENT_TYPE, problem

MIB = 1024 * 1024
DEFAULT = 2 * MIB
HINT = "Send less at once. What a forge could not tell is found by a look at its repository."
SMALL = 1 * MIB  # bodies up to this are taken however many larger ones are under way
LISTENED = 32 * MIB  # of a form that is too large: a browser reads no answer before it has sent all
OF_PROGRAMS = ("/api/", "/hooks/", "/git/")
AT_ONCE = 512 * MIB  # of all that are under way: each larger one lies on the disk until it is read


class _TooLarge(Exception):
    pass


class _TooMany(Exception):
    pass


class LimitBodies:
    """Answers 413 to a body over its path's limit: by its Content-Length, else while it comes; and
    503 to a large one while others, together, are too large.

    ``limits`` is path prefix -> bytes; DEFAULT holds for everything else.
    """

    def __init__(self, app: App, limits: Mapping[str, int]) -> None:
        self.app = app
        self.limits = limits
        self._held = 0  # bytes of the bodies that are under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            self._held += len(message.get("body", b""))
            if read > limit:
                raise _TooLarge
            if read > SMALL and self._held > AT_ONCE:
                raise _TooMany
            return message

        try:
            if _declared(scope) > limit:
                raise _TooLarge
            await self.app(scope, counted, send)
        except _TooLarge:
            if _of_a_browser(scope):
                await _listen(receive, LISTENED - read)
                await _answer(send, 413, "text/html; charset=utf-8", _page(limit))
                return
            detail = f"A body may have at most {limit} bytes here."
            await _refuse(send, problem(413, code="too-large", detail=detail, hint=HINT))
        except _TooMany:
            document = problem(
                503, code="busy", detail="Too many large bodies are under way.",
                hint="Send it again in a few seconds.",
            )  # fmt: skip
            await _refuse(send, document)
        finally:
            self._held -= read

    def _limit(self, path: str) -> int:
        return next((n for prefix, n in self.limits.items() if path.startswith(prefix)), DEFAULT)


def _declared(scope: Scope) -> int:
    value = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    return int(value) if value.isdigit() else 0


def _of_a_browser(scope: Scope) -> bool:
    accepts = next((v for k, v in scope["headers"] if k == b"accept"), b"")
    return b"text/html" in accepts and not scope["path"].startswith(OF_PROGRAMS)


async def _listen(receive: Receive, most: int) -> None:
    """Let ``most`` bytes of what is still to come go by."""
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _page(limit: int) -> bytes:
    return render_to_string("413.html", {"limit": words.size(limit)}).encode()


async def _refuse(send: Send, document: dict[str, Any]) -> None:
    await _answer(send, document["status"], CONTENT_TYPE, json.dumps(document).encode())


async def _answer(send: Send, status: int, content_type: str, body: bytes) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the rest of the body is not worth reading
        (b"content-security-policy", POLICY.encode()),
    ]
    if status == 503:
        headers.append((b"retry-after", b"10"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
