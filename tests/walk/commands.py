"""The commands of a page, in its order: those of its blocks, and whole ones in its sentences."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.test_docs import CHECKOUT, commands_in, complaint, spans

_BLOCK = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OTHER_BLOCK = re.compile(r"^```\w+\n.*?^```$", re.MULTILINE | re.DOTALL)
# A line without words between two that have some belongs to them.
_INDENTED = re.compile(r"(?:^    \S.*\n(?:\n(?=    \S))*)+", re.MULTILINE)

MANAGE = "cd /root/gantry && .venv/bin/python manage.py"  # as blocks have it

# Blocks hold these, too, and they are nothing that is typed.
_NO_SHELL = re.compile(r"(RUN|FROM|COPY|ADD) ")
_TOGETHER = re.compile(r"<<|^\w+=.*[;'\")]$", re.MULTILINE)


def page_of(name: str) -> Path:
    return CHECKOUT / (name if name == "README.md" else f"docs/{name}")


@cache
@cache
def commands_of(page: Path) -> tuple[str, ...]:
    """What a reader types. Lines that share variables or a here-document are one."""
    found: list[str] = []
    text = _OTHER_BLOCK.sub("", page.read_text())
    places = [*_BLOCK.finditer(text), *_INDENTED.finditer(_BLOCK.sub(_blank, text))]
    for block in sorted(places, key=lambda place: place.start()):
        found += _of_block(block[1] if block.re is _BLOCK else block[0])
    return (*found, *_of_sentences(page, found))


def the_command(page: str, begins: str) -> str:
    """The command of a page that begins so."""
    found = {line for line in commands_of(page_of(page)) if line.startswith(begins)}
    assert len(found) == 1, f"{page} has {sorted(found)} for {begins}"
    return found.pop()


def _blank(block: re.Match[str]) -> str:
    """As long as it was, so that places stay what they are."""
    return re.sub(r"\S", " ", block[0].replace("    ", "   \t"))


def _of_block(text: str) -> Iterator[str]:
    lines = [line.removeprefix("    ") for line in text.replace("\\\n", " ").splitlines()]
    if _TOGETHER.search(text):
        document: list[str] = []
        end = ""
        for line in lines:
            document.append(line)
            if found := re.search(r"<<'(\w+)'", line):
                end = found[1]
            elif line == end:
                yield "\n".join(document)
                document, end = [], ""
        if document and any(re.match(r"\w+=", line) for line in document):
            yield "\n".join(document)
            return
        yield from (_plain(line) for line in document)
        return
    yield from (_plain(line) for line in lines if line.strip() and not _NO_SHELL.match(line))


def _plain(line: str) -> str:
    """Without the remark behind it."""
    return re.sub(r"\s+# .*$", "", line).strip()


def _of_sentences(page: Path, known: list[str]) -> Iterator[str]:
    """Those that a sentence names with all their words: of ours, and of other programs."""
    seen = set(known)
    for span in spans(page):
        line = " ".join(word for word in span.split() if word[:1] != "[")
        line = re.sub(r"^manage\.py ", f"{MANAGE} ", line)
        if line not in seen and any(_is_whole(words) for words in commands_in(span)):
            seen.add(line)
            yield line


def _is_whole(words: list[str]) -> bool:
    if len(words) == 1:
        return False
    if words[0] in {"gantry", "./gantry"}:
        return not complaint(words[1:], whole=True)
    return words[0] in {"python", "sudo"} or shutil.which(words[0]) is not None
