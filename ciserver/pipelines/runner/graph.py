"""Which jobs may start now, and running them side by side within the pipeline's budget.

``ready`` and ``hopeless`` decide and are pure; ``run_graph`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from django.db import connection

from ciserver.lib.durability import repeatable
from ciserver.pipelines.models import State
from runtime.spec import Limits

MOST_AT_ONCE = 16
_ENDS = {
    State.FAILED: "failed",
    State.SKIPPED: "was skipped",
    State.CANCELLED: "was cancelled",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A job: what it waits for, and what it may use while it runs."""

    name: str
    needs: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


def ready(nodes: Sequence[Node], states: Mapping[str, State], budget: Limits) -> list[Node]:
    """The queued nodes that can start beside what runs, in order.

    What is promised to all of them together stays within ``budget``; only a node that asks
    for more than there is at all runs, alone.
    """
    running = [node for node in nodes if states[node.name] == State.RUNNING]
    chosen: list[Node] = []
    for node in nodes:
        waits = states[node.name] != State.QUEUED
        if waits or any(states[need] != State.PASSED for need in node.needs):
            continue
        beside = [*running, *chosen]
        if len(beside) < MOST_AT_ONCE and (not beside or _fits([*beside, node], budget)):
            chosen.append(node)
    return chosen


def hopeless(nodes: Sequence[Node], states: Mapping[str, State]) -> dict[str, str]:
    """The queued nodes that can never start, each with the reason."""
    found: dict[str, str] = {}
    for node in nodes:
        if states[node.name] != State.QUEUED:
            continue
        for need in node.needs:
            if states[need] not in {State.PASSED, State.QUEUED, State.RUNNING}:
                found[node.name] = (
                    f"It needs {need}, which {_ENDS.get(states[need], 'did not pass')}."
                )
                break
    return found


def run_graph(
    nodes: Sequence[Node],
    states: dict[str, State],
    *,
    work: Callable[[str], State],
    skip: Callable[[str, str], None],
    budget: Limits,
) -> None:
    """Run each node as soon as what it needs has passed; ``states`` is kept up to date.

    ``work`` runs a job by its name, in a thread of its own, and tells how it ended. When it
    raises, nothing more is started, and the first error is raised once all have ended.
    ``skip`` is told of each job that cannot run, with the reason.
    """
    running: dict[Future[State], Node] = {}
    errors: list[BaseException] = []
    with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="job") as pool:
        while True:
            while lost := hopeless(nodes, states):
                for name, reason in lost.items():
                    skip(name, reason)
                    states[name] = State.SKIPPED
            for node in [] if errors else ready(nodes, states, budget):
                states[node.name] = State.RUNNING
                running[pool.submit(_in_thread, work, node.name)] = node
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                node = running.pop(future)
                if error := future.exception():
                    errors.append(error)
                    states[node.name] = State.FAILED
                else:
                    states[node.name] = future.result()
    if errors:
        raise errors[0]


def _in_thread(work: Callable[[str], State], name: str) -> State:
    try:
        with repeatable():
            return work(name)
    finally:
        connection.close()


def _fits(nodes: Sequence[Node], budget: Limits) -> bool:
    def within(asked: Sequence[float | None], most: float | None) -> bool:
        return most is None or sum(one or 0 for one in asked) <= most

    return (
        within([node.limits.memory for node in nodes], budget.memory)
        and within([node.limits.cpus for node in nodes], budget.cpus)
        and within([node.limits.pids for node in nodes], budget.pids)
    )
