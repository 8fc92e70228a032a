"""``gantry webhooks``: addresses that are told of a project's events."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import age, print_json, print_table

app = typer.Typer(help="Addresses that are told of a project's events.", no_args_is_help=True)
Number = Annotated[int, typer.Argument(help="The webhook's ID, as the list has it.")]
Url = Annotated[str, typer.Argument(help="It gets a signed POST for each event.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", "-e", help="Such as pipeline.failed; again for more. All without it."),
]


@app.command("list")
def every(project: Project, as_json: AsJson = False) -> None:
    """Who is told of what."""
    with Client(settings.load()) as client:
        rows = list(client.every(f"/projects/{project}/webhooks/"))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "ADDRESS", "EVENTS", "ON"],
        [
            [str(row["id"]), row["url"], " ".join(row["types"]) or "all", _on(row["active"])]
            for row in rows
        ],
    )
    if not rows:
        output.next_step(f"None. Add one: gantry webhooks add {project} URL")


@app.command("add")
def add(project: Project, url: Url, event: Events = None, as_json: AsJson = False) -> None:
    """Tell an address from now on; prints the secret that signs, this once."""
    with Client(settings.load()) as client:
        row = client.post(f"/projects/{project}/webhooks/", url=url, types=event or [])
    if as_json:
        print_json(row)
        return
    output.console.print(row["secret"], soft_wrap=True)
    output.next_step(f"Give it to the receiver, then: gantry webhooks test {project} {row['id']}")


@app.command("pause")
def pause(project: Project, webhook: Number, as_json: AsJson = False) -> None:
    """Send nothing there for now; what happens meanwhile is not sent later."""
    _set(project, webhook, active=False, as_json=as_json)


@app.command("resume")
def resume(project: Project, webhook: Number, as_json: AsJson = False) -> None:
    """Send there again."""
    _set(project, webhook, active=True, as_json=as_json)


@app.command("rotate")
def rotate(project: Project, webhook: Number, as_json: AsJson = False) -> None:
    """Print a new secret; for seven days both sign."""
    with Client(settings.load()) as client:
        row = client.post(f"/projects/{project}/webhooks/{webhook}/rotate/")
    if as_json:
        print_json(row)
        return
    output.console.print(row["secret"], soft_wrap=True)


@app.command("test")
def test(project: Project, webhook: Number, as_json: AsJson = False) -> None:
    """Send a test.ping."""
    with Client(settings.load()) as client:
        row = client.post(f"/projects/{project}/webhooks/{webhook}/test/")
    if as_json:
        print_json(row)
        return
    output.next_step(f"On its way. Look: gantry webhooks messages {project} {webhook}")


@app.command("messages")
def messages(project: Project, webhook: Number, as_json: AsJson = False) -> None:
    """What was sent there or is to be, newest first."""
    with Client(settings.load()) as client:
        rows = client.rows(f"/projects/{project}/webhooks/{webhook}/messages/")
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "EVENT", "STATE", "TRIES", "SENT", "ERROR"],
        [
            [
                str(row["id"]),
                row["type"],
                row["state"],
                str(row["attempts"]),
                age(row["sent_at"]),
                row["error"] or "-",
            ]
            for row in rows
        ],
    )


@app.command("redeliver")
def redeliver(
    project: Project,
    webhook: Number,
    message: Annotated[int, typer.Argument(help="The message's ID.")],
    as_json: AsJson = False,
) -> None:
    """Send a message once more."""
    with Client(settings.load()) as client:
        row = client.post(f"/projects/{project}/webhooks/{webhook}/messages/{message}/redeliver/")
    if as_json:
        print_json(row)
        return
    output.console.print("It is sent once more.")


@app.command("remove")
def remove(project: Project, webhook: Number, as_json: AsJson = False) -> None:
    """Tell it no more, and forget what it was told."""
    with Client(settings.load()) as client:
        client.delete(f"/projects/{project}/webhooks/{webhook}/")
    if as_json:
        print_json({"removed": webhook})
        return
    output.console.print("It is told no more.")


def _set(project: str, webhook: int, *, active: bool, as_json: bool) -> None:
    with Client(settings.load()) as client:
        row = client.patch(f"/projects/{project}/webhooks/{webhook}/", active=active)
    if as_json:
        print_json(row)
        return
    output.console.print("It is on." if active else "It is paused.")


def _on(active: bool) -> str:
    return "on" if active else "paused"
