"""``gantry images``, ``image`` and ``find``: what is in the registry, and where anything is."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.options import AsJson, Limit
from ciserver.cli.output import print_json, print_table, short

UNITS = ("B", "KiB", "MiB", "GiB")


def images(
    asked: Annotated[
        list[str] | None,
        typer.Argument(help="Words that fit: a name, v3, a commit, a digest, LABEL=VALUE."),
    ] = None,
    project: Annotated[str, typer.Option("--project", "-p", help="Of this project alone.")] = "",
    limit: Limit = 30,
    as_json: AsJson = False,
) -> None:
    """Images in the registry by name, tag, digest or label.

    Newest first.
    """
    filters = {"q": " ".join(asked or []), "project": project}
    with Client(settings.load()) as client:
        rows = client.rows("/images/", limit=limit, **{k: v for k, v in filters.items() if v})
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "DIGEST", "SIZE", "WASTED", "IMAGE", "NAMES"],
        [
            [
                str(row["id"]),
                short(row["digest"]),
                size(row["size"]),
                size(row["wasted"]),
                "/".join(filter(None, (row["project"], row["name"]))),
                " ".join([*row["tags"][:-1], row["commit"][:8]]),
            ]
            for row in rows
        ],
    )
    if rows:
        output.next_step("Next: gantry image ID")


def image(
    number: Annotated[int, typer.Argument(help="Its ID, from 'gantry images'.", metavar="ID")],
    against: Annotated[
        int, typer.Option("--against", help="The ID of an older one, to tell the difference.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """The layers of an image, bytes for each line; or what differs."""
    with Client(settings.load()) as client:
        path = f"/images/{number}/"
        found = client.get(f"{path}compare/{against}/" if against else path)
    if as_json:
        print_json(found)
    elif against:
        _difference(found)
    else:
        _layers(found)


def find(
    words: Annotated[list[str], typer.Argument(help="Such as: hello prod, v3, #12, promote.")],
    as_json: AsJson = False,
) -> None:
    """Find projects, pipelines, releases and others by a few words.

    Environments, hosts and images, too.
    """
    with Client(settings.load()) as client:
        hits = client.list("/search/", q=" ".join(words))
    if as_json:
        print_json(hits)
        return
    rows = [[hit["kind"], hit["title"], hit["url"], hit["detail"]] for hit in hits]
    print_table(["KIND", "NAME", "PAGE", ""], rows)


def size(count: int) -> str:
    """Bytes in binary units."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {UNITS[unit]}" if unit and value < 10 else f"{value:.0f} {UNITS[unit]}"


def _layers(found: Row) -> None:
    output.console.print(f"{found['repository']}@{found['digest']}")
    if found["trouble"]:
        output.console.print(found["trouble"])
    print_table(
        ["PLACE", "UNPACKED", "TRAVELS", "WASTED", "SHARED", "INSTRUCTION"],
        [
            [
                layer["place"] or "base",
                size(layer["unpacked"]),
                size(layer["size"]),
                size(layer["wasted"]),
                str(sum(layer["shared"].values())),
                layer["instruction"],
            ]
            for layer in found["layers"]
        ],
    )


def _difference(found: Row) -> None:
    parts = {**found["packages"], "variable": found["variables"], "label": found["labels"]}
    parts["config"] = found["settings"]
    rows = [
        [kind, one["name"], one["old"] or "-", one["new"] or "-"]
        for kind, changes in parts.items()
        for one in changes
    ]
    rows += [["file", one["path"], one["sign"], f"{one['grown']:+}"] for one in found["files"]]
    print_table(["WHAT", "NAME", "OLD", "NEW"], rows)
    output.console.print(
        f"{sum(found['count'].values())} files differ;"
        f" {size(found['travels'])} travel to a host that has the old one."
    )
