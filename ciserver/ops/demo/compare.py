"""The first push beside the second: what was built again, what came from the cache."""

from __future__ import annotations

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from ciserver.cli.client import Row
from ciserver.cli.images import size
from ciserver.ops.demo.journey import Journey

STEP_WIDTH = 36  # columns
ACTING = {"ADD", "COPY", "RUN", "WORKDIR"}


def difference(first: Journey, second: Journey) -> RenderableType:
    """Two tables: step by step, and in sum."""
    return Group(_steps(first, second), _sums(first, second))


def _steps(first: Journey, second: Journey) -> Table:
    table = Table(title="What the second push built again", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("step", no_wrap=True)
    table.add_column(f"first, {first.commit[:8]}", justify="right", no_wrap=True)
    table.add_column(f"second, {second.commit[:8]}", justify="right", no_wrap=True)
    before = {_key(step): step for step in _build_steps(first)}
    for step in _build_steps(second):
        style = "dim" if step["cached"] else "bold"
        table.add_row(
            _shortened(step["text"]), _cost(before.get(_key(step))), _cost(step), style=style
        )
    return table


def _sums(first: Journey, second: Journey) -> Table:
    table = Table(title="In sum", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column("first", justify="right")
    table.add_column("second", justify="right")
    rows: list[tuple[str, Callable[[Journey], str]]] = [
        ("steps built", lambda j: str(sum(not s["cached"] for s in _build_steps(j)))),
        ("steps from the cache", lambda j: str(sum(s["cached"] for s in _build_steps(j)))),
        ("sent to the registry", lambda j: _size(j.pipeline["bytes_sent"])),
        ("already there", lambda j: _size(j.pipeline["bytes_existing"])),
        ("pulled by qa", lambda j: _size(j.qa["bytes_pulled"])),
        ("pulled by prod", lambda j: _size(j.prod["bytes_pulled"])),
        ("push to green and in the registry", lambda j: f"{j.seconds_to_green:.1f} s"),
        ("push to production", lambda j: f"{j.seconds_to_production:.1f} s"),
    ]
    for name, of in rows:
        table.add_row(name, of(first), of(second))
    return table


def _size(count: int | None) -> str:
    return "not known" if count is None else size(count)


def _build_steps(journey: Journey) -> list[Row]:
    """Those that take something to build: the others, such as ENV, only note a setting."""
    jobs = [job for job in journey.pipeline["jobs"] if job["kind"] == "build"]
    steps = [step for job in jobs for step in job["steps"]]
    return [step for step in steps if step["text"].split()[0].upper() in ACTING]


def _shortened(text: str) -> str:
    """Short enough that the table fits into 80 columns."""
    return text if len(text) <= STEP_WIDTH else f"{text[: STEP_WIDTH - 1]}…"


def _key(step: Row) -> tuple[str, str]:
    return str(step["stage"]), str(step["text"])


def _cost(step: Row | None) -> str:
    if step is None:
        return "-"
    if step["cached"]:
        return "cache"
    return f"{step['seconds'] or 0:.2f} s, {size(step['layer_bytes'])}"
