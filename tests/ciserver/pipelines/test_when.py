"""``when``: what is asked of a pipeline, and the little language of ``if``."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ciserver.pipelines.expression import ExpressionError, parse
from ciserver.pipelines.when import Trigger, When, matches
from tests.ciserver.pipelines.workplace import Workplace

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
        ("docs/**", "docs", True),
        ("a/**/**/b/**", "a/x/b/c", True),
        ("/src//", "src/a.py", True),
        ("[!a]*", "b/a", True),
        ("[!a]*", "a/b", False),
        ("a[/]b", "a/b", False),
        ("a?b", "a/b", False),
        ("[a", "[a", True),
        (r"[\Z]", "Z", True),
        ("a.c", "abc", False),
        ("A", "a", False),
    ],
)
def test_paths_are_matched_as_gitignore_does(pattern: str, path: str, fits: bool) -> None:
    assert matches(pattern, path) is fits


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    before = time.monotonic()
    for pattern, path in (
        ("/".join(["**", "a"] * 100) + "/x", "/".join("a" * 500)),
        ("/".join(["**", "*a*"] * 100) + "/x", "/".join("a" * 500)),
        ("*a" * 200 + "c", "a" * 255),
        ("a*" * 100 + "[!a]", "a" * 255),
    ):
        assert not matches(pattern, path)
    assert time.monotonic() - before < 1


def test_many_patterns_are_asked_of_many_files_in_a_moment() -> None:
    """Of what somebody pushed this is asked by a worker that all wait for."""
    when = When.model_validate({"paths": [f"{'**/' * 50}x{n}" for n in range(50)]})
    paths = frozenset(f"{'a/' * 20}f{n}" for n in range(2000))
    before = time.process_time()
    assert "Nothing that it is for" in when.refusal(Trigger("refs/heads/main", paths=paths))
    assert time.process_time() - before < 5  # it took a minute
    with pytest.raises(ValidationError, match="at most 50"):
        When.model_validate({"paths": ["x"] * 51})


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


@pytest.mark.root
@pytest.mark.django_db(transaction=True)
def test_a_pipeline_asks_when_of_what_it_changes_what_started_it_and_what_it_was_given(
    workplace: Workplace,
) -> None:
    """From the commit, the row and gantry.yml to the jobs that are left out."""
    small = "command: 'true', memory: 16m"
    definition = f"""
inputs: {{level: {{default: low}}}}
tests:
  path: {{when: {{paths: "docs/**"}}, {small}}}
  event: {{when: {{event: [manual, api]}}, {small}}}
  value: {{when: {{if: "inputs.level == 'high'"}}, {small}}}
  person: {{when: {{if: "by == 'alice' && protected && !fork"}}, {small}}}
"""
    files = {"Dockerfile": "FROM busybox\n", "gantry.yml": definition}

    def left_out(files: dict[str, str], **asked: Any) -> dict[str, str]:
        pipeline = workplace.run(files, **asked)
        assert pipeline.state == "passed"
        jobs = pipeline.jobs.filter(kind="test")
        assert {job.state for job in jobs if job.reason} <= {"skipped"}
        return {job.name: job.reason for job in jobs if job.state == "skipped"}

    first = left_out(files)
    assert list(first) == ["event", "value", "person"]  # every file counts as changed
    assert first["event"] == "It is only for manual or api, and this was started by push."
    assert first["value"] == "This does not hold: inputs.level == 'high'"
    second = left_out({"src/a": "1"}, started_by="alice")
    assert list(second) == ["path", "event", "value"]
    assert second["path"] == "Nothing that it is for has changed: docs/**."
    assert list(left_out({"docs/a": "1"}, event="api", inputs={"level": "high"})) == ["person"]
