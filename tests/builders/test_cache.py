"""The step cache: lanes of trust, and entries that are whole or not there."""

from __future__ import annotations

import threading
from pathlib import Path

from builders.cache import CacheEntry, StepCache, step_key

KEY = step_key("run", "a")


def test_keys_differ_for_everything_that_differs() -> None:
    keys = {
        step_key("run", ["a", "b"]),
        step_key("run", ["ab"]),
        step_key("run", "a", "b"),
        step_key("copy", ["a", "b"]),
        step_key("run", ["a", "b"], None),
    }
    assert len(keys) == 5
    assert step_key("run", ("a",)) == step_key("run", ["a"])


def test_an_entry_comes_back(tmp_path: Path) -> None:
    cache = StepCache(tmp_path, scope="p")
    assert cache.get(KEY) is None
    cache.put(KEY, CacheEntry("sha256:x", 1.5))
    assert cache.get(KEY) == CacheEntry("sha256:x", 1.5)
    cache.put(KEY, CacheEntry(None))
    assert cache.get(KEY) == CacheEntry(None, 0.0)


def test_a_fork_reads_the_trusted_lane_and_writes_only_its_own(tmp_path: Path) -> None:
    trusted = StepCache(tmp_path, scope="p/trusted")
    fork = StepCache(tmp_path, scope="p/fork", also_read=("p/trusted",))
    trusted.put(KEY, CacheEntry("good"))
    assert fork.get(KEY) == CacheEntry("good")
    other = step_key("run", "b")
    fork.put(other, CacheEntry("evil"))
    fork.put(KEY, CacheEntry("evil"))
    assert trusted.get(other) is None
    assert trusted.get(KEY) == CacheEntry("good")
    assert StepCache(tmp_path, scope="q/trusted").get(KEY) is None


def test_a_torn_entry_is_a_miss(tmp_path: Path) -> None:
    cache = StepCache(tmp_path, scope="p")
    cache.put(KEY, CacheEntry("x"))
    (path,) = tmp_path.glob("*/*/*")
    for content in (b"", b"{", b"[]", b'{"diff_id": 3, "seconds": 0}', b"\xff"):
        path.write_bytes(content)
        assert cache.get(KEY) is None


def test_many_writers_leave_one_whole_entry(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(50):
            StepCache(tmp_path, scope="p").put(KEY, CacheEntry(f"{number}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    seen = [StepCache(tmp_path, scope="p").get(KEY) for _ in range(500)]
    for thread in threads:
        thread.join()
    assert all(entry is None or entry.diff_id in "0123" for entry in seen)
    assert len(list(tmp_path.glob("*/*/*"))) == 1
