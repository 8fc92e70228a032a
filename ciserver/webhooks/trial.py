"""A webhook to oneself: signed as a forge signs, sent to the address that this forge is given.

It goes the whole way, name, certificate and proxy included, and is an event that builds nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any

import httpx
from django.conf import settings
from django.urls import reverse

from ciserver.lib.certificates import trusted
from ciserver.lib.crypto import Secret
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require
from ciserver.webhooks.forges import generic, gitlab

BODY = b"{}"
EVENT = "ping"
TIMEOUT = 10.0  # seconds, as forges wait
# Where each forge puts the event, the delivery's id and, behind a prefix, the body's MAC. GitLab's
# signing token is for secrets of any kind: the other way of GitLab sends the secret itself.
HEADERS = {
    "github": ("X-GitHub-Event", "X-GitHub-Delivery", "X-Hub-Signature-256", "sha256="),
    "gitlab": ("X-Gitlab-Event", "webhook-id", "webhook-signature", "v1,"),
    "gitea": ("X-Gitea-Event", "X-Gitea-Delivery", "X-Gitea-Signature", ""),
    "forgejo": ("X-Forgejo-Event", "X-Forgejo-Delivery", "X-Forgejo-Signature", ""),
    "bitbucket": ("X-Event-Key", "X-Request-UUID", "X-Hub-Signature", "sha256="),
    "bitbucket-server": ("X-Event-Key", "X-Request-Id", "X-Hub-Signature", "sha256="),
    "generic": ("X-Gantry-Event", "X-Gantry-Delivery", "X-Gantry-Signature", "sha256="),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What came back: ``status`` is None when nothing did."""

    url: str
    status: int | None
    milliseconds: int
    words: str

    @property
    def good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def send(project: Project, user: Any, forge: str = generic.NAME) -> Trial:
    """``forge`` is one of HEADERS. Needs the role maintainer. Raises Refused, also while the
    project has no secret."""
    require(user, project, Role.MAINTAINER)
    secret = project.hook_secret
    if secret is None:
        raise Refused(
            f"{project} has no webhook secret yet.",
            code="hook.no-secret",
            hint="Make one and give it to your forge; then test it.",
        )
    if forge not in HEADERS:
        raise Refused(
            f"{forge[:40]!r} is no forge that Gantry knows.",
            code="hook.forge",
            hint=f"It is one of {', '.join(HEADERS)}.",
            status=400,
        )
    url = settings.GANTRY.url + reverse("hook", args=[forge, project.slug])
    began = time.monotonic()
    status, words = _post(url, signed(forge, secret))
    return Trial(url, status, round((time.monotonic() - began) * 1000), words)


def signed(forge: str, secret: Secret) -> dict[str, str]:
    """The headers with which ``forge`` would send BODY."""
    event, delivery, signature, prefix = HEADERS[forge]
    name = f"test-{time.time_ns()}"
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "gantry-test",
        event: EVENT,
        delivery: name,
    }
    if forge == gitlab.NAME:
        stamp = str(int(time.time()))
        content = f"{name}.{stamp}.".encode() + BODY
        mac = hmac.digest(gitlab.key_of(secret), content, hashlib.sha256)
        return headers | {
            "webhook-timestamp": stamp,
            signature: prefix + base64.b64encode(mac).decode(),
        }
    mac = hmac.digest(secret.reveal().encode(), BODY, hashlib.sha256)
    return headers | {signature: prefix + mac.hex()}


def _post(url: str, headers: dict[str, str]) -> tuple[int | None, str]:
    try:
        answer = httpx.post(
            url, content=BODY, headers=headers, timeout=TIMEOUT, verify=trusted(), trust_env=False
        )
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        return None, (
            f"Nothing answers at {url}: {why}. A forge would not get through either, unless it"
            " reaches this address by another way; see GANTRY_URL."
        )
    if answer.is_success:
        return answer.status_code, (
            f"{url} took a signed test ({answer.status_code}). A forge that reaches this address"
            " and has the secret will be heard; the test is among the deliveries."
        )
    return answer.status_code, (
        f"{url} answered {answer.status_code} to a signed test. See what stands between:"
        " a proxy, or another service at this address."
    )
