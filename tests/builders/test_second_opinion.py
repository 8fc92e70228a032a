"""The port of BuildKit's parser beside BuildKit's own, as ``record_parser`` recorded it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
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


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_both_parsers_read_the_same(number: int) -> None:
    told = KNOWN[number]
    if told["error"]:
        with pytest.raises(DockerfileError):
            parse_dockerfile(told["text"].encode(), file="D")
        return
    for node in told["nodes"]:
        node["args"] = words(node["name"], node["args"])
    assert ours(told["text"]) == {"nodes": told["nodes"], "escape": told["escape"]}
