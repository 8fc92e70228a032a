"""``gantry repository show|set``: what is protected, and what one push may bring."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import print_json, print_table

app = typer.Typer(help="A project's repository: protected refs and limits.", no_args_is_help=True)
NONE = "none"


@app.command("show")
def show(project: Project, as_json: AsJson = False) -> None:
    """Which refs are protected, who may push to them, how much one push may bring."""
    with Client(settings.load()) as client:
        _print(client.get(f"/projects/{project}/repository/"), as_json=as_json)


@app.command("set")
def set_rules(
    project: Project,
    default_branch: Annotated[str, typer.Option(help="The branch that a clone gets.")] = "",
    protect_branch: Annotated[
        list[str] | None,
        typer.Option(help="A pattern such as 'release/*', once for each; 'none' for none."),
    ] = None,
    protect_tag: Annotated[
        list[str] | None, typer.Option(help="A pattern such as 'v*'; 'none' for none.")
    ] = None,
    push_role: Annotated[
        str, typer.Option(help="developer, maintainer or owner: who may push to protected ones.")
    ] = "",
    max_push_mib: Annotated[int, typer.Option(min=0, help="Of one push.")] = 0,
    max_push_refs: Annotated[int, typer.Option(min=0, help="Of one push.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Change what is given; patterns take the place of those before."""
    changes: dict[str, object] = {
        "default_branch": default_branch,
        "push_role": push_role,
        "max_push_mib": max_push_mib,
        "max_push_refs": max_push_refs,
    }
    changes = {name: value for name, value in changes.items() if value}
    for name, patterns in (("protected_branches", protect_branch), ("protected_tags", protect_tag)):
        if patterns:
            changes[name] = [pattern for pattern in patterns if pattern != NONE]
    if not changes:
        raise CliError(
            "Nothing was given to change.",
            next_step="See: gantry repository set --help",
            exit_code=Exit.USAGE,
        )
    with Client(settings.load()) as client:
        _print(client.patch(f"/projects/{project}/repository/", **changes), as_json=as_json)


def _print(row: Row, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    branches = [row["default_branch"], *row["protected_branches"]]
    print_table(
        ["RULE", "VALUE"],
        [
            ["protected branches", " ".join(branches)],
            ["protected tags", " ".join(row["protected_tags"]) or "-"],
            ["who may push to them", str(row["push_role"])],
            ["most of one push", f"{row['max_push_mib']} MiB, {row['max_push_refs']} refs"],
        ],
    )
    output.next_step("Change them with: gantry repository set --help")
