"""Lines of a pipeline's logs: those that hold some words, and those around a number."""

from __future__ import annotations

from rich.text import Text

from ciserver.cli import output
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.output import print_json
from ciserver.cli.summary import newest

AROUND = 10  # lines before and behind the one that is asked for
AT_ONCE = 100  # lines of one answer of the search


def show_found(client: Client, pipeline: Row, job: str, words: str, *, as_json: bool) -> None:
    """Every line that holds ``words``, in any case, with its job and its number."""
    found = [
        {"job": row["name"], **line}
        for row in _jobs(pipeline, job)
        for line in _search(client, row, words)
    ]
    if as_json:
        print_json(found)
        return
    for line in found:
        _print(line)
    where = f"{pipeline['project']} {pipeline['number']}"
    if found:
        at = f"--job {found[0]['job']} --line {found[0]['number']}"
        output.next_step(f"What is around the first: gantry logs {where} {at}")
    else:
        output.next_step(f"No line holds {words!r}. All of them: gantry logs {where}")


def show_around(client: Client, pipeline: Row, job: str, number: int, *, as_json: bool) -> None:
    """Line ``number`` of one job's log and those around it."""
    jobs = _jobs(pipeline, job)
    failed = [row for row in jobs if row["state"] == "failed"]
    chosen = jobs if len(jobs) == 1 else failed
    if len(chosen) != 1:
        raise CliError(
            "Each job has lines of its own.",
            next_step=f"Name one by --job: {', '.join(row['name'] for row in jobs)}.",
            exit_code=Exit.USAGE,
        )
    start = max(1, number - AROUND)
    count = number + AROUND - start + 1
    rows = client.list(f"/jobs/{chosen[0]['id']}/lines/", start=str(start), count=str(count))
    lines = [{"job": chosen[0]["name"], **row} for row in rows]
    if not any(line["number"] == number for line in lines):
        raise CliError(
            f"The log of {chosen[0]['name']} has no line {number}.",
            next_step="Find one by what it says: --grep WORDS",
            exit_code=Exit.REFUSED,
        )
    if as_json:
        print_json(lines)
        return
    for line in lines:
        _print(line, strong=line["number"] == number)


def _jobs(pipeline: Row, name: str) -> list[Row]:
    """Those of that name, or all, which have begun. Raises CliError."""
    jobs = newest(pipeline["jobs"])
    found = [row for row in jobs if name in ("", row["name"]) and row["started_at"]]
    if not found and name:
        raise CliError(
            f"Pipeline #{pipeline['number']} has no log of a job {name}.",
            next_step=f"Its jobs: {', '.join(row['name'] for row in jobs) or 'none yet'}.",
            exit_code=Exit.REFUSED,
        )
    return found


def _search(client: Client, job: Row, words: str) -> list[Row]:
    found: list[Row] = []
    while True:
        after = str(found[-1]["number"]) if found else "0"
        rows = client.list(f"/jobs/{job['id']}/search/", q=words, after=after)
        found += rows
        if len(rows) < AT_ONCE:
            return found


def _print(line: Row, *, strong: bool = False) -> None:
    head = (f"{line['job']}:{line['number']}  ", "cyan")
    shown = (line["text"], "bold" if strong else "")
    output.console.print(Text.assemble(head, shown), soft_wrap=True)
