"""A project with a webhook secret, and GitHub's way of signing."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from tests.ciserver.repositories.serving import loopback_is_outside, no_repositories

__all__ = ["loopback_is_outside", "no_repositories"]

Post = Callable[..., Any]
SHA = "a" * 40


@pytest.fixture
def secret(project: Any) -> str:
    return str(project.renew_hook_secret().reveal())


@pytest.fixture
def post(secret: str) -> Post:
    """POST a signed GitHub request; ``body`` may be anything that JSON knows, or bytes."""

    def send(
        body: Any, *, event: str = "push", delivery: str = "d-1", slug: str = "hello", **more: str
    ) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": sign(secret, raw),
        }
        kind = more.pop("content_type", "application/json")
        client = Client(raise_request_exception=False)
        return client.post(f"/hooks/github/{slug}/", raw, content_type=kind, headers=headers | more)

    return send


def sign(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def push(ref: str = "refs/heads/main", after: str = SHA, **more: Any) -> dict[str, Any]:
    return {
        "ref": ref,
        "before": "0" * 40,
        "after": after,
        "deleted": False,
        "repository": {"full_name": "example/hello", "clone_url": "http://127.0.0.1:6379/x.git"},
        "sender": {"login": "octocat"},
        **more,
    }
