"""``gantry hosts``: the machines that releases run on."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson
from ciserver.cli.output import age, print_json, print_table

app = typer.Typer(help="Machines that releases run on.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A host, such as qa1.", show_default=False)]
PAUSE = 0.5  # seconds between two looks
CHECKED_WITHIN, PREPARED_WITHIN = 60.0, 960.0  # seconds


@app.command("list")
def list_hosts(as_json: AsJson = False) -> None:
    """The hosts that you may see."""
    with Client(settings.load()) as client:
        rows = list(client.every("/hosts/"))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NAME", "KIND", "ADDRESS", "ENGINE", "CHECKED", "PROBLEM"],
        [
            [
                row["name"],
                row["kind"],
                row["address"] or "-",
                row["report"].get("engine", "-"),
                age(row["checked_at"]),
                row["problem"] or "-",
            ]
            for row in rows
        ],
    )
    if not rows:
        output.next_step("None yet. Next: gantry hosts add NAME USER@HOST")


@app.command("add")
def add(
    name: Name,
    address: Annotated[str, typer.Argument(help="[USER@]HOST[:PORT]", show_default=False)],
    fingerprint: Annotated[
        str, typer.Option(help="Of its host key; else the first one seen is pinned.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Add a machine that is reached by ssh, with a key pair of its own."""
    with Client(settings.load()) as client:
        row = client.post("/hosts/", name=name, address=address, fingerprint=fingerprint)
    if as_json:
        print_json(row)
        return
    output.console.print(f"Add this line to ~/.ssh/authorized_keys on {name}:")
    print(row["public_key"])
    output.next_step(f"Then: gantry hosts check {name}")


@app.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Its keys, and what the last check found."""
    with Client(settings.load()) as client:
        _tell(_find(client, name), as_json=as_json)


@app.command("check")
def check(name: Name, as_json: AsJson = False) -> None:
    """Look at a host: engine, disk, clock, registry, traffic."""
    with Client(settings.load()) as client:
        row = _find(client, name)
        client.post(f"/hosts/{row['id']}/check/")
        _tell(_wait(client, row, CHECKED_WITHIN), as_json=as_json)


@app.command("prepare")
def prepare(name: Name, as_json: AsJson = False) -> None:
    """Install podman, Caddy and what they need there, remove our containers that no environment
    knows of, then check it."""
    with Client(settings.load()) as client:
        row = _find(client, name)
        client.post(f"/hosts/{row['id']}/prepare/")
        _tell(_wait(client, row, PREPARED_WITHIN), as_json=as_json)


@app.command("accept-key")
def accept_key(
    name: Name,
    fingerprint: Annotated[str, typer.Argument(help="SHA256:...", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Take a changed host key for the host's: only the one with this fingerprint."""
    with Client(settings.load()) as client:
        row = _find(client, name)
        client.post(f"/hosts/{row['id']}/accept-key/", fingerprint=fingerprint)
        _tell(_wait(client, row, CHECKED_WITHIN), as_json=as_json)


@app.command("remove")
def remove(name: Name, as_json: AsJson = False) -> None:
    """Forget a host that no environment uses. Nothing is changed on it."""
    with Client(settings.load()) as client:
        client.delete(f"/hosts/{_find(client, name)['id']}/")
    if as_json:
        print_json({"removed": name})
    else:
        output.console.print(f"{name} is forgotten, and its keys with it.")


def _find(client: Client, name: str) -> Row:
    for row in client.every("/hosts/", name=name):
        return row
    raise CliError(
        f"There is no host {name!r} that you may see.",
        next_step="See what there is: gantry hosts list",
        exit_code=Exit.REFUSED,
    )


def _wait(client: Client, before: Row, seconds: float) -> Row:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        row = client.get(f"/hosts/{before['id']}/")
        if row["checked_at"] != before["checked_at"] and not row["asked"]:
            return row
        time.sleep(PAUSE)
    raise CliError(
        f"No worker has told of {before['name']} within {seconds:.0f} s.",
        next_step="See that the service's workers run, then: gantry hosts show " + before["name"],
        exit_code=Exit.UNREACHABLE,
    )


def _tell(row: Row, *, as_json: bool) -> None:
    """Exit code 1 when the host cannot be used as it is."""
    if as_json:
        print_json(row)
    else:
        print_table(["HOST", row["name"]], [[key, value] for key, value in _facts(row) if value])
        for warning in row["report"].get("warnings", []):
            output.console.print(f"! {warning}", style="yellow", markup=False)
        if row["problem"]:
            output.console.print(row["problem"], style="red", markup=False)
    if row["problem"]:
        raise typer.Exit(Exit.BAD_RESULT)


def _facts(row: Row) -> list[tuple[str, str]]:
    report: dict[str, Any] = row["report"]
    shown = ("engine", "user", "system", "kernel", "cgroups", "clock", "registry", "traffic")
    free = report.get("disk_free")
    return [
        ("address", row["address"]),
        ("our key", row["public_key"]),
        ("host key", row["host_key"]),
        ("offered key", row["offered_key"]),
        *((name, str(report.get(name, ""))) for name in shown),
        ("disk free", f"{free / 2**30:.1f} GiB" if free is not None else ""),
        ("checked", age(row["checked_at"])),
    ]
