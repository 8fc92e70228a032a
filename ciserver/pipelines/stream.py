"""The event stream of one pipeline page: log lines of all jobs and changes of state.

Events (https://html.spec.whatwg.org/multipage/server-sent-events.html):
  log      fragments with lines, each for one step: the page appends them
  state    fragments that replace what the page shows under the same ids
  restart  another attempt began and its logs start anew: the page loads itself again
  end      the pipeline ended and everything was sent: the page closes the stream

Every id holds how far each job's log was sent, so that ``Last-Event-ID`` goes on exactly there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from asgiref.sync import sync_to_async
from django.db import connection
from django.template.loader import render_to_string

from ciserver.lib.problems import Refused
from ciserver.pipelines import events, logview, shutdown, tails
from ciserver.pipelines.logs import LINE_CAP, Line, LogReader, Position
from ciserver.pipelines.models import Pipeline
from ciserver.pipelines.tails import Mark
from ciserver.pipelines.timeline import PipelineView, view_of

LONGEST = 1.0  # seconds without a look at the server's end
TOGETHER = 0.02  # seconds in which lines that come gather for one frame
KEEP_ALIVE = 15.0
BATCH_BYTES = 16 * 1024
RETRY_MS = 1000
_NUMBER = re.compile(r"[0-9]{1,9}")
Piece = tuple[str, Position]  # lines as the page shows them, and where they end
SHARED_SECONDS = 1.0


@dataclass(slots=True)
class Progress:
    """What one page has: its attempt, and by job position how far its log was sent."""

    attempt: int
    positions: dict[int, Position] = field(default_factory=dict)

    def __str__(self) -> str:
        jobs = [f"{job}-{position}" for job, position in sorted(self.positions.items())]
        return ".".join([str(self.attempt), *jobs])

    @classmethod
    def parse(cls, text: str) -> Progress | None:
        """What ``str()`` wrote; None for anything else, which a browser never sends."""
        attempt, *jobs = text.split(".")
        if not all(map(_NUMBER.fullmatch, [attempt, *(job.partition("-")[0] for job in jobs)])):
            return None
        try:
            positions = {}
            for item in jobs:
                job, _, position = item.partition("-")
                positions[int(job)] = Position.parse(position)
            return cls(int(attempt), positions)
        except ValueError:
            return None


async def stream(pipeline_id: int, progress: Progress) -> AsyncIterator[str]:
    """The frames of the stream, until the pipeline has ended or the server stops."""
    news = _News()
    watcher = asyncio.create_task(_watch(pipeline_id, news))
    page = _Page(pipeline_id, progress)
    read = sync_to_async(_read)
    quiet_since = time.monotonic()
    yield f"retry: {RETRY_MS}\n\n"
    try:
        with tails.following(pipeline_id, news.told):
            while not shutdown.stopping():
                look, news.rows = news.rows, False
                news.told.clear()
                version = events.version(pipeline_id)
                frames = await read(page, look_at_rows=look, version=version)
                for frame in frames:
                    yield frame
                if page.over:
                    return
                now = time.monotonic()
                if frames:
                    quiet_since = now
                elif now - quiet_since > KEEP_ALIVE:
                    quiet_since = now
                    yield ": still here\n\n"
                if len(frames) < 2:  # a log that is behind is read on at once
                    with suppress(TimeoutError):
                        # Not wait_for, which loses a cancel that comes with news (Python 3.11):
                        # the stream would never end.
                        async with asyncio.timeout(LONGEST):
                            await news.told.wait()
                    await asyncio.sleep(TOGETHER)
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


class _News:
    """What a stream waits for: ``told`` when logs or rows have changed, ``rows`` if these have."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.rows = False


def _read(page: _Page, *, look_at_rows: bool, version: int) -> list[str]:
    try:
        return page.read(look_at_rows=look_at_rows, version=version)
    finally:
        # A stream is one long request: nothing else would give its connection back.
        connection.close_if_unusable_or_obsolete()


async def _watch(pipeline_id: int, news: _News) -> None:
    async for _ in events.changes(pipeline_id):
        news.rows = True
        news.told.set()


