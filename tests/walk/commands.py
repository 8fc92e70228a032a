"""The commands of a page, in its order: those of its blocks, and whole ones in its sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.test_docs import commands_in, complaint, spans

_BLOCK = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OTHER_BLOCK = re.compile(r"^```\w+\n.*?^```$", re.MULTILINE | re.DOTALL)
# A line without words between two that have some belongs to them.
_INDENTED = re.compile(r"(?:^    \S.*\n(?:\n(?=    \S))*)+", re.MULTILINE)

# Blocks hold these, too, and they are nothing that is typed.
_NO_SHELL = re.compile(r"(RUN|FROM|COPY|ADD) ")
_TOGETHER = re.compile(r"<<|^\w+=.*[;'\")]$", re.MULTILINE)


def commands_of(page: Path) -> list[str]:
    """What a reader types. Lines that share variables or a here-document are one."""
    found: list[str] = []
    text = _OTHER_BLOCK.sub("", page.read_text())
    places = [*_BLOCK.finditer(text), *_INDENTED.finditer(_BLOCK.sub(_blank, text))]
    for block in sorted(places, key=lambda place: place.start()):
        found += _of_block(block[1] if block.re is _BLOCK else block[0])
    return found + list(_of_sentences(page, found))


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
    """Those of our own commands that a sentence names with all their words."""
    seen = set(known)
    for span in spans(page):
        for words in commands_in(span):
            line = " ".join(word for word in span.split() if word[:1] != "[")
            ours = words[0] in {"gantry", "./gantry"} and len(words) > 1
            if ours and line not in seen and not complaint(words[1:], whole=True):
                seen.add(line)
                yield line
