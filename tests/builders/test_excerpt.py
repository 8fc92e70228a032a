"""The caret stands under what is wrong, also where an instruction goes on over several lines."""

from __future__ import annotations

import pytest

from builders.dockerfile.excerpt import point_at
from builders.errors import ContextError

LONG = b"""FROM busybox
COPY one.txt \\
     # a comment between
     src/two.txt \\

     three.txt \\
     /x/
RUN echo src/two.txt
"""


@pytest.mark.parametrize(
    ("message", "place", "column", "line"),
    [
        ("COPY finds no src/two.txt in the build context.", "D:4", 6, "     src/two.txt \\"),
        ("COPY finds no three.txt in the build context.", "D:6", 6, "     three.txt \\"),
        ("COPY finds no one.txt in the build context.", "D:2", 6, "COPY one.txt \\"),
        ("COPY finds no echo.txt in the build context.", "D:2", 1, "COPY one.txt \\"),
    ],
)
def test_the_line_is_the_one_that_has_the_word(
    message: str, place: str, column: int, line: str
) -> None:
    error = ContextError(message, place="D:2")
    point_at(error, LONG, "D")
    assert (error.place, error.column) == (place, column)
    assert error.excerpt == f"  {line}\n  {' ' * (column - 1)}^"


def test_another_escape_goes_on_as_well_and_nothing_else_does() -> None:
    error = ContextError("'gone' is not there", place="D:3")
    point_at(error, b"# escape=`\nFROM a\nCOPY b `\n  gone /x\nCOPY gone /y\n", "D")
    assert (error.place, error.column) == ("D:4", 3)
    error = ContextError("'gone' is not there", place="D:2")
    point_at(error, b"FROM a\nCOPY b /x`\nCOPY gone /y\n", "D")
    assert (error.place, error.column) == ("D:2", 1)


def test_a_line_that_is_not_there_leaves_the_error_as_it_is() -> None:
    for place in ("", "D", "D:0", "D:9", "E:1"):
        error = ContextError("no", place=place)
        point_at(error, b"FROM a\n", "D")
        assert (error.place, error.column, error.excerpt) == (place, 0, "")
