"""What a process has loaded is looked at by no garbage collection, also not at its end."""

from __future__ import annotations

import subprocess
import sys

PROCESS = """
import atexit, gc
from ciserver.lib import loading

usual = gc.get_threshold()
atexit.register(lambda: print("at its end", len(gc.get_objects()) < 100))
loading.begin()
kept = [[number] for number in range(1000)]
assert gc.get_threshold()[0] > 10_000 and gc.isenabled()
loading.done()
assert gc.get_freeze_count() > 1000 and gc.get_threshold() == usual
later = [[number] for number in range(1000)]

class Knot:
    def __del__(self):
        print("found")

knot = Knot()
knot.itself = knot
del knot
gc.collect()
print("on")
"""


def test_only_what_comes_later_is_collected() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS], capture_output=True, text=True, check=False
    )
    assert done.stdout.split("\n") == ["found", "on", "at its end True", ""], done.stderr
