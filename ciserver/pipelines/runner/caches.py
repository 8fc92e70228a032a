"""Directories that tests find again, by key and by lane of trust.

One is ``caches/PROJECT/LANE/KEY/``: a compressed tar for each path, and ``meta.json`` with their
hashes: none is unpacked before all are known to be whole. A pipeline reads its own lane and the
protected one, and writes its own alone: what an unprotected branch or a fork keeps never reaches a
protected one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from string import Template
from typing import Annotated, BinaryIO

from pydantic import BaseModel, Field, ValidationError

from builders.containers import Container, Owner
from builders.errors import BuildError
from builders.images.layers import LayerLimits
from builders.images.streams import HashingReader, HashingSink, TarStream, ZstdSink
from builders.images.tarformat import BadTar
from ciserver.lib.words import size as size_words
from ciserver.pipelines.definition import Cache
from ciserver.pipelines.runner.cachestore import prune, put
from ciserver.pipelines.runner.jobs import JobRun
from ciserver.pipelines.when import matches
from ciserver.repositories import git, history
from ciserver.repositories.errors import RepositoryError
from runtime.errors import SandboxError

MOST = LayerLimits(size=4 << 30, files=500_000)  # of one path
META = "meta.json"
TROUBLE = (OSError, BuildError, BadTar, SandboxError, ValueError)
_Id = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class Found(Enum):
    """How much of a cache was restored. After HALF nobody knows what the directories hold."""

    NOTHING = 0
    HALF = 1
    WHOLE = 2


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one cache of a job is kept, and whether it was found there as it is wanted."""

    wanted: Cache
    name: str
    found: Found

    @property
    def to_keep(self) -> bool:
        """A key of files names its content; under one of words the newest is kept."""
        if self.found is Found.WHOLE:
            return isinstance(self.wanted.key, str)
        return self.found is Found.NOTHING


class _Pack(BaseModel):
    """The tar of one path: its hash, and whose the directory is (ids as in the container)."""

    path: str
    sha256: str
    uid: _Id
    gid: _Id
    mode: Annotated[int, Field(ge=0, le=0o7777)]


class _Meta(BaseModel):
    """``meta.json``; the files are named by their position in it."""

    packs: list[_Pack]
    pipeline: int


def restore(
    run: JobRun, caches: Sequence[Cache], environment: Mapping[str, str], container: Container
) -> list[Slot]:
    """Put each of the ``caches`` of a test that is there into the container; ``environment`` is
    the test's. Never fails the job."""
    slots = []
    for wanted in caches:
        name = _name(run, wanted, environment)
        if name:
            slots.append(Slot(wanted, name, _restore_one(run, wanted, name, container)))
    return slots


def keep(run: JobRun, slots: list[Slot], container: Container) -> None:
    """Keep what is in the container of those that were not found. Never fails the job."""
    for slot in slots:
        if not slot.to_keep:
            continue
        try:
            size = _keep_one(run, slot, container)
        except TROUBLE as error:
            run.log.say(f"The cache {_label(slot.wanted)} was not kept: {_told(error)}")
        else:
            run.log.say(f"Kept the cache {_label(slot.wanted)}, {size_words(size)}.")
        _prune(run)


def _prune(run: JobRun) -> None:
    config = run.workshop.config
    try:
        prune(config.caches, most=config.cache_bytes, share=config.cache_share)
    except OSError as error:
        run.log.say(f"Older caches were not removed: {_told(error)}. The next job tries again.")


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


