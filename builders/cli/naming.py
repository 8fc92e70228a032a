"""The commands about names: images, tag and rmi."""

from __future__ import annotations

import argparse
import dataclasses
import json
import threading

from builders.errors import ImageNotFound, UserError
from builders.images.listed import Listed
from builders.images.reference import Reference
from builders.images.store import Image, Store


def known_image(store: Store, name: Reference) -> Image:
    """The store's image of that name. Raises ImageNotFound, which tells what there is."""
    image = store.find_image(name)
    if image is None:
        raise _unknown(store, name)
    return image


def images(options: argparse.Namespace, _: threading.Event) -> None:
    found = Store(options.store).listed()
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    rows = [("NAME", "ID", "CREATED", "SIZE"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _row(one: Listed) -> tuple[str, str, str, str]:
    name = Reference.parse(one.name).familiar
    return (
        f"{name} ({one.platform})" if one.platform else name,
        one.id.partition(":")[2][:12],
        one.created[:10] or "-",
        f"{one.size / 2**20:.1f} MiB",
    )


def tag(options: argparse.Namespace, _: threading.Event) -> None:
    store = Store(options.store)
    new = Reference.parse(options.new)
    if new.digest:
        raise UserError(f"{options.new} has a digest: write NAME:TAG.", code="cli.name")
    store.tag(known_image(store, Reference.parse(options.name)), new)


def rmi(options: argparse.Namespace, _: threading.Event) -> None:
    store = Store(options.store)
    for name in map(Reference.parse, options.names):
        platforms = [one.platform for one in store.listed() if one.name == str(name)]
        gone = [store.untag(dataclasses.replace(name, platform=platform)) for platform in platforms]
        if not any(gone):
            raise _unknown(store, name)
        print(f"Untagged: {name.familiar}")


def _unknown(store: Store, name: Reference) -> ImageNotFound:
    known = ", ".join(store.names()) or "none"
    return ImageNotFound(f"The store has no image {name.familiar}.", hint=f"It has: {known}.")
