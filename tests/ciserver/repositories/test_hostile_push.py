"""Pushes that mean harm: objects that fsck refuses, too many refs, repositories that bite."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciserver.repositories.git import git_dir, heads
from ciserver.webhooks.models import Delivery
from tests.ciserver.repositories.serving import Server, commit, git


@pytest.fixture
def remote(server: Server, project: Any, bob: Any, token_of: Callable[..., str]) -> str:
    return server.git_url(token=token_of(bob))


BAD_TREES = {
    "a .git entry": (b"100644 .git", "contains '.git'"),
    "a .git that Windows and macOS would take": (b"100644 .GIT", "contains '.git'"),
    "a way up": (b"100644 ..", "contains '..'"),
    "a .gitmodules that is a link": (b"120000 .gitmodules", "gitmodules"),
}


@pytest.mark.parametrize("kind", BAD_TREES)
def test_objects_that_fsck_refuses_are_not_taken(
    remote: str, project: Any, tmp_path: Path, kind: str
) -> None:
    entry, said_of_it = BAD_TREES[kind]
    commit(tmp_path, {"a": "1"})
    blob = bytes.fromhex(git("hash-object", "-w", "a", cwd=tmp_path))
    tree = _hash_object(tmp_path, "tree", entry + b"\0" + blob)
    sha = git("commit-tree", "-m", "evil", tree, cwd=tmp_path)

    said = git("push", remote, f"{sha}:refs/heads/main", cwd=tmp_path, ok=False)

    assert said_of_it.lower() in said.lower()
    assert heads(git_dir(project)) == {}
    assert not Delivery.objects.exists()


def test_a_submodule_whose_address_is_an_option_is_not_taken(
    remote: str, project: Any, tmp_path: Path
) -> None:
    sly = '[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch${IFS}/tmp/pwned\n'
    commit(tmp_path, {".gitmodules": sly})

    said = git("push", remote, "main", cwd=tmp_path, ok=False)

    assert "gitmodulesUrl" in said
    assert heads(git_dir(project)) == {}


def test_a_push_of_very_many_refs_is_refused_whole(
    remote: str, project: Any, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    refs = [f"{sha}:refs/heads/b{number}" for number in range(501)]

    said = git("push", "--quiet", remote, *refs, cwd=tmp_path, ok=False)

    assert "This push moves 501 refs; one push may move 500. Push them in parts." in said
    assert heads(git_dir(project)) == {}
    assert list((git_dir(project) / "spool").iterdir()) == []


def test_a_push_that_says_refs_up_and_out_moves_nothing(
    remote: str, project: Any, tmp_path: Path
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    # git itself would not send these, so the lines are written by hand.
    for ref in ("refs/heads/../../config", "HEAD.lock", "../x", "refs/heads/-x y", "config"):
        _push_by_hand(remote, sha, ref)

    assert heads(git_dir(project)) == {}
    assert "bare = true" in (git_dir(project) / "config").read_text()
    assert not Delivery.objects.exists()


def test_the_names_in_a_push_are_never_run(remote: str, project: Any, tmp_path: Path) -> None:
    commit(tmp_path, {"a": "1"}, "$(touch pwned) `touch pwned`")
    git("push", remote, "main:refs/heads/$(touch${IFS}pwned)`id`;id&&%s", cwd=tmp_path)

    assert Delivery.objects.get().ref == "refs/heads/$(touch${IFS}pwned)`id`;id&&%s"
    assert list(git_dir(project).rglob("pwned")) == []


def test_hooks_inside_the_repository_are_not_run(remote: str, project: Any, tmp_path: Path) -> None:
    commit(tmp_path, {"a": "1"})
    git("push", remote, "main", cwd=tmp_path)
    for name in ("pre-receive", "update", "post-update", "reference-transaction"):
        hook = git_dir(project) / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
        hook.chmod(0o755)
    commit(tmp_path, {"a": "2"})

    git("push", remote, "main", cwd=tmp_path)

    assert not (tmp_path / "pwned").exists()


def _hash_object(work: Path, kind: str, content: bytes) -> str:
    command = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    done = subprocess.run(command, cwd=work, input=content, capture_output=True, check=True)
    return done.stdout.decode().strip()


def _push_by_hand(remote: str, sha: str, ref: str) -> None:
    import httpx

    line = f"{'0' * 40} {sha} {ref}\0 report-status".encode()
    body = f"{len(line) + 4:04x}".encode() + line + b"0000"
    empty_pack = bytes.fromhex("5041434b0000000200000000029d08823bd8a8eab510ad6ac75c823cfd3ed31e")
    httpx.post(
        f"{remote}/git-receive-pack",
        content=body + empty_pack,
        headers={"Content-Type": "application/x-git-receive-pack-request"},
    )
