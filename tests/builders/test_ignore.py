"""Ignore rules beside the port of moby's matcher: both must always agree."""

from __future__ import annotations

import time

from e2b_dockerfile_utils import PatternMatcher
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.context import Entry, Kind
from builders.context.ignore import Ignore
from builders.context.tree import name_matcher

NAMES = st.sampled_from(["a", "b", "ab", "a.c", ".d", "é", "a b", "abab", "aab"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PART = st.sampled_from(
    [
        "a",
        "b",
        "*",
        "**",
        "?",
        "a*",
        "*.c",
        ".*",
        "[ab]",
        "[^a]",
        "a\\b",
        "..",
        ".",
        "a*b*",
        "*a*b",
        "*a*",
        "a**",
        "**b",
        "**a*b",
    ]
)
PATTERNS = st.tuples(
    st.sampled_from(["", "!", "/", "./"]), st.lists(PART, min_size=1, max_size=4)
).map(lambda pair: pair[0] + "/".join(pair[1]))


def tree_of(paths: list[str]) -> list[Entry]:
    """Files at ``paths`` and the folders above them, parents first."""
    files = set(paths)
    folders = {path[:i] for path in files for i, char in enumerate(path) if char == "/"}
    kinds = dict.fromkeys(files, Kind.FILE) | dict.fromkeys(folders, Kind.FOLDER)
    return [Entry(path, kinds[path], 0o644) for path in sorted(kinds, key=lambda p: p.split("/"))]


@settings(max_examples=400, deadline=None)
@given(st.lists(PATHS, min_size=1, max_size=12), st.lists(PATTERNS, max_size=5))
def test_what_stays_is_what_moby_lets_through(paths: list[str], patterns: list[str]) -> None:
    entries = tree_of(paths)
    matcher = PatternMatcher(patterns)
    ignore = Ignore.parse("\n".join(patterns).encode())
    files = [entry.path for entry in ignore.filter(entries) if entry.kind is Kind.FILE]
    wanted = [e.path for e in entries if e.kind is Kind.FILE and not matcher.matches(e.path)]
    assert files == wanted


@settings(max_examples=200, deadline=None)
@given(st.lists(PATHS, min_size=1, max_size=12), st.lists(PATTERNS, max_size=5))
def test_every_entry_that_stays_has_its_folders_before_it(
    paths: list[str], patterns: list[str]
) -> None:
    seen: set[str] = set()
    for entry in Ignore.parse("\n".join(patterns).encode()).filter(tree_of(paths)):
        parent = entry.path.rpartition("/")[0]
        assert not parent or parent in seen
        assert entry.path not in seen
        seen.add(entry.path)


def test_a_pattern_made_to_take_for_ever_takes_no_time() -> None:
    names = ["a" * 82, "/".join("a" * 300)]
    entries = [Entry(name, Kind.FILE, 0o644) for name in names]
    rules = b"*a*a*a*a*a*a*a*b\n" + b"**/a/" * 40 + b"**/b\n"
    start = time.monotonic()
    assert list(Ignore.parse(rules).filter(entries)) == entries
    assert name_matcher("*a" * 20 + "b").match(names[0]) is None
    assert time.monotonic() - start < 2
