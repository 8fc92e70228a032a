"""Writes docs/gantry-yml.md: each part of the commented example docs/gantry.yml, and what its keys
take, as docs/gantry.schema.json has it.

python docs/manual.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "gantry-yml.md"
HEAD = """# gantry.yml

Written by `python docs/manual.py` from the commented example [gantry.yml](gantry.yml) and its
[JSON Schema](gantry.schema.json), against which `gantry lint` checks a file.

"""
_BEGINS = re.compile(r"^(?:# )?([a-z]+):", re.MULTILINE)


def manual() -> str:
    """The whole page."""
    text = (HERE / "gantry.yml").read_text()
    schema = json.loads((HERE / "gantry.schema.json").read_text())
    intro, parts, end = _split(text, list(schema["properties"]))
    page = HEAD + _prose(intro)
    told: set[str] = set()
    for names, part in parts:
        page += f"\n## {' and '.join(f'`{name}`' for name in names)}\n\n"
        page += f"```yml\n{part.strip()}\n```\n"
        for name in names:
            page += "".join(_tables(schema, schema["properties"][name], name, told))
    return f"{page}\n{_prose(end)}"


def _split(text: str, names: list[str]) -> tuple[str, list[tuple[list[str], str]], str]:
    """The comment in front, (names, text) of each part, and the comment at the end.

    A key that stands in a comment only (`images`) has a part as well; a comment above a key
    belongs to it.
    """
    blocks = re.split(r"\n\n(?=\S)", text.strip("\n"))
    intro, end = blocks.pop(0), blocks.pop() if blocks[-1].startswith("# ") else ""
    parts: list[tuple[list[str], str]] = []
    for block in blocks:
        here = [name for name in _BEGINS.findall(block) if name in names]
        if here:
            parts.append((here, block))
        else:
            last, before = parts.pop()
            parts.append((last, f"{before}\n\n{block}"))
    missing = set(names) - {name for here, _ in parts for name in here}
    if missing:
        raise SystemExit(f"docs/gantry.yml does not show {', '.join(sorted(missing))}")
    return intro, parts, end


def _prose(comment: str) -> str:
    return "\n".join(line.removeprefix("#").strip() for line in comment.splitlines()) + "\n"


def _tables(schema: Any, key: Any, name: str, told: set[str]) -> Iterator[str]:
    """A table for each object that ``key`` leads to and that had none yet."""
    for ref in _refs(key):
        if ref in told:
            continue
        told.add(ref)
        model = schema["$defs"][ref]
        rows = model.get("properties")
        if not rows:
            continue
        needed = model.get("required", [])
        told_of = _one_line(model.get("description", ""))
        yield f"\n### Keys of {ref}\n"
        if told_of:
            yield f"\n{told_of}\n"
        yield "\n| key | takes | left out |\n|---|---|---|\n"
        for row, value in rows.items():
            left = "must be there" if row in needed else _default(value)
            yield f"| `{row}` | {_takes(value)} | {left} |\n"
        for row, value in rows.items():
            yield from _tables(schema, value, row, told)


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner.rpartition("/")[2]
            else:
                yield from _refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _refs(inner)


def _takes(value: Any) -> str:  # noqa: PLR0911 - one line for each kind
    """What may stand there, in a few words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#keys-of-{name.lower()})"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "description" in value:
        return _one_line(value["description"])
    if "const" in value:
        return f"`{value['const']}`"
    for several in ("anyOf", "oneOf"):
        if several in value:
            words = [_takes(each) for each in value[several] if each.get("type") != "null"]
            return " or ".join(dict.fromkeys(words))
    kind = value.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(each for each in kind if each != "null")
    if kind == "array":
        return f"a list: {_takes(value.get('items', {}))}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"a mapping: {_takes(inner)}" if isinstance(inner, dict) else "a mapping"
    return f"{kind}{_bounds(value)}"


def _bounds(value: Any) -> str:
    low = value.get("minimum", value.get("exclusiveMinimum"))
    high = value.get("maximum", value.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else ""


def _default(value: Any) -> str:
    default = value.get("default")
    if default in (None, "", [], {}):
        return ""
    kind = value.get("description", "")
    if kind.startswith("a size"):
        default = _in_units(int(default), {"g": 2**30, "m": 2**20, "k": 2**10})
    elif kind.startswith("a time"):
        default = _in_units(int(default), {"d": 86400, "h": 3600, "m": 60, "s": 1})
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _in_units(count: int, units: dict[str, int]) -> str:
    """In the largest unit that leaves no rest."""
    return next((f"{count // size}{unit}" for unit, size in units.items()
                 if count and count % size == 0), str(count))  # fmt: skip


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(manual())
