"""Directory caches of tests: by key, apart by lane of trust, pruned, never an obstacle."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from builders.images.store import Store
from builders.registry import Registry
from builders.resolve import Resolver
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.runner import story
from ciserver.pipelines.runner.cachestore import prune
from ciserver.pipelines.runner.workshop import Workshop
from runtime.state import StateDirectory
from tests.builders.conftest import make_busybox
from tests.builders.registry.conftest import registry  # noqa: F401 - a fixture
from tests.ciserver.pipelines.test_starts import Hosted
from tests.ciserver.pipelines.test_story import area  # noqa: F401 - a fixture

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

    def __init__(self, hosted: Hosted) -> None:
        self.hosted = hosted

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
    store = Store(area / "store")
    make_busybox(store, area / "busybox")
    config = replace(settings.GANTRY, home=area, registry=registry)
    workshop = Workshop(
        config=config,
        store=store,
        state=StateDirectory(area / "sandboxes"),
        registry=Registry(registry),
        resolver=Resolver(store, upstream=False),
    )
    monkeypatch.setattr(story, "open_workshop", lambda: workshop)
    with closing(Hosted(project, area / "tree")) as hosted:
        yield Runs(hosted)


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
