"""Writes that are sent again: ``Idempotency-Key`` has each done once, and answers the same.

A row is made before the view is asked and filled afterwards. That it is unique by caller and key
decides between two that come at once, on any database. Answers may hold a new token: sealed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.crypto import salted_hmac

from ciserver.accounts.models import IdempotentRequest
from ciserver.lib.crypto import SealBroken, Secret, seal, unseal
from ciserver.lib.problems import problem_response

KEY = re.compile(r"[!-~]{1,255}")
KEPT = timedelta(hours=24)
ABANDONED = timedelta(minutes=5)  # then its process has died
WRITES = {"POST", "PUT", "PATCH", "DELETE"}
NOTHING_DONE = {401, 403, 429}  # a right or a pause later it is another matter
SHOWN = ("Content-Type", "Location")


def answer(
    view: Callable[[], HttpResponseBase], request: HttpRequest, caller: str
) -> HttpResponseBase:
    """What ``view`` answers, or what it answered to the same request before."""
    key = request.headers.get("Idempotency-Key")
    if key is None or not caller or request.method not in WRITES:
        return view()
    if not KEY.fullmatch(key):
        return problem_response(
            400,
            code="idempotency-key-unfit",
            detail="The Idempotency-Key has to be 1 to 255 printable ASCII characters.",
            hint="A random UUID serves well.",
        )
    digest = _digest(request)
    row = _begin(caller, key, digest)
    if row is None:
        return _before(caller, key, digest)
    try:
        response: Any = view()
        if callable(getattr(response, "render", None)):
            response.render()
    except BaseException:
        _forget(row)
        raise
    _finish(row, response)
    return response  # type: ignore[no-any-return]  # DRF's responses have no type here


def forget_old() -> int:
    """A chore: the number of requests that need not be known any more."""
    return IdempotentRequest.objects.filter(at__lt=timezone.now() - KEPT).delete()[0]


def _digest(request: HttpRequest) -> str:
    """Keyed, since a body may hold a password that could be guessed."""
    said = f"{request.method} {request.get_full_path()}\n".encode() + request.body
    return salted_hmac("gantry.idempotency", said, algorithm="sha256").hexdigest()


def _begin(caller: str, key: str, digest: str) -> IdempotentRequest | None:
    """The row to fill, for the one that may go on. None for all others."""
    now = timezone.now()
    of_key = IdempotentRequest.objects.filter(caller=caller, key=key)
    of_key.filter(at__lt=now - KEPT).delete()
    of_key.filter(status=None, at__lt=now - ABANDONED).delete()
    row = IdempotentRequest(caller=caller, key=key, digest=digest, at=now)
    # One that is there already is left alone, and this one is then not found.
    IdempotentRequest.objects.bulk_create([row], ignore_conflicts=True)
    return of_key.filter(nonce=row.nonce).first()


def _before(caller: str, key: str, digest: str) -> HttpResponseBase:
    row = IdempotentRequest.objects.filter(caller=caller, key=key).first()
    if row is not None and row.digest != digest:
        return problem_response(
            422,
            code="idempotency-key-reused",
            detail="This Idempotency-Key was sent with another request before.",
            hint="Take a new key for each thing to be done.",
        )
    if row is None or row.status is None:
        return problem_response(
            409,
            code="idempotency-in-flight",
            detail="The request with this Idempotency-Key is still being done.",
            hint="Send it again in a moment.",
        )
    try:
        body = unseal(row.sealed, row.place).reveal()
    except SealBroken:
        body = ""
    response = HttpResponse(body, status=row.status)
    del response.headers["Content-Type"]
    for name, value in row.headers.items():
        response.headers[name] = value
    response.headers["Idempotent-Replayed"] = "true"
    return response


def _finish(row: IdempotentRequest, response: HttpResponseBase) -> None:
    nothing = response.status_code in NOTHING_DONE or response.status_code >= 500
    if nothing or not isinstance(response, HttpResponse):
        _forget(row)
        return
    IdempotentRequest.objects.filter(pk=row.pk, nonce=row.nonce).update(
        status=response.status_code,
        headers={name: response.headers[name] for name in SHOWN if name in response.headers},
        sealed=seal(Secret(response.content.decode()), row.place),
    )


def _forget(row: IdempotentRequest) -> None:
    IdempotentRequest.objects.filter(pk=row.pk, nonce=row.nonce).delete()
