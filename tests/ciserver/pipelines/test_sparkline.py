"""The curve of a step's memory."""

from __future__ import annotations

import pytest

from ciserver.pipelines.sparkline import memory

ROWS = [(1, 0.5, 100, 3), (2, 1.0, 50, 3), (4, 1.5, 200, 3)]


def test_time_goes_right_and_memory_goes_up() -> None:
    spark = memory(ROWS, None)
    assert spark is not None and (spark.seconds, spark.peak, spark.limit) == (4.0, 200.0, None)
    points = [tuple(map(float, point.split(","))) for point in spark.points.split()]
    assert [x for x, _ in points] == [25.0, 50.0, 100.0]
    assert points[1][1] > points[0][1] > points[2][1]
    assert not spark.hot


@pytest.mark.parametrize(("limit", "hot"), [(200, True), (1000, False)])
def test_the_limit_is_drawn_and_coming_near_it_is_hot(limit: int, hot: bool) -> None:
    spark = memory(ROWS, limit)
    assert spark is not None and spark.limit == 3.0 and spark.hot is hot


@pytest.mark.parametrize("rows", [[], ROWS[:2], [(1,)] * 5, [("x", 1, "y")] * 5])
def test_too_little_or_what_is_no_sample_is_no_curve(rows: list[tuple[object, ...]]) -> None:
    assert memory(rows, 100) is None
