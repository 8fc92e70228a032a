"""Exit codes, and the one exception that carries them.

0  done, and what was waited for went well
1  it was done, and the result is bad: a pipeline or a deployment failed
2  the command line is wrong
3  not logged in, or not allowed
4  there is no such thing, or it cannot be done now
5  the service cannot be reached, or failed
"""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    DONE = 0
    BAD_RESULT = 1
    USAGE = 2
    NOT_ALLOWED = 3
    REFUSED = 4
    UNREACHABLE = 5


class CliError(Exception):
    """One sentence, what to type next, and the exit code."""

    def __init__(self, sentence: str, *, next_step: str, exit_code: Exit, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code or exit_code.name.lower().replace("_", "-")  # the problem document's
        self.next_step = next_step
        self.exit_code = exit_code
