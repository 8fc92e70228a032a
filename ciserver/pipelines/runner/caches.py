"""Directories that tests find again, by key and by lane of trust.

One is ``caches/PROJECT/LANE/KEY/``: a compressed tar for each path, and ``meta.json``. A pipeline
reads its own lane and the protected one, and writes its own alone: what an unprotected branch or
a fork keeps never reaches a protected one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template

from builders.containers import Container, Owner
from builders.errors import BuildError
from builders.images.layers import LayerLimits
from builders.images.streams import HashingReader, TarStream, ZstdSink
from builders.images.tarformat import BadTar
from ciserver.lib.words import size as size_words
from ciserver.pipelines.definition import Cache, Test
from ciserver.pipelines.runner.cachestore import prune, put
from ciserver.pipelines.runner.jobs import JobRun
from ciserver.pipelines.when import matches
from ciserver.repositories import git, history
from ciserver.repositories.errors import RepositoryError
from runtime.errors import SandboxError

MOST = LayerLimits(size=4 << 30, files=500_000)  # of one path
META = "meta.json"
TROUBLE = (OSError, BuildError, BadTar, SandboxError, ValueError)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one cache of a job is kept, and whether it was found there as it is wanted."""

    wanted: Cache
    name: str
    found: bool

    @property
    def complete(self) -> bool:
        """A key of files names its content; under one of words the newest is kept."""
        return self.found and not isinstance(self.wanted.key, str)


def restore(run: JobRun, test: Test, container: Container) -> list[Slot]:
    """Put each cache of the test that is there into the container. Never fails the job."""
    slots = []
    for wanted in test.cache:
        name = _name(run, wanted, test.environment)
        if name:
            slots.append(Slot(wanted, name, _restore_one(run, wanted, name, container)))
    return slots


def keep(run: JobRun, slots: list[Slot], container: Container) -> None:
    """Keep what is in the container of those that were not found. Never fails the job."""
    for slot in slots:
        if slot.complete:
            continue
        try:
            size = _keep_one(run, slot, container)
        except TROUBLE as error:
            run.log.say(f"The cache {_label(slot.wanted)} was not kept: {_told(error)}")
        else:
            run.log.say(f"Kept the cache {_label(slot.wanted)}, {size_words(size)}.")
    if slots:
        prune(run.workshop.config.caches, most=run.workshop.config.cache_bytes)


def _name(run: JobRun, wanted: Cache, environment: Mapping[str, str]) -> str:
    """The folder's name: what the key comes to, and the paths; empty when it comes to nothing."""
    if isinstance(wanted.key, str):
        content = [Template(wanted.key).safe_substitute(environment)]
    else:
        project = run.job.pipeline.project
        try:
            found = history.files(git.git_dir(project), run.job.pipeline.commit)
        except RepositoryError as error:
            run.log.say(f"The cache {_label(wanted)} has no key: {error}")
            return ""
        files = wanted.key.files
        content = [
            f"{path} {blob}"
            for path, blob in sorted(found.items())
            if any(matches(pattern, path) for pattern in files)
        ]
        if not content:
            run.log.say(f"No file of the commit is {' or '.join(files)}: there is no cache.")
            return ""
        content.append(wanted.key.prefix)
    told = json.dumps([content, wanted.paths])
    return hashlib.sha256(told.encode()).hexdigest()[:40]


def _restore_one(run: JobRun, wanted: Cache, name: str, container: Container) -> bool:
    for lane in dict.fromkeys([run.job.pipeline.lane, "protected"]):
        folder = _lane(run, lane) / name
        start = time.monotonic()
        try:
            size = _unpack(folder, container)
        except FileNotFoundError:
            continue
        except TROUBLE as error:
            run.log.say(f"The cache {_label(wanted)} cannot be used: {_told(error)}")
            continue
        took = time.monotonic() - start
        run.log.say(
            f"Cache {_label(wanted)}: hit, {size_words(size)} in {took:.1f} s"
            f" (kept by {'a protected ref' if lane == 'protected' else 'this lane'})."
        )
        return True
    run.log.say(f"Cache {_label(wanted)}: miss, nothing is kept under its key yet.")
    return False


def _unpack(folder: Path, container: Container) -> int:
    meta = json.loads((folder / META).read_text())
    os.utime(folder)  # it was used
    size = 0
    for position, (path, owner) in enumerate(meta["paths"].items()):
        with (folder / str(position)).open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            stream = TarStream(HashingReader(file, limit=length), "zstd", MOST)
            container.unpack(path, stream, owner=Owner(**owner), limits=MOST)
            size += length
    return size


def _keep_one(run: JobRun, slot: Slot, container: Container) -> int:
    parent = _lane(run, run.job.pipeline.lane)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".", dir=parent))
    try:
        owners = {}
        for position, path in enumerate(slot.wanted.paths):
            with (fresh / str(position)).open("wb") as file:
                sink = ZstdSink(file)
                owners[path] = asdict(container.archive(path, sink, limits=MOST))
                sink.close()
        told = {"paths": owners, "pipeline": run.job.pipeline_id}
        (fresh / META).write_text(json.dumps(told))
        size = sum(entry.stat().st_size for entry in fresh.iterdir())
        put(fresh, parent / slot.name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return size


def _lane(run: JobRun, lane: str) -> Path:
    return run.workshop.config.caches / str(run.job.pipeline.project_id) / lane


def _label(wanted: Cache) -> str:
    key = wanted.key if isinstance(wanted.key, str) else wanted.key.prefix
    return key or ", ".join(wanted.paths)


def _told(error: Exception) -> str:
    return str(getattr(error, "message", "") or getattr(error, "strerror", "") or error)
