"""Events as a stream: ``/api/v1/events/``, server-sent, from where ``Last-Event-ID`` says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from ciserver.accounts.authentication import reader
from ciserver.accounts.models import User
from ciserver.lib.problems import LISTED, NOT_FOUND, problem_response
from ciserver.notifications.models import Event
from ciserver.pipelines import shutdown
from ciserver.pipelines.views import event_stream
from ciserver.projects.models import Project

LOOK = 1.0  # seconds
KEEP_ALIVE = 15.0
AT_A_TIME = 100
RETRY_MS = 2000


@require_safe
async def events(request: HttpRequest) -> HttpResponseBase:
    """New states of pipelines, releases and deployments that the caller may see.

    ``project`` names one; without it, all. Without ``Last-Event-ID`` it begins with what is new.
    """
    user = await sync_to_async(reader)(request)
    if user is None:
        return problem_response(
            401,
            code="not-authenticated",
            detail="This needs a token or a session.",
            hint="Make a token on the page /tokens/.",
        )
    slug = request.GET.get("project", "")
    if user.limited_to and not slug:
        only = await Project.objects.filter(pk=user.limited_to).afirst()
        slug = only.slug if only else "-"
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
    return event_stream(_frames(user.pk, slug, int(asked) if asked else newest or 0))


async def _frames(user: int, slug: str, after: int) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    read = sync_to_async(_read)
    quiet_since = time.monotonic()
    while not shutdown.stopping():
        rows = await read(user, slug, after)
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


def _read(user_id: int, slug: str, after: int) -> list[Event] | None:
    """Rights are looked at each time: who loses them hears no more. None: no such user now."""
    user: Any = User.objects.filter(pk=user_id, is_active=True).first()
    if user is None:
        return None
    seen = Project.objects.visible_to(user)
    if slug:
        seen = seen.filter(slug=slug)
    found = Event.objects.filter(project__in=seen, id__gt=after)
    return list(found.order_by("id")[:AT_A_TIME])
