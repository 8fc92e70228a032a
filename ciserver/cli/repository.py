"""``gantry repository``: what is protected, and how Gantry gets into a private one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import print_json, print_table
from ciserver.cli.secrets import read_value

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
    address: Annotated[
        str, typer.Option(help="Where it is, of one elsewhere: https://... or ssh://...")
    ] = "",
    default_branch: Annotated[str, typer.Option(help="The branch that a clone gets.")] = "",
    protect_branch: Annotated[
        list[str] | None,
        typer.Option(help="A pattern such as 'release/*', once for each; 'none' for none."),
    ] = None,
    protect_tag: Annotated[
        list[str] | None, typer.Option(help="A pattern such as 'v*'; 'none' for none.")
    ] = None,
    push_role: Annotated[
        str,
        typer.Option(
            help="developer, maintainer or owner: who may push to protected ones and start them."
        ),
    ] = "",
    max_push_mib: Annotated[int, typer.Option(min=0, help="Of one push.")] = 0,
    max_push_refs: Annotated[int, typer.Option(min=0, help="Of one push.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Change what is given; patterns take the place of those before."""
    changes: dict[str, object] = {
        "clone_url": address,
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


@app.command("key")
def key(
    project: Project,
    new: Annotated[bool, typer.Option("--new", help="Make a new one in its place.")] = False,
    as_json: AsJson = False,
) -> None:
    """The public half of the project's deploy key, for the forge of a private repository."""
    with Client(settings.load()) as client:
        path = f"/projects/{project}/repository/access/"
        row = client.post(f"{path}key/") if new else client.get(path)
    if as_json:
        print_json(row)
        return
    if not row["public_key"]:
        output.console.print(f"{project} has no key yet. Make one: gantry repository key --new")
        return
    print(row["public_key"])
    for line in row["fingerprints"]:
        output.next_step(f"The host's pinned key: {line}")


@app.command("login")
def login(
    project: Project,
    username: Annotated[str, typer.Argument(help="'none' removes it.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Read the password from here; '-' is standard input."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Name and password, or token, by which an https repository is asked."""
    path = f"/projects/{project}/repository/access/login/"
    with Client(settings.load()) as client:
        if username == NONE:
            client.delete(path)
        else:
            client.put(path, username=username, password=read_value(file))
    if as_json:
        print_json({"project": project, "username": "" if username == NONE else username})
    elif username == NONE:
        output.console.print(f"{project} is asked without a login.")
    else:
        output.console.print(f"{project} is asked as {username}.")


@app.command("forget-host")
def forget_host(project: Project, as_json: AsJson = False) -> None:
    """Pin whatever key the host shows next."""
    with Client(settings.load()) as client:
        client.delete(f"/projects/{project}/repository/access/host-keys/")
    if as_json:
        print_json({"project": project, "forgotten": True})
    else:
        output.console.print("The next fetch pins the key that it is shown.")


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
