"""What forges and pushers told us, as recorded; and once more."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, given
from ciserver.cli.options import AnyProject, AsJson, Limit
from ciserver.cli.output import age, print_json, print_table

Number = Annotated[int, typer.Argument(help="Its ID, from 'gantry deliveries'.")]


def deliveries(
    project: AnyProject = "",
    find: Annotated[
        str, typer.Option("--find", "-f", help="An id, a commit, part of a ref or a sender.")
    ] = "",
    verdict: Annotated[str, typer.Option(help="Only accepted, duplicate, stale, failed ...")] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest pushes and webhooks, and the verdict on each."""
    filters = given(project=project, q=find, verdict=verdict)
    with Client(settings.load()) as client:
        rows = client.rows("/deliveries/", limit=limit, **filters)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "PROJECT", "FORGE", "EVENT", "REF", "COMMIT", "VERDICT", "AGE", "WHY"],
        [
            [
                str(row["id"]),
                row["project"],
                row["forge"],
                row["event"],
                row["ref"].removeprefix("refs/heads/"),
                row["sha"][:8],
                row["verdict"],
                age(row["received_at"]),
                row["detail"],
            ]
            for row in rows
        ],
    )
    output.next_step("Next: gantry delivery ID" if rows else "Nothing was delivered that fits.")


def delivery(number: Number, as_json: AsJson = False) -> None:
    """One delivery: its headers and its body, as they came."""
    with Client(settings.load()) as client:
        row = client.get(f"/deliveries/{number}/")
    if as_json:
        print_json(row)
        return
    for name in ("project", "forge", "delivery_id", "event", "kind", "ref", "sha", "sender"):
        if row[name]:
            output.console.print(f"{name}: {row[name]}", highlight=False, markup=False)
    for name, value in row["headers"].items():
        output.console.print(f"{name}: {value}", highlight=False, markup=False)
    why = f": {row['detail']}" if row["detail"] else ""
    output.console.print(f"verdict: {row['verdict']}{why}", highlight=False, markup=False)
    if row["body"]:
        output.console.print(f"\n{row['body']}", highlight=False, markup=False, soft_wrap=True)


def redeliver(number: Number, as_json: AsJson = False) -> None:
    """Take a delivery as though its forge had sent it again."""
    with Client(settings.load()) as client:
        row = client.post(f"/deliveries/{number}/redeliver/")
    if as_json:
        print_json(row)
        return
    why = f" {row['detail']}" if row["detail"] else ""
    output.console.print(
        f"Delivery {number} is recorded once more, as {row['id']}: {row['verdict']}.{why}",
        highlight=False,
        markup=False,
    )
