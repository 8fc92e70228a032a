"""``POST /hooks/FORGE/PROJECT/``: size, signature, JSON, shape, one transaction, then 202.

Whatever is well signed and can be read gets a 2xx, also when nothing is built of it, for forges
turn off hooks that refuse. Well signed but no JSON object of the forge's shape, which no forge
sends, is a 400; a database that is away is a 503, so that the forge sends it again. Whatever is
wrong with a signature gets one and the same 401, which does not tell whether the project exists.
"""

from __future__ import annotations

import hashlib
import logging
import secrets as random
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from ciserver.lib.crypto import Secret
from ciserver.lib.problems import problem_response
from ciserver.projects.models import Project
from ciserver.webhooks import services
from ciserver.webhooks.forges import FORGES, Forge
from ciserver.webhooks.forges.events import Malformed
from ciserver.webhooks.models import Delivery, Verdict
from ciserver.webhooks.payloads import parse, text_of

log = logging.getLogger(__name__)
MAX_BODY = 25 * 1024 * 1024  # what GitHub and GitLab send at most
# What every delivery needs of its project: reading the whole row costs more than its commit.
NEEDED = ("slug", "hook_secret_sealed", "hook_secret_old_sealed", "hook_secret_old_until")
NOBODY = Secret(random.token_hex(32))  # checked where there is no secret, for the time it takes


@csrf_exempt
@require_POST
def receive(request: HttpRequest, forge: str, slug: str) -> HttpResponse:
    if forge not in FORGES:
        known = ", ".join(FORGES)
        return problem_response(
            404, code="unknown-forge", detail="No such forge.", hint=f"Use one of: {known}."
        )
    try:
        return _receive(request, FORGES[forge], slug)
    except DatabaseError:
        log.exception("a webhook could not be recorded")
        response = problem_response(
            503, code="unavailable", detail="The delivery could not be recorded. Send it again."
        )
        response["Retry-After"] = "10"
        return response


@dataclass(frozen=True, slots=True)
class _Signed:
    """A verified request, its body cut to what is kept: whole, it may have 25 MiB."""

    project: Project
    head: bytes
    digest: str
    text: str


class _Refusal(Exception):
    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status_code)
        self.response = response


def _receive(request: HttpRequest, forge: Forge, slug: str) -> HttpResponse:
    try:
        signed = _verified(request, forge, slug)
        delivery, new = _record(request.headers, forge, signed)
    except _Refusal as refusal:
        return refusal.response
    except Malformed as error:
        return problem_response(400, code="malformed", detail=str(error))
    return _answer(delivery, new)


def _verified(request: HttpRequest, forge: Forge, slug: str) -> _Signed:
    """Raises _Refusal, and Malformed for what is well signed but cannot be text."""
    body = _body(request)
    if body is None:
        detail = f"A webhook's body may have at most {MAX_BODY} bytes."
        raise _Refusal(problem_response(413, code="too-large", detail=detail))
    project = Project.objects.filter(slug=slug).only(*NEEDED).first()
    secrets = project.hook_secrets if project else []
    # Always two, so that the time tells neither of a project nor of a rotation.
    signed = forge.verify(request.headers, body, [*secrets, NOBODY, NOBODY][:2])
    if project is None or not secrets or not signed:
        answer = problem_response(
            401, code="bad-signature", detail="The signature is missing or wrong.",
            hint="Use the webhook secret that the project's settings show.",
        )  # fmt: skip
        raise _Refusal(answer)
    text = text_of(request.headers.get("Content-Type", ""), forge, body)
    return _Signed(project, body[: services.KEPT_BODY], hashlib.sha256(body).hexdigest(), text)


def _record(headers: Mapping[str, str], forge: Forge, signed: _Signed) -> tuple[Delivery, bool]:
    envelope = forge.envelope(headers)
    events = forge.read(envelope.event, parse(signed.text))
    kept = {name: headers[name][:500] for name in forge.HEADERS if name in headers}
    return services.receive(
        project=signed.project,
        forge=forge.NAME,
        envelope=envelope,
        events=events,
        headers=kept,
        body=signed.head,
        digest=signed.digest,
    )


def _body(request: HttpRequest) -> bytes | None:
    """The raw body, or None if it is too large. Not ``request.body``: its limit is a form's."""
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        return None
    body = request.read(MAX_BODY + 1)
    return body if len(body) <= MAX_BODY else None


def _answer(delivery: Delivery, new: bool) -> JsonResponse:
    verdict = delivery.verdict if new else Verdict.DUPLICATE
    document = {"delivery": delivery.pk, "verdict": verdict, "detail": delivery.detail}
    return JsonResponse(document, status=202 if verdict == Verdict.ACCEPTED else 200)
