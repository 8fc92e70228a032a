"""Tests that would disturb one another stay in one process of xdist's, in their order.

Loaded by ``./gantry test``, which starts three processes: most tests of the groups wait for
something that is started, so two would leave the cores idle. A scheduler of our own, by path,
because ``--dist loadgroup`` of xdist 3.8 has no effect under pytest 9.2: the group is written
into an attribute of the test that nothing reads any more.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# They start the whole service, or drive a browser.
WHOLE = {"e2e", "browser"}
# They make, count and remove what podman has: beside each other they would count wrong.
ONE_ENGINE = {
    "test_hosts.py",
    "test_targets.py",
    "test_deploy.py",
    "test_drift.py",
    "test_engine.py",
    "test_interop.py",
    "test_isolation.py",
}


def group_of(nodeid: str) -> str:
    """``service``, ``engine`` or ``faults``; any other test is a group of its own."""
    path = PurePosixPath(nodeid.partition("::")[0])
    if WHOLE.intersection(path.parts):
        return "service"
    if path.name in ONE_ENGINE:
        return "engine"
    return "faults" if "faults" in path.parts else nodeid


class ByGroup(LoadScopeScheduling):
    """xdist's own scheduling by module or class, with our groups in their place."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return ByGroup(config, log)
