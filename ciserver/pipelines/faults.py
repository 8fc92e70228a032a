"""Mistakes in ``gantry.yml``, and the two kinds that names make: unknown, and in a circle."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from itertools import islice

FILE = "gantry.yml"
_LONGEST = 60  # letters of a name, where one is told
_LONGEST_PATH = 200
_MOST_KNOWN = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in ``gantry.yml``. ``line`` counts from 1; ``path`` is empty for bad YAML."""

    message: str
    line: int | None = None
    path: str = ""

    @property
    def place(self) -> str:
        """``gantry.yml:12: tests.unit.memory``"""
        where = f"{FILE}:{self.line}" if self.line else FILE
        return f"{where}: {self.path}" if self.path else where

    def at(self, line: int | None) -> Fault:
        """The same with its line, and no more of a long path than anybody reads."""
        return replace(self, line=line, path=shortened(self.path, _LONGEST_PATH))


def key_at(place: str, key: str) -> str:
    """The place of ``key`` of what is written at ``place``. A stage of a Dockerfile, whose place is
    a line (``Dockerfile:7``), has no keys."""
    return f"{place}.{key}" if ": " in place else place


class DefinitionError(Exception):
    """``gantry.yml`` cannot be used. ``faults`` are all that were found; the first one speaks."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        first = faults[0]
        super().__init__(f"{first.place}: {first.message}")
        self.faults = tuple(faults)
        self.message = first.message
        self.place = first.place


def unknown(what: str, name: str, known: Iterable[str], path: str) -> Fault:
    """There is no such name; the nearest one that there is."""
    near = nearest(name, known)
    hint = f"; did you mean {near!r}?" if near else "."
    return Fault(f"there is no {what} {shortened(name)!r}{hint}", path=path)


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of ``known`` that was meant, perhaps; empty if none is like it.

    Comparing takes time by the product of both lengths: nobody mistypes what is longer.
    """
    if len(name) > _LONGEST:
        return ""
    short = (one for one in known if len(one) <= _LONGEST)
    return next(iter(difflib.get_close_matches(name, islice(short, _MOST_KNOWN), n=1)), "")


def shortened(text: str, most: int = _LONGEST) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that wait for one another, the first of them again at the end; empty if none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def in_circle(names: Sequence[str], path: str) -> Fault:
    way = " -> ".join(map(shortened, [*names[:20], *(["..."] if len(names) > 20 else [])]))
    return Fault(f"these wait for one another: {way}.", path=path)
