"""Directory caches of tests: by key, apart by lane of trust, pruned, never an obstacle."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner import caches, story
from ciserver.pipelines.runner.cachestore import Entry, beyond, prune
from ciserver.pipelines.runner.workshop import Workshop
from tests.builders.conftest import make_busybox
from tests.builders.registry.conftest import registry  # noqa: F401 - a fixture
from tests.ciserver.pipelines.test_starts import Hosted
from tests.ciserver.pipelines.test_story import area  # noqa: F401 - a fixture
from tests.ciserver.pipelines.working import workshop_in

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]

DOCKERFILE = "FROM busybox AS test\nWORKDIR /work\nCMD true\n"
YAML = """
tests:
  unit:
    memory: 64m
    command: "{command}"
    cache: {{key: {key}, paths: [/var/c, deps]}}
"""


class Runs:
    """Pushes commits and runs their pipelines."""

    def __init__(self, hosted: Hosted, workshop: Workshop) -> None:
        self.hosted, self.workshop = hosted, workshop

    def __call__(self, files: dict[str, str], branch: str = "main", **facts: Any) -> str:
        """The log of the test."""
        commit = self.hosted.push({"Dockerfile": DOCKERFILE, **files}, branch)
        made = self.hosted.queue(commit, branch, **facts)
        story.run(made.pk)
        job = Pipeline.objects.get(pk=made.pk).jobs.get(name="unit")
        assert job.state == "passed", job.reason
        return job.log_path.read_text()


@pytest.fixture
def run(project: Any, area: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:  # noqa: F811
    workshop = workshop_in(area, registry)
    make_busybox(workshop.store, area / "busybox")
    with closing(Hosted(project, area / "tree")) as hosted:
        made = Runs(hosted, workshop)
        monkeypatch.setattr(story, "open_workshop", lambda: made.workshop)
        yield made


def yaml(key: str, command: str = "true") -> dict[str, str]:
    return {"gantry.yml": YAML.format(key=key, command=command)}


def test_a_key_of_files_is_kept_once_and_found_while_they_are_the_same(run: Runs) -> None:
    fill = "mkdir -p deps /var/c; echo first > deps/word; echo v > /var/c/v"
    fill += "; ln -s /etc/passwd deps/link"
    key = "{files: [lock], prefix: pip}"
    log = run({**yaml(key, fill), "lock": "1"})
    assert "Cache pip: miss" in log
    assert "Kept the cache pip" in log
    log = run(yaml(key, "cat deps/word /var/c/v; readlink deps/link; echo second > deps/word"))
    assert "Cache pip: hit" in log
    assert [" out first\n" in log, " out v\n" in log, " out /etc/passwd\n" in log] == [True] * 3
    assert "Kept the cache" not in log
    assert " out first\n" in run(yaml(key, "cat deps/word"))
    assert "Cache pip: miss" in run({**yaml(key), "lock": "2"})


def test_a_key_of_words_is_kept_anew_each_time(run: Runs) -> None:
    command = "mkdir -p deps /var/c; echo x >> deps/word; wc -l < deps/word"
    assert " out 1\n" in run(yaml("words", command))
    assert " out 2\n" in run(yaml("words", command))
    assert " out 3\n" in run(yaml("words", command))


def test_nothing_that_is_less_trusted_reaches_a_protected_ref(run: Runs) -> None:
    write = "mkdir -p deps /var/c; cat deps/word; echo $WHO > deps/word"

    def text(who: str) -> dict[str, str]:
        return yaml("k", write.replace("$WHO", who))

    run(text("main"))
    log = run(text("branch"), "topic")
    assert "kept by a protected ref" in log
    assert " out main\n" in log
    assert " out branch\n" in run(text("branch2"), "topic")
    fork = {"from_fork": True, "pull_request": 7}
    log = run(text("fork"), "stranger", **fork)
    assert " out main\n" in log
    assert " out fork\n" in run(text("fork"), "stranger", **fork)
    assert " out main\n" in run(text("fork8"), "stranger", from_fork=True, pull_request=8)
    assert " out main\n" in run(text("main"))


def test_a_broken_cache_fails_nothing(run: Runs, area: Path) -> None:  # noqa: F811
    run(yaml("k", "mkdir -p deps /var/c; echo good > deps/word"))
    (pack,) = (area / "caches").glob("*/protected/*/1")
    pack.write_bytes(pack.read_bytes()[:20])
    log = run(yaml("k", "mkdir -p deps /var/c; echo better > deps/word"))
    assert "cannot be used" in log
    assert " out better\n" in run(yaml("k", "cat deps/word"))
    log = run(yaml("k", "rm -r deps; true"))
    assert "The cache k was not kept: No such file or directory" in log
    assert " out better\n" in run(yaml("k", "cat deps/word"))


def test_what_tells_of_a_cache_may_be_damaged_in_any_way(run: Runs, area: Path) -> None:  # noqa: F811
    fill = "test ! -e /var/c/v && mkdir -p deps /var/c && echo v > /var/c/v"
    run(yaml("k", fill))
    (meta,) = (area / "caches").glob("*/protected/*/meta.json")
    whole = json.loads(meta.read_text())
    first = whole["packs"][0]
    damages = [
        "null",
        "[1]",
        "{}",
        '{"packs": 1}',
        "\xff",
        json.dumps(whole | {"packs": [None, None]}),
        json.dumps(whole | {"packs": [first]}),
        json.dumps(whole | {"packs": [first | {"uid": 2**40}, whole["packs"][1]]}),
        json.dumps(whole | {"packs": [*whole["packs"], first]}),
    ]
    for damage in damages:
        meta.write_text(damage, encoding="latin-1")
        with (
            pytest.raises(ValueError, match=r"meta\.json|missing"),
            caches._opened(meta.parent, ["/var/c", "deps"]),
        ):
            pytest.fail(f"{damage} was taken for a cache")
    log = run(yaml("k", fill))
    assert "The cache k cannot be used: a file of it is missing." in log
    assert "Kept the cache k" in log


def test_nothing_is_laid_over_half_a_cache_and_nothing_kept_of_it(run: Runs, area: Path) -> None:  # noqa: F811
    run(yaml("k", "mkdir -p deps /var/c; echo main > deps/word"))
    run(yaml("k", "echo topic > deps/word; echo v > /var/c/v"), "topic")
    (kept,) = (area / "caches").glob("*/unprotected/*/meta.json")
    before = kept.stat().st_mtime_ns
    # The second of the directories is a file in this image: the first was restored by then.
    blocked = {"Dockerfile": DOCKERFILE + "COPY gantry.yml /work/deps\n"}
    log = run(yaml("k", "cat /var/c/v; rm deps; mkdir deps") | blocked, "topic")
    assert " out v\n" in log
    assert "Cache k: only a part of it could be restored" in log
    assert ["hit" in log, "Kept the cache" in log] == [False, False]
    assert kept.stat().st_mtime_ns == before


def test_what_is_more_than_a_projects_share_is_not_kept(run: Runs, area: Path) -> None:  # noqa: F811
    run.workshop = replace(run.workshop, config=replace(run.workshop.config, cache_bytes=100_000))
    fill = "mkdir -p deps /var/c; dd if=/dev/urandom of=/var/c/big bs=1000 count={}"
    log = run(yaml("k", fill.format(60)))
    assert "The cache k was not kept: it takes more than the 49 KiB that a project may" in log
    assert list((area / "caches").glob("*/*/*")) == []
    assert "Kept the cache k" in run(yaml("k", fill.format(10)))


def test_caches_that_cannot_be_pruned_fail_nothing(
    run: Runs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*words: Any, **more: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(caches, "prune", broken)
    log = run(yaml("k", "mkdir -p deps /var/c"))
    assert "Kept the cache k" in log
    assert "Older caches were not removed: Input/output error" in log


def test_links_in_a_cache_lead_nowhere_else(run: Runs, area: Path) -> None:  # noqa: F811
    hostile = "mkdir -p deps /var/c; ln -s /work/../../../../ deps/up; rm -rf deps; ln -s / deps"
    run(yaml("k", hostile))
    before = sorted(area.iterdir())
    log = run(yaml("k", "ls -d deps"))
    assert "Cache k: " in log
    assert sorted(area.iterdir()) == before


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    for name, age in (("new", 0), ("old", 100), ("older", 200), ("oldest", 90 * 86400)):
        folder = tmp_path / "1" / "protected" / name
        folder.mkdir(parents=True)
        (folder / "0").write_bytes(bytes(1000))
        os.utime(folder, (time.time() - age,) * 2)
    half = tmp_path / "1" / "protected" / ".half"
    half.mkdir()
    os.utime(half, (0, 0))
    assert prune(tmp_path, most=10_000, days=30) == 1000
    assert prune(tmp_path, most=2000) == 1000
    assert sorted(it.name for it in half.parent.iterdir()) == ["new", "old"]


def entry(name: str, size: int, used: float) -> Entry:
    return Entry(used, size, Path("caches") / name)


def test_no_project_drives_out_what_another_keeps() -> None:
    quiet = [entry(f"1/protected/{age}", 10, -100 - age) for age in range(3)]
    loud = [entry(f"2/protected/{age}", 20, -age) for age in range(4)]
    gone = beyond([*quiet, *loud], most=90, share=70)
    assert [str(it.folder) for it in gone] == ["caches/2/protected/3"]
    gone = beyond([*quiet, *loud], most=60, share=60)
    assert [it.folder.name for it in gone] == ["3", "2", "1"]
    assert {it.folder.parts[1] for it in gone} == {"2"}


def test_no_branch_drives_out_what_protected_refs_keep() -> None:
    trusted = [entry("1/protected/old", 30, -9)]
    fork = [entry(f"1/fork-7/{age}", 20, -age) for age in range(3)]
    gone = beyond([*trusted, *fork], most=1000, share=60)
    assert [str(it.folder) for it in gone] == ["caches/1/fork-7/2", "caches/1/fork-7/1"]
