"""The line below a log that is followed: each job, and for how long it has run."""

from __future__ import annotations

from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.status import Status

from ciserver.cli import output
from ciserver.cli.client import Row

MARKS = {"passed": "[green]✓[/]", "failed": "[red]✗[/]", "cancelled": "[yellow]✗[/]"}


class Progress:
    """Only in a terminal: a pipe gets the log and nothing else."""

    def __init__(self, *, shown: bool) -> None:
        here = shown and output.console.is_terminal
        self._status = Status("", console=output.console) if here else None

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status:
            self._status.stop()

    def show(self, pipeline: Row) -> None:
        if self._status:
            self._status.update(told(pipeline, datetime.now(UTC)))


def told(pipeline: Row, now: datetime) -> str:
    """The line, as rich marks it up."""
    if pipeline["state"] == "queued":
        why = pipeline["reason"]
        return f"#{pipeline['number']} waits{f': {escape(why)}' if why else ''}"
    jobs = [_job(job, now) for job in pipeline["jobs"] if job["state"] != "skipped"]
    return " · ".join([f"#{pipeline['number']}", *jobs])


def _job(job: Row, now: datetime) -> str:
    name = escape(job["name"])
    if mark := MARKS.get(job["state"]):
        return f"{mark} {name}"
    if job["state"] == "running" and job["started_at"]:
        began = datetime.fromisoformat(job["started_at"].replace("Z", "+00:00"))
        return f"[cyan]{name} {max(0, int((now - began).total_seconds()))} s[/]"
    return f"[dim]{name}[/]"
