"""Django with all its views in one thread that lives as long as the process does.

For webhooks: each writes, and SQLite lets one write at a time. In threads of their own they would
wait for one another by sleeping and looking again; in one they take turns, in order, over a
connection that is open already. None of them waits for anything but the database.
"""

from __future__ import annotations

from django.core.handlers.asgi import ASGIHandler

from ciserver.lib.asgi import App, Receive, Scope, Send


class OneThread(ASGIHandler):
    """Django's handler without the context that gives each request a thread.

    asgiref then runs what is synchronous in its one thread for that (``SyncToAsync``).
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.handle(scope, receive, send)


class Split:
    """``special`` for the paths below ``prefix``, ``usual`` for all others."""

    def __init__(self, usual: App, special: App, prefix: str) -> None:
        self._usual, self._special, self._prefix = usual, special, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"].startswith(self._prefix)
        await (self._special if ours else self._usual)(scope, receive, send)
