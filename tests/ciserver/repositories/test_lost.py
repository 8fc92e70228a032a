"""What was pushed is never lost and never built twice, whatever dies in between."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection

from ciserver.pipelines import services as pipelines
from ciserver.pipelines.models import Pipeline
from ciserver.repositories import spool
from ciserver.repositories.git import create_hosted, git_dir
from ciserver.webhooks.models import Delivery
from ciserver.webhooks.runner import PATIENCE
from ciserver.webhooks.services import ingest_push, ingest_spools
from tests.ciserver.repositories.serving import commit, git, serve
from tests.together import together


def test_a_push_whose_web_process_is_killed_before_it_is_recorded_is_taken_up_once(
    project: Any,
    bob: Any,
    token_of: Callable[..., str],
    transactional_db: None,
    tmp_path: Path,
) -> None:
    sha = commit(tmp_path, {"a": "1"})
    with serve() as server:
        remote = server.git_url(token=token_of(bob))
        git("ls-remote", remote)  # notes the token's use, so that the push itself only reads
        with _database_held():
            push = threading.Thread(target=_push, args=(remote, tmp_path))
            push.start()
            _until(lambda: any(not path.suffix for path in _spooled(project)))
            assert git("rev-parse", "main", cwd=git_dir(project)) == sha  # Git took it
            server.process.kill()
            push.join()
    assert not Delivery.objects.exists()

    assert ingest_spools() == 1
    assert ingest_spools() == 0

    assert Delivery.objects.get().verdict == "accepted"
    assert Pipeline.objects.get().commit == sha
    assert _spooled(project) == []


def test_two_sweeps_at_once_record_a_push_once(
    project: Any, transactional_db: None, tmp_path: Path
) -> None:
    sha = _pushed_behind_our_back(project, tmp_path)
    _spool(project, "0" * 40, sha, "refs/heads/main")
    push_id = _spooled(project)[0].name

    def sweep(_: int) -> None:
        ingest_spools()
        ingest_push(project.pk, push_id)

    together(sweep, range(4))

    assert Delivery.objects.count() == 1
    assert Pipeline.objects.count() == 1


def test_a_push_killed_right_after_its_ref_moved_is_found_by_its_intent(
    project: Any, db: None, tmp_path: Path
) -> None:
    sha = _pushed_behind_our_back(project, tmp_path)
    _spool(project, "0" * 40, sha, "refs/heads/main", intent=True, age=spool.GRACE + 1)

    assert ingest_spools() == 1

    assert Pipeline.objects.get().commit == sha
    assert _spooled(project) == []


def test_an_intent_is_left_alone_while_its_push_may_still_run(
    project: Any, db: None, tmp_path: Path
) -> None:
    sha = _pushed_behind_our_back(project, tmp_path)
    _spool(project, "0" * 40, sha, "refs/heads/main", intent=True, age=1)

    assert ingest_spools() == 0
    assert len(_spooled(project)) == 1


def test_an_intent_whose_ref_never_moved_starts_nothing_and_is_dropped_in_the_end(
    project: Any, db: None, tmp_path: Path
) -> None:
    sha = _pushed_behind_our_back(project, tmp_path)
    _spool(project, "0" * 40, sha, "refs/heads/never", intent=True, age=spool.GRACE + 1)

    assert ingest_spools() == 0
    assert len(_spooled(project)) == 1

    os.utime(_spooled(project)[0], (0, 0))
    assert ingest_spools() == 0
    assert _spooled(project) == []
    assert not Pipeline.objects.exists()


def test_a_spool_file_that_cannot_be_read_does_not_stop_the_others(
    project: Any, db: None, tmp_path: Path
) -> None:
    sha = _pushed_behind_our_back(project, tmp_path)
    (git_dir(project) / "spool" / ("0" * 32)).write_bytes(b"user x\n\xff garbage\n")
    _spool(project, "0" * 40, sha, "refs/heads/main")

    assert ingest_spools() == 1
    assert Pipeline.objects.get().commit == sha


def test_a_commit_dated_past_every_calendar_is_built(
    project: Any, db: None, tmp_path: Path
) -> None:
    sha = _pushed_behind_our_back(project, tmp_path, GIT_COMMITTER_DATE="@999999999999 +0000")
    _spool(project, "0" * 40, sha, "refs/heads/main")

    assert ingest_spools() == 1

    committed_at = Pipeline.objects.get().committed_at
    assert committed_at is not None
    assert committed_at.year == 2242


def test_a_push_that_cannot_be_recorded_is_settled_after_a_while_and_holds_up_no_other_ref(
    project: Any, db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = _pushed_behind_our_back(project, tmp_path)
    refs = "refs/heads/bad", "refs/heads/main"
    _spool(project, "0" * 40, sha, *refs)
    queue = pipelines.queue

    def poisoned(**fields: Any) -> Pipeline:
        if fields["ref"] == "refs/heads/bad":
            raise ValueError("year 33658 is out of range")
        return queue(**fields)

    monkeypatch.setattr(pipelines, "queue", poisoned)

    assert ingest_spools() == 0
    assert [pipeline.ref for pipeline in Pipeline.objects.all()] == ["refs/heads/main"]

    for path in _spooled(project):
        os.utime(path, (time.time() - PATIENCE.total_seconds() - 1,) * 2)
    assert ingest_spools() == 1
    assert ingest_spools() == 0

    failed = Delivery.objects.get(verdict="failed")
    assert (failed.ref, failed.sha, failed.pipeline) == ("refs/heads/bad", sha, None)
    assert "Gantry itself failed over this delivery (ValueError). Send it again" in failed.detail
    assert Pipeline.objects.count() == 1
    assert _spooled(project) == []


def test_a_database_that_is_away_loses_no_push_however_long(
    project: Any, db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = _pushed_behind_our_back(project, tmp_path)
    _spool(project, "0" * 40, sha, "refs/heads/main", age=10 * PATIENCE.total_seconds())

    def away(**_: Any) -> Pipeline:
        raise OperationalError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(pipelines, "queue", away)
        assert ingest_spools() == 0

    assert ingest_spools() == 1
    assert Pipeline.objects.get().commit == sha


def _push(remote: str, work: Path) -> None:
    # Whether git calls it a success depends on which of its streams ended first.
    with suppress(AssertionError):
        git("push", remote, "main", cwd=work)


@contextmanager
def _database_held() -> Iterator[None]:
    """Nobody can write to the database while this is open."""
    holder = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def _pushed_behind_our_back(project: Any, work: Path, **env: str) -> str:
    sha = commit(work, {"a": "1"}, **env)
    git("push", str(create_hosted(project)), "main", cwd=work)
    return sha


def _spool(
    project: Any, old: str, new: str, *refs: str, intent: bool = False, age: float = 0
) -> None:
    name = f"{time.time_ns():016x}{'ab' * 8}" + (spool.INTENT if intent else "")
    path = git_dir(project) / "spool" / name
    path.write_text("user bob\n" + "".join(f"{old} {new} {ref}\n" for ref in refs))
    os.utime(path, (time.time() - age,) * 2)


def _spooled(project: Any) -> list[Path]:
    return list((git_dir(project) / "spool").glob("[0-9a-f]*"))


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