def _restore_one(run: JobRun, wanted: Cache, name: str, container: Container) -> Found:
    for lane in dict.fromkeys([run.job.pipeline.lane, "protected"]):
        start = time.monotonic()
        with ExitStack() as stack:
            try:
                packs = stack.enter_context(_opened(_lane(run, lane) / name, wanted.paths))
            except FileNotFoundError:
                continue
            except TROUBLE as error:
                run.log.say(f"The cache {_label(wanted)} cannot be used: {_told(error)}")
                continue
            try:
                size = sum(_unpack(pack, file, container) for pack, file in packs)
            except TROUBLE as error:
                run.log.say(
                    f"Cache {_label(wanted)}: only a part of it could be restored: {_told(error)}."
                    " What this job leaves there is not kept."
                )
                return Found.HALF
        took = time.monotonic() - start
        run.log.say(
            f"Cache {_label(wanted)}: hit, {size_words(size)} in {took:.1f} s"
            f" (kept by {'a protected ref' if lane == 'protected' else 'this lane'})."
        )
        return Found.WHOLE
    run.log.say(f"Cache {_label(wanted)}: miss, nothing is kept under its key yet.")
    return Found.NOTHING


@contextmanager
def _opened(folder: Path, paths: Sequence[str]) -> Iterator[list[tuple[_Pack, BinaryIO]]]:
    """The packs of a cache, each with its open file at the start: they stay readable if the cache
    is removed meanwhile. Raises FileNotFoundError when there is none, ValueError for a damaged one.
    """
    data = (folder / META).read_bytes()
    with ExitStack() as stack:
        try:
            packs = _Meta.model_validate_json(data).packs
            files = [
                stack.enter_context((folder / str(position)).open("rb"))
                for position in range(len(packs))
            ]
        except ValidationError:
            raise ValueError(f"its {META} is damaged.") from None
        except FileNotFoundError:
            raise ValueError("a file of it is missing.") from None
        if [pack.path for pack in packs] != list(paths):
            raise ValueError(f"its {META} names other paths.")
        for pack, file in zip(packs, files, strict=True):
            if hashlib.file_digest(file, "sha256").hexdigest() != pack.sha256:
                raise ValueError(f"what it holds of {pack.path} is damaged.")
            file.seek(0)
        os.utime(folder)  # it is used
        yield list(zip(packs, files, strict=True))


def _unpack(pack: _Pack, file: BinaryIO, container: Container) -> int:
    length = os.fstat(file.fileno()).st_size
    stream = TarStream(HashingReader(file, limit=length), "zstd", MOST)
    owner = Owner(pack.uid, pack.gid, pack.mode)
    container.unpack(pack.path, stream, owner=owner, limits=MOST)
    return length


def _keep_one(run: JobRun, slot: Slot, container: Container) -> int:
    parent = _lane(run, run.job.pipeline.lane)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".", dir=parent))
    share = run.workshop.config.cache_share
    try:
        packs: list[_Pack] = []
        size = 0
        for path in slot.wanted.paths:
            pack, length = _write_pack(path, fresh / str(len(packs)), container)
            packs.append(pack)
            size += length
            if size > share:
                raise ValueError(
                    f"it takes more than the {size_words(share)} that a project may keep."
                    " Leave out some of its paths."
                )
        meta = _Meta(packs=packs, pipeline=run.job.pipeline_id)
        (fresh / META).write_text(meta.model_dump_json())
        put(fresh, parent / slot.name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return size


def _write_pack(path: str, target: Path, container: Container) -> tuple[_Pack, int]:
    """Write the directory ``path`` to ``target``; what is told of it, and its bytes there."""
    with target.open("wb") as file:
        hashing = HashingSink(file)
        sink = ZstdSink(hashing)
        owner = container.archive(path, sink, limits=MOST)
        sink.close()
    digest = hashing.digest.removeprefix("sha256:")
    told = _Pack(path=path, sha256=digest, uid=owner.uid, gid=owner.gid, mode=owner.mode)
    return told, hashing.size


def _lane(run: JobRun, lane: str) -> Path:
    return run.workshop.config.caches / str(run.job.pipeline.project_id) / lane


def _label(wanted: Cache) -> str:
    key = wanted.key if isinstance(wanted.key, str) else wanted.key.prefix
    return key or ", ".join(wanted.paths)


def _told(error: Exception) -> str:
    return str(getattr(error, "message", "") or getattr(error, "strerror", "") or error)
