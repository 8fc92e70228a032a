"""Writes docs/cli.md, the reference of the command line, from the commands themselves.

python docs/reference.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ciserver.cli.app import app
from ciserver.cli.errors import Exit

FILE = Path(__file__).with_name("cli.md")
MEANINGS = {
    Exit.DONE: "done, and what was waited for went well",
    Exit.BAD_RESULT: "done, and the result is bad: a pipeline or deployment failed",
    Exit.USAGE: "the command line is wrong",
    Exit.NOT_ALLOWED: "not logged in, or not allowed",
    Exit.REFUSED: "there is no such thing, or it cannot be done now",
    Exit.UNREACHABLE: "the service cannot be reached, or failed",
}
HEAD = """# The command line

Written by `python docs/reference.py` from the commands themselves.

On the service's machine it is `./gantry`. On a laptop it can be installed alone, from a checkout:

    pip install ./client
    gantry login https://ci.example

`gantry login` keeps address and token in `~/.config/gantry/client.json`, readable by you alone;
`$GANTRY_URL` and `$GANTRY_TOKEN` go before it. Tab completion, also of projects, environments,
releases and PROJECT@ENV:

    gantry completion bash >~/.local/share/bash-completion/completions/gantry

(or `zsh`, `fish`). Every command that talks to the service has `--json`, whose rows are those of
the API. What went wrong is then one JSON object, the last line of standard error: `code` (the
API's, or `usage`, `not-allowed`, `refused`, `bad-result`, `unreachable`), `detail`, `hint` and
`exit_code`. In a pipe there are no colours, nothing is cut, and no words on what to do next;
results go to standard output and complaints to standard error, and a reader that stops reading,
such as `head`, is no error. What is too much for the service's rate limit waits as long as it says,
and says so.

## Exit codes

| code | means |
|---|---|
"""


def reference() -> str:
    """The whole page."""
    codes = "".join(f"| {code.value} | {MEANINGS[code]} |\n" for code in Exit)
    codes += "| 130 | Ctrl-C |\n"
    return f"{HEAD}{codes}\n## Commands\n{''.join(_commands(get_command(app), 'gantry'))}"


def _commands(command: Any, name: str) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for word, inner in command.commands.items():
            yield from _commands(inner, f"{name} {word}")
        return
    told = " ".join((command.help or "").split("\n\n")[0].split())
    yield f"\n### {name}\n\n{told}\n"
    rows = [_parameter(one) for one in command.params if not getattr(one, "hidden", False)]
    if rows:
        yield "\n| | |\n|---|---|\n" + "".join(rows)


def _parameter(one: Any) -> str:
    if one.param_type_name == "argument":
        word = f"`{one.metavar or one.name.upper()}`" + ("" if one.required else ", optional")
    else:
        word = ", ".join(f"`{name}`" for name in one.opts)
        word += " (again and again)" if one.multiple else ""
    help_text = " ".join((one.help or "").split()).replace("|", "\\|")
    return f"| {word} | {help_text} |\n"


if __name__ == "__main__":
    FILE.write_text(reference())
