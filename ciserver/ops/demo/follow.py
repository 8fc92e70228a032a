"""A pipeline in the terminal: its log runs by, its progress stays at the bottom."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ciserver.cli.client import Client, Row
from ciserver.ops.errors import OpsError

POLL = 0.1  # seconds
FINISHED = {"passed", "failed", "cancelled"}
MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "cancelled": ("-", "yellow")}


def follow(api: Client, console: Console, pipeline: Row) -> Row:
    """Shows the pipeline until it ends and returns its row. Raises OpsError if it is not green."""
    with _progress(console) as progress:
        view = _View(api, progress)
        while True:
            row = api.get(f"/pipelines/{pipeline['id']}/")
            view.show(row)
            if row["state"] in FINISHED:
                break
            time.sleep(POLL)
    if row["state"] != "passed":
        place = f"{row['place']}: " if row["place"] else ""
        raise OpsError(
            f"The pipeline {row['state']}: {place}{row['reason']}",
            next_step=f"Its page: {row['page']}",
        )
    return row


class _View:
    """What of a pipeline has been shown so far."""

    def __init__(self, api: Client, progress: Progress) -> None:
        self._api, self._progress = api, progress
        self._ends: dict[int, str] = {}  # job id -> how far its log has been shown
        self._bars: dict[int, TaskID] = {}

    def show(self, pipeline: Row) -> None:
        for job in pipeline["jobs"]:
            if job["state"] == "queued":
                continue
            self._show_log(job)
            self._show_bar(job)

    def _show_log(self, job: Row) -> None:
        text, self._ends[job["id"]] = self._api.log(job["id"], self._ends.get(job["id"], "0-0"))
        for line in text.splitlines():
            shown = Text.assemble((f"{job['name']:<8}", "cyan"), line)
            self._progress.console.print(shown, no_wrap=True, overflow="ellipsis")

    def _show_bar(self, job: Row) -> None:
        steps = job["steps"]
        done = sum(step["state"] in FINISHED for step in steps)
        cached = sum(step["cached"] for step in steps)
        if job["id"] not in self._bars:
            self._bars[job["id"]] = self._progress.add_task(job["name"], note="")
        note = f"{done}/{len(steps)} steps" + (f", {cached} from the cache" if cached else "")
        mark, style = MARKS.get(job["state"], ("", "cyan"))
        ended = job["state"] in FINISHED
        total = max(len(steps), 1)
        self._progress.update(
            self._bars[job["id"]],
            total=total,
            completed=total if ended else done,
            description=f"[{style}]{mark or ' '} {job['name']}[/]",
            note=note if steps else job["state"],
        )


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("[dim]{task.fields[note]}[/]"),
        TimeElapsedColumn(),
        console=console,
    )