class _Page:
    """One reader's page: what it was sent, and what comes next."""

    def __init__(self, pipeline_id: int, progress: Progress) -> None:
        self.over = False
        self._pipeline_id = pipeline_id
        self._progress = progress
        self._sent: dict[str, str] = {}
        self._view: PipelineView | None = None

    def read(self, *, look_at_rows: bool = True, version: int = 0) -> list[str]:
        """State first, then what the logs have more: a log is complete once its rows say ended."""
        frames = []
        if look_at_rows or self._view is None:
            shown = _shown(self._pipeline_id, version)
            self._view = shown.view
            if self._view is None or self._restarted(self._view):
                self.over = True
                return [frame("restart", "", self._progress)]
            if html := self._changed_fragments(shown.fragments):
                frames.append(frame("state", html, self._progress))
        try:
            logs = list(self._log_frames(self._view))
        except ValueError:  # a place that is none of this log: the page begins anew
            self.over = True
            return [frame("restart", "", Progress(self._progress.attempt))]
        if not logs and self._view.pipeline.finished:
            self.over = True
            return [*frames, frame("end", self._view.pipeline.state, self._progress)]
        return frames + logs

    def _restarted(self, view: PipelineView) -> bool:
        if self._progress.attempt == 0:
            self._progress.attempt = view.pipeline.attempt
        return self._progress.attempt != view.pipeline.attempt

    def _changed_fragments(self, shown: list[tuple[str, str]]) -> str:
        changed = []
        for name, html in shown:
            if self._sent.get(name) != html:
                self._sent[name] = html
                changed.append(html)
        return "".join(changed)

    def _log_frames(self, view: PipelineView) -> Iterator[str]:
        for job in view.jobs:
            number, path = job.job.position, job.job.log_path
            position = self._progress.positions.get(number) or Position()
            for html, end in _news_of(path, number, position):
                self._progress.positions[number] = end
                yield frame("log", html, self._progress)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A pipeline's moving parts as every follower gets them, and when they were drawn."""

    version: int
    at: float
    view: PipelineView | None
    fragments: list[tuple[str, str]]


_shown_to_all: dict[int, _Shown] = {}
_MOST_SHOWN = 100


def _shown(pipeline_id: int, version: int) -> _Shown:
    """Drawn once for all followers of a pipeline, until a message says that it changed.

    Streams read in one thread, so nobody draws the same twice at once.
    """
    known = _shown_to_all.get(pipeline_id)
    now = time.monotonic()
    if known and version and known.version == version and now - known.at < SHARED_SECONDS:
        return known
    rows = Pipeline.objects.select_related("project", "release")
    pipeline = rows.filter(pk=pipeline_id).first()
    view = view_of(pipeline) if pipeline else None
    if view:
        growing = [job.job for job in view.jobs if job.job.finished_at is None]
        tails.watch(pipeline_id, [job.log_path for job in growing])
    shown = _Shown(version, now, view, list(fragments(view)) if view else [])
    if len(_shown_to_all) >= _MOST_SHOWN:
        _shown_to_all.pop(next(iter(_shown_to_all)))
    _shown_to_all[pipeline_id] = shown
    return shown


def _news_of(path: Path, job: int, position: Position) -> tuple[Piece, ...]:
    """What a log has behind ``position``, in frames; where each of them ends."""
    mark = tails.mark_of(path)
    if mark is None:  # it is not there yet, or packed: only who comes late reads that
        # Object storage that is away, or a damaged log: the page does without its lines.
        with suppress(Refused):
            return tuple(_batches(path, job, position))
        return ()
    return _shared(path, job, position, mark) if mark.size != position.offset else ()


@lru_cache(maxsize=16)  # a megabyte each at the most
def _shared(path: Path, job: int, position: Position, mark: Mark) -> tuple[Piece, ...]:
    """Drawn once for all who are at the same place while the file is as ``mark`` says."""
    return tuple(_batches(path, job, position))


def _batches(path: Path, job: int, position: Position) -> Iterator[Piece]:
    """In small pieces; at most 256 KiB at a time."""
    reader = LogReader(path)
    for _ in range(16):
        lines, end = reader.read(position, size=BATCH_BYTES)
        if not lines:  # the end, or one line that is longer than a batch
            lines, end = reader.read(position, size=LINE_CAP + 1024)
        if not lines:
            return
        yield _log_html(lines, job), end
        position = end


def _log_html(lines: list[Line], job: int) -> str:
    return "".join(
        f'<template data-job="{job}" data-step="{step}">{logview.lines_html(group, job)}</template>'
        for step, group in logview.runs(lines)
    )


def fragments(view: PipelineView) -> Iterator[tuple[str, str]]:
    """The parts of the page that change, by name."""
    context = {"view": view, "pipeline": view.pipeline}
    yield "verdict", render_to_string("pipelines/_verdict.html", context)
    yield "jobs", render_to_string("pipelines/_jobs.html", context)
    for job in view.jobs:
        parts = {"view": view, "pipeline": view.pipeline, "job": job}
        yield job.anchor, render_to_string("pipelines/_job_parts.html", parts)


def frame(event: str, data: str, progress: Progress) -> str:
    lines = data.replace("\r", "&#13;").split("\n")
    body = "\n".join(f"data: {line}" for line in lines)
    return f"id: {progress}\nevent: {event}\n{body}\n\n"
