"""The port of BuildKit's parser beside BuildKit's own, as ``record_parser`` recorded it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from e2b_dockerfile_utils import parse_dockerfile_ast

from builders.dockerfile import parse_dockerfile
from builders.dockerfile.forms import FORMS
from builders.errors import DockerfileError
from tests.builders.record_parser import PARSED

RECORDED: list[dict[str, Any]] = [json.loads(line) for line in PARSED.read_text().splitlines()]
KNOWN = [each for each in RECORDED if all(node["name"] in FORMS for node in each["nodes"])]


def words(name: str, args: Sequence[str]) -> list[str]:
    """Comparable ones: what ONBUILD keeps is parsed when it is needed; of COPY and ADD the port
    keeps quoted blanks, which ``forms`` refuses."""
    if name == "ONBUILD":
        return []
    return " ".join(args).split() if name in {"COPY", "ADD"} else list(args)


def ours(text: str) -> dict[str, Any]:
    ast = parse_dockerfile_ast(text)
    nodes = [
        {
            "name": node.name,
            "args": words(node.name, node.args),
            "flags": list(node.flags),
            "json": node.json,
            "lines": [node.start_line, node.end_line],
            "heredocs": [
                {"name": doc.name, "content": doc.content, "expand": doc.expand, "chomp": doc.chomp}
                for doc in node.heredocs
            ],
        }
        for node in ast.instructions
    ]
    return {"nodes": nodes, "escape": ast.escape_token}


def test_there_is_enough_to_compare() -> None:
    assert len(KNOWN) > 500
    assert sum(not each["error"] for each in KNOWN) > 500
    assert sum(bool(each["error"]) for each in KNOWN) > 50


def test_both_parsers_read_the_same() -> None:
    """All in one test: six hundred of their own would cost more than the parsing."""
    assert [wrong for told in KNOWN if (wrong := read_otherwise(told))] == []


def read_otherwise(told: dict[str, Any]) -> dict[str, Any]:
    """The text and what each parser makes of it, where that differs."""
    read: object
    try:
        if told["error"]:
            read = parse_dockerfile(told["text"].encode(), file="D")
        else:
            read = ours(told["text"])
    except Exception as error:
        if told["error"] and isinstance(error, DockerfileError):
            return {}
        read = error
    expected = {
        "nodes": [{**node, "args": words(node["name"], node["args"])} for node in told["nodes"]],
        "escape": told["escape"],
    }
    same = read == expected and not told["error"]
    return {} if same else {"text": told["text"], "ours": read, "theirs": told}
