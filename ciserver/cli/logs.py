"""``gantry logs``: what the jobs of a pipeline say, or the container of an environment."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from ciserver.cli import daytwo, logsearch, output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.look import find_pipeline, why
from ciserver.cli.options import AsJson, ProjectOrPlace
from ciserver.cli.output import print_json
from ciserver.cli.progress import Progress

FINISHED = {"passed", "failed", "cancelled"}
ENDED = {*FINISHED, "skipped"}
PAUSE = 0.3  # seconds between two looks


def logs(
    project: ProjectOrPlace,
    number: Annotated[int, typer.Argument(help="A pipeline's number; the newest without.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it has ended.")] = False,
    job: Annotated[str, typer.Option(help="Only this job.")] = "",
    grep: Annotated[
        str, typer.Option("--grep", "-g", help="Only lines that hold these words, in any case.")
    ] = "",
    line: Annotated[
        int, typer.Option(min=0, help="This line of a job's log, and those around it.")
    ] = 0,
    tail: Annotated[int, typer.Option(help="Of PROJECT@ENV: the last lines; -1: all.")] = 100,
    since: Annotated[str, typer.Option(help="Of PROJECT@ENV: 10m ago, or a time.")] = "",
    host: Annotated[str, typer.Option(help="Of PROJECT@ENV: one of its hosts.")] = "",
    as_json: AsJson = False,
) -> None:
    """A pipeline's log, or of PROJECT@ENV its container's.

    Exit code 1 when the pipeline failed. With --follow --json each line is an object of its own.
    """
    if (grep or line) and (daytwo.is_place(project) or follow or (grep and line)):
        raise CliError(
            "--grep and --line look into what a pipeline's logs hold, one of them at a time.",
            next_step="Type: gantry logs PROJECT NUMBER --grep WORDS",
            exit_code=Exit.USAGE,
        )
    if grep or line:
        with Client(settings.load()) as client:
            found = client.get(f"/pipelines/{find_pipeline(client, project, number)['id']}/")
            if grep:
                logsearch.show_found(client, found, job, grep, as_json=as_json)
            else:
                logsearch.show_around(client, found, job, line, as_json=as_json)
        return
    if daytwo.is_place(project):
        daytwo.show_logs(project, host=host, follow=follow, tail=tail, since=since, as_json=as_json)
        return
    with Client(settings.load()) as client, Progress(shown=follow and not as_json) as progress:
        pipeline = find_pipeline(client, project, number)
        reader = LogReader(client, job, as_json=as_json, at_once=follow)
        while True:
            row = client.get(f"/pipelines/{pipeline['id']}/")
            progress.show(row)
            reader.read(row)
            if not follow or row["state"] in FINISHED:
                break
            time.sleep(PAUSE)
    if as_json and not follow:
        print_json(reader.lines)
    if row["state"] in {"failed", "cancelled"}:
        raise CliError(
            f"Pipeline #{row['number']} {row['state']}: {why(row)}",
            next_step=f"Its page: {row['page']}",
            exit_code=Exit.BAD_RESULT,
        )
    if follow and not as_json:
        output.next_step(f"Pipeline #{row['number']} passed. Next: gantry releases {project}")


class LogReader:
    """Prints (or keeps, for JSON that is no stream) what each job's log has grown by."""

    def __init__(self, client: Client, job: str, *, as_json: bool, at_once: bool) -> None:
        self._client, self._job = client, job
        self._as_json, self._at_once = as_json, at_once
        self._positions: dict[int, str] = {}
        self._ended: set[int] = set()
        self.lines: list[dict[str, str]] = []

    def read(self, pipeline: Row) -> None:
        """Of a job that has ended once more and not again, but at the end of the pipeline: the
        log of one whose worker died is completed later."""
        last = pipeline["state"] in FINISHED
        for job in pipeline["jobs"]:
            if self._job not in ("", job["name"]) or job["state"] == "queued":
                continue
            if last or job["id"] not in self._ended:
                self._read_job(job)
            if job["state"] in ENDED:
                self._ended.add(job["id"])

    def _read_job(self, job: Row) -> None:
        while True:
            position = self._positions.get(job["id"], "0-0")
            text, self._positions[job["id"]] = self._client.log(job["id"], position)
            if not text:
                return
            for line in text.splitlines():
                self._take(job["name"], line)

    def _take(self, job: str, line: str) -> None:
        if self._as_json and self._at_once:
            output.print_line({"job": job, "line": line})
        elif self._as_json:
            self.lines.append({"job": job, "line": line})
        else:
            output.console.print(Text.assemble((f"{job}  ", "cyan"), line), soft_wrap=True)
