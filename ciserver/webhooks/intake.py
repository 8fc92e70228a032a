"""The answers to webhooks: size, signature, JSON, shape, one transaction, then 202.

Whatever is well signed and can be read gets a 2xx, also when nothing is built of it, for forges
turn off hooks that refuse. Well signed but no JSON object of the forge's shape, which no forge
sends, is a 400, and recorded as well; a database that is away is a 503, so that the forge sends
it again. Whatever is wrong with a signature gets one and the same 401, which does not tell
whether the project exists.
"""

from __future__ import annotations

import hashlib
import logging
import secrets as random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse

from ciserver.lib import bodies
from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.lib.problems import problem_response
from ciserver.projects.models import Project
from ciserver.webhooks import services
from ciserver.webhooks.forges import FORGES, Forge
from ciserver.webhooks.forges.events import Envelope, Event, Malformed, Nothing, Unreadable
from ciserver.webhooks.models import Delivery, Verdict
from ciserver.webhooks.payloads import TOO_MUCH, is_heavy, json_of, text_of, unfold
from ciserver.webhooks.questions import project_of

log = logging.getLogger(__name__)
MARGIN = 1024  # bytes beyond what is kept: a secret must not be cut before it is masked
MAX_BODY = 25 * 1024 * 1024  # what GitHub and GitLab send at most
NOBODY = Secret(random.token_hex(32))  # checked where there is no secret, for the time it takes


@dataclass(frozen=True, slots=True)
class Hook:
    """A request, and the two words of its address."""

    request: HttpRequest
    forge: str
    slug: str


@dataclass(frozen=True, slots=True)
class _Told:
    """What a verified request tells, its body cut to what is kept: whole, it may have 25 MiB."""

    project: Project
    forge: Forge
    envelope: Envelope
    events: Sequence[Event]
    headers: Mapping[str, str]
    head: bytes
    digest: str


def answer_all(hooks: Sequence[Hook]) -> list[HttpResponse]:
    """The answer to each of ``hooks``, whose deliveries are recorded in one transaction.

    No 2xx is among them unless that transaction was committed. What is not well signed takes no
    part in it, so that strangers take no lock; what cannot be recorded spoils no other.
    """
    read = [_read(hook) for hook in hooks]
    # In one order, so that two processes never wait for one another's projects.
    told = sorted(
        ((number, found) for number, found in enumerate(read) if isinstance(found, _Told)),
        key=lambda pair: pair[1].project.pk,
    )
    recorded = dict(zip((n for n, _ in told), _record_all([t for _, t in told]), strict=True))
    return [
        recorded[number] if isinstance(found, _Told) else found for number, found in enumerate(read)
    ]


def _read(hook: Hook) -> _Told | HttpResponse:
    """What it tells, or the answer to it: that it failed, too, since others wait beside it."""
    if hook.forge not in FORGES:
        known = ", ".join(FORGES)
        return problem_response(
            404, code="unknown-forge", detail="No such forge.", hint=f"Use one of: {known}."
        )
    try:
        return _verified(hook.request, FORGES[hook.forge], hook.slug)
    except DatabaseError:
        return _unavailable()
    except Exception:
        return _failed()


def _verified(request: HttpRequest, forge: Forge, slug: str) -> _Told | HttpResponse:
    body = _body(request)
    if body is None:
        detail = f"A webhook's body may have at most {MAX_BODY} bytes."
        return problem_response(413, code="too-large", detail=detail, hint=bodies.HINT)
    project = project_of(slug)
    secrets = project.hook_secrets if project else []
    # Always two, so that the time tells neither of a project nor of a rotation.
    signed = forge.verify(request.headers, body, [*secrets, NOBODY, NOBODY][:2])
    if project is None or not secrets or not signed:
        return problem_response(
            401, code="bad-signature", detail="The signature is missing or wrong.",
            hint="Give the forge the project's webhook secret. A new one is made on the project's "
            "page, or by: gantry hook-secret renew PROJECT",
        )  # fmt: skip
    envelope = forge.envelope(request.headers)
    head = _kept(body, secrets)
    digest = "" if envelope.delivery_id else hashlib.sha256(body).hexdigest()
    told = [json_of(request.headers.get("Content-Type", ""), forge, body)]
    del body  # before the JSON is unfolded, which takes several times its size
    try:
        events = _events(forge, envelope.event, told)
    except Malformed as error:
        events = [Unreadable(str(error))]
    return _Told(
        project=project,
        forge=forge,
        envelope=envelope,
        events=events,
        headers={n: request.headers[n][:500] for n in forge.HEADERS if n in request.headers},
        head=head,
        digest=digest,
    )


