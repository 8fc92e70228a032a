"""``gantry pipeline``: one pipeline, its jobs, what they cost, and why some did not pass."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.history import seconds
from ciserver.cli.images import size
from ciserver.cli.look import find_pipeline, why
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import age, print_json, print_table, state

BAD = {"failed", "error"}


def pipeline(
    project: Project,
    number: Annotated[int, typer.Argument(help="A pipeline's number; the newest without.")] = 0,
    as_json: AsJson = False,
) -> None:
    """One pipeline: its jobs, what they cost, and why they failed.

    Or were skipped. Exit code 0 however it went.
    """
    with Client(settings.load()) as client:
        found = find_pipeline(client, project, number)
        row = client.get(f"/pipelines/{found['id']}/")
    if as_json:
        print_json(row)
        return
    for line in _heading(row):
        output.console.print(line, soft_wrap=True)
    print_table(
        ["JOB", "STATE", "SECONDS", "CPU", "MEMORY", "CACHED", "TESTS", "WHY"],
        [_line(job) for job in newest(row["jobs"])],
    )
    for job in newest(row["jobs"]):
        for text in (job["excerpt"], job["hint"]):
            if job["state"] == "failed" and text:
                output.console.print(Text(f"{job['name']}: {text}"), soft_wrap=True)
    output.console.print(Text(f"Its page: {row['page']}"), soft_wrap=True)
    output.next_step(f"Next: gantry logs {project} {row['number']}")


def newest(jobs: list[Row]) -> list[Row]:
    """Of those that were run again the last, in their order."""
    last = {job["name"]: job for job in sorted(jobs, key=lambda job: int(job["id"]))}
    return sorted(last.values(), key=lambda job: int(job["position"]))


def _heading(row: Row) -> list[Text]:
    ref = row["ref"].removeprefix("refs/heads/").removeprefix("refs/tags/")
    first = Text(f"{row['project']} #{row['number']} ")
    first.append(state(row["state"]))
    if reason := why(row):
        first.append(f": {reason}")
    by = f" · {row['author']}" if row["author"] else ""
    lines = [
        first,
        Text(row["title"]),
        Text(f"{row['commit'][:8]} on {ref}{by} · {age(row['created_at'])} ago"),
    ]
    if row["coverage"] is not None:
        lines.append(Text(f"coverage {row['coverage']:.1f} %"))
    if row["digest"]:
        lines.append(Text(f"{row['repository']}@{row['digest']}"))
    return [line for line in lines if line.plain]


def _line(job: Row) -> list[str | Text]:
    """Receipts in short: CPU seconds in all, and the most memory that one step took."""
    receipts = [step["receipt"] for step in job["steps"] if step["receipt"]]
    cpu = sum(one["user"] + one["system"] for one in receipts)
    most = max((one["peak_memory"] for one in receipts), default=0)
    cached = sum(step["cached"] for step in job["steps"])
    cases = [case for case in job["cases"] if not case["superseded"]]
    failed = sum(case["outcome"] in BAD for case in cases)
    return [
        job["name"],
        state(job["state"]),
        seconds(job),
        f"{cpu:.1f} s" if receipts else "",
        size(most) if receipts else "",
        f"{cached} of {len(job['steps'])}" if cached else "",
        f"{failed} of {len(cases)} failed" if cases else "",
        " ".join(why(job).split()),
    ]
