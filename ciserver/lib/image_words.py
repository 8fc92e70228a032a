"""Ports and times as configs of images have them, which anybody may have written."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PORT = re.compile(r"([0-9]{1,5})(?:/tcp)?")
_LEAST, _MOST = 10**6, 10**15  # nanoseconds: a millisecond, eleven days


def is_port(number: int) -> bool:
    return 1 <= number <= 65535


def tcp_ports(exposed: Iterable[str]) -> list[int]:
    """The ports among ``8080/tcp``, ``53/udp`` and ``8080``: anything else there is none."""
    found = (_PORT.fullmatch(one) for one in exposed)
    return [port for port in (int(match[1]) for match in found if match) if is_port(port)]


def seconds_of(nanoseconds: object, default: float) -> float:
    """A time of a HEALTHCHECK. Docker starts nothing with one below a millisecond; here that, and
    what is no time at all, counts as left out."""
    if not isinstance(nanoseconds, int) or nanoseconds < _LEAST:
        return default
    return min(nanoseconds, _MOST) / 10**9
