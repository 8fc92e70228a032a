"""``gantry deployments`` and ``gantry deployment``: what was put where, by whom and how it went."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row, given
from ciserver.cli.completion import environments
from ciserver.cli.images import size
from ciserver.cli.options import AnyProject, AsJson, Limit
from ciserver.cli.output import age, print_json, print_table, state

WAITING = "waiting"


def deployments(
    project: AnyProject = "",
    environment: Annotated[
        str,
        typer.Option(
            "--environment",
            "-e",
            help="Only those to this environment.",
            autocompletion=environments,
        ),
    ] = "",
    state_: Annotated[
        str,
        typer.Option(
            "--state",
            help="Only waiting (for an approval, say), queued, running, succeeded, failed,"
            " superseded or cancelled ones.",
        ),
    ] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest deployments: what went where, and how it ended."""
    filters = given(project=project, environment=environment, state=state_)
    with Client(settings.load()) as client:
        rows = client.rows("/deployments/", limit=limit, **filters)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "PROJECT", "ENVIRONMENT", "RELEASE", "KIND", "STATE", "BY", "TRAVELLED", "AGE",
         "REASON"],
        [
            [
                str(row["id"]),
                row["project"],
                row["environment"],
                row["release_name"],
                row["kind"],
                state(row["state"]),
                row["requested_by"],
                _travelled(row),
                age(row["created_at"]),
                " ".join(row["reason"].split()),
            ]
            for row in rows
        ],
    )  # fmt: skip
    if any(row["state"] == WAITING for row in rows):
        output.next_step("Next, by an approver: gantry approve PROJECT RELEASE ENVIRONMENT")
    else:
        output.next_step("Next: gantry deployment ID" if rows else "No deployment fits.")


def deployment(
    number: Annotated[int, typer.Argument(metavar="ID", help="From 'gantry deployments'.")],
    as_json: AsJson = False,
) -> None:
    """One deployment: its steps, host by host."""
    with Client(settings.load()) as client:
        row = client.get(f"/deployments/{number}/")
    if as_json:
        print_json(row)
        return
    print_table(["DEPLOYMENT", str(row["id"])], _facts(row))
    if row["steps"]:
        print_table(
            ["HOST", "STEP", "STATE", "SECONDS", "DETAIL"],
            [
                [
                    step["host"],
                    step["name"],
                    state(step["state"]),
                    seconds(step),
                    " ".join(step["detail"].split()),
                ]
                for step in row["steps"]
            ],
        )
    where = f"{row['project']} {row['release_name']} {row['environment']}"
    if row["state"] == WAITING:
        output.next_step(f"Next, by an approver: gantry approve {where}")
    elif row["state"] == "failed":
        output.next_step(f"Next, once it is mended: gantry promote {where}")


def seconds(row: Row) -> str:
    """Between its ``started_at`` and its ``finished_at``."""
    if not (row["started_at"] and row["finished_at"]):
        return "-"
    began, ended = (
        datetime.fromisoformat(row[name].replace("Z", "+00:00"))
        for name in ("started_at", "finished_at")
    )
    return f"{(ended - began).total_seconds():.1f}"


def _facts(row: Row) -> list[list[str]]:
    by = f" by {row['requested_by']}" if row["requested_by"] else ""
    moved = f", from {row['from_host']} to {row['to_host']}" if row["to_host"] else ""
    facts = [
        ["project", row["project"]],
        ["release", row["release_name"]],
        ["environment", row["environment"]],
        ["digest", row["digest"]],
        ["asked for", f"{age(row['created_at'])} ago{by} ({row['kind']}{moved})"],
        ["state", row["state"]],
        ["reason", row["reason"]],
        ["travelled", _travelled(row)],
        ["approved by", ", ".join(one["user"] for one in row["approvals"])],
    ]
    return [fact for fact in facts if fact[1]]


def _travelled(row: Row) -> str:
    return "-" if row["bytes_pulled"] is None else size(row["bytes_pulled"])
