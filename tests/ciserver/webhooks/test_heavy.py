"""Bodies that are small on the wire and large in memory: neither signed nor unsigned do they
take much, or hold up others."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx
import pytest
from django.utils import timezone

from ciserver.webhooks.forges.forms import field
from ciserver.webhooks.models import Delivery, Poll
from ciserver.webhooks.payloads import is_heavy
from tests.ciserver.repositories.serving import Server
from tests.ciserver.webhooks.conftest import Post, push, sign
from tests.ciserver.webhooks.test_sizes import _most_held, running, server

__all__ = ["running", "server"]
MIB = 1024 * 1024
START = json.dumps(push())[:-1].encode() + b', "pad": '
HEAVY = {  # made when it is needed: each process that runs tests reads this file
    "lists": lambda: b"[" + b"[]," * (8 * MIB) + b"0]}",
    "dictionaries": lambda: b"[" + b"{}," * (8 * MIB) + b"0]}",
    "numbers": lambda: b"[" + b"0," * (12 * MIB) + b"0]}",
    "wide characters": lambda: b'"' + b"x" * (20 * MIB) + "\U0001f600".encode() + b'"}',
    "an escape of a wide character": lambda: b'"' + b"x" * (20 * MIB) + b"\\ud83d\\ude00" + b'"}',
    "escapes": lambda: b'"' + b"\\u0041" * (4 * MIB) + b'"}',
    "UTF-16": lambda: b'"' + b"x" * (2 * MIB) + b'"}',
}


def heavy(kind: str) -> bytes:
    body = START + HEAVY[kind]()
    return body.decode().encode("utf-16") if kind == "UTF-16" else body


@pytest.mark.parametrize("kind", HEAVY)
def test_a_signed_one_is_recorded_and_not_unfolded(server: Server, secret: str, kind: str) -> None:
    body = heavy(kind)
    _post(server, "github", b"{}", {"X-Hub-Signature-256": sign(secret, b"{}")})
    held = _most_held(server)

    spent = _cpu_seconds(server)

    answer = _post(server, "github", body, {"X-Hub-Signature-256": sign(secret, body)})

    assert answer.status_code == 200
    assert "a look at the repository finds" in answer.json()["detail"]
    assert _cpu_seconds(server) - spent < 1
    assert _most_held(server) - held < 64 * MIB
    assert Delivery.objects.get(detail__contains="a look").verdict == "ignored"


@pytest.mark.parametrize("forge", ["gitea", "forgejo", "github"])
def test_an_unsigned_form_takes_no_more_than_its_size(
    server: Server, secret: str, forge: str
) -> None:
    body = b"payload=" + b"%41" * (8 * MIB)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    _post(server, forge, b"payload=x", form)
    held = _most_held(server)

    spent = _cpu_seconds(server)

    assert _post(server, forge, body, form).status_code == 401

    assert _cpu_seconds(server) - spent < 1
    assert _most_held(server) - held < 100 * MIB


def test_what_it_may_have_told_is_looked_for_at_once(post: Post, project: Any) -> None:
    later = timezone.now() + timedelta(minutes=5)
    Poll.objects.create(project=project, next_at=later)

    assert post(heavy("lists")).status_code == 200

    assert Poll.objects.get().next_at <= timezone.now()


def test_what_forges_send_is_not_heavy() -> None:
    words = {"id": "a" * 40, "message": "Größe \U0001f600, or so", "added": ["a/b.py"] * 5}
    commit = words | {"author": {"name": "A", "email": "a@example.org"}, "url": "https://x/" * 5}
    assert not is_heavy(json.dumps(push(commits=[commit] * 2048)).encode())
    assert not is_heavy(json.dumps(push(commits=[commit] * 2048), ensure_ascii=False).encode())


@pytest.mark.parametrize(
    "value",
    [b"", b'{"a": "=%+& \xc3\xa9 \r\n\t."}  \n', b"=41", b"%41", b"a=\nb", os.urandom(5000)],
)
def test_a_field_is_read_as_it_was_written(value: bytes) -> None:
    assert field("payload", f"payload={quote_plus(value)}".encode()) == value
    assert (
        field("payload", urlencode({"a": "payload=1", "payload": value, "z": 1}).encode()) == value
    )
    assert field("payload", f"xpayload={quote_plus(value)}".encode()) == b""


def _post(server: Server, forge: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    sent = {"X-GitHub-Event": "push", "Content-Type": "application/json"} | headers
    url = f"{server.url}/hooks/{forge}/hello/"
    return httpx.post(url, content=body, headers=sent, timeout=60)


def _cpu_seconds(server: Server) -> float:
    """Of its own and of the kernel's for it (proc(5)). So long others wait, at the most, where the
    machine has nothing else to do: webhooks of a process are answered one after another."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
