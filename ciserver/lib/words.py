"""Times, sizes and durations as people read them."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

NOTHING = "\u2013"
_AGES = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (30 * 86400, 86400, "d"))


def ago(then: datetime | None) -> str:
    """``just now``, ``5 min ago``, ``3 h ago``; a date after a month. ``gantry.js`` has a twin."""
    if then is None:
        return "never"
    seconds = int((timezone.now() - then).total_seconds())
    if seconds < 10:
        return "just now"
    for limit, unit, name in _AGES:
        if seconds < limit:
            return f"{seconds // unit} {name} ago"
    return f"{then.day} {then:%b %Y}"


def duration(seconds: float | None) -> str:
    """``0.3 s``, ``12 s``, ``3 min 04 s``, ``2 h 05 min``."""
    if seconds is None:
        return NOTHING
    if seconds < 0.0995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size(count: float | None) -> str:
    """Bytes in binary units: ``512 B``, ``1.5 KiB``, ``48 MiB``."""
    if count is None:
        return NOTHING
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
