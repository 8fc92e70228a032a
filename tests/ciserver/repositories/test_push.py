"""Pushing to and fetching from our own Git, with git itself on the other end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciserver.pipelines.models import Pipeline
from ciserver.repositories.git import git_dir
from ciserver.webhooks.models import Delivery
from tests.ciserver.repositories.serving import Server, commit, git


@pytest.fixture
def remote(server: Server, project: Any, bob: Any, token_of: Callable[..., str]) -> str:
    return server.git_url(token=token_of(bob))


def test_a_push_becomes_a_delivery_and_a_pipeline_whose_address_the_pusher_reads(
    remote: str, server: Server, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"Dockerfile": "FROM scratch\n"}, "Grüße, world")

    said = git("push", remote, "main", cwd=tmp_path)

    pipeline = Pipeline.objects.get()
    assert f"remote: pipeline #1 {server.url}/projects/hello/pipelines/1/" in said
    assert (pipeline.commit, pipeline.ref) == (sha, "refs/heads/main")
    assert (pipeline.title, pipeline.author) == ("Grüße, world", "Alice Example")
    assert pipeline.committed_at is not None
    delivery = Delivery.objects.get()
    assert (delivery.forge, delivery.verdict, delivery.sender) == ("hosted", "accepted", "bob")
    assert delivery.pipeline == pipeline


def test_nothing_is_left_in_the_spool_after_a_push(
    remote: str, project: Any, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "1"})
    git("push", remote, "main", cwd=tmp_path)

    assert list((git_dir(project) / "spool").iterdir()) == []


def test_what_was_pushed_can_be_cloned(remote: str, tmp_path: Path) -> None:
    sha = commit(tmp_path / "a", {"deep/file": b"\0\xff" * 1000})
    git("push", remote, "main", cwd=tmp_path / "a")

    git("clone", "--quiet", remote, str(tmp_path / "b"))

    assert git("rev-parse", "HEAD", cwd=tmp_path / "b") == sha
    assert (tmp_path / "b" / "deep/file").read_bytes() == b"\0\xff" * 1000


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_a_shallow_clone_works_in_every_version_of_the_protocol(
    remote: str, tmp_path: Path, version: str
) -> None:
    for number in range(3):
        commit(tmp_path / "a", {"n": str(number)})
    git("push", remote, "main", cwd=tmp_path / "a")

    shallow = str(tmp_path / "b")
    git("-c", f"protocol.version={version}", "clone", "--quiet", "--depth=1", remote, shallow)

    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "b") == "1"


def test_each_branch_of_a_push_gets_its_pipeline(remote: str, tmp_path: Path) -> None:
    commit(tmp_path, {"a": "1"})
    git("branch", "feature/x", cwd=tmp_path)

    said = git("push", remote, "main", "feature/x", cwd=tmp_path)

    assert "pipeline #1" in said
    assert "pipeline #2" in said
    assert {p.ref for p in Pipeline.objects.all()} == {"refs/heads/main", "refs/heads/feature/x"}


def test_a_tag_is_built_and_a_deletion_is_recorded(remote: str, tmp_path: Path) -> None:
    commit(tmp_path, {"a": "1"})
    git("tag", "-m", "one", "v1", cwd=tmp_path)
    git("push", remote, "main:other", "v1", cwd=tmp_path)

    said = git("push", remote, ":other", cwd=tmp_path)

    assert "refs/heads/other was deleted: there is nothing to build." in said
    verdicts = {d.kind: d.verdict for d in Delivery.objects.all()}
    assert verdicts == {"push": "accepted", "tag": "accepted", "delete": "ignored"}
    assert Pipeline.objects.count() == 2


def test_going_back_to_a_commit_that_was_built_builds_it_again(remote: str, tmp_path: Path) -> None:
    first = commit(tmp_path, {"a": "1"})
    git("push", remote, "main:x", cwd=tmp_path)
    second = commit(tmp_path, {"a": "2"})
    git("push", remote, "main:x", cwd=tmp_path)

    said = git("push", "--force", remote, f"{first}:refs/heads/x", cwd=tmp_path)

    assert "pipeline #3" in said
    assert [p.commit for p in Pipeline.objects.order_by("id")] == [first, second, first]


def test_a_branch_made_anew_at_the_commit_built_last_names_its_pipeline(
    remote: str, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    git("push", remote, "main:x", cwd=tmp_path)
    git("push", remote, ":x", cwd=tmp_path)

    said = git("push", remote, "main:x", cwd=tmp_path)

    assert f"{sha[:8]} is what was built last on this branch: pipeline #1" in said

    git("push", remote, ":x", cwd=tmp_path)
    Pipeline.objects.update(state="failed")
    assert "pipeline #2" in git("push", remote, "main:x", cwd=tmp_path)


def test_a_large_push_streams_through(remote: str, server: Server, tmp_path: Path) -> None:
    before = _resident(server.process.pid)
    sha = commit(tmp_path, {"big": os.urandom(16 * 1024 * 1024)})

    git("-c", "core.compression=0", "push", remote, "main", cwd=tmp_path)

    assert Pipeline.objects.get().commit == sha
    assert _resident(server.process.pid) - before < 8 * 1024


def test_a_fetch_whose_request_is_compressed_is_understood(remote: str, tmp_path: Path) -> None:
    # git compresses the request once it lists more than about a kilobyte of what it has.
    commit(tmp_path / "a", {"n": "1"})
    git("push", remote, "main", cwd=tmp_path / "a")
    git("clone", "--quiet", remote, str(tmp_path / "b"))
    for number in range(24):
        commit(tmp_path / "b", {"m": str(number)})
    sha = commit(tmp_path / "a", {"n": "more"})
    git("push", remote, "main", cwd=tmp_path / "a")

    git("fetch", "--quiet", remote, "main", cwd=tmp_path / "b")

    assert git("rev-parse", "FETCH_HEAD", cwd=tmp_path / "b") == sha


def _resident(pid: int) -> int:
    """KiB of memory that a process holds at most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_a_branch_whose_name_holds_a_line_separator_costs_no_push(
    remote: str, tmp_path: Path
) -> None:
    commit(tmp_path, {"a": "1"})
    odd = "z\u2028z\u0085"

    git("push", remote, "main:m1", f"main:refs/heads/{odd}", "main:m2", cwd=tmp_path)
    git("push", remote, "main:m3", cwd=tmp_path)

    refs = set(Delivery.objects.values_list("ref", flat=True))
    assert refs == {f"refs/heads/{name}" for name in ("m1", odd, "m2", "m3")}
