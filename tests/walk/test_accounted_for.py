"""No command of README.md and docs/ is without somebody who types it, or a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.cli.options import parse_arguments as parse_builders
from runtime.cli.options import make_parser as runtime_parser
from tests.test_docs import CHECKOUT, DOCS, commands_in, complaint
from tests.walk.commands import commands_of
from tests.walk.elsewhere import ELSEWHERE
from tests.walk.pages import AT_THE_END, IN_USE
from tests.walk.pages.install import INSTALL
from tests.walk.walking import Way

TYPED = {line for page in [INSTALL, *IN_USE, *AT_THE_END] for line in page.commands()}
HERE = os.environ | {"PYTHONPATH": str(CHECKOUT)}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_command_of_a_page_is_typed_or_has_a_reason_why_not(page: Path) -> None:
    nobodys = [
        line
        for line in commands_of(page)
        if line not in TYPED and (page.name, line) not in ELSEWHERE
    ]
    assert not nobodys, "Add it to the page's row in tests/walk/pages, or to elsewhere.py."


def test_every_command_that_is_typed_has_to_show_that_it_did_its_thing() -> None:
    told: set[str] = set()
    silent = []
    for page in [INSTALL, *IN_USE, *AT_THE_END]:
        ways = {line: [way] if isinstance(way, Way) else [*way] for line, way in page.ways.items()}
        for line in page.commands():
            if line in told and line not in page.ways:
                continue
            way = ways[line].pop(0) if ways.get(line) else Way()
            told.add(line)
            if not (way.says or way.then or (way.until and not way.after)):
                silent.append(f"{page.name}: {line}")
    assert silent == [], "Give its Way a word that it says, or a `then` that looks at what it did."


def test_no_reason_is_for_a_command_that_is_not_there_or_typed_all_the_same() -> None:
    there = {(page.name, line) for page in DOCS for line in commands_of(page)}
    assert set(ELSEWHERE) <= there
    assert not {line for _, line in ELSEWHERE} & TYPED


def test_what_is_not_typed_is_taken_by_the_parser_of_its_program() -> None:
    wrong = []
    for page in DOCS:
        for line in commands_of(page):
            mentioned = line == "python -m builders"
            wrong += [
                f"{page.name}: {line}"
                for words in commands_in(line)
                if not mentioned and not _taken(words)
            ]
    assert not wrong


def _taken(words: list[str]) -> bool:
    """By the client, the builder and the runtime as they are; all else is another's."""
    match words:
        case ["./gantry" | "gantry", "base", *rest]:
            parse, given = parse_builders, ["base", *rest]
        case ["./gantry" | "gantry", *rest]:
            return not complaint(rest, whole=True)
        case [_, "-m", "builders", *given]:
            parse = parse_builders
        case [_, "-m", "runtime", *given]:
            parse = runtime_parser().parse_args
        case ["sudo", ".venv/bin/python", script, *given]:
            asked = [sys.executable, script, *given, "--help"]  # told once the rest was taken
            told = subprocess.run(asked, cwd=CHECKOUT, env=HERE, check=False, capture_output=True)
            return told.returncode == 0
        case _:
            return True
    try:
        parse(given)
    except SystemExit as end:
        return not end.code
    return True


def test_a_new_command_that_nobody_types_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "Type\n\n    gantry status --json | head  # nobody does\n\nor `gantry stop a@b`.\n"
    )
    assert commands_of(page) == ("gantry status --json | head", "gantry stop a@b")
    with pytest.raises(AssertionError, match="Add it to the page"):
        test_every_command_of_a_page_is_typed_or_has_a_reason_why_not(page)
