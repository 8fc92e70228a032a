"""A machine behind ssh, with podman and with docker: releases change, and day two is as here."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ciserver.accounts.models import AuditEntry
from ciserver.releases import drift, restoring
from ciserver.releases.models import Running
from tests.ciserver.releases.test_day_two import Desk, messages
from tests.ciserver.releases.test_deploy import Probe
from tests.ciserver.releases.test_hosts import Fleet, harbour

__all__ = ["harbour", "messages"]

pytestmark = [
    pytest.mark.root,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(300),
]


@pytest.fixture(params=["podman", "docker"])
def far(request: Any, harbour: Fleet) -> Iterator[Fleet]:
    """qa is on one machine, which has that engine."""
    ship = harbour.ships["qa-1"]
    if request.param == "docker":
        ship.hide("podman")
        harbour.seen_first("qa-1")
    harbour.only("qa-1")
    try:
        yield harbour
    finally:
        ids = "$(docker ps --all --quiet)"
        ship.sh(f'[ -z "{ids}" ] || docker rm --force {ids}; true')


def test_releases_change_there_without_a_lost_request_and_what_runs_is_listed_entered_and_stopped(
    far: Fleet, messages: None, request: Any
) -> None:
    assert far.deploy("one").reason == ""
    with Probe(far.url("qa-1")) as probe:
        second = far.deploy("two")
        failed = far.deploy("bad", command="exit 3")
    assert (second.state, failed.state) == ("succeeded", "failed")
    assert probe.failures == []
    assert far.page("qa-1") == "two"
    desk = Desk(far, far.admin)  # type: ignore[arg-type]

    [row] = json.loads(desk.do("ps").out)
    assert (row["host"], row["release"], row["state"], row["serves"]) == (
        "qa-1", "v2", "running", True,
    )  # fmt: skip
    given = bytes(range(256)) * 1000
    heard = desk.do("exec", "/bin/sh", "-c", "/bin/busybox cat; echo no >&2; exit 3", given=given)
    assert (heard.out == given, heard.err, heard.end["exit_code"]) == (True, b"no\n", 3)

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("note.txt")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    assert desk.do("put", "/www", given=packed.getvalue()).end == {"exit_code": 0, "reason": ""}
    heard = desk.do("get", "/www/note.txt")
    with tarfile.open(fileobj=io.BytesIO(heard.out)) as tar:
        file = tar.extractfile("note.txt")
        assert file and file.read() == b"hello"
    assert desk.do("logs").end == {"exit_code": 0, "reason": ""}

    assert desk.do("stop").out == b"qa-1: v2 is stopped\n"
    assert httpx.get(far.url("qa-1"), trust_env=False, verify=False).status_code == 502
    restoring.restore_routes()
    drift.look()
    assert (Running.objects.get().drift, Running.objects.get().stopped_by) == ("", "admin")
    assert desk.do("start").out == b"qa-1: v2 serves\n"
    assert far.page("qa-1") == "two"
    assert b"qa-1: v2 serves\n" in desk.do("restart").out
    assert far.page("qa-1") == "two"
    done = set(AuditEntry.objects.filter(actor="admin").values_list("action", flat=True))
    verbs = ("exec", "put", "get", "logs", "stop", "start", "restart")
    assert {f"container.{verb}" for verb in verbs} <= done
