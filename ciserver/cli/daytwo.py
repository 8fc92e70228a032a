"""Commands about what is deployed: ps, logs, exec, cp, stop, start, restart of PROJECT@ENV."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Annotated, Any, Protocol

import typer
from rich.text import Text

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, Place
from ciserver.cli.output import print_json, print_table
from ciserver.cli.unpack import unpack

PIECE = 256 * 1024  # bytes of standard input at a time
AGAIN = 0.1  # seconds until a command that is behind is given more
BUSY = "command.busy"

Host = Annotated[str, typer.Option(help="One of its hosts, where it has several.")]


def ps(place: Place, host: Host = "", as_json: AsJson = False) -> None:
    """What runs in an environment now, as its hosts themselves say."""
    with Client(settings.load()) as client:
        rows = json.loads(_answer(client, _ask(client, place, "ps", host=host)) or "[]")
    if as_json:
        print_json(rows)
        return
    print_table(
        ["HOST", "CONTAINER", "RELEASE", "STATE", "CPU", "MEMORY", "RESTARTS", "STARTED"],
        [_line(row) for row in rows],
    )
    if not rows:
        output.next_step("Nothing runs there. Next: gantry promote PROJECT RELEASE ENVIRONMENT")


def _line(row: Row) -> list[str | Text]:
    if "problem" in row:
        return [row["host"], Text(row["problem"], style="red"), *[""] * 6]
    words = row["state"] + (f" by {row['stopped_by']}" if row["stopped_by"] else "")
    shown = Text(words, style="green" if row["state"] == "running" else "yellow")
    if not row["serves"]:
        shown.append(", does not serve")
    started = row["started"].partition(".")[0]
    return [row["host"], row["name"], row["release"], shown, row["cpu"], row["memory"],
            str(row["restarts"]), started]  # fmt: skip


def show_logs(place: str, *, host: str, follow: bool, tail: int, since: str, as_json: bool) -> None:
    """What its container says; until it ends or you do, with ``follow``."""
    with Client(settings.load()) as client:
        asked = _ask(client, place, "logs", host=host, follow=follow, tail=tail, since=since)
        _show(client, asked, as_json=as_json)


def _show(client: Client, asked: Row, *, as_json: bool) -> None:
    """What it says, as it comes."""
    if as_json:
        with closing(_JsonLines("out")) as out, closing(_JsonLines("err")) as err:
            end = _pass_on(client, asked, out, err)
    else:
        end = _pass_on(client, asked)
    _finish(end)


class Sink(Protocol):
    """Where what a container says goes, piece by piece."""

    def write(self, piece: bytes, /) -> object: ...

    def flush(self) -> object: ...


class _JsonLines:
    """Takes bytes, prints one JSON object for each line of them; ``close`` for the last one."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._rest = b""

    def write(self, piece: bytes, /) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._print(line)

    def flush(self) -> None:
        """Each line has been, as it was printed."""

    def close(self) -> None:
        if self._rest:
            self._print(self._rest)

    def _print(self, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode(errors="replace")
        output.print_line({"stream": self._stream, "line": text})


def attach(place: Place, host: Host = "", as_json: AsJson = False) -> None:
    """Follow what a container says; Ctrl-C leaves it running."""
    with Client(settings.load()) as client:
        _show(client, _ask(client, place, "attach", host=host), as_json=as_json)


def execute(
    place: Place,
    command: Annotated[list[str], typer.Argument(help="After --: a program and its words.")],
    host: Host = "",
    stdin: Annotated[
        bool, typer.Option("--stdin", "-i", help="Give it what comes on standard input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a program in the container that serves.

    Its exit code is passed on.
    """
    with Client(settings.load()) as client:
        asked = _ask(client, place, "exec", host=host, words=command, stdin=stdin)
        if stdin:
            _give_beside(client, asked, sys.stdin.buffer)
        if as_json:
            out, err = io.BytesIO(), io.BytesIO()
            end = _pass_on(client, asked, out, err)
            print_json(
                {
                    "exit_code": end["exit_code"],
                    "stdout": out.getvalue().decode(errors="replace"),
                    "stderr": err.getvalue().decode(errors="replace"),
                }
            )
        else:
            end = _pass_on(client, asked)
        _finish(end)


def cp(
    source: Annotated[str, typer.Argument(help="PROJECT@ENV:/PATH, or a path here.")],
    target: Annotated[str, typer.Argument(help="A directory here, or PROJECT@ENV:/DIRECTORY.")],
    host: Host = "",
    as_json: AsJson = False,
) -> None:
    """Copy files out of the container that serves, or into it.

    What is copied into it goes into a directory.
    """
    there, here = _there(source), _there(target)
    if (there is None) == (here is None):
        raise CliError(
            "One of the two must be PROJECT@ENV:/PATH, and one a path here.",
            next_step="For example: gantry cp shop@qa:/var/log ./logs",
            exit_code=Exit.USAGE,
        )
    with Client(settings.load()) as client:
        if there:
            asked = _ask(client, there[0], "get", host=host, words=[there[1]])
            copied = _unpack(client, asked, Path(target))
        elif here:
            with _packed(Path(source)) as tar:
                asked = _ask(client, here[0], "put", host=host, words=[here[1]])
                _give_beside(client, asked, tar)
                _finish(_pass_on(client, asked))
            copied = [f"{target.rstrip('/')}/{Path(source).resolve().name}"]
    if as_json:
        print_json({"copied": copied})
    else:
        output.next_step(f"Here it is: {', '.join(copied)}")


def stop(place: Place, host: Host = "", as_json: AsJson = False) -> None:
    """Stop what serves, until it is started or deployed again."""
    _change(place, "stop", host, as_json=as_json)
    if not as_json:
        output.next_step(f"Next: gantry start {place}")


def start(place: str, *, host: str, as_json: bool) -> None:
    """Start what was stopped, and wait until it is healthy."""
    _change(place, "start", host, as_json=as_json)


def restart(place: Place, host: Host = "", as_json: AsJson = False) -> None:
    """Stop and start what serves, host after host.

    Each is waited for until it is healthy.
    """
    _change(place, "restart", host, as_json=as_json)


def is_place(word: str) -> bool:
    return "@" in word


def _change(place: str, verb: str, host: str, *, as_json: bool) -> None:
    with Client(settings.load()) as client:
        asked = _ask(client, place, verb, host=host)
        _finish(_pass_on(client, asked, io.BytesIO() if as_json else None))
        if as_json:
            print_json(client.get(f"/commands/{asked['id']}/"))


def _ask(client: Client, place: str, verb: str, **options: object) -> Row:
    row = find_place(client, place, verb)
    return client.post(f"/environments/{row['id']}/commands/", verb=verb, **options)


def find_place(client: Client, place: str, verb: str) -> Row:
    """The environment that ``place`` (PROJECT@ENV) names. Raises CliError."""
    project, at, name = place.partition("@")
    if not (at and project and name):
        raise CliError(
            f"{place!r} is not PROJECT@ENV.",
            next_step=f"For example: gantry {verb} shop@qa",
            exit_code=Exit.USAGE,
        )
    for row in client.every("/environments/", project=project, name=name):
        return row
    raise CliError(
        f"{project} has no environment {name!r}.",
        next_step="See what there is: gantry status",
        exit_code=Exit.REFUSED,
    )


def _answer(client: Client, asked: Row) -> bytes:
    said = io.BytesIO()
    end = _pass_on(client, asked, said)
    if end["reason"]:
        _finish(end)
    return said.getvalue()


def _pass_on(client: Client, asked: Row, out: Sink | None = None, err: Sink | None = None) -> Row:
    """Write what comes to where it belongs; how it ended."""
    to: dict[str, Sink] = {"out": out or sys.stdout.buffer, "err": err or sys.stderr.buffer}
    for event, data in client.events(f"/commands/{asked['id']}/stream/"):
        if event == "end":
            return dict(json.loads(data))
        to[event].write(base64.b64decode(data))
        to[event].flush()
    raise CliError(
        "The service ended the connection.", next_step="Ask again.", exit_code=Exit.UNREACHABLE
    )


def _finish(end: Row) -> None:
    """Leave with the program's own exit code. Raises CliError where it could not be done."""
    if end["reason"]:
        raise CliError(
            end["reason"],
            next_step="See what runs there: gantry ps PROJECT@ENV",
            exit_code=Exit.REFUSED,
        )
    if end["exit_code"]:
        raise typer.Exit(end["exit_code"])


def _give_beside(client: Client, asked: Row, source: IO[bytes]) -> None:
    """Standard input travels while what comes back is read."""
    threading.Thread(target=_give, args=(client, asked, source), daemon=True).start()


def _give(client: Client, asked: Row, source: IO[bytes]) -> None:
    with suppress(CliError, OSError, ValueError):  # the end of the command tells why
        while piece := os.read(source.fileno(), PIECE):
            _send(client, asked, content=base64.b64encode(piece).decode())
        _send(client, asked, end=True)


def _send(client: Client, asked: Row, **body: Any) -> None:
    while True:
        try:
            client.post(f"/commands/{asked['id']}/input/", **body)
        except CliError as error:
            if error.code != BUSY:
                raise
            time.sleep(AGAIN)
        else:
            return


def _there(word: str) -> tuple[str, str] | None:
    place, colon, path = word.partition(":")
    return (place, path) if colon and is_place(place) and path.startswith("/") else None


def _unpack(client: Client, asked: Row, target: Path) -> list[str]:
    """The paths of what came."""
    with tempfile.TemporaryFile() as whole:
        _finish(_pass_on(client, asked, whole))
        whole.seek(0)
        try:
            with tarfile.open(fileobj=whole) as tar:
                came, left_out = unpack(tar, target)
        except (tarfile.TarError, OSError) as error:
            raise CliError(
                f"It cannot be unpacked in {target}: {error}.",
                next_step="Name another directory, with room for it, that you may write to.",
                exit_code=Exit.REFUSED,
            ) from error
    for sentence in left_out:
        output.next_step(f"Left out: {sentence}")
    return came


def _packed(source: Path) -> IO[bytes]:
    whole = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=whole, mode="w") as tar:
            tar.add(source, arcname=source.resolve().name)
    except OSError as error:
        whole.close()
        raise CliError(
            f"{source} cannot be read: {error}.",
            next_step="Name a file or a directory here that you may read.",
            exit_code=Exit.USAGE,
        ) from error
    whole.seek(0)
    return whole
