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

from django.db import connection

from ciserver.pipelines.models import Pipeline
from ciserver.repositories import spool
from ciserver.repositories.git import create_hosted, git_dir
from ciserver.webhooks.models import Delivery
from ciserver.webhooks.services import ingest_push, ingest_spools
from tests.ciserver.repositories.serving import commit, git, serve


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

    def sweep() -> None:
        ingest_spools()
        ingest_push(project.pk, push_id)
        connection.close()

    sweeps = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in sweeps:
        thread.start()
    for thread in sweeps:
        thread.join()

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


def _pushed_behind_our_back(project: Any, work: Path) -> str:
    sha = commit(work, {"a": "1"})
    git("push", str(create_hosted(project)), "main", cwd=work)
    return sha


def _spool(
    project: Any, old: str, new: str, ref: str, *, intent: bool = False, age: float = 0
) -> None:
    name = f"{time.time_ns():016x}{'ab' * 8}" + (spool.INTENT if intent else "")
    path = git_dir(project) / "spool" / name
    path.write_text(f"user bob\n{old} {new} {ref}\n")
    os.utime(path, (time.time() - age,) * 2)


def _spooled(project: Any) -> list[Path]:
    return list((git_dir(project) / "spool").glob("[0-9a-f]*"))


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
