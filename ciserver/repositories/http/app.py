"""The ASGI application for ``/git/PROJECT.git/…``; everything else goes on to Django.

It stands before Django because Django keeps a whole request body before a view sees it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from django.db import DatabaseError

from ciserver.accounts.lock import network_of
from ciserver.lib.asgi import App, Receive, Scope, Send
from ciserver.lib.threads import in_database_thread
from ciserver.projects.models import SLUG
from ciserver.repositories.command import environment
from ciserver.repositories.git import HOSTED
from ciserver.repositories.http.access import RECEIVE, UPLOAD, Admitted, Denied, admit
from ciserver.repositories.http.announce import Announcement
from ciserver.repositories.http.backend import Backend, ClientGone, TooLarge
from ciserver.repositories.spool import FOLDER

log = logging.getLogger(__name__)
ROUTE = re.compile(rf"/git/({SLUG})\.git/(info/refs|{UPLOAD}|{RECEIVE})")
FOR_PEOPLE = re.compile(rf"/git/({SLUG})(?:\.git)?/?")  # the address that git is told, in a browser
PROTOCOL = re.compile(r"version=[0-2]")
HOOKS = Path(__file__).resolve().parent.parent / "hooks"
MAX_BACKENDS = 32
MIB = 1024 * 1024
COMMANDS = 64 * MIB  # of a push beside its pack: the refs it moves, far more than may be moved
QUESTION = 16 * MIB  # of a fetch: what it has already
MAX_FOLLOWED = 16  # pushes that are waited for: fetches must find room beside them

Ingest = Callable[[int, str], str]
Follow = Callable[[int, str], AsyncIterator[str]]


class GitHttp:
    """``ingest(project_id, push_id)`` records a push and returns what its pusher should read;
    ``follow(project_id, push_id)`` gives what a pusher who waits reads after that."""

    def __init__(self, app: App, *, ingest: Ingest, follow: Follow) -> None:
        self.app = app
        self.ingest = ingest
        self.follow = follow
        self._running = 0
        self._followed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/git/"):
            await self.app(scope, receive, send)
            return
        if scope["method"] in {"GET", "HEAD"} and (named := FOR_PEOPLE.fullmatch(scope["path"])):
            await _redirect(send, f"/projects/{named[1]}/")
            return
        try:
            slug, action, service = _route(scope)
            admitted = await in_database_thread(
                partial(
                    admit, slug, service, _header(scope, b"authorization"), network_of(_peer(scope))
                )
            )
            if action == RECEIVE and _header(scope, b"content-encoding") not in {"", "identity"}:
                # Git never does; it would unfold into a thousand times its size of ref names.
                raise Denied(415, "A push is not sent compressed. Push with git itself.")
            if self._running >= MAX_BACKENDS:
                raise Denied(503, "Too many pushes and fetches at once. Try again in a moment.")
        except Denied as denied:
            await _refuse(send, denied.status, str(denied))
            return
        except DatabaseError:
            log.exception("a fetch or push was refused: the database is away")
            await _refuse(send, 503, "The database does not answer just now; try again soon.")
            return
        await self._serve(scope, receive, send, admitted, action)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, admitted: Admitted, action: str
    ) -> None:
        push = Announcement() if action == RECEIVE else None
        env = _environment(scope, admitted, action)
        tasks = []
        if push:
            push_id = _new_push_id()
            env |= _for_hooks(admitted, push_id, push)
            record = partial(self.ingest, admitted.project_id, push_id)
            follow = partial(self._follow, admitted.project_id, push_id)
            answer = push.answer(partial(in_database_thread, record), follow)
            tasks.append(asyncio.create_task(answer))
        pipes = (push.tell, push.hear) if push else ()
        pack = admitted.limits.pack
        limit = pack + COMMANDS if push else QUESTION
        backend = Backend(env, pipes, limit=limit, told=(pack, _too_large(pack)) if push else None)
        self._running += 1
        try:
            await backend.run(receive, send, push.handed_over if push else lambda: None)
        except ClientGone:
            pass
        except TooLarge:
            if backend.started:
                raise
            await _refuse(send, 413, _too_large(limit))
        except (TimeoutError, ConnectionError) as error:
            if backend.started:
                raise  # the server cuts the connection, so that git sees it is not whole
            await _refuse(send, 504, f"Git gave no answer: {error or 'it took too long'}.")
        finally:
            self._running -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if push:
                push.close()

    async def _follow(self, project_id: int, push_id: str) -> AsyncIterator[str]:
        if self._followed >= MAX_FOLLOWED:
            yield "Too many pushes are waited for already; the page shows what comes of this one.\n"
            return
        self._followed += 1
        try:
            async for text in self.follow(project_id, push_id):
                yield text
        finally:
            self._followed -= 1


def _too_large(limit: int) -> str:
    return (
        f"This is larger than {limit // MIB} MiB. Push it in parts, or have a maintainer raise the "
        "limit of one push.\n"
    )


def _route(scope: Scope) -> tuple[str, str, str]:
    """Project, what is asked, and the service that it is part of. Raises Denied."""
    match = ROUTE.fullmatch(scope["path"])
    if not match:
        raise Denied(404, "Git is served at /git/PROJECT.git by the smart HTTP protocol alone.")
    slug, action = match.groups()
    query = scope["query_string"].decode("latin-1")
    service = query.removeprefix("service=") if action == "info/refs" else action
    if service not in {UPLOAD, RECEIVE}:
        raise Denied(403, "Only the smart HTTP protocol is served. Use git 1.6.6 or later.")
    if scope["method"] != ("GET" if action == "info/refs" else "POST"):
        raise Denied(405, "Git asks for this by another method.")
    return slug, action, service


def _environment(scope: Scope, admitted: Admitted, action: str) -> dict[str, str]:
    """The CGI environment (RFC 3875, 4.1; git-http-backend(1)), hardened."""
    settings = {**HOSTED, "http.receivepack": "true", "http.uploadpack": "true"}
    settings |= {"core.hooksPath": str(HOOKS), "uploadpack.allowFilter": "true"}
    settings |= {"receive.maxInputSize": str(admitted.limits.pack)}
    more = {
        "GIT_PROJECT_ROOT": str(admitted.git_dir.parent),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{admitted.git_dir.name}/{action}",
        "REQUEST_METHOD": scope["method"],
        "QUERY_STRING": scope["query_string"].decode("latin-1") if action == "info/refs" else "",
        "CONTENT_TYPE": _header(scope, b"content-type"),
        "REMOTE_USER": admitted.user,
        "REMOTE_ADDR": _peer(scope),
    }
    # No CONTENT_LENGTH: of a push that broke off, Git would wait for the rest of it for ever.
    if (encoding := _header(scope, b"content-encoding")) in {"gzip", "x-gzip"}:
        more["HTTP_CONTENT_ENCODING"] = encoding
    if PROTOCOL.fullmatch(protocol := _header(scope, b"git-protocol")):
        more["GIT_PROTOCOL"] = protocol
    return environment(settings=settings) | more


def _for_hooks(admitted: Admitted, push_id: str, push: Announcement) -> dict[str, str]:
    return {
        "GANTRY_PUSH": push_id,
        "GANTRY_USER": admitted.user,
        "GANTRY_SPOOL": str(admitted.git_dir / FOLDER),
        "GANTRY_TELL": str(push.tell),
        "GANTRY_HEAR": str(push.hear),
        "GANTRY_MAX_REFS": str(admitted.limits.refs),
        "GANTRY_PROTECTED": "\n".join(admitted.limits.protected),
        "GANTRY_PROTECTED_ROLE": admitted.limits.lacks,
    }


def _new_push_id() -> str:
    """Sorts by time, and cannot be guessed."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def _peer(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def _redirect(send: Send, path: str) -> None:
    headers = [(b"location", path.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 302, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _refuse(send: Send, status: int, message: str) -> None:
    body = f"{message}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    headers.append((b"content-length", str(len(body)).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Gantry", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
