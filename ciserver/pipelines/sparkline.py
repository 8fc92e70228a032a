"""The memory of a step over time, as points to draw: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 100.0, 20.0
FEWEST = 3  # fewer samples are no curve
CEILING = 0.85  # of the height is where the limit, or the peak without one, is drawn


@dataclass(frozen=True, slots=True)
class Spark:
    """``points`` of an SVG polyline in WIDTH x HEIGHT; ``limit`` is the limit's y, if any."""

    points: str
    limit: float | None
    seconds: float
    peak: float

    @property
    def hot(self) -> bool:
        """Whether it came within a tenth of its limit."""
        return self.limit is not None and self._highest <= self.limit + 0.1 * (HEIGHT - self.limit)

    @property
    def _highest(self) -> float:
        return min(float(point.split(",")[1]) for point in self.points.split())


def memory(samples: Sequence[Sequence[Any]], limit: float | None) -> Spark | None:
    """From a receipt's samples: (seconds, CPU seconds, bytes of memory, pids). None for a few."""
    try:
        rows = [(float(row[0]), float(row[2])) for row in samples]
    except (TypeError, ValueError, IndexError):  # of another version of this software
        return None
    if len(rows) < FEWEST:
        return None
    whole = rows[-1][0] or 1.0
    peak = max(size for _, size in rows)
    top = max(limit or peak, 1.0) / CEILING
    points = " ".join(
        f"{at / whole * WIDTH:.1f},{HEIGHT - min(size / top, 1) * HEIGHT:.1f}" for at, size in rows
    )
    return Spark(points, round(HEIGHT * (1 - CEILING), 1) if limit else None, whole, peak)
