"""``when``: what is asked of a pipeline, and the little language of ``if``."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciserver.pipelines.expression import ExpressionError, parse
from ciserver.pipelines.when import Trigger, When, matches

MAIN = Trigger("refs/heads/main", protected=True, by="alice", inputs={"level": "high"})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("branch == 'main'", True),
        ('branch != "main"', False),
        ("branch matches 'ma*'", True),
        ("tag", False),
        ("protected", True),
        ("fork", False),
        ("!fork && protected == true", True),
        ("inputs.level == 'high' || by == 'bob'", True),
        ("inputs.other == ''", True),
        ("branch == 'x' || branch == 'y' && protected", False),
        ("(branch == 'x' || branch == 'main') && event == 'push'", True),
        ("!(branch == 'main')", False),
        ("'' == tag", True),
    ],
)
def test_an_expression_compares_words(text: str, holds: bool) -> None:
    assert parse(text).holds(MAIN.names) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a name or a text in quotes, but it ends there"),
        ("brnch == 'x'", "there is no name 'brnch'; did you mean branch?"),
        ("branch ==", "but it ends there"),
        ("branch == 'x' 'y'", "expected '&&', '||' or the end, not 'y' at character 15"),
        ("(branch", "expected ')'"),
        ("branch = 'x'", "cannot read"),
        ("__import__('os')", "there is no name"),
        ("!" * 30 + "tag", "at most 20 parentheses"),
        ("(" * 400, "at most 20 parentheses"),
        ("tag || " * 100, "500 characters"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert words in str(caught.value)


@given(st.text(alphabet="ab'\"()!=&| tagrefmtches", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ExpressionError):
        assert parse(text).holds(MAIN.names) in {True, False}


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("src", "src/a/b.py", True),
        ("src/", "src/a.py", True),
        ("src/*", "src/a/b.py", True),
        ("*.md", "README.md", True),
        ("*.md", "docs/README.md", False),
        ("**/*.md", "docs/a/README.md", True),
        ("**/*.md", "README.md", True),
        ("src/**/test_*.py", "src/test_a.py", True),
        ("src/**/test_*.py", "src/a/b/test_a.py", True),
        ("src/**/test_*.py", "src/a/b/a.py", False),
        ("s?c/[ab].py", "src/a.py", True),
        ("src", "srcs/a.py", False),
        ("**", "any/thing", True),
    ],
)
def test_paths_are_matched_as_gitignore_does(pattern: str, path: str, fits: bool) -> None:
    assert matches(pattern, path) is fits


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    before = time.monotonic()
    assert not matches("/".join(["**", "a"] * 100) + "/x", "/".join("a" * 500))
    assert time.monotonic() - before < 2


@pytest.mark.parametrize(
    ("when", "trigger", "reason"),
    [
        ({"event": "schedule"}, MAIN, "It is only for schedule, and this was started by push."),
        ({"event": ["push", "tag"]}, MAIN, ""),
        (
            {"paths": ["docs/**"]},
            Trigger("refs/heads/main", paths=frozenset({"src/a.py"})),
            "Nothing that it is for has changed: docs/**.",
        ),
        ({"paths": "docs"}, Trigger("refs/heads/main", paths=frozenset({"docs/a.md"})), ""),
        ({"paths": "docs"}, MAIN, ""),  # what changed is not known
        ({"if": "by == 'bob'"}, MAIN, "This does not hold: by == 'bob'"),
        ({"branch": "main", "event": "push", "if": "protected"}, MAIN, ""),
        ({"branch": "next", "event": "push"}, MAIN, "It is only next, and this is branch main."),
    ],
)
def test_all_that_is_written_must_hold(when: dict[str, Any], trigger: Trigger, reason: str) -> None:
    assert When.model_validate(when).refusal(trigger) == reason
