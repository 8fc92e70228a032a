"""The step cache in a registry: a fresh machine starts warm, and no lane writes another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builders.cache import CacheEntry, lane_name, step_key
from builders.cli import main
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.registry import Registry
from builders.shared import CONFIG, MOST_STEPS, SharedCache
from runtime.state import StateDirectory
from tests.builders.conftest import Builder, Recorder, make_busybox
from tests.builders.registry.conftest import RegistryProcess

Project = Callable[[Mapping[str, str]], Path]
STEPS = ["RUN echo tool > /tool", "COPY --from=tool /tool /", "RUN cat /tool > /b"]
DOCKERFILE = f"FROM busybox AS tool\n{STEPS[0]}\nFROM busybox\n{STEPS[1]}\n{STEPS[2]}\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    process = RegistryProcess(tmp_path_factory.mktemp("registry"))
    with Registry(process.host, patience=5) as client:
        yield client
    process.close()


@pytest.fixture
def machine(home: Path, tmp_path: Path) -> Callable[[str], Builder]:
    """A machine with nothing but the base image."""

    def make(name: str) -> Builder:
        folder = home / tmp_path.name / name
        store = Store(folder / "store")
        make_busybox(store, folder / "work")
        return Builder(store, StateDirectory(folder / "sandboxes"))

    return make


@pytest.fixture
def name(registry: Registry, tmp_path: Path) -> Reference:
    folder = tmp_path.name.lower().replace("_", "-").strip("-")
    return Reference.parse(f"{registry.host}/{folder}/cache")


def run(
    builder: Builder,
    context: Path,
    cache: SharedCache,
    *,
    scope: str = "p/protected",
    also_read: tuple[str, ...] = (),
) -> tuple[Image, Recorder]:
    images, recorder = builder.all(context, shared=cache, scope=scope, also_read=also_read)
    return images[None], recorder


def test_a_fresh_machine_builds_the_same_image_and_runs_nothing(
    machine: Callable[[str], Builder], registry: Registry, name: Reference, project: Project
) -> None:
    context = project({"Dockerfile": DOCKERFILE})
    first = machine("first")
    cache = SharedCache(registry, name, first.store, scope="p/protected")
    image, recorder = run(first, context, cache)
    assert not set(STEPS) & set(recorder.cached())
    assert cache.save().bytes_sent > 0
    second = machine("second")
    other, heard = run(
        second, context, SharedCache(registry, name, second.store, scope="p/protected")
    )
    assert other.id == image.id
    assert set(STEPS) <= set(heard.cached())
    offline, heard = second.all(context, scope="p/protected")  # it knows by itself from now on
    assert offline[None].id == image.id
    assert set(STEPS) <= set(heard.cached())


def test_the_command_line_takes_the_cache_along(
    machine: Callable[[str], Builder],
    name: Reference,
    project: Project,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    context = project({"Dockerfile": DOCKERFILE})
    said = []
    for worker, flags in (
        ("one", ["--cache-to", name.name]),
        ("two", ["--cache-from", f"type=registry,ref={name.name}"]),
        ("three", []),
    ):
        words = ["--store", str(machine(worker).store.root), "build", "--network", "none", *flags]
        assert main([*words, str(context)]) == 0
        out = capfd.readouterr()
        said.append((out.out, out.err.count("[cached]")))
    assert said[0][0] == said[1][0] == said[2][0]
    assert [cached for _, cached in said] == [0, 3, 0]
    assert main(["build", "--cache-to", "a", "--cache-from", "b", str(context)]) == 1
    assert "name one repository" in capfd.readouterr().err


def test_an_unchanged_build_sends_nothing_and_writes_no_manifest(
    machine: Callable[[str], Builder], registry: Registry, name: Reference, project: Project
) -> None:
    context = project({"Dockerfile": DOCKERFILE})
    builder = machine("one")
    digests = []
    for _ in range(2):
        cache = SharedCache(registry, name, builder.store, scope="p")
        run(builder, context, cache, scope="p")
        cache.save()
        lane = name.with_tag(f"cache-{lane_name('p')}")
        digests.append(registry.pull_document(lane, CONFIG)[0].digest)
    assert digests[0] == digests[1]
    assert cache.save().bytes_sent == 0


def test_an_unprotected_branch_reads_both_lanes_and_writes_only_its_own(
    machine: Callable[[str], Builder], registry: Registry, name: Reference, project: Project
) -> None:
    trusted = SharedCache(registry, name, machine("a").store, scope="protected")
    key, evil = step_key("run", "good"), step_key("run", "evil")
    trusted.note(key, CacheEntry(None, 1.0))
    trusted.save()

    def branch() -> SharedCache:
        store = machine("b").store
        return SharedCache(registry, name, store, scope="open", also_read=("protected",))

    cache = branch()
    assert cache.find(key) == CacheEntry(None, 1.0)
    cache.note(evil, CacheEntry(None, 2.0))
    cache.save()
    assert branch().find(evil) == CacheEntry(None, 2.0)
    store = machine("c").store
    assert SharedCache(registry, name, store, scope="protected").find(evil) is None
    fork = SharedCache(registry, name, store, scope="fork", also_read=("protected",))
    assert fork.find(evil) is None
    assert fork.find(key) is not None


def test_two_machines_that_save_one_after_the_other_both_stay(
    machine: Callable[[str], Builder], registry: Registry, name: Reference
) -> None:
    store = machine("a").store
    caches = [SharedCache(registry, name, store, scope="p") for _ in range(2)]
    keys = [step_key("run", number) for number in range(2)]
    for cache, key in zip(caches, keys, strict=True):
        assert cache.find(key) is None  # both have looked before either writes
    for cache, key in zip(caches, keys, strict=True):
        cache.note(key, CacheEntry(None))
        cache.save()
    fresh = SharedCache(registry, name, store, scope="p")
    assert all(fresh.find(key) for key in keys)


def test_a_lane_keeps_the_steps_that_were_used_last(
    machine: Callable[[str], Builder], registry: Registry, name: Reference
) -> None:
    store = machine("a").store
    for first in (0, MOST_STEPS):
        cache = SharedCache(registry, name, store, scope="p")
        for number in range(first, first + MOST_STEPS):
            cache.note(step_key("run", number), CacheEntry(None))
        cache.save()
    fresh = SharedCache(registry, name, store, scope="p")
    assert fresh.find(step_key("run", 0)) is None
    assert fresh.find(step_key("run", 2 * MOST_STEPS - 1)) is not None


def test_without_the_registry_a_build_is_slower_but_goes_on(
    machine: Callable[[str], Builder], project: Project
) -> None:
    heard: list[str] = []
    with Registry("127.0.0.1:1", patience=0.2) as dead:
        builder = machine("a")
        name = Reference.parse("127.0.0.1:1/p/cache")
        cache = SharedCache(dead, name, builder.store, scope="p", say=heard.append)
        image, _ = run(builder, project({"Dockerfile": DOCKERFILE}), cache, scope="p")
        cache.save()
    assert len(image.layers) == 3
    (words,) = heard
    assert words.startswith("The shared cache cannot be used: Registry 127.0.0.1:1 cannot be used")


def test_a_lane_that_cannot_be_read_again_is_not_written_over(
    machine: Callable[[str], Builder],
    registry: Registry,
    name: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, heard = machine("a").store, []
    kept, new = step_key("run", "kept"), step_key("run", "new")

    def cache() -> SharedCache:
        return SharedCache(registry, name, store, scope="p", say=heard.append)

    before = cache()
    before.note(kept, CacheEntry(None))
    before.save()
    late = cache()
    assert late.find(kept) is not None
    late.note(new, CacheEntry(None))
    with Registry("127.0.0.1:1", patience=0.1) as dead, monkeypatch.context() as patch:
        patch.setattr(registry, "pull_document", dead.pull_document)
        late.save()
    assert "The shared cache cannot be used" in heard[0]
    assert cache().find(kept) is not None


def test_what_is_no_cache_of_ours_is_not_believed(
    machine: Callable[[str], Builder], registry: Registry, name: Reference
) -> None:
    store = machine("a").store
    lane = name.with_tag(f"cache-{lane_name('p')}")
    for document in (
        b"[]",
        b'{"layers": ["sha256:x"], "steps": {}}',
        b'{"steps": {"a": 3}}',
        b'{"steps": {"a": {"diff_id": 7, "seconds": 1, "used": 1}}}',
    ):
        heard: list[str] = []
        registry.push_document(lane, store.add_blob(document, CONFIG), [], store)
        cache = SharedCache(registry, name, store, scope="p", say=heard.append)
        assert cache.find("a") is None
        assert "not one of ours" in heard[0]
        cache.note("a", CacheEntry(None))
        cache.save()
        assert SharedCache(registry, name, store, scope="p").find("a") is not None
