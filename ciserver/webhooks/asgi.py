"""Webhooks ahead of Django: a forge has no session, and needs none of what pages need.

All of a process are answered in one thread, over one connection to the database that is open
already, for each writes, and SQLite lets one write at a time. Those that came while the thread was
at work are recorded together: what a commit takes, mostly the disk's time, is then paid once.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress

from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.db import DatabaseError, close_old_connections, connection
from django.http import HttpResponse, HttpResponseBadRequest
from django.http.response import HttpResponseBase

from ciserver.lib.asgi import App, Receive, Scope, Send
from ciserver.webhooks.intake import Hook, answer_all, unavailable

log = logging.getLogger(__name__)
# Without the slash, too: people copy addresses so, and forges follow no redirect with a POST.
PATH = re.compile(r"/hooks/([-\w]+)/([-\w]+)/?", re.ASCII)
AT_ONCE = 50  # in one transaction
# Gitea waits 5 s, others 10 s: what cannot be told by then is told to be sent again.
DEADLINE = 4.0
LOOKED_AT = 1.0  # seconds after which the connection is looked at anew

Waiting = tuple[Hook, "Future[HttpResponse]"]


class Hooks(ASGIHandler):
    """Answers webhooks; ``usual`` answers everything else."""

    def __init__(self, usual: App) -> None:
        super().__init__()
        self._usual = usual
        self._group = Group()

    def load_middleware(self, is_async: bool = False) -> None:
        """None."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["method"] == "POST"
        found = PATH.fullmatch(scope["path"]) if ours else None
        if not found:
            await self._usual(scope, receive, send)
            return
        with suppress(RequestAborted), await self.read_body(receive) as body:
            request, refusal = self.create_request(scope, body)
            response: HttpResponseBase = refusal or HttpResponseBadRequest()
            if request:
                response = await self._group.answer(Hook(request, found[1], found[2]))
            response["X-Content-Type-Options"] = "nosniff"
            await self.send_response(response, send)


class Group:
    """The thread that answers, and the line of those that wait for it."""

    def __init__(self) -> None:
        self._line: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def answer(self, hook: Hook) -> HttpResponse:
        """Within DEADLINE; that of a hook that may yet be recorded is a 503, never a 2xx."""
        self._ensure_thread()
        future: Future[HttpResponse] = Future()
        self._line.put((hook, future))
        try:
            async with asyncio.timeout(DEADLINE):
                return await asyncio.wrap_future(future)
        except TimeoutError:  # the future is cancelled with it, and left out if it can be
            log.warning("a webhook could not be recorded within %s s", DEADLINE)
            return unavailable()

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():  # as after a fork
            self._thread = threading.Thread(target=self._work, name="hooks", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        looked = 0.0
        while True:
            waiting = [self._line.get()]
            with suppress(queue.Empty):
                while len(waiting) < AT_ONCE:
                    waiting.append(self._line.get_nowait())
            if connection.errors_occurred or time.monotonic() - looked > LOOKED_AT:
                with suppress(DatabaseError):  # in closing what is broken already
                    close_old_connections()  # and have the next statement try one that is kept
                looked = time.monotonic()
            _answer([one for one in waiting if one[1].set_running_or_notify_cancel()])


def _answer(waiting: Sequence[Waiting]) -> None:
    try:
        answers = answer_all([hook for hook, _ in waiting])
    except Exception as error:  # the thread must live on
        for _, future in waiting:
            future.set_exception(error)
        return
    for (_, future), answer in zip(waiting, answers, strict=True):
        future.set_result(answer)
