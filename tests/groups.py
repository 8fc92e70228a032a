"""Tests that would disturb one another stay in one process of xdist's, in their order.

Loaded by ``./gantry test``, which starts four processes: most tests of the groups wait for
something that is started, so two would leave the cores idle. A scheduler of our own, by path,
because ``--dist loadgroup`` of xdist 3.8 has no effect under pytest 9.2: the group is written
into an attribute of the test that nothing reads any more.
"""

from __future__ import annotations

import atexit
import gc
import os
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

import pytest
from _pytest.assertion import rewrite
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# By a folder or a file's name. What shares a group shares what it starts, or counts what is there.
# In the order in which they begin: the longest first, since all would wait for its end.
GROUPS = {
    "e2e": "service",
    "walk": "walk",
    "test_hosts.py": "machines",
    "test_targets.py": "machines",
    "test_day_two_far.py": "machines",
    "test_direct_pull.py": "machines",
    "browser": "browser",
    "faults": "faults",
    "test_kept_connections.py": "kept",
    "test_deploy.py": "deployments",
    "test_day_two.py": "deployments",
    "test_drift.py": "engine",
    "test_engine.py": "engine",
    "test_interop.py": "engine",
    "test_isolation.py": "machines",
    "test_run_here.py": "machines",
    "test_both_databases.py": "databases",
    "test_contracts.py": "contracts",
    "test_examples.py": "examples",
    "test_stream.py": "streams",
    "test_followers.py": "streams",
    "repositories": "git",
    "test_away.py": "webhooks",
    "test_sizes.py": "webhooks",
}
AT_ONCE = 3  # they mostly wait; a fourth process has files, which mostly compute
ORDER = {group: place for place, group in enumerate(dict.fromkeys(GROUPS.values()))}


def group_of(nodeid: str) -> str:
    """One of ``GROUPS``; any other file is a group of its own."""
    file = nodeid.partition("::")[0]
    return next((GROUPS[part] for part in PurePosixPath(file).parts if part in GROUPS), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups first, in their order; then file by file, mixed: those of one folder all compute or
    all wait."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[int, int]:
    group = group_of(item.nodeid)
    place = ORDER.get(group, len(ORDER))
    return place, zlib.crc32(group.encode()) if place == len(ORDER) else 0


def pytest_configure(config: pytest.Config) -> None:
    """Five thousand tests are many objects: garbage collections would look at each of them again
    and again while they are found, which is a third of the time that finding takes."""
    gc.disable()
    if not hasattr(config, "workerinput"):
        _compile(config)


def _compile(config: pytest.Config) -> None:
    """Of a fresh checkout each process would do it, with all modules of tests, at the same time."""
    tests = Path(__file__).parent
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork"), _in_process, [config]) as pool:
        list(pool.map(_compile_one, sorted(tests.rglob("test_*.py")), chunksize=16))


_of_process: list[pytest.Config] = []
_in_process = _of_process.append


def _compile_one(path: Path) -> None:
    """As pytest does when it imports the module."""
    folder = rewrite.get_cache_dir(path)
    made = folder / f"{path.stem}{rewrite.PYC_TAIL}"
    if rewrite._read_pyc(path, made) is None and rewrite.try_makedirs(folder):
        (config,) = _of_process
        digest, code = rewrite._rewrite_test(path, config)
        rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, digest, made)


def pytest_collection_finish() -> None:
    """Those that come while the tests run pass them by. What is garbage by now may stay: to look
    for it takes longer than all that comes later."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Garbage that complains when it is collected does so now. Pytest would look for it again, and
    Python itself twice, each time at all that five thousand tests have left."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.freeze)


class ByGroup(LoadScopeScheduling):
    """xdist's own scheduling by module or class, with our groups in their place and order."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        """The next group; or a file, while enough groups run in other processes."""
        others = [work for of, work in self.assigned_work.items() if of is not node]
        if sum(any(scope in ORDER for scope in work) for work in others) >= AT_ONCE:
            file = next((scope for scope in self.workqueue if scope not in ORDER), None)
            if file:
                self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """After each test: what has ended need not be counted again."""
        work = self.assigned_work[node]
        for done in [scope for scope, tests in work.items() if all(tests.values())]:
            del work[done]
        super()._reschedule(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # the order is that of the items, not of how many
    return ByGroup(config, log)
