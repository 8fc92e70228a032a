"""The size limit of request bodies, ahead of Django, which would write any body to disk first."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ciserver.lib.asgi import App, Message, Receive, Scope, Send
from ciserver.lib.problems import CONTENT_TYPE, problem

MIB = 1024 * 1024
DEFAULT = 2 * MIB
HINT = "Send less at once. What a forge could not tell is found by a look at its repository."


class _TooLarge(Exception):
    pass


class LimitBodies:
    """Answers 413 to a body over its path's limit: by its Content-Length, else while it comes.

    ``limits`` is path prefix -> bytes; DEFAULT holds for everything else.
    """

    def __init__(self, app: App, limits: Mapping[str, int]) -> None:
        self.app = app
        self.limits = limits

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
            if read > limit:
                raise _TooLarge
            return message

        try:
            if _declared(scope) > limit:
                raise _TooLarge
            await self.app(scope, counted, send)
        except _TooLarge:
            await _refuse(send, limit)

    def _limit(self, path: str) -> int:
        return next((n for prefix, n in self.limits.items() if path.startswith(prefix)), DEFAULT)


def _declared(scope: Scope) -> int:
    value = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    return int(value) if value.isdigit() else 0


async def _refuse(send: Send, limit: int) -> None:
    detail = f"A body may have at most {limit} bytes here."
    body = json.dumps(problem(413, code="too-large", detail=detail, hint=HINT)).encode()
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the rest of the body is not worth reading
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
