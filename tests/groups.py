"""Tests that start the whole service or drive a browser stay in one process of xdist's.

Loaded by ``./gantry test`` with ``--dist loadgroup``.
"""

from __future__ import annotations

import pytest

ONE_AT_A_TIME = ("e2e", "browser")
# They make, count and remove what podman has: beside each other they would count wrong.
ONE_ENGINE = {"test_deploy.py", "test_engine.py", "test_interop.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        alone = any(item.get_closest_marker(name) for name in ONE_AT_A_TIME)
        if alone or item.path.name in ONE_ENGINE:
            item.add_marker(pytest.mark.xdist_group("service"))
