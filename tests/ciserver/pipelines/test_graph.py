"""The graph: what starts when, what is left out, and what runs side by side."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ciserver.pipelines.definition import When, parse
from ciserver.pipelines.models import State
from ciserver.pipelines.runner.graph import Node, hopeless, ready, run_graph
from ciserver.pipelines.runner.plan import expand
from ciserver.pipelines.when import Trigger
from runtime.spec import Limits

Q, R, P, F, S = State.QUEUED, State.RUNNING, State.PASSED, State.FAILED, State.SKIPPED


def names(nodes: list[Node]) -> list[str]:
    return [node.name for node in nodes]


def test_a_job_starts_once_all_that_it_needs_has_passed() -> None:
    nodes = [Node("a"), Node("b"), Node("c", ("a", "b"))]
    assert names(ready(nodes, {"a": P, "b": R, "c": Q}, Limits())) == []
    assert names(ready(nodes, {"a": P, "b": P, "c": Q}, Limits())) == ["c"]


@pytest.mark.parametrize("what", ["memory", "cpus", "pids"])
def test_what_runs_side_by_side_stays_within_the_budget(what: str) -> None:
    nodes = [Node(name, limits=Limits(**{what: 2})) for name in "abc"]
    assert names(ready(nodes, dict.fromkeys("abc", Q), Limits(**{what: 4}))) == ["a", "b"]


def test_a_job_that_asks_for_more_than_there_is_runs_alone() -> None:
    nodes = [Node("big", limits=Limits(cpus=9)), Node("small", limits=Limits(cpus=1))]
    assert names(ready(nodes, {"big": Q, "small": Q}, Limits(cpus=2))) == ["big"]
    assert names(ready(nodes, {"big": Q, "small": R}, Limits(cpus=2))) == []


def test_what_needs_a_failed_job_is_hopeless_and_says_why() -> None:
    nodes = [Node("a"), Node("b", ("a",))]
    assert hopeless(nodes, {"a": F, "b": Q}) == {"b": "It needs a, which failed."}


def test_two_jobs_run_at_the_same_time_and_a_chain_in_order(db: None) -> None:
    together = threading.Barrier(2, timeout=10)
    order: list[str] = []

    def work(name: str) -> State:
        if name in {"a", "b"}:
            together.wait()
        order.append(name)
        return P

    nodes = [Node("a"), Node("b"), Node("c", ("a", "b"))]
    states = dict.fromkeys("abc", Q)
    run_graph(nodes, states, work=work, skip=_never, budget=Limits())
    assert (order[-1], set(states.values())) == ("c", {P})


def test_a_failure_skips_what_hangs_on_it_and_nothing_else(db: None) -> None:
    skipped: dict[str, str] = {}
    nodes = [Node("a"), Node("b", ("a",)), Node("c", ("b",)), Node("d")]
    states = dict.fromkeys("abcd", Q)
    run_graph(
        nodes,
        states,
        work=lambda name: F if name == "a" else P,
        skip=lambda name, reason: skipped.update({name: reason}),
        budget=Limits(),
    )
    assert states == {"a": F, "b": S, "c": S, "d": P}
    assert skipped["c"] == "It needs b, which was skipped."


def test_an_error_starts_nothing_more_and_is_raised_when_all_have_ended(db: None) -> None:
    started: list[str] = []

    def work(name: str) -> State:
        started.append(name)
        raise RuntimeError(name)

    nodes = [Node("a", limits=Limits(cpus=1)), Node("b", limits=Limits(cpus=1))]
    with pytest.raises(RuntimeError, match="a"):
        run_graph(nodes, dict.fromkeys("ab", Q), work=work, skip=_never, budget=Limits(cpus=1))
    assert started == ["a"]


def test_a_matrix_is_a_job_for_each_combination_with_its_values_in_the_environment() -> None:
    tests = parse(
        """
        tests:
          unit: {stage: "test-${PY}", matrix: {PY: [3.11, 3.12], DB: [sqlite]}}
          last: {needs: unit}
        """
    ).tests
    jobs, needs = expand(tests or {})
    assert list(jobs) == ["unit (3.11, sqlite)", "unit (3.12, sqlite)", "last"]
    assert jobs["unit (3.12, sqlite)"].environment == {"PY": "3.12", "DB": "sqlite"}
    assert jobs["unit (3.12, sqlite)"].stage == "test-3.12"
    assert needs["last"] == ("unit (3.11, sqlite)", "unit (3.12, sqlite)")


@pytest.mark.parametrize(
    ("when", "ref", "runs"),
    [
        ({}, "refs/heads/main", True),
        ({}, "refs/tags/v1", True),
        ({"branch": ["main"]}, "refs/heads/main", True),
        ({"branch": ["main"]}, "refs/heads/other", False),
        ({"branch": ["release-*"]}, "refs/heads/release-2/x", True),
        ({"branch": ["main"]}, "refs/tags/v1", False),
        ({"branch": ["main"], "tag": ["v*"]}, "refs/tags/v1", True),
        ({"tag": "v*"}, "refs/heads/main", False),
        ({}, "refs/pull/7/head", True),
        ({"branch": ["main"]}, "refs/pull/7/head", False),  # whatever a fork calls its branch
        ({"branch": "*", "tag": "*"}, "refs/merge-requests/7/head", False),
    ],
)
def test_when_chooses_by_branch_and_tag(when: dict[str, Any], ref: str, runs: bool) -> None:
    reason = When.model_validate(when).refusal(Trigger(ref))
    assert (reason == "") is runs
    assert runs or ref.partition("/")[2].partition("/")[2] in reason


def _never(name: str, reason: str) -> None:
    raise AssertionError(f"{name} was skipped: {reason}")