def _events(forge: Forge, event: str, told: list[bytes]) -> Sequence[Event]:
    """What the JSON in ``told`` means, which is taken from there. Raises Malformed."""
    if is_heavy(told[0]):
        return [Nothing(TOO_MUCH, look=True)]
    return forge.read(event, unfold(text_of(told.pop())))


def _record_all(told: Sequence[_Told]) -> list[HttpResponse]:
    if not told:
        return []
    try:
        with transaction.atomic():
            answers = [_record(one) for one in told]
            if transaction.get_connection().needs_rollback:
                # Leaving would roll back and say nothing, and the answers would be false.
                raise DatabaseError("the connection was lost within the transaction")
    except DatabaseError:
        return [_unavailable() for _ in told]
    return answers


def _record(told: _Told) -> HttpResponse:
    try:
        try:
            delivery, new = _receive(told)
        except Malformed as error:
            told = replace(told, events=[Unreadable(str(error))])
            delivery, new = _receive(told)
    except DatabaseError:
        return _unavailable()
    except Exception:
        return _failed()
    first = told.events[0]
    if isinstance(first, Unreadable):
        return _malformed(first.reason)
    verdict = delivery.verdict if new else Verdict.DUPLICATE
    document = {"delivery": delivery.pk, "verdict": verdict, "detail": delivery.detail}
    return JsonResponse(document, status=202 if verdict == Verdict.ACCEPTED else 200)


def _receive(told: _Told) -> tuple[Delivery, bool]:
    return services.receive(
        project=told.project,
        forge=told.forge.NAME,
        envelope=told.envelope,
        events=told.events,
        headers=told.headers,
        body=told.head,
        digest=told.digest,
    )


def _body(request: HttpRequest) -> bytes | None:
    """The raw body, or None if it is too large. Not ``request.body``: its limit is a form's."""
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        return None
    body = request.read(MAX_BODY + 1)
    return body if len(body) <= MAX_BODY else None


def _kept(body: bytes, secrets: Sequence[Secret]) -> bytes:
    """The start of a body, as it is kept and shown: old versions of Gitea send the secret in it."""
    head = body[: services.KEPT_BODY + MARGIN]
    return (Masker(secrets).mask(head) if b"secret" in head else head)[: services.KEPT_BODY]


def _malformed(reason: str) -> HttpResponse:
    return problem_response(
        400, code="malformed", detail=reason,
        hint="Is this the address of the forge that sends it? Docs: webhooks.md.",
    )  # fmt: skip


def _unavailable() -> HttpResponse:
    """Called where the error is at hand, for the log."""
    log.exception("a webhook could not be recorded")
    return unavailable()


def _failed() -> HttpResponse:
    log.exception("a webhook was not answered for a reason that nobody foresaw")
    return problem_response(
        500, code="internal", detail="Gantry failed over this delivery.",
        hint="Send it again. The reason is in the web process's log.",
    )  # fmt: skip


def unavailable() -> HttpResponse:
    """For the forge to send it again; also when nobody knows yet whether it was recorded."""
    response = problem_response(
        503, code="unavailable", detail="The delivery could not be recorded.",
        hint="Send it again.",
    )  # fmt: skip
    response["Retry-After"] = "10"
    return response
