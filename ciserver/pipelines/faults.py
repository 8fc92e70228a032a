"""Mistakes in ``gantry.yml``, and the two kinds that names make: unknown, and in a circle."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

FILE = "gantry.yml"


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
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return Fault(f"there is no {what} {name!r}{hint}", path=path)


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that wait for one another, the first of them again at the end; empty if none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def in_circle(names: Sequence[str], path: str) -> Fault:
    return Fault(f"these wait for one another: {' -> '.join(names)}.", path=path)
