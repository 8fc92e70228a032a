"""A webhook to oneself: signed with the project's secret, sent to the address that forges get.

It goes the whole way, name, certificate and proxy included, and is an event that builds nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any

import httpx
from django.conf import settings
from django.urls import reverse

from ciserver.lib.certificates import trusted
from ciserver.lib.problems import Refused
from ciserver.projects.models import Project, Role
from ciserver.projects.services import require

BODY = b"{}"
EVENT = "ping"
TIMEOUT = 10.0  # seconds, as forges wait


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


def send(project: Project, user: Any) -> Trial:
    """Needs the role maintainer. Raises Refused, also while the project has no secret."""
    require(user, project, Role.MAINTAINER)
    secret = project.hook_secret
    if secret is None:
        raise Refused(
            f"{project} has no webhook secret yet.",
            code="hook.no-secret",
            hint="Make one and give it to your forge; then test it.",
        )
    url = settings.GANTRY.url + reverse("hook", args=["generic", project.slug])
    signature = hmac.new(secret.reveal().encode(), BODY, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "gantry-test",
        "X-Gantry-Event": EVENT,
        "X-Gantry-Delivery": f"test-{time.time_ns()}",
        "X-Gantry-Signature": f"sha256={signature}",
    }
    began = time.monotonic()
    status, words = _post(url, headers)
    return Trial(url, status, round((time.monotonic() - began) * 1000), words)


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
