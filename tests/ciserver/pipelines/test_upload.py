"""Layers travel while the build still runs; what one worker built, another finds."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from builders.build import StepInfo, StepResult
from builders.cache import CacheEntry
from builders.errors import ImageNotFound
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Store
from builders.registry import Registry
from builders.resolve import Resolver
from ciserver.pipelines import services
from ciserver.pipelines.logs import LogWriter
from ciserver.pipelines.models import Pipeline, State
from ciserver.pipelines.runner import story
from ciserver.pipelines.runner.jobs import JobFailed
from ciserver.pipelines.runner.push import Upload
from ciserver.pipelines.runner.workshop import Workshop
from ciserver.repositories import git
from runtime.state import StateDirectory
from tests.builders.conftest import make_busybox
from tests.builders.images.test_store import a_layer
from tests.builders.registry.conftest import RegistryProcess
from tests.ciserver.pipelines.test_story import _git, area  # noqa: F401 - a fixture

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]
DOCKERFILE = "FROM busybox AS tool\nRUN echo tool > /tool\nFROM busybox\nCOPY --from=tool /tool /\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process = RegistryProcess(tmp_path_factory.mktemp("registry"))
    yield process.host
    process.close()


def a_workshop(folder: Path, host: str) -> Workshop:
    """A worker's machine with nothing but the base image."""
    store = Store(folder / "store")
    make_busybox(store, folder / "busybox")
    return Workshop(
        config=replace(settings.GANTRY, registry=host),
        store=store,
        state=StateDirectory(folder / "sandboxes"),
        registry=Registry(host, patience=5),
        resolver=Resolver(store, upstream=False),
    )


def test_a_layer_is_in_the_registry_before_the_build_ends_but_no_tag_is(
    project: Any,
    area: Path,  # noqa: F811
    host: str,
) -> None:
    workshop = a_workshop(area, host)
    store, registry = workshop.store, workshop.registry
    pipeline = Pipeline(project=project, commit="c" * 40)
    layer, other = a_layer(store, "shipped"), a_layer(store, "tool")
    image = store.save_image(ImageConfig(architecture="amd64"), [layer])
    name = Reference.parse(f"{host}/{project.slug}:{pipeline.commit}")
    with Upload(workshop, pipeline, None, None) as upload:
        for made, targets in ((other, {"tool"}), (layer, {None, "test"})):
            step = StepInfo(1, 1, "", "RUN x", "", frozenset(targets))
            upload.step_finished(step, StepResult(cached=False, layer=made))
        blob = store.blob(layer)
        for _ in range(100):
            if store.sources(blob.digest):
                break
            time.sleep(0.05)
        assert store.sources(blob.digest) == (f"{host}/{project.slug}",)
        assert not store.sources(store.blob(other).digest)
        with pytest.raises(ImageNotFound):
            registry.pull(name, Store(area / "fresh"))
        upload.complete(image)
        with LogWriter(area / "log") as log:
            pushed = upload.finish(log, threading.Event(), lambda: None)
    assert pushed.bytes_sent == blob.size + image.manifest().config.size
    assert pushed.bytes_existing == 0
    assert registry.pull(name, Store(area / "fresh")).id == image.id


@pytest.mark.parametrize("state", [State.CANCELLED, State.FAILED])
def test_after_a_failure_only_the_steps_for_other_workers_are_still_sent(
    project: Any,
    area: Path,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    state: State,
) -> None:
    process = RegistryProcess(tmp_path)
    workshop = a_workshop(area, process.host)
    store = workshop.store
    pipeline = Pipeline(project=project, commit="c" * 40)
    layer = a_layer(store, "shipped")
    image = store.save_image(ImageConfig(architecture="amd64"), [layer])
    shared = workshop.shared_cache(pipeline)
    assert shared is not None
    shared.note("0" * 64, CacheEntry(layer.diff_id))
    assert shared.find("0" * 64) is None
    process._process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(JobFailed), Upload(workshop, pipeline, None, shared) as upload:
            upload.complete(image)
            while not any(one.name.startswith("push_") for one in threading.enumerate()):
                time.sleep(0.01)
            time.sleep(0.1)  # it waits for the registry's answer
            raise JobFailed("It failed.", state=state)
        assert time.monotonic() - began < 3
        (pins,) = (store.root / "pins").iterdir()  # no pruning takes what it sends
    finally:
        process._process.send_signal(signal.SIGCONT)
    upload._thread.join(20)
    assert not upload._thread.is_alive() and not pins.exists()
    sent = state == State.FAILED
    assert bool(store.sources(store.blob(layer).digest)) is sent
    fresh = workshop.shared_cache(pipeline)
    assert fresh is not None
    assert (fresh.find("0" * 64) is not None) is sent
    assert not [record for record in caplog.records if record.levelname != "INFO"]
    process.close()


def test_a_fresh_worker_finds_what_another_built_but_not_of_a_less_trusted_branch(
    project: Any,
    area: Path,  # noqa: F811
    host: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = area / "tree"
    tree.mkdir()
    target = git.create_hosted(project)
    _git(tree, "init", "--quiet", "--initial-branch=main")

    def run(worker: str, branch: str, extra: str = "") -> list[bool]:
        """Whether each step that made a layer was cached."""
        workshop = a_workshop(area / worker, host) if worker not in known else known[worker]
        known[worker] = workshop
        monkeypatch.setattr(story, "open_workshop", lambda: workshop)
        (tree / "Dockerfile").write_text(DOCKERFILE + extra)
        _git(tree, "add", "--all")
        _git(tree, "commit", "--quiet", "--allow-empty", "-m", branch)
        _git(tree, "push", "--quiet", "--force", str(target), f"HEAD:{branch}")
        commit = _git(tree, "rev-parse", "HEAD").strip()
        row = services.queue(project=project, commit=commit, ref=f"refs/heads/{branch}")
        story.run(row.pk)
        row = Pipeline.objects.get(pk=row.pk)
        assert row.state == "passed", row.reason
        time.sleep(0.3)  # the steps are saved after the manifest, and nobody waits for them
        steps = row.jobs.get(name="build").steps.exclude(text__startswith="FROM")
        return [step.cached for step in steps.order_by("position")]

    known: dict[str, Workshop] = {}
    assert run("one", "main") == [False, False]
    assert run("two", "main") == [True, True]
    evil = "RUN echo evil > /evil\n"
    assert run("one", "topic", evil) == [True, True, False]
    assert run("three", "topic", evil) == [True, True, True]
    assert run("four", "main", evil) == [True, True, False]
    assert run("one", "main", evil) == [True, True, True]  # from four, by the registry
