"""The end of what a program says."""

from __future__ import annotations

import pytest

from ciserver.lib.endings import LONG_LINE, Ending


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([b"one\n", b"two"], b"one\ntwo"),
        ([b"0123456789\nlast\n"], b"last\n"),
        ([b"01234", b"56789\nla", b"st\n"], b"last\n"),
        ([b"x" * 35, b"\n", b"last"], b"last"),
        ([b"x" * 11], LONG_LINE),
        ([b"x" * 40, b"\n"], LONG_LINE),
        ([b"exactly 10"], b"exactly 10"),
        ([], b""),
    ],
)
def test_a_line_that_lost_its_beginning_is_left_out(said: list[bytes], kept: bytes) -> None:
    ending = Ending(10)
    for data in said:
        ending.add(data)
    assert ending.whole_lines() == kept


def test_no_more_is_held_than_twice_what_is_kept() -> None:
    ending = Ending(1000)
    for _ in range(1000):
        ending.add(b"some words\n")
        assert len(ending._kept) <= 2000
