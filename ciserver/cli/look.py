"""Commands that only look: status, projects, pipelines, logs, releases."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from ciserver.cli import daytwo, output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AnyProject, AsJson, Limit, Project
from ciserver.cli.output import age, print_json, print_table, state
from ciserver.cli.progress import Progress

FINISHED = {"passed", "failed", "cancelled"}


def status(as_json: AsJson = False) -> None:
    """What runs where: each environment and its release."""
    with Client(settings.load()) as client:
        environments = sorted(
            client.every("/environments/"), key=lambda row: (row["project"], row["position"])
        )
    if as_json:
        print_json(environments)
        return
    print_table(
        ["PROJECT", "ENVIRONMENT", "RELEASE", "COMMIT", "DIGEST", "HOST", "HEALTH", "SINCE", "URL"],
        [line for row in environments for line in _status_lines(row)],
    )
    if not environments:
        output.next_step("No environments yet. Next: gantry new PROJECT")


def projects(as_json: AsJson = False) -> None:
    """Your projects and where to push them."""
    with Client(settings.load()) as client:
        rows = list(client.every("/projects/"))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["PROJECT", "REPOSITORY", "DESCRIPTION"],
        [[row["slug"], row["clone_url"] or row["git_url"], row["description"]] for row in rows],
    )
    output.next_step("Next: gantry pipelines PROJECT" if rows else "Next: gantry new PROJECT")


def pipelines(project: AnyProject = "", limit: Limit = 20, as_json: AsJson = False) -> None:
    """The newest pipelines, and how they went."""
    with Client(settings.load()) as client:
        rows = client.rows("/pipelines/", limit=limit, **_of(project))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["PROJECT", "NUMBER", "STATE", "COMMIT", "BRANCH", "AGE", "TITLE"],
        [
            [
                row["project"],
                f"#{row['number']}",
                state(row["state"]),
                row["commit"][:8],
                row["ref"].removeprefix("refs/heads/").removeprefix("refs/tags/"),
                age(row["created_at"]),
                row["title"] if row["state"] != "failed" else _why(row),
            ]
            for row in rows
        ],
    )
    output.next_step("Next: gantry logs PROJECT NUMBER")


def releases(project: AnyProject = "", limit: Limit = 20, as_json: AsJson = False) -> None:
    """The newest releases."""
    with Client(settings.load()) as client:
        rows = client.rows("/releases/", limit=limit, **_of(project))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["PROJECT", "RELEASE", "COMMIT", "DIGEST", "AGE", "TITLE"],
        [
            [
                row["project"],
                row["name"],
                row["commit"][:8],
                output.short(row["digest"]),
                age(row["created_at"]),
                row["title"],
            ]
            for row in rows
        ],
    )
    output.next_step("Next: gantry promote PROJECT RELEASE ENVIRONMENT")


def logs(
    project: Project,
    number: Annotated[int, typer.Argument(help="A pipeline's number; the newest without.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it has ended.")] = False,
    job: Annotated[str, typer.Option(help="Only this job.")] = "",
    tail: Annotated[int, typer.Option(help="Of PROJECT@ENV: the last lines; -1: all.")] = 100,
    since: Annotated[str, typer.Option(help="Of PROJECT@ENV: 10m ago, or a time.")] = "",
    host: Annotated[str, typer.Option(help="Of PROJECT@ENV: one of its hosts.")] = "",
    as_json: AsJson = False,
) -> None:
    """A pipeline's log; or of PROJECT@ENV what its container says.

    Exit code 1 when the pipeline failed. With --follow --json each line is an object of its own.
    """
    if daytwo.is_place(project):
        daytwo.show_logs(project, host=host, follow=follow, tail=tail, since=since, as_json=as_json)
        return
    with Client(settings.load()) as client, Progress(shown=follow and not as_json) as progress:
        pipeline = find_pipeline(client, project, number)
        reader = _LogReader(client, job, as_json=as_json, at_once=follow)
        while True:
            row = client.get(f"/pipelines/{pipeline['id']}/")
            progress.show(row)
            reader.read(row)
            if not follow or row["state"] in FINISHED:
                break
            time.sleep(0.3)
    if as_json and not follow:
        print_json(reader.lines)
    if row["state"] in {"failed", "cancelled"}:
        raise CliError(
            f"Pipeline #{row['number']} {row['state']}: {_why(row)}",
            next_step=f"Its page: {row['page']}",
            exit_code=Exit.BAD_RESULT,
        )
    if follow and not as_json:
        output.next_step(f"Pipeline #{row['number']} passed. Next: gantry releases {project}")


def find_pipeline(client: Client, project: str, number: int) -> Row:
    """The project's pipeline of this number, or its newest for 0. Raises CliError."""
    for row in client.every("/pipelines/", project=project):
        if number in (0, row["number"]):
            return row
        if row["number"] < number:
            break
    what = f"pipeline #{number}" if number else "pipeline yet"
    raise CliError(
        f"{project} has no {what}.",
        next_step=f"See what there is: gantry pipelines {project}",
        exit_code=Exit.REFUSED,
    )


class _LogReader:
    """Prints (or keeps, for JSON that is no stream) what each job's log has grown by."""

    def __init__(self, client: Client, job: str, *, as_json: bool, at_once: bool) -> None:
        self._client, self._job = client, job
        self._as_json, self._at_once = as_json, at_once
        self._positions: dict[int, str] = {}
        self.lines: list[dict[str, str]] = []

    def read(self, pipeline: Row) -> None:
        for job in pipeline["jobs"]:
            if job["state"] != "queued" and self._job in ("", job["name"]):
                self._read_job(job)

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


def _status_lines(environment: Row) -> list[list[str | Text]]:
    where: list[str | Text] = [environment["project"], environment["name"]]
    if not environment["running"]:
        return [[*where, Text("nothing yet", style="dim"), "", "", "", "", "", ""]]
    return [
        [
            *where,
            run["release"],
            run["commit"][:8],
            output.short(run["digest"]),
            run["host"],
            _health(run),
            age(run["since"]),
            environment["address"],
        ]
        for run in environment["running"]
    ]


def _health(run: Row) -> Text:
    if not run["healthy"]:
        return Text("unhealthy", style="red")
    return Text("drift", style="yellow") if run["drift"] else Text("healthy", style="green")


def _of(project: str) -> dict[str, str]:
    return {"project": project} if project else {}


def _why(pipeline: Row) -> str:
    place = f"{pipeline['place']}: " if pipeline["place"] else ""
    return f"{place}{pipeline['reason']}"
