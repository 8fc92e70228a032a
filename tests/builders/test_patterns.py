"""Patterns in variables: what a backtracking expression finds, but always soon."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.dockerfile.expand import Expander
from builders.dockerfile.instructions import Position
from builders.dockerfile.patterns import ShellPattern, reverse
from builders.errors import DockerfileError

AT = Position("Dockerfile", 1, 1, "ENV B=...")
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "*", "?", "\\*", "\\?", "\\\\", ".", "\n"]), max_size=6
)
VALUES = st.text("ab*.\\\n", max_size=12)


def expanded(word: str, **env: str) -> str:
    return Expander(env, escape="\\", at=AT).word(word)


@given(PATTERNS, VALUES, st.booleans(), st.booleans())
def test_it_finds_what_a_regular_expression_finds(
    pieces: list[str], value: str, greedy: bool, anchored: bool
) -> None:
    known = {"*": ".*" if greedy else ".*?", "?": "."}
    text = "".join(known.get(piece, re.escape(piece[-1])) for piece in pieces)
    plain = re.compile(("^" if anchored else "") + text)
    pattern = ShellPattern("".join(pieces), greedy, anchored)
    assert pattern.sub("X", value, 1) == plain.sub("X", value, 1)
    if greedy and plain.match("") is None:  # of empty matches Go counts fewer
        assert pattern.sub(lambda _: "X", value) == plain.sub("X", value)


def test_an_empty_match_right_behind_another_does_not_count() -> None:
    """As in Go: ``regexp.MustCompile(".*").ReplaceAllString("ab", "X")`` is ``X``."""
    assert ShellPattern("*", True, False).sub("X", "ab") == "X"
    assert ShellPattern("", True, False).sub("-", "ab") == "-a-b-"


@given(PATTERNS)
def test_a_pattern_reversed_twice_is_the_same(pieces: list[str]) -> None:
    assert reverse(reverse("".join(pieces))) == "".join(pieces)


@pytest.mark.parametrize(
    "word",
    [
        "${A##*a*a*a*a*a*a*a*b}",
        "${A#*a*a*a*a*a*a*a*b}",
        "${A%%b*a*a*a*a*a*a*a*}",
        "${A//a*a*a*a*a*a*a*b/x}",
        "${A/?*?*?*?*?*?*?b/x}",
        "${A%" + "a" * 50_000 + "b}",
    ],
)
def test_no_pattern_keeps_a_worker_busy(word: str) -> None:
    began = time.process_time()
    assert expanded(word, A="a" * 50_000) == "a" * 50_000
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("word", "value"),
    [("$A" * 20, "x" * 10_000), ("${A//x/$A}", "x" * 500), ("${A:-$A$A}$A$A", "x" * 50_000)],
)
def test_what_grows_beyond_all_bounds_is_refused(word: str, value: str) -> None:
    with pytest.raises(DockerfileError, match="longer than 128 KiB"):
        expanded(word, A=value)
