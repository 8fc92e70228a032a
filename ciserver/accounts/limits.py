"""How often one caller may ask the API: counted by the minute in Redis, in the open without it."""

from __future__ import annotations

import time
from functools import cache

import redis
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ciserver.accounts.authentication import basic_credentials, bearer
from ciserver.accounts.lock import address_of
from ciserver.accounts.models import Token
from ciserver.accounts.registry_tokens import PULL_USER, repository_of
from ciserver.lib.problems import problem_response

WINDOW = 60  # seconds
AWAY = 5.0  # seconds for which Redis is not asked again after it did not answer
_away_until = [0.0]


def caller_of(request: HttpRequest) -> str:
    """``token:ID`` or ``user:ID``; empty for who is not known.

    A token is also known as the password of HTTP Basic, which Docker and Podman send.
    """
    name, password = basic_credentials(request)
    if token := bearer(request) or Token.objects.find(password):
        return f"token:{token.pk}"
    if name == PULL_USER and (repository := repository_of(password)):
        return f"pull:{repository}"
    if "Authorization" not in request.headers and request.user.is_authenticated:
        return f"user:{request.user.pk}"
    return ""


def headers_for(request: HttpRequest, caller: str) -> dict[str, str]:
    """``RateLimit-*`` of this request, which is counted; nothing when there is no limit.

    ``RateLimit-Remaining`` is -1 for one too many. Who is not known is counted by address.
    """
    rate = settings.GANTRY.api_rate if caller else settings.GANTRY.api_anonymous_rate
    if not rate:
        return {}
    now = int(time.time())
    count = _count(f"{caller or 'at:' + address_of(request)}:{now // WINDOW}")
    if count is None:
        return {}
    return {
        "RateLimit-Limit": str(rate),
        "RateLimit-Remaining": str(max(rate - count, -1)),
        "RateLimit-Reset": str(WINDOW - now % WINDOW),
    }


def refusal(headers: dict[str, str]) -> HttpResponseBase | None:
    if headers.get("RateLimit-Remaining") != "-1":
        return None
    headers["RateLimit-Remaining"] = "0"
    seconds = headers["RateLimit-Reset"]
    response = problem_response(
        429,
        code="throttled",
        detail=f"These were more than {headers['RateLimit-Limit']} requests in a minute.",
        hint=f"Go on in {seconds} s, or have GANTRY_API_RATE raised.",
    )
    response.headers["Retry-After"] = seconds
    return response


def _count(name: str) -> int | None:
    """How many there were with this one; None when Redis is away, which refuses nobody."""
    if time.monotonic() < _away_until[0]:
        return None
    try:
        with _client().pipeline(transaction=False) as pipe:
            pipe.incr(f"gantry-rate:{name}")
            pipe.expire(f"gantry-rate:{name}", WINDOW)
            return int(pipe.execute()[0])
    except (redis.RedisError, OSError):
        _away_until[0] = time.monotonic() + AWAY
        return None


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.GANTRY.redis_url, socket_connect_timeout=0.2, socket_timeout=0.2
    )
