"""What the documentation says is so: its commands, files, links, settings and addresses."""

from __future__ import annotations

import ast
import io
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from django.core.management import get_commands
from django.urls import Resolver404, resolve
from typer.core import TyperGroup
from typer.exceptions import Exit, TyperException
from typer.main import get_command

from builders.cli.options import parse_arguments
from ciserver.cli.app import app
from ciserver.config import Config
from ciserver.pipelines.compose import read_compose
from ciserver.pipelines.definition import Build, parse

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
PAGES = [
    *DOCS,
    *(CHECKOUT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(CHECKOUT.glob("*/README.md")),
    *sorted(CHECKOUT.glob("examples/*/README.md")),
]
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    \S.*\n)+", re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)|(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SETTING = re.compile(r"GANTRY_[A-Z0-9_]*[A-Z0-9]")
_PLACEHOLDER = re.compile(r"[A-Z]+")
_ASSIGNED = re.compile(r"[A-Z_]+=\S*")

# They stand in pages and are no setting of the service's own: the compose file's and a script's.
OTHERS = {"GANTRY_PUBLISH", "GANTRY_IMAGE", "GANTRY_WORKER_CONCURRENCY", "GANTRY_CHROMIUM"}
# The tests' own, which nobody sets by hand.
FOR_TESTS = {"GANTRY_TEST_DATABASE"}
# What Git's hooks are told by the process that starts them.
FOR_HOOKS = {
    f"GANTRY_{name}"
    for name in ("PUSH", "USER", "SPOOL", "TELL", "HEAR", "MAX_REFS", "PROTECTED", "PROTECTED_ROLE")
}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of every block; of an indented one the language is empty."""
    text = page.read_text()
    yield from _FENCED.findall(text)
    for found in _INDENTED.findall(_FENCED.sub("", text)):
        yield "", found


def lines_of_blocks(page: Path) -> Iterator[str]:
    for language, text in blocks(page):
        if language in {"", "sh"}:
            yield from text.replace("\\\n", " ").splitlines()


def spans(page: Path) -> Iterator[str]:
    for line, lines in _SPAN.findall(_FENCED.sub("", page.read_text())):
        yield " ".join((line or lines).split())


def commands_in(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without variables in front and what is optional."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:  # a line of some other thing
        assert "gantry " not in line
        return
    words: list[str] = []
    for token in [*tokens, ";"]:
        if not set(token) <= set("|&;<>"):
            words.append(token)
            continue
        while words and _ASSIGNED.fullmatch(words[0]):
            del words[0]
        words = [word for word in words if not (word[:1] == "[" and word[-1:] == "]")]
        if words:
            yield words
        words = []


def complaint(words: list[str], *, whole: bool) -> str:
    """What the client has against ``words``; empty when it would take them.

    Of a command that is only mentioned, arguments may be missing.
    """
    # It would show its help; and ``login`` would ask for a token.
    with redirect_stdout(io.StringIO()), patch.dict(os.environ, {"GANTRY_TOKEN": "not asked for"}):
        return _complaint(words, whole=whole)


@cache
def _client() -> Any:
    return get_command(app)


def _complaint(words: list[str], *, whole: bool) -> str:
    command: Any = _client()
    context = None
    rest = ["1" if _PLACEHOLDER.fullmatch(word) else word for word in words]
    name = "gantry"
    try:
        while isinstance(command, TyperGroup):
            if not rest:
                return "it says no command" if whole else ""
            context = command.make_context(name, list(rest), parent=context)
            found, inner, rest = command.resolve_command(context, rest)
            name, command = found or "", inner
        command.make_context(name, list(rest), parent=context)
    except Exit:  # --help
        return ""
    except TyperException as error:
        # Its class is in the click that typer carries inside, which has no public name.
        missing = type(error).__name__ == "MissingParameter"
        return "" if missing and not whole else error.format_message()
    return ""


@by_name
def test_every_gantry_command_is_one(page: Path) -> None:
    wrong = []
    told = [(line, True) for line in lines_of_blocks(page)] + [(it, False) for it in spans(page)]
    for line, whole in told:
        for words in commands_in(line):
            if words[0] not in {"gantry", "./gantry"}:
                continue
            problem = complaint(words[1:], whole=whole)
            if problem:
                wrong.append(f"{line.strip()}: {problem}")
    assert not wrong


@by_name
def test_every_other_command_of_ours_is_one(page: Path) -> None:
    wrong = []
    for line in lines_of_blocks(page):
        for words in commands_in(line):
            text = " ".join(words)
            if "manage.py" in text and words[words.index("manage.py") + 1] not in get_commands():
                wrong.append(text)
            if " -m builders " in f"{text} " and "--help" not in words:
                try:
                    parse_arguments(words[words.index("builders") + 1 :])
                except SystemExit:
                    wrong.append(text)
    assert not wrong
    for span in spans(page):
        if span.startswith("manage.py "):
            assert span.split()[1] in get_commands()


def test_commands_with_a_mistake_would_be_found() -> None:
    assert complaint(["promot", "shop"], whole=False)
    assert complaint(["hosts", "ad"], whole=False)
    assert not complaint(["hosts"], whole=False)
    assert complaint(["promote", "shop", "v1", "prod", "--dryrun"], whole=False)
    assert complaint(["promote", "shop"], whole=True)
    assert not complaint(["promote", "shop"], whole=False)
    assert list(commands_in("A=b ./gantry up && gantry logs x | less # why")) == [
        ["./gantry", "up"],
        ["gantry", "logs", "x"],
        ["less"],
    ]


@by_name
def test_every_yaml_block_says_whose_it_is_and_is_taken(page: Path) -> None:
    for language, text in blocks(page):
        if language != "yaml":
            continue
        match text.splitlines()[0].removeprefix("# "):
            case "gantry.yml":
                parse(text)
            case "compose.test.yml" as file:
                read_compose(text.encode(), file=file, main=Build())
            case "prometheus.yml":
                assert yaml.safe_load(text)
            case other:
                pytest.fail(f"This block begins with the name of no file: {other}")


@by_name
def test_every_link_and_anchor_leads_somewhere(page: Path) -> None:
    wrong = []
    for target in _LINK.findall(_FENCED.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert not wrong


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


class Asked(dict[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]  # no more is asked of it
        self.names.add(name)
        return default


def settings_of_the_service() -> set[str]:
    asked = Asked()
    Config.from_env(asked)
    return {name for name in asked.names if name.startswith("GANTRY_")}


def names_in_code() -> set[str]:
    """Every GANTRY_ name that stands by itself in a string of the product's code."""
    found: set[str] = set()
    for part in ("ciserver", "builders", "runtime"):
        for file in (CHECKOUT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                value = node.value if isinstance(node, ast.Constant) else None
                if isinstance(value, str) and _SETTING.fullmatch(value):
                    found.add(value)
    return found


def test_every_setting_has_its_row_and_no_row_is_of_nothing() -> None:
    table = (CHECKOUT / "docs/settings.md").read_text()
    first_columns = re.findall(r"^\| (`GANTRY_[^|]*)\|", table, re.MULTILINE)
    rows = {name for column in first_columns for name in _SETTING.findall(column)}
    assert settings_of_the_service() <= rows
    assert rows <= names_in_code()


def test_every_name_in_the_code_is_told_and_every_name_told_is_in_the_code() -> None:
    told = {name for page in PAGES for name in _SETTING.findall(page.read_text())}
    # GANTRY_BUILD_* is all of them, GANTRY_INPUT_ is followed by the name of an input.
    told = {name for name in told if not name.startswith("GANTRY_INPUT_")}
    known = names_in_code()
    families = {name for name in told if any(each.startswith(f"{name}_") for each in known)}
    assert known - FOR_TESTS - FOR_HOOKS <= told
    assert told - families <= known | OTHERS | {"GANTRY_HOME"}


@by_name
def test_every_address_of_the_api_is_one(page: Path) -> None:
    wrong = []
    for address in re.findall(r"/api/v1/[\w./{}-]*", page.read_text()):
        path = re.sub(r"\bID\b|\{\w+\}", "1", address.rstrip(".")).replace("PROJECT", "shop")
        try:
            resolve(path)
        except Resolver404:
            wrong.append(address)
    assert not wrong
