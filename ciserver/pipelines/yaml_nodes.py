"""YAML that a stranger wrote, as nodes, which know their lines, and as plain data.

A key is a text, whatever it looks like: YAML 1.1 would read ``on``, ``NO`` or ``1`` otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import yaml

from ciserver.pipelines.faults import DefinitionError, Fault, shortened

DEEPEST = 50  # levels
_TEXT = "tag:yaml.org,2002:str"
LONGEST_NUMBER = 100  # digits
# What libyaml says, and what most often is behind it.
_NEXT_STEPS = {
    "mapping values are not allowed": "Is a quote missing, or is this line indented too far?",
    "cannot start any token": "Put the text in quotes; indent by spaces, not by tabs.",
    "could not find expected ':'": "A line above lacks its ':', or is indented too little.",
    "did not find expected key": "Is this line indented like those beside it?",
    "did not find expected '-' indicator": "Is this line indented like those beside it?",
    "did not find expected ',' or": "A bracket or a comma is missing.",
    "found unexpected end of stream": "A quote or a bracket is never closed.",
    "found another document": "There can be no line '---' in the middle.",
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml's where it was built, which is ten times faster. A date is a text."""

    yaml_implicit_resolvers: ClassVar = {
        letter: [(tag, found) for tag, found in pairs if not tag.endswith(":timestamp")]
        for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load(text: str) -> tuple[yaml.Node | None, Any]:
    """The YAML of ``text``: (its nodes, the data). Raises DefinitionError."""
    try:
        _check_events(text)
        loader = _Loader(text)
        tree = loader.get_single_node()
        if twice := next(_written_twice(tree), None):
            message = f"the key {shortened(twice.value)!r} is written twice."
            raise DefinitionError([Fault(message, twice.start_mark.line + 1)])
        _make_keys_text(tree)
        data = loader.construct_document(tree) if tree else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DefinitionError([_not_yaml(text, error)]) from None
    return tree, data


def line_of(tree: yaml.Node | None, path: str) -> int | None:
    """The line of the deepest part of ``path`` that is written in the file."""
    line = None
    for part in path.split("."):
        found = None
        for position, (key, value) in enumerate(_children(tree)):
            if part == (key.value if key else str(position)):
                found, line = value, (key or value).start_mark.line + 1
        if found is None:
            break
        tree = found
    return line


def _check_events(text: str) -> None:
    """Raises DefinitionError for what must not be made into nodes, YAMLError for what is no YAML.

    A few aliases, nested, unfold to more than a machine holds; and libyaml calls itself for each
    level, so that some ten thousand end the whole process.
    """
    depth = 0
    for event in yaml.parse(text, _Loader):
        wrong = ""
        if isinstance(event, yaml.AliasEvent):
            wrong = "an alias cannot be used here."
        elif isinstance(event, yaml.ScalarEvent):
            wrong = _wrong_scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            wrong = f"more than {DEEPEST} levels within one another." if depth > DEEPEST else ""
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if wrong:
            line = event.start_mark.line + 1 if event.start_mark else None
            raise DefinitionError([Fault(wrong, line)])


def _wrong_scalar(event: yaml.ScalarEvent) -> str:
    """What no program takes as a word, no row holds, or Python takes too long to read."""
    if "\0" in event.value:
        return "the character U+0000 cannot be used."
    if event.tag and not any(event.implicit):
        return f"a tag cannot be used here: leave {shortened(event.tag)!r} out."
    if event.implicit[0] and len(event.value) > LONGEST_NUMBER and event.value[1:].isdecimal():
        return f"expected a number of {LONGEST_NUMBER} digits at the most."
    return ""


def _not_yaml(text: str, error: Exception) -> Fault:
    last = text.rstrip("\n").count("\n")  # what is missing at the end is missed behind this line
    if isinstance(error, yaml.reader.ReaderError):
        place = next((at for at, one in enumerate(text) if not _may_stand(one)), 0)
        message = f"the character U+{ord(text[place]):04X} cannot be used in YAML."
        return Fault(message, text.count("\n", 0, place) + 1)
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "this is not YAML"
    line = min(mark.line, last) + 1 if mark else None
    step = next((words for part, words in _NEXT_STEPS.items() if part in problem), "")
    return Fault(f"{problem}. {step}".rstrip(), line)


def _may_stand(letter: str) -> bool:
    """https://yaml.org/spec/1.1/#c-printable"""
    return letter in "\t\n\r\x85" or not (
        letter < " "
        or "\x7f" <= letter <= "\x9f"
        or letter in "\ufffe\uffff"
        or "\ud800" <= letter <= "\udfff"
    )


def _written_twice(tree: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Keys of which YAML's loader would silently take the last."""
    seen = set()
    for key, value in _children(tree):
        if key and key.value in seen:
            yield key
        if key:
            seen.add(key.value)
        yield from _written_twice(value)


def _make_keys_text(tree: yaml.Node | None) -> None:
    for key, value in _children(tree):
        if key:
            key.tag = _TEXT
        _make_keys_text(value)


def _children(tree: yaml.Node | None) -> list[tuple[yaml.ScalarNode | None, yaml.Node]]:
    if isinstance(tree, yaml.MappingNode):
        return [(key, value) for key, value in tree.value if isinstance(key, yaml.ScalarNode)]
    return [(None, item) for item in tree.value] if isinstance(tree, yaml.SequenceNode) else []
