"""One status sent to its forge: pinned to a public address, and heeding the forge's limits.

The answer is anybody's: of its body little is read, and none of it can hold up or break a worker.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime

import httpx
from django.conf import settings

from ciserver.lib.certificates import trusted
from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.lib.problems import Refused
from ciserver.notifications.forges.requests import Request
from ciserver.projects import origins

TIMEOUT = 10.0  # seconds for each part of an exchange
IN_ALL = 20.0  # seconds: each byte that comes would begin the other anew
MOST_READ = 8 * 1024  # bytes of a body
MOST_TOLD = 200  # characters of it
LONGEST = timedelta(hours=6)  # that a forge may have us wait
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # no row of PostgreSQL holds a NUL
LIMITS = {403, 429}  # GitHub answers 403 to its own secondary limit


@dataclass(frozen=True, slots=True)
class Outcome:
    """``error`` is empty when it went well. ``wait`` is set when the forge named a time."""

    error: str = ""
    wait: timedelta | None = None
    limited: bool = False  # it asked for patience, which is no attempt that failed
    final: bool = False  # trying again is of no use
    answered: bool = False  # it was asked, whatever it said


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes  # up to MOST_READ
    whole: bool


def send(request: Request, secret: str) -> Outcome:
    """POST ``request``. ``secret`` is kept out of what the outcome says."""
    try:
        host, port = origins.check(request.url)
        # Looked up once: a name server may answer otherwise the second time.
        address = origins.resolve(host, port)[0]
        answer = asyncio.run(asyncio.wait_for(_post(request, host, address), IN_ALL))
    except Refused as refusal:
        return Outcome(str(refusal), final=True)
    except TimeoutError:
        return Outcome(f"The {request.whom} did not answer within {IN_ALL:g} s.")
    except (httpx.HTTPError, OSError) as error:
        said = Masker([Secret(secret)]).mask_text(str(error)) or type(error).__name__
        return Outcome(f"The {request.whom} did not answer: {said}.")
    return judge(answer.status, answer.headers, _readable(answer, secret), request.whom)


async def _post(request: Request, host: str, address: str) -> _Answer:
    url = httpx.URL(request.url)
    headers = {
        **request.headers,
        "Host": url.netloc.decode(),
        "User-Agent": "gantry",
        "Accept-Encoding": "identity",  # a few bytes could unpack to very many
    }
    verify = trusted(settings.GANTRY.extra_ca)
    async with (
        httpx.AsyncClient(
            timeout=TIMEOUT, trust_env=False, follow_redirects=False, verify=verify
        ) as client,
        client.stream(
            "POST",
            url.copy_with(host=address),
            json=request.json if request.content is None else None,
            content=request.content,
            headers=headers,
            extensions={"sni_hostname": host},
        ) as response,
    ):
        body = b""
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MOST_READ:
                break
        whole = len(body) <= MOST_READ
        return _Answer(response.status_code, response.headers, body[:MOST_READ], whole)


def _readable(answer: _Answer, secret: str) -> str:
    """The body as a page can show it, and no part of ``secret``, though it was cut within it."""
    masker = Masker([Secret(secret)])
    text = CONTROL.sub("", answer.body.decode("utf-8", "replace"))
    masked = masker.mask(text.encode())
    if not answer.whole:
        masked = masked[: -masker.longest or None]
    return masked.decode("utf-8", "replace")


def judge(status: int, headers: Mapping[str, str], body: str, whom: str = "forge") -> Outcome:
    """What an answer means. A redirect is no answer: a token goes nowhere else."""
    if 200 <= status < 300:
        return Outcome()
    said = f"The {whom} answered {status}: {' '.join(body.split())[:MOST_TOLD]}"
    if status == 400 and "Cannot transition status" in body:
        return Outcome()  # GitLab's word for "it is so already"
    wait = _wait(headers)
    if status in LIMITS and wait is not None:
        return Outcome(f"The {whom}'s rate limit is reached. {said}", wait=wait, limited=True)
    if status == 429 or status >= 500 or status == 408:
        return Outcome(said, wait=wait)
    return Outcome(said, final=True, answered=True)


def _wait(headers: Mapping[str, str]) -> timedelta | None:
    """``Retry-After`` (RFC 9110, 10.2.3), or the reset of a limit of which nothing is left."""
    seconds = None
    if told := headers.get("Retry-After", "").strip():
        seconds = float(told) if told.isdecimal() else _until(told)
    elif headers.get("X-RateLimit-Remaining", headers.get("RateLimit-Remaining")) == "0":
        reset = headers.get("X-RateLimit-Reset", headers.get("RateLimit-Reset", ""))
        seconds = float(reset) - time.time() if reset.isdecimal() else None
    if seconds is None:
        return None
    return timedelta(seconds=min(max(seconds, 1.0), LONGEST.total_seconds()))


def _until(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):  # what it raises for some words
        return None
