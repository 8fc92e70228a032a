"""Record what BuildKit's own parser, which is written in Go, makes of many Dockerfiles.

    python -m tests.builders.record_parser PARSER

PARSER reads a JSON string in each line and answers with ``{"nodes": [...], "escape": "...",
"error": "..."}``: a main.go of a page around ``frontend/dockerfile/parser``.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from builders.dockerfile.forms import FORMS
from tests.builders.cases import all_cases
from tests.builders.test_fuzz import VOCABULARY

PARSED = Path(__file__).parents[1] / "cases/parsed.jsonl"
MADE = 600
ODD = [
    "\n",
    "\n\n",
    "\\\n",
    "\\ \n",
    "\r\n",
    "\t",
    "  ",
    "é",
    "# escape=`\n",
    "`\n",
    "=",
    "#c\n",
    "",
]


def texts() -> Iterator[str]:
    """The golden cases', and as many that chance has put together, always the same."""
    files = (case.folder / "context/Dockerfile" for case in all_cases())
    yield from (file.read_text() for file in files if file.exists())
    chance = random.Random(20)
    words = [*VOCABULARY.split(), *ODD * 2]
    for _ in range(MADE):
        lines = []
        for _ in range(chance.randint(1, 5)):
            begin = [chance.choice(list(FORMS))] if chance.random() < 0.9 else []
            lines.append(" ".join([*begin, *chance.choices(words, k=chance.randint(0, 6))]))
        yield "FROM a\n" + "\n".join(lines)


def main() -> None:
    asked = list(texts())
    lines = "".join(json.dumps(text) + "\n" for text in asked)
    done = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True, check=True)
    with PARSED.open("w") as file:
        for text, answer in zip(asked, done.stdout.splitlines(), strict=True):
            file.write(json.dumps({"text": text, **json.loads(answer)}, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
