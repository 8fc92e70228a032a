"""``gantry artifacts list|download``: the files that a pipeline's tests left to be kept."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.look import find_pipeline
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import age, print_json, print_table

app = typer.Typer(help="Files that tests left to be kept.", no_args_is_help=True)
Number = Annotated[int, typer.Argument(help="A pipeline's number; the newest without.")]
OfJob = Annotated[str, typer.Option("--job", help="Only of this job.")]


@app.command("list")
def list_artifacts(
    project: Project, number: Number = 0, job: OfJob = "", as_json: AsJson = False
) -> None:
    """What there is, and until when."""
    with Client(settings.load()) as client:
        rows = _artifacts(client, project, number, job)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["JOB", "PATH", "BYTES", "AGE", "UNTIL"],
        [
            [
                row["job"],
                row["path"],
                f"{row['size']:,}",
                age(row["created_at"]),
                row["expires_at"][:10],
            ]
            for row in rows
        ],
    )
    output.next_step(
        f"Next: gantry artifacts download {project}"
        if rows
        else "None. Name files under artifacts: of a test in gantry.yml."
    )


@app.command("download")
def download(
    project: Project,
    number: Number = 0,
    path: Annotated[
        list[str] | None, typer.Option("--path", "-p", help="Only this file, as list names it.")
    ] = None,
    job: OfJob = "",
    into: Annotated[Path, typer.Option("--into", "-o", help="The folder for them.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Fetch them, each checked against its SHA-256, to JOB/PATH under --into."""
    with Client(settings.load()) as client:
        rows = _artifacts(client, project, number, job)
        rows = [row for row in rows if path is None or row["path"] in path]
        if not rows:
            raise CliError(
                "There is no such artifact.",
                next_step=f"See what there is: gantry artifacts list {project}",
                exit_code=Exit.REFUSED,
            )
        done = [_fetch(client, row, into) for row in rows]
    if as_json:
        print_json(done)
        return
    for one in done:
        output.console.print(f"{one['file']}  {one['size']:,} bytes")


def _artifacts(client: Client, project: str, number: int, job: str) -> list[Row]:
    pipeline = client.get(f"/pipelines/{find_pipeline(client, project, number)['id']}/")
    return [
        {"job": row["name"], **artifact}
        for row in pipeline["jobs"]
        if job in ("", row["name"])
        for artifact in row["artifacts"]
    ]


def _fetch(client: Client, row: Row, into: Path) -> Row:
    """The service is trusted with names no more than a job is: none leads out of ``into``."""
    parts = [row["job"], *PurePosixPath(row["path"]).parts]
    target = into.joinpath(*(part for part in parts if part not in ("/", "..", ".")))
    seen = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for chunk in client.chunks(f"/artifacts/{row['id']}/"):
                seen.update(chunk)
                file.write(chunk)
    except OSError as error:
        raise CliError(
            f"{target} cannot be written: {error.strerror}.",
            next_step="Name another folder with --into.",
            exit_code=Exit.USAGE,
        ) from None
    if seen.hexdigest() != row["sha256"]:
        target.unlink()
        raise CliError(
            f"{row['path']} did not arrive as it was kept.",
            next_step="Try again.",
            exit_code=Exit.UNREACHABLE,
        )
    return {**row, "file": str(target)}
