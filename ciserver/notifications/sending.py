"""One status sent to its forge: pinned to a public address, and heeding the forge's limits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime

import httpx
from django.conf import settings

from ciserver.lib.problems import Refused
from ciserver.notifications.forges.requests import Request
from ciserver.projects import origins

TIMEOUT = 10.0  # seconds
LONGEST = timedelta(hours=6)  # that a forge may have us wait
LIMITS = {403, 429}  # GitHub answers 403 to its own secondary limit


@dataclass(frozen=True, slots=True)
class Outcome:
    """``error`` is empty when it went well. ``wait`` is set when the forge named a time."""

    error: str = ""
    wait: timedelta | None = None
    final: bool = False  # trying again is of no use


def send(request: Request, secret: str) -> Outcome:
    """POST ``request``. ``secret`` is kept out of what the outcome says."""
    try:
        response = _post(request)
    except Refused as refusal:
        return Outcome(str(refusal), final=True)
    except (httpx.HTTPError, OSError) as error:
        return Outcome(f"The forge did not answer: {error or type(error).__name__}.")
    return judge(response.status_code, response.headers, response.text.replace(secret, "***"))


def _post(request: Request) -> httpx.Response:
    """The name is looked up once: a name server may answer otherwise the second time."""
    url = httpx.URL(request.url)
    host, port = origins.check(request.url)
    address = origins.resolve(host, port)[0]
    headers = {**request.headers, "Host": url.netloc.decode(), "User-Agent": "gantry"}
    verify = str(settings.GANTRY.extra_ca) if settings.GANTRY.extra_ca else True
    with httpx.Client(
        timeout=TIMEOUT, trust_env=False, follow_redirects=False, verify=verify
    ) as client:
        return client.post(
            url.copy_with(host=address),
            json=request.json,
            headers=headers,
            extensions={"sni_hostname": host},
        )


def judge(status: int, headers: Mapping[str, str], body: str) -> Outcome:
    """What an answer means. A redirect is no answer: a token goes nowhere else."""
    if 200 <= status < 300:
        return Outcome()
    said = f"The forge answered {status}: {' '.join(body.split())[:200]}"
    if status == 400 and "Cannot transition status" in body:
        return Outcome()  # GitLab's word for "it is so already"
    wait = _wait(headers)
    if status in LIMITS and wait is not None:
        return Outcome(f"The forge's rate limit is reached. {said}", wait=wait)
    if status == 429 or status >= 500 or status == 408:
        return Outcome(said, wait=wait)
    return Outcome(said, final=True)


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
    return min(timedelta(seconds=max(seconds, 1.0)), LONGEST)


def _until(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return None
