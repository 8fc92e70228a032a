"""Events as a stream: ``/api/v1/events/``, server-sent, from where ``Last-Event-ID`` says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from ciserver.accounts.authentication import reading
from ciserver.accounts.models import Token, User
from ciserver.lib.problems import LISTED, NOT_FOUND, problem_response
from ciserver.notifications.models import Event
from ciserver.pipelines import shutdown
from ciserver.pipelines.views import event_stream
from ciserver.projects.models import Project

LOOK = 1.0  # seconds
KEEP_ALIVE = 15.0
AT_A_TIME = 100
RETRY_MS = 2000


@dataclass(frozen=True, slots=True)
class Reader:
    """The keys of a person, and of the token by which they read; None for a session."""

    user: int
    token: int | None


@require_safe
async def events(request: HttpRequest) -> HttpResponseBase:
    """New states of pipelines, releases and deployments that the caller may see.

    ``project`` names one; without it, all. Without ``Last-Event-ID`` it begins with what is new.
    """
    user, token = await sync_to_async(reading)(request)
    if user is None:
        return problem_response(
            401,
            code="not-authenticated",
            detail="This needs a token or a session.",
            hint="Make a token on the page /tokens/.",
        )
    slug = request.GET.get("project", "")
    if slug and not await Project.objects.visible_to(user).filter(slug=slug).aexists():
        return problem_response(404, code="not-found", detail=NOT_FOUND, hint=LISTED)
    asked = request.headers.get("Last-Event-ID", "")
    if asked and not (asked.isascii() and asked.isdecimal() and len(asked) < 19):
        return problem_response(
            400,
            code="events.last-id",
            detail="Last-Event-ID is not one that this stream gave.",
            hint="Send none, to begin with what is new.",
        )
    shutdown.watch()
    newest = await Event.objects.order_by("-id").values_list("id", flat=True).afirst()
    who = Reader(user.pk, token.pk if token else None)
    return event_stream(_frames(who, slug, int(asked) if asked else newest or 0))


async def _frames(who: Reader, slug: str, after: int) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    read = sync_to_async(_read)
    quiet_since = time.monotonic()
    while not shutdown.stopping():
        rows = await read(who, slug, after)
        if rows is None:
            return
        for row in rows:
            after = row.pk
            data = json.dumps({"at": row.at.isoformat(), **row.data}, separators=(",", ":"))
            yield f"id: {row.pk}\nevent: {row.type}\ndata: {data}\n\n"
        now = time.monotonic()
        if rows:
            quiet_since = now
        elif now - quiet_since > KEEP_ALIVE:
            quiet_since = now
            yield ": still here\n\n"
        if len(rows) < AT_A_TIME:
            await asyncio.sleep(LOOK)


def _read(who: Reader, slug: str, after: int) -> list[Event] | None:
    """Rights are looked at each time: who loses them hears no more. None: nobody listens now whom
    a token or an account lets."""
    user = _now(who)
    if user is None:
        return None
    seen = Project.objects.visible_to(user)
    if slug:
        seen = seen.filter(slug=slug)
    found = Event.objects.filter(project__in=seen, id__gt=after)
    return list(found.order_by("id")[:AT_A_TIME])


def _now(who: Reader) -> User | None:
    if who.token is None:
        return User.objects.filter(pk=who.user, is_active=True).first()
    token = Token.objects.again(who.token)
    return token.user if token else None
