"""Tests that start the whole service or drive a browser stay in one process of xdist's.

Loaded by ``./gantry test`` with ``--dist loadgroup``.
"""

from __future__ import annotations

import pytest

ONE_AT_A_TIME = ("e2e", "browser")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.get_closest_marker(name) for name in ONE_AT_A_TIME):
            item.add_marker(pytest.mark.xdist_group("service"))
