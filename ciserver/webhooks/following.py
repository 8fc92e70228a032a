"""What ``git push -o wait`` shows: the logs of the pipelines that the push began, then the verdict.

The push has landed before anything of this is shown, so its exit status stays 0; the verdict is
in the words.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

from django.conf import settings

from ciserver.lib.threads import in_database_thread
from ciserver.lib.words import duration
from ciserver.pipelines.logs import LogReader, Position
from ciserver.pipelines.models import Job, Pipeline, State
from ciserver.webhooks.services import HOSTED

INTERVAL = 0.5  # seconds between looks
LONGEST = 3000.0  # seconds; the connection itself may last an hour
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)", re.MULTILINE)
STILL = "It still runs: its page shows the rest.\n"


async def follow(project_id: int, push_id: str) -> AsyncIterator[str]:
    """Whole lines, as they come, until every pipeline of the push has ended."""
    follower = Follower(project_id, push_id)
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        text, done = await in_database_thread(follower.step)
        if text:
            yield text
        if done:
            return
        await asyncio.sleep(0 if text else INTERVAL)
    yield STILL


class Follower:
    """How far the logs of one push's pipelines have been shown."""

    def __init__(self, project_id: int, push_id: str) -> None:
        self._pipelines = Pipeline.objects.filter(
            project=project_id,
            deliveries__forge=HOSTED,
            deliveries__delivery_id__startswith=f"{push_id}:",
        ).select_related("project")
        self._read: dict[int, Position] = {}
        self._told: set[int] = set()

    def step(self) -> tuple[str, bool]:
        """What is new, and whether that was the last of it."""
        # The states first: what a log gets after its pipeline ended is nothing.
        found = sorted(set(self._pipelines.all()), key=lambda pipeline: pipeline.number)
        lines = []
        for pipeline in found:
            new = self._new_lines(pipeline, several=len(found) > 1)
            lines += new
            if pipeline.finished and not new and pipeline.pk not in self._told:
                self._told.add(pipeline.pk)
                lines.append(verdict(pipeline))
        text = "".join(f"{line}\n" for line in lines)
        return text, all(pipeline.pk in self._told for pipeline in found)

    def _new_lines(self, pipeline: Pipeline, *, several: bool) -> list[str]:
        before = f"#{pipeline.number} " if several else ""
        found = []
        for job in pipeline.jobs.filter(run=pipeline.run).order_by("position"):
            found += [f"{before}{job.name} | {plain(text)}" for text in self._lines(job)]
        return found

    def _lines(self, job: Job) -> list[str]:
        lines, self._read[job.pk] = LogReader(job.log_path).read(self._read.get(job.pk))
        return [line.text for line in lines]


def verdict(pipeline: Pipeline) -> str:
    """The last line, which cannot be taken for anything else."""
    where = f"{settings.GANTRY.url}{pipeline.get_absolute_url()}"
    start = f"pipeline #{pipeline.number}"
    if pipeline.state == State.PASSED:
        return f"{start} PASSED in {duration(pipeline.seconds)} {where}"
    word = "was CANCELLED" if pipeline.state == State.CANCELLED else "FAILED"
    at = f"{pipeline.place}: " if pipeline.place else ""
    return f"{start} {word} (the push itself was taken): {plain(at + pipeline.reason)} {where}"


def plain(text: str) -> str:
    """Without what a job could do to the pusher's terminal."""
    kept = _ESCAPES.sub("", text)
    return "".join(c for c in kept if c.isprintable() or c == "\t")
